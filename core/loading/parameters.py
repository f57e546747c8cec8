"""``KVCacheScaleParameter``, the default loader, and the stand-in for every parameter that is no scale.

Source of the rules: vLLM 0.33.0, layers/quantization/kv_cache.py and model_loader/weight_utils.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self, cast

import torch

SENTINEL = -1.0
"""What a scale holds that no tensor was loaded into; no valid scale is negative."""


class KVCacheScaleParameter(torch.nn.Parameter):
    """One scale of one attention layer: shape (), created at :data:`SENTINEL`, loaded from exactly one element.

    ``dtype`` is the engine's model dtype, PyTorch's default dtype when it is not given: a scale is rounded to it (in
    bfloat16, 0.3 becomes 0.30078125). Assigning ``weight_loader`` on an instance replaces the loader for that one.
    """

    def __new__(cls, *, dtype: torch.dtype | None = None) -> Self:
        initial = torch.full((), SENTINEL, dtype=dtype or torch.get_default_dtype())
        return super().__new__(cls, initial, requires_grad=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> KVCacheScaleParameter:
        copied = type(self)(dtype=self.dtype)
        copied.data = self.data.clone()
        memo[id(self)] = copied
        return copied

    @staticmethod
    def weight_loader(param: torch.Tensor, loaded_weight: torch.Tensor) -> None:
        """Copy one element into ``param``, rounded to its dtype.

        Raises:
            ValueError: ``loaded_weight`` is neither a scalar nor of one element, e.g. one scale per head or channel.
        """
        if loaded_weight.numel() != 1:
            raise ValueError(f"KV-cache scale expects a scalar weight, got shape {tuple(loaded_weight.shape)}")
        param.data.copy_(loaded_weight.reshape(()))


def default_weight_loader(param: torch.Tensor, loaded_weight: torch.Tensor) -> None:
    """Copy a tensor into a parameter that has no loader of its own.

    Raises:
        AssertionError: the shapes differ, unless both hold a single element.
    """
    if param.numel() == 1 and loaded_weight.numel() == 1:
        loaded_weight = loaded_weight.view(param.shape)
    elif param.size() != loaded_weight.size():
        raise AssertionError(f"Attempted to load weight ({loaded_weight.size()}) into parameter ({param.size()})")
    param.data.copy_(loaded_weight)


def weight_loader_of(param: torch.Tensor) -> Callable[..., None]:
    """The loader a loop over names has to call: the parameter's own, else the default one."""
    loader: Callable[..., None] = getattr(param, "weight_loader", default_weight_loader)
    return loader


class Part(NamedTuple):
    """A tensor as it arrived, and the checkpoint's key of it ("" where the stream gave its tensors none)."""

    key: str
    tensor: torch.Tensor

    @classmethod
    def of(cls, tensor: torch.Tensor, home: torch.device) -> Part:
        """The part that ``tensor`` is, moved to ``home``."""
        return cls(getattr(tensor, "key", ""), tensor.to(home))


class WeightPlaceholder(torch.nn.Parameter):
    """Stands for an ordinary parameter, of no size until something is loaded into it.

    ``parts`` holds what arrived on ``home``, by shard id (None: not a part of a fused parameter). A real fused
    parameter would hold the parts side by side.
    """

    parts: dict[object, Part]
    home: torch.device

    def __new__(cls, home: torch.device | None = None) -> Self:
        placeholder = super().__new__(cls, torch.empty(0), requires_grad=False)
        placeholder.parts = {}
        placeholder.home = home or torch.device("cpu")
        return placeholder

    @staticmethod
    def weight_loader(param: torch.Tensor, loaded_weight: torch.Tensor, shard_id: object = None) -> None:
        """Keep ``loaded_weight`` as part ``shard_id`` of ``param``, a placeholder."""
        placeholder = cast("WeightPlaceholder", param)
        placeholder.parts[shard_id] = Part.of(loaded_weight, placeholder.home)
