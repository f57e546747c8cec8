"""Numbers in names and configs that no model has: nothing is counted up to them, and the rest is judged as ever."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from core.architectures.layers import layer_kinds, not_believed
from core.diagnosis.finding import Finding
from core.engines import DEFAULT_ENGINE, ENGINES
from core.export import plan_export
from core.inspection import Inspection, inspect
from core.naming.conventions import MOST_LAYERS, layer_number, recognise
from core.report import report, text_report
from tests.core.checkpoint.writing import header, pack
from tests.core.diagnosis.build import MODELOPT, llama

CONFIG = llama(MODELOPT)
DEEPSEEK: dict[str, Any] = {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3"}
UNKNOWN: dict[str, Any] = {"architectures": ["BrandNewForCausalLM"], "model_type": "brand_new"}
ODD = ["9" * 900, "²", "٣", "-1", str(MOST_LAYERS), "00000000001"]
NUMBERS = [10**7, 10**12, 10**400]


def _write(folder: Path, config: Mapping[str, Any], *layers: str) -> Path:
    scales = [f"model.layers.{layer}.self_attn.{role}_proj.{role}_scale" for layer in layers for role in "kv"]
    (folder / "config.json").write_text(json.dumps(config))
    data = b"\0\0\x80\x3d" * len(scales)  # 0.0625
    (folder / "model.safetensors").write_bytes(pack(header(dict.fromkeys(scales, ("F32", ()))), data))
    return folder


def _inspected(folder: Path, engine: str = DEFAULT_ENGINE) -> Inspection:
    """Through everything that is said about it."""
    found = inspect(folder, engine=engine)
    assert json.dumps(report(found))
    assert text_report(found)
    plan_export(found)
    return found


def _notes(inspection: Inspection) -> list[Finding]:
    return [each for each in inspection.findings if each.code == "declaration-note" and "so many" in each.evidence]


@pytest.mark.parametrize("model", [{}, DEEPSEEK, UNKNOWN], ids=["llama", "deepseek", "unknown"])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd[:12])
def test_a_name_with_an_odd_number_harms_no_other(tmp_path: Path, odd: str, model: dict[str, Any]) -> None:
    usual, strange = tmp_path / "usual", tmp_path / "strange"
    usual.mkdir()
    strange.mkdir()
    _write(usual, CONFIG | model, "0", "1")
    _write(strange, CONFIG | model, "0", "1", odd)
    for engine in ENGINES:
        expected, found = _inspected(usual, engine), _inspected(strange, engine)
        assert len(found.scales) == 6
        assert {layer.path for layer in expected.deliveries.attention} <= {
            layer.path for layer in found.deliveries.attention
        }
        if found.deliveries.load.outcome == "loads":
            fates = {each.key: each.outcome for each in found.deliveries.deliveries}
            assert all(fates[each.key] == each.outcome for each in expected.deliveries.deliveries)


def test_such_a_number_is_no_layer() -> None:
    for odd in ODD:
        key = f"model.layers.{odd}.self_attn.k_proj.k_scale"
        assert layer_number(key) is None
        recognised = recognise(key)
        assert recognised is not None
        assert recognised.layer is None
    assert layer_number(f"layers.{MOST_LAYERS - 1}.x") == MOST_LAYERS - 1


@pytest.mark.parametrize("number", NUMBERS, ids=["1e7", "1e12", "1e400"])
@pytest.mark.parametrize("field", ["num_hidden_layers", "num_attention_heads", "num_key_value_heads"])
def test_a_config_that_exaggerates_is_not_believed(tmp_path: Path, field: str, number: int) -> None:
    _write(tmp_path, CONFIG | {field: number}, "0", "1")
    for engine in ENGINES:
        found = _inspected(tmp_path, engine)
        assert [note.evidence for note in _notes(found)] == [
            f"config.json says {field} {number:,}; no model has so many."
        ]
        if engine.startswith("vllm"):
            assert len(found.deliveries.attention) == 2
            assert {each.outcome for each in found.deliveries.deliveries} <= {"loaded", "raises", "not_reached"}


def test_drafts_that_are_exaggerated_are_not_believed(tmp_path: Path) -> None:
    config = CONFIG | DEEPSEEK | {"num_nextn_predict_layers": 10**12}
    found = _inspected(_write(tmp_path, config, "0", "1"))
    assert len(_notes(found)) == 1
    assert len(found.deliveries.attention) == 2


def test_the_longest_pattern_is_not_believed_either() -> None:
    assert layer_kinds({"hybrid_override_pattern": "M*" * MOST_LAYERS}) == ()
    assert len(layer_kinds({"num_hidden_layers": MOST_LAYERS})) == MOST_LAYERS
    assert list(not_believed({"num_hidden_layers": MOST_LAYERS})) == []
    assert layer_kinds({"num_hidden_layers": 4, "full_attn_idxs": [1, [2], {}, 3]})[1::2] == ("full_attention",) * 2
