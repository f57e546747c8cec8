"""SGLang: the hand-written load loops of its models, described as data and followed name by name."""
