"""What quantizers left behind beside the scales: no part of the model, at which the real vLLM 0.33.0 stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.export import plan_export
from core.export.fixes import Fix
from core.inspection import inspect, reinspect
from core.loading.verify import verify
from tests.core.engines.random_cases import tiny_configs
from tests.core.loading.writing import MODELOPT, kv, write_checkpoint

_NO_MODULE = "ValueError: There is no module or parameter named "
_NO_PARAMETER = "AttributeError: Layer model.layers.{layer} has no parameter {name!r} for checkpoint weight {key!r}"
SEEN = [
    (
        "LlamaForCausalLM",
        "model.layers.0.self_attn.q_proj.weight_quantizer._amax",
        "AttributeError: QKVParallelLinear has no attribute `weight_quantizer`",
    ),
    (
        "LlamaForCausalLM",
        "model.layers.0.self_attn.o_proj.weight_quantizer._amax",
        f"{_NO_MODULE}'layers.0.self_attn.o_proj.weight_quantizer' in LlamaModel.",
    ),
    (
        "LlamaForCausalLM",
        "model.layers.1.mlp.up_proj.input_quantizer._pre_quant_scale",
        "AttributeError: MergedColumnParallelLinear has no attribute `input_quantizer`",
    ),
    ("LlamaForCausalLM", "lm_head.weight_quantizer._amax", f"{_NO_MODULE}'lm_head.weight_quantizer' in LlamaForCausal"),
    (
        "Gemma3ForCausalLM",
        "model.layers.0.mlp.down_proj.input_quantizer._amax",
        f"{_NO_MODULE}'layers.0.mlp.down_proj.input_quantizer' in Gemma3Model.",
    ),
    (
        "DeepseekV3ForCausalLM",
        "model.layers.0.mlp.down_proj.input_quantizer._amax",
        "KeyError: 'layers.0.mlp.down_proj.input_quantizer._amax'",
    ),
    ("DeepseekV3ForCausalLM", "model.layers.1.mlp.experts.0.down_proj.input_quantizer._amax", "KeyError: 'layers.1."),
    (
        "Qwen3MoeForCausalLM",
        "model.layers.0.mlp.gate.input_quantizer._amax",
        f"{_NO_MODULE}'layers.0.mlp.gate.input_quantizer' in Qwen3MoeModel.",
    ),
    (
        "Qwen3MoeForCausalLM",
        "model.layers.0.mlp.experts.0.up_proj.input_quantizer._amax",
        _NO_PARAMETER.format(
            layer="0.mlp.experts",
            name="w13_input_quantizer._amax",
            key="model.layers.0.mlp.experts.0.up_proj.input_quantizer._amax",
        ),
    ),
    (
        "MixtralForCausalLM",
        "model.layers.0.block_sparse_moe.experts.0.w1.input_quantizer._amax",
        _NO_PARAMETER.format(
            layer="0.block_sparse_moe.experts",
            name="w13_input_quantizer._amax",
            key="model.layers.0.block_sparse_moe.experts.0.w1.input_quantizer._amax",
        ),
    ),
    (
        "Qwen2MoeForCausalLM",
        "model.layers.1.mlp.experts.3.down_proj.weight_quantizer._amax",
        _NO_PARAMETER.format(
            layer="1.mlp.experts",
            name="w2_weight_quantizer._amax",
            key="model.layers.1.mlp.experts.3.down_proj.weight_quantizer._amax",
        ),
    ),
    ("GptOssForCausalLM", "model.layers.0.mlp.experts.gate_up_proj.weight_quantizer._amax", ""),
]
"""Architecture, the leftover, and how the error begins that the real vLLM 0.33.0 raised; "" where it loaded."""


def _with(folder: Path, architecture: str, *names: str) -> Path:
    tensors = {**kv(0.25, 0.5), **dict.fromkeys(names, 3.0)}
    return write_checkpoint(folder, tensors, quantization=MODELOPT, config=tiny_configs()[architecture])


@pytest.mark.parametrize(("architecture", "key", "error"), SEEN)
def test_the_load_stops_at_what_no_module_takes(architecture: str, key: str, error: str, tmp_path: Path) -> None:
    inspection = inspect(_with(tmp_path / "model", architecture, key))
    load = inspection.deliveries.load
    if not error:
        assert load.outcome == "loads"
        return
    assert (load.outcome, load.key) == ("raises", key)
    assert (load.error or "").startswith(error)
    assert inspection.verdict.outcome == "fails"
    first = inspection.findings[0]
    assert (first.code, first.keys, first.remedy) == ("load-raises", (key,), "drop")
    assert first.fix == "Leave out on export what quantizers left behind: this engine has no place for it."
    for weights in ("scales", "all"):
        found = verify(inspection, weights=weights)
        assert found.agreed, found.text
        assert (found.outcome, found.key) == ("raises", key)


def test_scales_read_before_it_count_and_those_behind_it_do_not(tmp_path: Path) -> None:
    key = "model.layers.0.self_attn.o_proj.weight_quantizer._amax"
    deliveries = inspect(_with(tmp_path / "model", "LlamaForCausalLM", key)).deliveries
    assert [each.outcome for each in deliveries.deliveries] == ["loaded", "not_reached", "not_reached", "not_reached"]


def test_a_scale_at_which_the_load_stops_before_counts(tmp_path: Path) -> None:
    amax, left = "model.layers.0.self_attn.k_bmm_quantizer._amax", "model.layers.0.self_attn.o_proj.input_quantizer"
    inspection = inspect(_with(tmp_path / "model", "LlamaForCausalLM", amax, f"{left}._amax"))
    assert inspection.deliveries.load.key == amax


def test_other_engines_and_options_are_asked_the_same(tmp_path: Path) -> None:
    key = "model.layers.0.mlp.down_proj.input_quantizer._amax"
    inspection = inspect(_with(tmp_path / "model", "LlamaForCausalLM", key))
    older = reinspect(inspection, engine="vllm-0.23.0")
    assert older.deliveries.load.error == "KeyError: 'layers.0.mlp.down_proj.input_quantizer._amax'"


@pytest.mark.parametrize("codes", [("load-raises",), ("leftovers",), ("load-raises", "leftovers")])
def test_an_export_without_them_loads(codes: tuple[str, ...], tmp_path: Path) -> None:
    """All of them go, not the first alone; however often it is asked for."""
    keys = [
        f"model.layers.{layer}.mlp.experts.{expert}.up_proj.input_quantizer._amax"
        for layer in range(2)
        for expert in (0, 3)
    ]
    inspection = inspect(_with(tmp_path / "model", "Qwen3MoeForCausalLM", *keys))
    assert inspection.leftovers == (keys[0],)  # one stands for all of its kind
    without = plan_export(inspection)
    assert without.verdict_predicted.outcome == "fails"
    plan = plan_export(inspection, fixes=[Fix(code) for code in codes])
    assert plan.verdict_predicted.outcome == "ok"
    assert [edit.key for edit in plan.changes] == keys
    assert {edit.action for edit in plan.changes} == {"dropped"}
    assert plan.notes == ()
