"""Two checkpoints' scales side by side."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from core.checkpoint import open_checkpoint
from core.comparison import compare
from core.naming.conventions import find_scales
from core.naming.scales import KVScale
from core.report.difference import comparison_as_data, comparison_text


def scale(key: str, *values: float, layer: int = 0, role: str = "k") -> KVScale:
    return KVScale(
        key=key,
        file="model.safetensors",
        role=role,  # type: ignore[arg-type]
        kind="scale",
        layer=layer,
        module=f"model.layers.{layer}.self_attn",
        convention="portable",
        dtype="F32",
        shape=(len(values),) if len(values) != 1 else (),
        values=values,
    )


def test_a_rename_is_no_change() -> None:
    result = compare([scale("a.k_scale", 0.5)], [scale("a.k_proj.k_scale", 0.5)])
    assert [row.change for row in result.rows] == ["renamed"]
    assert result.equal_after_normalisation
    assert "Equal once names and shapes are put aside." in comparison_text(result)


def test_changed_values_have_a_ratio_and_a_noise_floor() -> None:
    result = compare([scale("k", 0.5), scale("k1", 0.5, layer=1)], [scale("k", 0.52), scale("k1", 1.0, layer=1)])
    assert [row.change for row in result.rows] == ["changed", "changed"]
    assert [row.within_noise for row in result.rows] == [True, False]
    assert result.rows[1].ratio == 2.0
    assert not result.equal_after_normalisation
    assert "~ k1 0.5 -> 1 (x 2)" in comparison_text(result)
    assert "within" in comparison_text(compare([scale("k", 0.5)], [scale("k", 0.52)])).splitlines()[-1]


def test_per_head_ratio_is_the_one_farthest_from_one() -> None:
    result = compare([scale("k", 1.0, 1.0, 1.0)], [scale("k", 1.1, 0.25, 2.0)])
    assert result.rows[0].ratio == 0.25


@pytest.mark.parametrize(("left", "right"), [((0.0,), (1.0,)), ((1.0,), (math.nan,)), ((1.0,), (1.0, 2.0))])
def test_no_ratio_where_none_can_be_formed(left: tuple[float, ...], right: tuple[float, ...]) -> None:
    assert compare([scale("k", *left)], [scale("k", *right)]).rows[0].ratio is None


def test_nan_equals_nan() -> None:
    assert compare([scale("k", math.nan)], [scale("k", math.nan)]).rows[0].change == "same"


def test_added_and_removed() -> None:
    result = compare([scale("k", 1.0)], [scale("v", 2.0, role="v")])
    assert [row.change for row in result.rows] == ["removed", "added"]
    text = comparison_text(result)
    assert "- k 1" in text
    assert "+ v 2" in text
    data = comparison_as_data(result, "A", "B")
    assert data["counts"] == {"same": 0, "renamed": 0, "changed": 0, "added": 1, "removed": 1}
    assert data["rows"][0]["right"] is None


def test_real_checkpoints_by_layer_and_role(samples: Path) -> None:
    left = find_scales(open_checkpoint(samples / "modelopt" / "qwen3-36layers-fp8-kvfp8"))
    right = find_scales(open_checkpoint(samples / "modelopt" / "deepseekv3-30layers-fp8-kvfp8"))
    result = compare(left, right)
    assert result.count("removed") == 12
    assert result.count("added") == 0
    assert compare(left, left).count("same") == len(left) == 72
