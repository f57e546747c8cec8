"""The window's panels. Each shows one thing and sets and follows the one selection."""
