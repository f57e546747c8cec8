"""The unified KV-cache-scale loader, run for real in PyTorch, and its verification against the prediction.

The parameters, the KV-cache methods, the loader and the attention layers of vLLM 0.33.0's design: whatever a backend
renames and whatever its KV method creates comes from :mod:`core.backends`, where a model's attention layers live from
:mod:`core.architectures`; no model and no attention layer has scale code of its own. Only what scales need is built,
so that a 600 GB model needs megabytes.

:func:`core.loading.verify.verify` is the way in; ``python -m core.loading`` runs it over many checkpoints. Importing
the modules of this package imports PyTorch.
"""
