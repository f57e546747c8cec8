"""vLLM: its unified loader followed name by name, without torch and without vLLM."""
