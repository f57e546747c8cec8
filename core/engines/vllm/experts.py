"""What a mixture of experts says of an expert's tensor that it has no parameter for."""

from __future__ import annotations

import re

_OF_EXPERT = re.compile(r"[0-9]+\.(gate_proj|up_proj|down_proj|w[123])\.(.+)")
_FUSED = {"gate_proj": "w13", "up_proj": "w13", "w1": "w13", "w3": "w13", "down_proj": "w2", "w2": "w2"}
"""The parameters that hold all experts' projections (vLLM 0.33.0, layers/fused_moe/routed_experts.py)."""


def no_parameter(layer: str, name: str) -> str | None:
    """The message of the ``AttributeError`` for a tensor below the experts at ``layer``; None where the name is not
    that of an expert's tensor.
    """
    found = _OF_EXPERT.fullmatch(name)
    if found is None:
        return None
    layer = layer.removesuffix(".routed_experts")
    wanted = f"{_FUSED[found[1]]}_{found[2]}"
    return f"Layer {layer} has no parameter {wanted!r} for checkpoint weight {f'{layer}.{name}'!r}"
