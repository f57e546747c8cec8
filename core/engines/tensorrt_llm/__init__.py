"""TensorRT-LLM: its PyTorch backend, and the checkpoints its own converter writes."""
