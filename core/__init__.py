"""KVScope's core: from the bytes of a checkpoint to a verdict on its KV-cache scales.

Nothing in here imports Qt. torch is imported only by :mod:`core.loading` and, for pickled checkpoints, by
:mod:`core.checkpoint.pytorch`; every preview works without it.
"""

__version__ = "0.1.0"
