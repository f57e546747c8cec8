"""The KV-cache methods in PyTorch: they create an attention layer's scale parameters and turn them into its scales.

Which parameters there are, and of which shape, says the backend's torch-free method (:mod:`core.backends.kv_method`);
the arithmetic is done here once more, on real tensors, so that it can contradict the prediction.

Source of the rules: vLLM 0.33.0, layers/quantization/kv_cache.py and layers/quantization/compressed_tensors.
"""

from __future__ import annotations

from functools import partial

import torch

from core.backends import kv_method
from core.backends.kv_method import AttentionShape, ScaleParameter
from core.loading.attention import HOST_COPIES, Attention
from core.loading.parameters import SENTINEL, KVCacheScaleParameter
from core.wording import say


class BaseKVCacheMethod:
    """Scalar scales from the checkpoint: fp8, quark, modelopt, and every backend that brings no method of its own.

    ``spec`` is the backend's method, which names the parameters.
    """

    def __init__(self, spec: kv_method.KVMethod | None = None) -> None:
        self.spec = spec if spec is not None else kv_method.BaseKVCacheMethod()

    def create_weights(self, layer: Attention) -> None:
        """Give the layer its scale parameters."""
        for parameter in self.spec.parameters(layer.shape).values():
            layer.register_parameter(parameter.name, self._create(parameter, layer))

    def _create(self, parameter: ScaleParameter, layer: Attention) -> torch.nn.Parameter:
        dtype = torch.float32 if parameter.dtype == "float32" else layer.params_dtype
        if parameter.taking == "scalar" and parameter.initial == SENTINEL:
            return KVCacheScaleParameter(dtype=dtype)
        initial = torch.full(parameter.shape, parameter.initial, dtype=dtype)
        return torch.nn.Parameter(initial, requires_grad=False)

    def _discard(self, layer: Attention) -> None:
        for name in self.spec.parameters(layer.shape):
            delattr(layer, name)

    def process_weights_after_loading(self, layer: Attention) -> None:
        """Fill ``_k_scale`` and its kin from the loaded parameters, and drop those.

        A cache that is not quantized runs at 1.0 for k and v whatever was loaded; with scales per token and head
        computed at run time, everything loaded is dropped.

        Raises:
            AssertionError: k is missing, zero or NaN although v is there; there is no message, as in vLLM.
        """
        if layer.cache.per_token_head:
            _set(layer, "k", 1.0)
            _set(layer, "v", 1.0)
            self._discard(layer)
            return
        factor = 2.0 if layer.cache.fnuz else 1.0
        if layer.cache.quantized:
            k, v = self._k_and_v(layer, factor)
            _set(layer, "k", k)
            _set(layer, "v", v)
        for role in ("q", "prob"):
            loaded = layer.get_parameter(f"{role}_scale").detach()
            # Doubled in the parameter's own dtype, unlike k and v, which are Python floats by then.
            _set(layer, role, loaded * factor if loaded > 0.0 else 1.0)
        self._discard(layer)

    @staticmethod
    def _k_and_v(layer: Attention, factor: float) -> tuple[float, float]:
        k, v = layer.get_parameter("k_scale").detach(), layer.get_parameter("v_scale").detach()
        if k > 0.0 and v > 0.0:
            return k.item() * factor, v.item() * factor
        if k < 0.0 and v < 0.0:
            return 1.0, 1.0
        # One scale for both was renamed to k; v copies it. So v alone, or a k of zero or NaN, is an error.
        if not k > 0.0:
            raise AssertionError
        shared = max(k, v).item() * factor
        return shared, shared


class CompressedTensorsKVCacheMethod(BaseKVCacheMethod):
    """float32 scales that start at 1.0, one per tensor or one per key/value head, taken as they are.

    No sentinel, no doubling on FNUZ, no check of sign or number, and applied whatever the cache's dtype.
    """

    def _create(self, parameter: ScaleParameter, layer: Attention) -> torch.nn.Parameter:
        created = super()._create(parameter, layer)
        if parameter.taking == "per_head":
            load = partial(load_per_head, layer=layer, reduce_groups=parameter.name.startswith("q"))
            created.weight_loader = load  # type: ignore[attr-defined]
        elif parameter.taking == "discard":
            created.weight_loader = _read_and_forget  # type: ignore[attr-defined]
        return created

    def process_weights_after_loading(self, layer: Attention) -> None:
        """Make the loaded parameters the layer's scales; the host's copy of several heads is their maximum."""
        for role in ("k", "v", "q"):
            loaded = layer.get_parameter(f"{role}_scale").detach()
            layer.register_buffer(f"_{role}_scale", loaded)
            setattr(layer, f"_{role}_scale_float", loaded.max().item())
        self._discard(layer)


def load_per_head(param: torch.Tensor, loaded_weight: torch.Tensor, *, layer: Attention, reduce_groups: bool) -> None:
    """Load one scale per head, stored as [H, 1, 1] or [H], into this rank's key/value heads.

    ``reduce_groups``: the tensor has one scale per query head; each group that shares a key/value head keeps its
    largest.

    Raises:
        RuntimeError: the number of heads does not fit, in PyTorch's words.
    """
    heads = loaded_weight.flatten()
    if reduce_groups:
        heads = heads.view(-1, layer.shape.total_num_heads // layer.shape.total_num_kv_heads).amax(dim=1)
    first, count = rank_heads(layer.shape, layer.tp_rank, layer.tp_size)
    param.data.copy_(heads[first : first + count].to(param.dtype))


def rank_heads(shape: AttentionShape, tp_rank: int, tp_size: int) -> tuple[int, int]:
    """The first key/value head of a rank, and how many it has: a share of them, or a copy of one where there are
    fewer heads than ranks.

    Raises:
        AssertionError: the ranks can neither share the heads evenly nor each hold a copy of one.
    """
    total = shape.total_num_kv_heads
    if shape.num_kv_heads * tp_size == total:
        return tp_rank * shape.num_kv_heads, shape.num_kv_heads
    if shape.num_kv_heads != 1:
        raise AssertionError
    return tp_rank // (tp_size // total), 1


def _read_and_forget(param: torch.Tensor, loaded_weight: torch.Tensor) -> None:
    """Per-head zero points: only symmetric quantization is supported, so nothing uses them."""


def _set(layer: Attention, role: str, value: torch.Tensor | float) -> None:
    buffer = layer.get_buffer(f"_{role}_scale")
    if isinstance(value, torch.Tensor):
        buffer.copy_(value)
    else:
        buffer.fill_(value)
    if role in HOST_COPIES:
        setattr(layer, f"_{role}_scale_float", float(value))


def kv_cache_method(spec: kv_method.KVMethod | None) -> BaseKVCacheMethod | None:
    """The method in PyTorch for a backend's torch-free one.

    Raises:
        NotImplementedError: ``spec`` is of a class of its own, of which there is no counterpart here.
    """
    match spec:
        case None:
            return None
        case kv_method.CompressedTensorsKVCacheMethod():
            return CompressedTensorsKVCacheMethod(spec)
        case kv_method.BaseKVCacheMethod():
            return BaseKVCacheMethod(spec)
        case _:
            raise NotImplementedError(
                say("no method in core.loading.kv_cache does what {method} predicts", method=type(spec).__name__)
            )
