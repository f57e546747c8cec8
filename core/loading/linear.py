"""Linear layers of the skeleton: they hold names, not sizes, and load as the real ones do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from core.loading.auto_loader import Weights

QUANTIZED_LINEAR_PARAMETERS = (
    "weight_scale",
    "weight_scale_2",
    "weight_scale_inv",
    "weight_global_scale",
    "weight_zero_point",
    "weight_packed",
    "weight_shape",
    "weight_g_idx",
    "input_scale",
    "input_zero_point",
    "input_global_scale",
    "pre_quant_scale",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
)
"""What the linear methods of vLLM 0.33.0's quantization backends may create beside ``weight`` and ``bias``. None of
them has an ``output_scale``: that is why a KV scale of that name that misses its layer is an error."""


class FusedLinear(nn.Module):
    """A projection made of several (q, k and v; gate and up), which takes its parts under its own name.

    Source: vLLM 0.33.0, layers/linear.py, ``load_weights`` of QKVParallelLinear and MergedColumnParallelLinear.
    """

    def load_weights(self, weights: Weights) -> Iterator[str]:
        """Load parts into parameters; a name that is none of the layer's is taken for the layer itself, which is no
        tensor: AttributeError.
        """
        for name, tensor in weights:
            owner, _, leaf = name.rpartition(".")
            target: Any = getattr(self.get_submodule(owner), leaf, self)
            if target is None and name == "bias":
                continue
            target.weight_loader(target, tensor, getattr(tensor, "shard_id", None))
            yield name

    def weight_loader(self, param: torch.Tensor, loaded_weight: torch.Tensor, shard_id: object = None) -> None:
        """Put a part at its place in a parameter that brought no loader of its own."""
        param.data.copy_(loaded_weight)
