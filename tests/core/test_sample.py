"""A sample of layers answers as the whole checkpoint does, wherever other engines or an export are asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.inspection import Inspection, imagine, inspect
from core.matrix import Column, matrix
from core.sample import sample

PUBLIC = (
    "modelopt/deepseekv3-30layers-fp8-kvfp8",
    "quark/gemma3-26layers-fp8-kvfp8",
    "modelopt/qwen3-36layers-fp8-kvfp8",
)
SHARED = ("llmcompressor/whisper-kvonly", "quark/llama-fp8-alloutputs", "llmcompressor/qwen2-fp8-kv")


def _answers(columns: tuple[Column, ...]) -> list[object]:
    return [(each.engine, each.outcome, each.served, each.expecting, each.mend, each.mended) for each in columns]


def _same(inspection: Inspection) -> Inspection:
    few = sample(inspection)
    assert _answers(matrix(few)) == _answers(matrix(inspection))
    return few


@pytest.mark.parametrize("name", PUBLIC)
def test_few_layers_answer_for_all(samples: Path, name: str) -> None:
    inspection = inspect(samples / name)
    few = _same(inspection)
    layers = {layer.layer for layer in inspection.deliveries.attention}
    assert 0 < len(few.tensors) < len(inspection.tensors) / 8
    assert sum(few.stands_for.values()) == len(layers)
    assert {layer.layer for layer in few.deliveries.attention} == {at for at, count in few.stands_for.items() if count}


@pytest.mark.parametrize("name", SHARED)
def test_towers_and_companions_are_counted_too(shared: Path, name: str) -> None:
    _same(inspect(shared / "checkpoints" / name))


def test_a_layer_that_lacks_a_scale_is_a_kind_of_its_own(samples: Path) -> None:
    whole = inspect(samples / PUBLIC[0])
    lacking = imagine(whole, [fed for fed in whole.tensors if fed.key != "model.layers.7.self_attn.v_proj.v_scale"])
    few = _same(lacking)
    assert few.stands_for[7] == 1
    assert max(few.stands_for.values()) > 20
    assert sum(few.stands_for.values()) == 30


def test_a_pattern_that_picks_layers_leaves_none_out(samples: Path) -> None:
    whole = inspect(samples / PUBLIC[0])
    picking = replace(whole.declaration, ignore=(r"re:.*layers\.[0-9]\..*",))
    inspection = imagine(whole, whole.tensors, declaration=picking)
    assert sample(inspection) is inspection


def test_doubted_values_are_judged_among_all_others(samples: Path) -> None:
    inspection = inspect(samples / "llmcompressor/llama-attn_fp8_tensor")
    assert "uninitialised" in {finding.code for finding in inspection.findings}
    assert sample(inspection) is inspection
