"""The attention layers of the skeleton: what a real one keeps for its KV cache's scales, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from core.backends.kv_method import AttentionShape, CacheSetup

if TYPE_CHECKING:
    from core.loading.kv_cache import BaseKVCacheMethod

HOST_COPIES = ("k", "v", "q")
"""Roles of which a kernel may also want the value as a Python float."""


class Attention(nn.Module):
    """An attention layer with a KV cache.

    ``_k_scale``, ``_v_scale``, ``_q_scale`` and ``_prob_scale`` are float32 buffers, shape () or one element per
    key/value head: what the kernels read. ``_k_scale_float`` and its kin are the host's copies. The KV method, where
    there is one, adds the parameters that checkpoint tensors are loaded into and takes them away again after loading.
    ``shape`` are the heads on this rank; ``params_dtype`` is the engine's model dtype.
    """

    _k_scale_float: float
    _v_scale_float: float
    _q_scale_float: float

    def __init__(
        self,
        *,
        shape: AttentionShape,
        cache: CacheSetup,
        params_dtype: torch.dtype,
        quant_method: BaseKVCacheMethod | None = None,
        tp_rank: int = 0,
        tp_size: int = 1,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.cache = cache
        self.params_dtype = params_dtype
        self.tp_rank = tp_rank
        self.tp_size = tp_size
        self.quant_method = quant_method
        for name in ("_k_scale", "_v_scale", "_q_scale", "_prob_scale"):
            self.register_buffer(name, torch.ones((), dtype=torch.float32))
        self.reset_scales()
        if quant_method is not None:
            quant_method.create_weights(self)

    def reset_scales(self) -> None:
        """Every scale 1.0, as in a layer that no KV method serves."""
        for name in ("_k_scale", "_v_scale", "_q_scale", "_prob_scale"):
            self.get_buffer(name).fill_(1.0)
        for role in HOST_COPIES:
            setattr(self, f"_{role}_scale_float", 1.0)

    def process_weights_after_loading(self) -> None:
        """Turn what was loaded into what the kernels read. Raises what the KV method raises."""
        if self.quant_method is None:
            self.reset_scales()
        else:
            self.quant_method.process_weights_after_loading(self)


class MLAAttention(Attention):
    """An attention layer with multi-head latent attention's compressed cache: the same scales, at another path."""
