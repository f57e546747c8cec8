"""Which tensor of the checkpoint belongs to which attention layer, whether it arrived there or not. No PyTorch."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.diagnosis import Thresholds
from core.engines.outcome import AttentionLayer, Deliveries
from core.naming.conventions import layer_number
from core.naming.scales import KVScale
from core.wording import joined, say

E4M3_MAX = 448.0
"""The largest number of float8_e4m3fn: every producer writes amax / 448, whatever the cache's own format is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One role's stored scale of one layer.

    ``scales`` are multipliers that give back the original (amax / 448), one number or one for each head, whatever
    quantity the convention stores. ``arrived``: the tensor reached the layer's own parameter.
    """

    key: str
    scales: tuple[float, ...]
    arrived: bool

    @property
    def usable(self) -> bool:
        """Whether it says what range the values have: no number is one that no calibration gives."""
        limits = Thresholds()
        return bool(self.scales) and all(limits.vanishing <= scale <= limits.absurd for scale in self.scales)

    @property
    def amax(self) -> tuple[float, ...]:
        """The largest magnitude that the values are said to have."""
        return tuple(scale * E4M3_MAX for scale in self.scales)


def claims(deliveries: Deliveries) -> dict[str, dict[str, Claim]]:
    """For every attention layer, by path, and every role: the tensor that is meant for it, one that arrived before one
    that did not. A tensor that leads nowhere is counted to the layer of its number whose path is most like its own.
    """
    by_path = {layer.path: layer for layer in deliveries.attention}
    by_number: dict[int, list[AttentionLayer]] = defaultdict(list)
    for layer in deliveries.attention:
        if layer.layer is not None:
            by_number[layer.layer].append(layer)
    found: dict[str, dict[str, Claim]] = defaultdict(dict)
    for delivery in deliveries.deliveries:
        scale = delivery.scale
        if scale is None or scale.kind != "scale" or not scale.values:
            continue
        owner = (delivery.target or "").rpartition(".")[0]
        path = owner if owner in by_path else _like(scale, by_number)
        if path is None:
            continue
        claim = Claim(key=scale.key, scales=_multipliers(scale), arrived=owner in by_path)
        for role in ("k", "v") if scale.role == "kv" else (scale.role,):
            known = found[path].get(role)
            if known is None or claim.arrived >= known.arrived:  # of two that arrive, the last one stays
                found[path][role] = claim
    return {path: found.get(path, {}) for path in by_path}


def layer_list(paths: Iterable[str]) -> str:
    """Layers for people, runs joined: "layer 3", "layers 0 to 5, 7"; paths where there is no number in them."""
    numbers: set[int] = set()
    others: list[str] = []
    for path in paths:
        number = layer_number(path)
        if number is not None:
            numbers.add(number)
        else:
            others.append(path)
    runs: list[list[int]] = []
    for each in sorted(numbers):
        if runs and each == runs[-1][1] + 1:
            runs[-1][1] = each
        else:
            runs.append([each, each])
    words = [str(low) if low == high else say("{low} to {high}", low=low, high=high) for low, high in runs] + others
    several = len(numbers) + len(others) > 1
    return say("layers {numbers}" if several else "layer {numbers}", numbers=joined(", ", words))


def _like(scale: KVScale, by_number: Mapping[int, Sequence[AttentionLayer]]) -> str | None:
    if scale.layer is None:
        return None
    parts = scale.module.split(".")

    def shared(layer: AttentionLayer) -> int:
        other = layer.path.split(".")
        return sum(min(parts.count(part), other.count(part)) for part in set(parts))

    best = max(by_number.get(scale.layer, ()), key=shared, default=None)
    return best.path if best is not None else None


def _multipliers(scale: KVScale) -> tuple[float, ...]:
    match scale.quantity:
        case "amax":
            return tuple(value / E4M3_MAX for value in scale.values)
        case "reciprocal":
            return tuple(1.0 / value if value else math.inf for value in scale.values)
        case "offset":
            return ()
        case "scale":
            return scale.values
