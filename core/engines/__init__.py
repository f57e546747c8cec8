"""Inference engines: what each does with KV-cache scales, version by version."""
