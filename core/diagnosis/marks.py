"""What is wrong with each value, decided once: a scale has at most one mark, so that no two findings accuse it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from core.diagnosis.selection import Id, by_role, identity
from core.diagnosis.thresholds import EPSILON_STEPS, EPSILONS, Thresholds
from core.naming.scales import KVScale

SENTINEL = -1.0
"""What vLLM's and SGLang's parameters hold before a scale arrives."""

_FEWEST_FOR_A_MEDIAN = 3
_OWN_UNITS = frozenset({"nvfp4-global"})
"""Conventions whose numbers are not amax / largest: their size says nothing."""


def marks(scales: Sequence[KVScale], limits: Thresholds, unit: float = 1.0) -> dict[Id, str]:
    """The code of the finding that each doubtful scale belongs to; scales without a doubt are absent.

    ``unit`` is what a scale is multiplied by to be compared with FP8 scales. First come values that are no scale at
    all, then wrong quantities, then wrong sizes.
    """
    found: dict[Id, str] = {}
    for scale in scales:
        if scale.fault is not None or not scale.values:
            found[identity(scale)] = "unreadable-scale"
    _mark_impossible(scales, limits, found)
    _mark_misread(scales, limits, unit, found)
    for mark in (_ones, _epsilons, _tiny, _outliers, _large):
        found.update(mark(_left(scales, found, roles=("k", "v", "kv", "q")), limits, unit))
    return found


def _left(scales: Sequence[KVScale], found: Mapping[Id, str], *, roles: Sequence[str]) -> list[KVScale]:
    """The unmarked scales of these roles whose size means something: a q of 1.0 is what engines use without one."""
    return [
        scale
        for scale in scales
        if scale.role in roles
        and identity(scale) not in found
        and scale.quantity == "scale"
        and scale.convention not in _OWN_UNITS
        and not (scale.role == "q" and _is_one(scale))
    ]


def _mark_impossible(scales: Sequence[KVScale], limits: Thresholds, found: dict[Id, str]) -> None:
    """Not a number, infinite, negative, zero, or of a magnitude that only uninitialised memory has.

    Garbage of one kind makes the other impossible values of the same naming convention garbage too: one cause, one
    finding.
    """
    kinds: dict[Id, str] = {}
    garbage: set[str] = set()
    for scale in scales:
        kind = impossible(scale, limits)
        if kind is not None and identity(scale) not in found:
            kinds[identity(scale)] = kind
            if kind == "uninitialised":
                garbage.add(scale.convention)
    for scale in scales:
        kind = kinds.get(identity(scale))
        if kind is not None:
            found[identity(scale)] = "uninitialised" if scale.convention in garbage else kind


def impossible(scale: KVScale, limits: Thresholds) -> str | None:
    """The code of what makes a scale's values impossible, the worst first; None when they are possible."""
    finite = [value for value in scale.values if math.isfinite(value)]
    if any(abs(value) > limits.absurd or 0 < abs(value) < limits.vanishing for value in finite):
        return "uninitialised"
    if len(finite) < len(scale.values):
        return "not-finite"
    if any(value < 0 for value in finite):
        return "negative"
    return "zero" if any(value == 0 for value in finite) else None


def _mark_misread(scales: Sequence[KVScale], limits: Thresholds, unit: float, found: dict[Id, str]) -> None:
    """An amax or a reciprocal in place of a scale: by name, or because the medians are far too large."""
    for scale in scales:
        if identity(scale) not in found and scale.quantity in ("amax", "reciprocal"):
            found[identity(scale)] = f"{scale.quantity}-stored"
    left = _left(scales, found, roles=("k", "v", "kv"))
    if not left or statistics.median_low(max(scale.values) for scale in left) * unit < limits.misread_median:
        return
    medians = {role: statistics.median(max(scale.values) for scale in of) for role, of in by_role(left).items()}
    code = "reciprocal-stored" if medians.get("v", 0.0) > medians.get("k", medians.get("kv", 0.0)) else "amax-stored"
    for scale in left:
        found[identity(scale)] = code


def _ones(scales: Sequence[KVScale], _limits: Thresholds, _unit: float) -> dict[Id, str]:
    return {identity(scale): "exactly-one" for scale in scales if _is_one(scale)}


def _is_one(scale: KVScale) -> bool:
    return all(value == 1.0 for value in scale.values)


def _outliers(scales: Sequence[KVScale], limits: Thresholds, _unit: float) -> dict[Id, str]:
    found = {}
    for of in by_role(scales).values():
        median = statistics.median_low(max(scale.values) for scale in of)
        for scale in of if len(of) >= _FEWEST_FOR_A_MEDIAN else ():
            if max(scale.values) > limits.outlier_ratio * median:
                found[identity(scale)] = "outlier"
    return found


def _epsilons(scales: Sequence[KVScale], limits: Thresholds, _unit: float) -> dict[Id, str]:
    """Exact machine epsilons, unless there are so many scales near it that some hit it by chance."""
    found: dict[Id, str] = {}
    for dtype, epsilon in EPSILONS.items():
        same = [scale for scale in scales if scale.dtype == dtype]
        hits = [scale for scale in same if all(value == epsilon for value in scale.values)]
        near = sum(epsilon / 2 <= max(scale.values) < epsilon * 2 for scale in same) - len(hits)
        if hits and _chance(len(hits), near / EPSILON_STEPS[dtype]) < limits.epsilon_chance:
            found.update((identity(scale), "dtype-epsilon") for scale in hits)
    return found


def _chance(hits: int, expected: float) -> float:
    """The probability of at least so many hits where ``expected`` are expected (Poisson)."""
    return 1.0 - math.exp(-expected) * sum(expected**count / math.factorial(count) for count in range(min(hits, 50)))


def _tiny(scales: Sequence[KVScale], limits: Thresholds, unit: float) -> dict[Id, str]:
    return {identity(scale): "tiny" for scale in scales if min(scale.values) * unit < limits.tiny}


def _large(scales: Sequence[KVScale], limits: Thresholds, unit: float) -> dict[Id, str]:
    return {
        identity(scale): "large" if max(scale.values) * unit > limits.large else "above-half"
        for scale in scales
        if max(scale.values) * unit > min(limits.notable, limits.large)
    }
