"""The attention layers of the skeleton: what a real one keeps for its KV cache's scales, and how it uses them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from core.backends.kv_method import AttentionShape, CacheSetup
from core.loading.paged_cache import PagedCache

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

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        caches: tuple[PagedCache, PagedCache],
        scales: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Write keys and values to the paged caches, read them back, and attend.

        ``key`` and ``value`` are [tokens, key/value heads, size]; ``query`` is [queries, query heads, size], the last
        tokens of the sequence. ``scales`` stand in for the layer's own ``_k_scale`` and ``_v_scale``. The result is
        float32, [queries, query heads, size of a value].
        """
        k_scale, v_scale = scales or (self.get_buffer("_k_scale"), self.get_buffer("_v_scale"))
        keys, values = caches
        keys.write(key, k_scale)
        values.write(value, v_scale)
        return attend(query, keys.read(len(key), k_scale), values.read(len(value), v_scale))


class MLAAttention(Attention):
    """An attention layer with multi-head latent attention's compressed cache: the same scales, at another path.

    Keys and values are one latent vector for each token, of which all heads share the one copy; it is written and read
    with ``_k_scale``, and ``_v_scale`` is not used (vLLM 0.33.0, ``concat_and_cache_mla``).
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        caches: tuple[PagedCache, PagedCache],
        scales: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """As in :class:`Attention`; ``key`` is [tokens, 1, latent and rotary part], ``value`` its latent part."""
        scale = (scales or (self.get_buffer("_k_scale"),))[0]
        caches[0].write(key, scale)
        latent = caches[0].read(len(key), scale)
        return attend(query, latent, latent[..., : value.shape[-1]])


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Causal grouped-query attention in the dtype of ``key``; shapes as in :meth:`Attention.forward`.

    Every key/value head serves as many query heads as there are to each; logits are divided by the square root of the
    size of a key.
    """
    queries, tokens = len(query), len(key)
    heads = key.shape[1]
    grouped = query.to(key.dtype).view(queries, heads, -1, query.shape[-1])
    logits = torch.einsum("qhgd,thd->hgqt", grouped, key) / math.sqrt(key.shape[-1])
    place = torch.arange(tokens, device=key.device)
    ahead = place > place[tokens - queries :].unsqueeze(1)
    weights = torch.softmax(logits.masked_fill(ahead, -math.inf), dim=-1)
    return torch.einsum("hgqt,thd->qhgd", weights, value).reshape(queries, -1, value.shape[-1])
