"""Names of KV-cache scales: the conventions found in the wild, and the rules that rename them."""
