"""``kvscope diff`` as data (schema ``kvscope.diff/1``) and as text."""

from __future__ import annotations

from typing import Any

from core.comparison import CALIBRATION_NOISE, CHANGES, Comparison, Row
from core.naming.scales import KVScale
from core.output import as_lines

SCHEMA = "kvscope.diff/1"


def comparison_as_data(comparison: Comparison, left: str, right: str) -> dict[str, Any]:
    """All rows; ``ratio`` is right over left."""
    return {
        "schema": SCHEMA,
        "left": left,
        "right": right,
        "equal_after_normalisation": comparison.equal_after_normalisation,
        "counts": {change: comparison.count(change) for change in CHANGES},
        "rows": [
            {
                "change": row.change,
                "ratio": row.ratio,
                "reshaped": row.reshaped,
                "within_noise": row.within_noise,
                "left": _side(row.left),
                "right": _side(row.right),
            }
            for row in comparison.rows
        ],
    }


def _side(scale: KVScale | None) -> dict[str, Any] | None:
    if scale is None:
        return None
    return {
        "key": scale.key,
        "role": scale.role,
        "layer": scale.layer,
        "shape": list(scale.shape),
        "values": list(scale.values),
    }


def comparison_text(comparison: Comparison) -> str:
    """A line for each row that differs, and the sum."""
    lines = [_line(row) for row in comparison.rows if row.change != "same"]
    counts = ", ".join(f"{comparison.count(change)} {change}" for change in CHANGES if comparison.count(change))
    lines.append(f"{len(comparison.rows)} scales: {counts or 'none on either side'}")
    if comparison.equal_after_normalisation and comparison.rows:
        lines.append("Equal once names and shapes are put aside.")
    changed = [row for row in comparison.rows if row.change == "changed" and row.ratio is not None]
    if changed and all(row.within_noise for row in changed):
        lines.append(f"Every change is within the {CALIBRATION_NOISE:.0%} by which two calibrations differ.")
    return as_lines(lines)


def _line(row: Row) -> str:
    left, right = row.left, row.right
    if left is None or right is None:
        return "".join(
            f"{sign} {one.key} {_value(one)}" for sign, one in (("-", left), ("+", right)) if one is not None
        )
    name = left.key if left.key == right.key else f"{left.key} -> {right.key}"
    if row.change == "renamed":
        return f"= {name}"
    ratio = f" (x {row.ratio:.4g}{', within noise' if row.within_noise else ''})" if row.ratio is not None else ""
    return f"~ {name} {_value(left)} -> {_value(right)}{ratio}"


def _value(scale: KVScale) -> str:
    if len(scale.values) == 1:
        return f"{scale.values[0]:.6g}"
    return f"[{len(scale.values)} values]"
