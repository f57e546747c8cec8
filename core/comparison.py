"""Two checkpoints' scales side by side, matched by what they are (layer, module, role), not by what they are called."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.naming.scales import KVScale

CALIBRATION_NOISE = 0.10
"""Two calibrations of one model differ by up to this much (public models, FP8)."""

Change = Literal["same", "renamed", "changed", "added", "removed"]
CHANGES: tuple[Change, ...] = ("same", "renamed", "changed", "added", "removed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scale in both checkpoints. ``ratio`` is right over left where both hold one number or equally many heads
    (then the ratio farthest from 1), None where it cannot be formed; ``reshaped`` when only the shape differs.
    """

    change: Change
    left: KVScale | None
    right: KVScale | None
    ratio: float | None
    reshaped: bool = False

    @property
    def within_noise(self) -> bool:
        return self.ratio is not None and abs(self.ratio - 1.0) <= CALIBRATION_NOISE


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All rows, and whether the two hold the same scales once names and shapes are put aside."""

    rows: tuple[Row, ...]
    equal_after_normalisation: bool

    def count(self, change: Change) -> int:
        return sum(row.change == change for row in self.rows)


def compare(left: Sequence[KVScale], right: Sequence[KVScale]) -> Comparison:
    """Match the scales of two checkpoints and say what differs; in the left's order, then what only the right has."""
    others: dict[object, list[KVScale]] = {}
    for scale in right:
        others.setdefault(_identity(scale), []).append(scale)
    rows = []
    for scale in left:
        matches = others.get(_identity(scale))
        rows.append(_row(scale, matches.pop(0) if matches else None))
    rows += [_row(None, scale) for scales in others.values() for scale in scales]
    return Comparison(
        rows=tuple(rows), equal_after_normalisation=all(row.change in ("same", "renamed") for row in rows)
    )


def _identity(scale: KVScale) -> tuple[int | None, str, str, str]:
    # Towers and drafts number their layers anew, so the module's first words keep them apart.
    outer = "draft" if scale.module.startswith("mtp") else "tower" if "tower" in scale.module else "model"
    inner = (
        "cross"
        if "encoder_attn" in scale.module or "cross" in scale.module
        else "encoder" * (".encoder." in f".{scale.module}")
    )
    return scale.layer, f"{outer}.{inner}", scale.role, scale.kind


def _row(left: KVScale | None, right: KVScale | None) -> Row:
    if left is None or right is None:
        return Row(change="added" if left is None else "removed", left=left, right=right, ratio=None)
    ratio = _ratio(left.values, right.values)
    reshaped = left.shape != right.shape
    if not _same(left.values, right.values):
        change: Change = "changed"
    elif left.key != right.key:
        change = "renamed"
    else:
        change = "same"
    return Row(change=change, left=left, right=right, ratio=ratio, reshaped=reshaped)


def _same(left: tuple[float, ...], right: tuple[float, ...]) -> bool:
    return len(left) == len(right) and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(left, right, strict=True)
    )


def _ratio(left: tuple[float, ...], right: tuple[float, ...]) -> float | None:
    if len(left) != len(right) or not left or not all(left):
        return None
    ratios = [b / a for a, b in zip(left, right, strict=True)]
    if any(math.isnan(value) for value in ratios):
        return None
    return max(ratios, key=lambda value: abs(math.log(value)) if value > 0 else math.inf)
