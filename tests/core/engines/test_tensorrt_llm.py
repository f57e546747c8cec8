"""TensorRT-LLM: every documented rule. Nothing here was compared with the engine, and the profile says so."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.backends.kv_method import EngineError
from core.diagnosis import fix_usage
from core.engines import Fed, Wish, get_engine
from core.engines.outcome import Deliveries
from core.engines.tensorrt_llm.rules import Algorithm, scales_of_layer
from core.errors import UsageError
from core.export import plan_export
from core.export.fixes import parse_fixes
from core.inspection import inspect, reinspect
from core.matrix import matrix
from core.quantization.declaration import Declaration, KVScheme, Source
from tests.core.loading.writing import write_checkpoint

ENGINE = "tensorrt-llm"
LLAMA: dict[str, Any] = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}


def scheme(algorithm: str) -> KVScheme:
    return KVScheme(
        num_bits=8,
        type="float",
        strategy="tensor",
        dynamic=False,
        symmetric=True,
        algorithm=algorithm,
        raw=algorithm,
        source=Source("hf_quant_config.json", "quantization.kv_cache_quant_algo", algorithm),
    )


def deliver(
    algorithm: str | None, tensors: Mapping[str, Any], config: Mapping[str, Any] | None = None, **wish: Any
) -> tuple[Deliveries, Any]:
    hf_config = LLAMA if config is None else config
    quantization = hf_config.get("quantization_config", {})
    declaration = Declaration(
        kv_scheme=scheme(algorithm) if algorithm else None,
        method=quantization.get("quant_method"),
        config=quantization,
        hf_config=hf_config,
        architectures=tuple(hf_config.get("architectures", ())),
        dialect=hf_config.get("dialect", "huggingface"),
    )
    fed = [
        Fed(key, (len(value),), value) if isinstance(value, tuple) else Fed(key, (), (value,))
        for key, value in tensors.items()
    ]
    engine = get_engine(ENGINE)
    asked = Wish(**wish)
    settings = engine.settle(declaration, asked)
    return engine.deliver(declaration, settings, fed, asked), settings


def beside(layer: int, role: str) -> str:
    return f"model.layers.{layer}.self_attn.{role}_proj.{role}_scale"


def test_it_says_that_it_was_not_run() -> None:
    engine = get_engine(ENGINE)
    assert "not run" in engine.how_checked
    result, _ = deliver("FP8", {})
    assert any("not run" in note for note in result.notes)


def test_an_fp8_cache_runs_at_one_whatever_is_stored() -> None:
    result, settings = deliver("FP8", {beside(0, "k"): 0.5, beside(0, "v"): 0.25})
    assert settings.kv_cache_dtype_resolved == "fp8"
    assert [delivery.outcome for delivery in result.deliveries] == ["ignored", "ignored"]
    assert "never uses a checkpoint's scales" in result.deliveries[0].reason
    assert [layer.final["k"] for layer in result.attention] == [1.0, 1.0]
    assert [layer.source["k"] for layer in result.attention] == ["forced", "default"]


def test_an_nvfp4_cache_takes_what_stands_beside_the_projections() -> None:
    portable = "model.layers.1.self_attn.k_scale"
    tower = "model.vision_tower.layers.0.self_attn.k_proj.k_scale"
    result, _ = deliver("NVFP4", {beside(0, "k"): 0.5, beside(0, "v"): 0.25, portable: 0.5, tower: 4.0})
    first, second, third, fourth = result.deliveries
    assert first.target == "model.layers.0.self_attn.qkv_proj.kv_scales"
    assert (second.outcome, third.outcome, fourth.outcome) == ("loaded", "ignored", "ignored")
    assert (result.attention[0].final["k"], result.attention[0].final["v"]) == (0.5, 0.25)
    assert result.attention[1].final["k"] == 1.0


def test_a_cache_in_the_model_dtype_takes_nothing() -> None:
    result, settings = deliver(None, {beside(0, "k"): 0.5})
    assert settings.kv_cache_dtype_resolved == "auto"
    assert result.deliveries[0].reason == "the cache is not quantized, and no scales are used"


def test_the_chosen_dtype_wins() -> None:
    tensors = {beside(layer, role): 0.5 for layer in (0, 1) for role in ("k", "v")}
    result, _ = deliver("FP8", tensors, kv_cache_dtype="nvfp4")
    assert [layer.final["v"] for layer in result.attention] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("algorithm", "found", "k", "v"),
    [
        ("FP8", [("a", "k", (0.5,))], 1.0, 1.0),
        ("NVFP4", [], 1.0, 1.0),
        ("NVFP4", [("a", "k", (0.5,)), ("b", "k", (0.75,)), ("c", "v", (0.25,))], 0.75, 0.25),
        ("INT8", [("a", "k", (0.03125,)), ("c", "v", (0.0625,))], 0.0625, 0.0625),
    ],
)
def test_scales_of_one_layer(algorithm: Algorithm, found: list[Any], k: float, v: float) -> None:
    cached = scales_of_layer(algorithm, found)
    assert (cached.k, cached.v) == (k, v)


def test_loading_scales_can_be_switched_off() -> None:
    found = [("a", "k", (0.5,)), ("b", "v", (0.5,))]
    assert scales_of_layer("NVFP4", found, load_scales=False).k == 1.0


@pytest.mark.parametrize(
    ("algorithm", "found", "error"),
    [
        ("NVFP4", [("a", "k", (0.5,))], "AssertionError: NVFP4 KV cache: both scales must be loaded together"),
        ("NVFP4", [("a", "k", (0.5, 0.5)), ("b", "v", (0.5,))], "RuntimeError: NVFP4 KV cache: a scale must be one"),
        ("INT8", [], "ValueError: INT8 KV cache: both scales must be loaded together"),
        ("INT8", [("a", "v", (0.5,))], "ValueError: INT8 KV cache: both scales must be loaded together"),
        *(
            ("INT8", [("a", "k", (bad,)), ("b", "v", (bad,))], "ValueError: INT8 KV cache: the scale must be finite")
            for bad in (0.0, -1.0, math.inf, math.nan, 1e-45)
        ),
    ],
)
def test_what_is_rejected(algorithm: Algorithm, found: list[Any], error: str) -> None:
    with pytest.raises(EngineError, match=error):
        scales_of_layer(algorithm, found)


def test_a_rejected_scale_fails_the_load() -> None:
    result, _ = deliver("NVFP4", {beside(0, "k"): 0.5, beside(1, "k"): 0.5})
    assert result.load.outcome == "raises"
    assert result.load.key == beside(0, "k")
    assert [delivery.outcome for delivery in result.deliveries] == ["raises", "not_reached"]


def test_int8_wants_unquantized_projections() -> None:
    quantized = {**LLAMA, "quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8"}}
    result, _ = deliver("INT8", {}, quantized)
    assert result.load.error == "ValueError: INT8 KV cache requires unquantized FP16/BF16 projections"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"architectures": ["DeepseekV3ForCausalLM"], "num_hidden_layers": 2}, "layout of DeepseekV3ForCausalLM"),
        ({"architectures": ["LlamaForCausalLM"]}, "does not say how many layers"),
        ({}, "layout of None"),
    ],
)
def test_what_is_not_described_is_unknown(config: dict[str, Any], reason: str) -> None:
    result, _ = deliver("FP8", {beside(0, "k"): 0.5}, config)
    assert result.load.outcome == "unknown"
    assert reason in result.load.reason
    assert result.deliveries[0].outcome == "not_reached"


def test_converted_checkpoints_hold_the_parameters_themselves(shared: Path) -> None:
    found = inspect(shared / "checkpoints" / "modelopt" / "trtllm-llama-fp8-kvfp8", engine=ENGINE)
    loaded = [delivery for delivery in found.deliveries.deliveries if delivery.outcome == "loaded"]
    assert len(found.deliveries.attention) == 2
    stored = {delivery.key: delivery.loaded[0] for delivery in loaded}
    for layer in found.deliveries.attention:
        assert layer.final["k"] == layer.final["v"] == stored[f"{layer.path}.kv_cache_scaling_factor"]


def factor(layer: int, role: str) -> str:
    return f"transformer.layers.{layer}.attention.{role}_cache_scaling_factor"


CONVERTED = {"dialect": "tensorrt-llm"}


def test_factors_for_k_and_for_v_become_one(shared: Path) -> None:
    found = inspect(shared / "checkpoints" / "modelopt" / "trtllm-llama-fp8-kvnvfp4", engine=ENGINE)
    assert {delivery.outcome for delivery in found.deliveries.deliveries} == {"loaded"}
    assert found.verdict.outcome == "ok"
    assert found.verdict.text == "All 6 k and v scales reach the 2 attention layers of TensorRT-LLM (PyTorch backend)."
    assert [finding.code for finding in found.findings] == ["declaration-note"]  # nothing lost, in conflict or rounded
    for layer in found.deliveries.attention:
        both = [d for d in found.deliveries.deliveries if d.target == f"{layer.path}.kv_cache_scaling_factor"]
        assert len(both) == 3
        assert layer.final["k"] == layer.final["v"] == max(delivery.loaded[0] for delivery in both)


def test_a_factor_for_both_is_replaced_where_k_and_v_have_their_own() -> None:
    result, _ = deliver("FP8", {factor(0, "k"): 0.5, factor(0, "v"): 0.25, factor(0, "kv"): 4.0}, CONVERTED)
    assert [delivery.outcome for delivery in result.deliveries] == ["loaded", "loaded", "ignored"]
    assert result.deliveries[2].reason == "the larger of the factors for k and for v takes its place"
    assert (result.attention[0].final["k"], result.attention[0].final["v"]) == (0.5, 0.5)


@pytest.mark.parametrize(("k", "v", "both"), [(math.nan, 0.5, math.nan), (0.0, 0.0, 0.0), ((2.0,), 0.5, 2.0)])
def test_factors_that_are_no_scales(k: Any, v: Any, both: float) -> None:
    result, _ = deliver("NVFP4", {factor(0, "k"): k, factor(0, "v"): v}, CONVERTED)
    assert result.attention[0].final["k"] == pytest.approx(both, nan_ok=True)


def test_a_factor_for_k_alone_ends_the_load() -> None:
    tensors = {factor(0, "k"): 0.5, factor(0, "v"): 0.5, factor(1, "k"): 0.5, factor(1, "kv"): 0.5}
    result, _ = deliver("FP8", tensors, CONVERTED)
    assert result.load.error == f"AssertionError: {factor(1, 'v')} not found"
    assert result.load.key == factor(1, "k")
    assert [delivery.outcome for delivery in result.deliveries] == [
        "not_reached",
        "not_reached",
        "raises",
        "not_reached",
    ]
    alone, _ = deliver("FP8", {factor(0, "v"): 0.5, factor(0, "kv"): 0.25}, CONVERTED)
    assert [delivery.outcome for delivery in alone.deliveries] == ["ignored", "loaded"]
    assert alone.attention[0].final["v"] == 0.25


KVNVFP4 = "checkpoints/modelopt/trtllm-llama-fp8-kvnvfp4"
STORED = ("k_cache_scaling_factor", "v_cache_scaling_factor", "kv_cache_scaling_factor")
REFUSED = (
    "RuntimeError: Encounter error 'The value updated is not the same shape as the original. Updated: {shape}, "
    "original: (1,)' for parameter 'transformer.layers.1.attention.kv_cache_scaling_factor'"
)
RECIPROCAL = "'transformer.layers.1.attention.kv_cache_rcp_scaling_factor', "
MISSING = (
    f"RuntimeError: Required but not provided tensors:{{{RECIPROCAL}"
    "'transformer.layers.1.attention.kv_cache_scaling_factor'}"
)


def converted(folder: Path, source: Path, *ranks: Mapping[str, Any]) -> Path:
    """A real converted checkpoint of two layers, whose second layer has other factors on each rank."""
    config = json.loads((source / "config.json").read_text())
    config["mapping"] = {"world_size": len(ranks), "tp_size": len(ranks), "pp_size": 1}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    for rank, factors in enumerate(ranks):
        tensors = load_file(source / "rank0.safetensors")
        for name in STORED:
            del tensors[f"transformer.layers.1.attention.{name}"]
        for name, value in factors.items():
            tensors[f"transformer.layers.1.attention.{name}"] = torch.tensor(value)
        save_file(tensors, folder / f"rank{rank}.safetensors")
    return folder


@pytest.mark.parametrize(
    ("ranks", "error", "at"),
    [
        ([dict.fromkeys(STORED, 0.5)], None, None),
        ([{"kv_cache_scaling_factor": [0.5]}], None, None),
        ([{"k_cache_scaling_factor": 0.5, "v_cache_scaling_factor": 0.25}], None, None),
        ([{}], MISSING, None),
        ([{"v_cache_scaling_factor": 0.5}], MISSING, None),
        ([{"kv_cache_rcp_scaling_factor": 2.0}], MISSING.replace(RECIPROCAL, ""), None),
        ([dict.fromkeys(STORED, 0.5), {}], MISSING, None),
        ([dict.fromkeys(STORED, 0.5), dict.fromkeys(STORED, 0.5)], None, None),
        (
            [dict.fromkeys(STORED, 0.5), {"k_cache_scaling_factor": 0.5}],
            "AssertionError: transformer.layers.1.attention.v_cache_scaling_factor not found",
            "k_cache_scaling_factor",
        ),
        ([{"kv_cache_scaling_factor": [0.5, 0.25]}], REFUSED.format(shape=(2,)), "kv_cache_scaling_factor"),
        ([{"kv_cache_scaling_factor": [[0.5]]}], REFUSED.format(shape=(1, 1)), "kv_cache_scaling_factor"),
        (
            [{"k_cache_scaling_factor": [0.5, 0.25], "v_cache_scaling_factor": 0.5}],
            REFUSED.format(shape=(2,)),
            "k_cache_scaling_factor",
        ),
        (
            [{"k_cache_scaling_factor": [0.5, 0.25], "v_cache_scaling_factor": [0.5, 0.25, 1.0]}],
            "RuntimeError: The size of tensor a (2) must match the size of tensor b (3) at non-singleton dimension 0",
            "k_cache_scaling_factor",
        ),
    ],
)
def test_every_layer_of_a_converted_checkpoint_needs_a_factor_of_one_number(
    tmp_path: Path, shared: Path, ranks: list[dict[str, Any]], error: str | None, at: str | None
) -> None:
    """As its ``preprocess_weights`` and ``load`` have it: what is missing is asked for before a shape is looked at."""
    found = inspect(converted(tmp_path / "converted", shared / KVNVFP4, *ranks), engine=ENGINE)
    load = found.deliveries.load
    assert (load.outcome, load.error) == ("raises" if error else "loads", error)
    assert load.key == (f"transformer.layers.1.attention.{at}" if at else None)
    assert (found.verdict.outcome == "fails") is (error is not None)
    assert [layer.layer for layer in found.deliveries.attention] == [0, 1]
    assert all(bool(layer.final) is (error is None) for layer in found.deliveries.attention)
    if error:
        first = found.findings[0]
        assert first.code in ("load-raises", "shape")
        assert first.fix.startswith("Convert the checkpoint again" if not first.remedy else "Store one value")
        assert not any(fix_usage(each) for each in found.findings if each.code in ("missing-scale", "v-without-k"))
        if first.remedy:
            assert plan_export(found, fixes=parse_fixes(["shape"])).predicted.load.outcome == "loads"


def test_a_converted_checkpoint_without_any_factor(tmp_path: Path, shared: Path) -> None:
    folder = tmp_path / "converted"
    source = shared / KVNVFP4
    converted(folder, source, {})
    tensors = {name: each for name, each in load_file(folder / "rank0.safetensors").items() if "_cache_" not in name}
    save_file(tensors, folder / "rank0.safetensors")
    found = inspect(folder, engine=ENGINE)
    assert "Required but not provided tensors" in str(found.deliveries.load.error)
    assert [layer.layer for layer in found.deliveries.attention] == [0, 1]
    config = json.loads((folder / "config.json").read_text())
    config["quantization"]["kv_cache_quant_algo"] = None
    (folder / "config.json").write_text(json.dumps(config))
    assert inspect(folder, engine=ENGINE).deliveries.load.outcome == "loads"


def test_a_factor_for_v_beside_the_layers_own_can_be_left_out(tmp_path: Path, shared: Path) -> None:
    factors = {"kv_cache_scaling_factor": [0.5], "v_cache_scaling_factor": 0.25}
    found = inspect(converted(tmp_path / "converted", shared / KVNVFP4, factors), engine=ENGINE)
    (finding,) = (each for each in found.findings if each.code == "dropped-scale")
    assert finding.fix == "Leave these tensors out on export: this engine has no place for them."
    plan = plan_export(found, fixes=parse_fixes(["dropped-scale"]))
    assert plan.verdict_predicted.outcome == "ok"
    assert plan.unreachable == ()


def test_k_and_v_of_one_fused_projection_are_no_conflict(shared: Path) -> None:
    found = inspect(shared / "checkpoints" / "modelopt" / "llama-fp8-kvnvfp4", engine=ENGINE)
    assert found.findings == ()
    assert found.verdict.outcome == "ok"


def test_a_method_whose_config_is_not_read_is_unknown(shared: Path) -> None:
    """Quark's NVFP4 cache: nothing declares it to this engine, and the weights would lose their scales too."""
    found = inspect(shared / "checkpoints" / "quark" / "llama-fp8-kvnvfp4", engine=ENGINE)
    assert found.settings.kv_cache_dtype_resolved == "auto"
    assert found.verdict.outcome == "unknown"
    assert "reads no quantization config of quark" in found.verdict.text
    assert found.findings == ()
    (column,) = matrix(found, [ENGINE])
    assert column.mend == ""
    read = inspect(shared / "checkpoints" / "modelopt" / "llama-fp8-kvnvfp4", engine=ENGINE)
    asked = reinspect(found, wish=Wish(method="modelopt", kv_cache_dtype="nvfp4"))
    (finding,) = (each for each in asked.findings if each.code == "dropped-scale")
    assert finding.fix == "Multiply by 6 on export: these are global scales of an NVFP4 cache, amax / 2688."
    plan = plan_export(asked, fixes=parse_fixes(["dropped-scale"]))
    assert plan.verdict_predicted.outcome == "ok"
    written = {edit.new_key: edit.values for edit in plan.edits}
    for scale in read.scales:  # ModelOpt's own numbers for the same model
        assert written[scale.key] == pytest.approx(scale.values, rel=1e-4)


@pytest.mark.parametrize(
    ("algorithm", "parameter"), [("NVFP4", "qkv_proj.kv_scales"), ("INT8", "qkv_proj.kv_cache_scaling_factor")]
)
def test_scales_under_other_names_are_exported_beside_the_projections(
    tmp_path: Path, algorithm: str, parameter: str
) -> None:
    quantization = {"quant_method": "modelopt", "quantization": {"quant_algo": None, "kv_cache_quant_algo": algorithm}}
    tensors = {f"model.layers.{layer}.self_attn.{role}_scale": 0.25 for layer in (0, 1) for role in ("k", "v")}
    found = inspect(write_checkpoint(tmp_path / "portable", tensors, quantization=quantization), engine=ENGINE)
    assert found.settings.kv_cache_dtype_resolved == algorithm.lower()
    assert found.verdict.outcome in ("degraded", "fails")
    (column,) = matrix(found, [ENGINE])
    assert (column.mend, column.mended, column.names) == ("export", 2, "modelopt")
    plan = plan_export(found)
    assert {edit.new_key for edit in plan.edits} == {beside(layer, role) for layer in (0, 1) for role in ("k", "v")}
    assert plan.verdict_predicted.outcome == "ok"
    targets = {delivery.target for delivery in plan.predicted.deliveries}
    assert targets == {f"model.layers.{layer}.self_attn.{parameter}" for layer in (0, 1)}


def test_scales_are_set_where_none_are_stored(shared: Path) -> None:
    found = inspect(shared / "checkpoints" / "modelopt" / "llama-bf16-kvnvfp4cast", engine=ENGINE)
    plan = plan_export(found, fixes=parse_fixes(["declared-absent=0.05"]))
    assert [edit.new_key for edit in plan.edits] == [beside(layer, role) for layer in (0, 1) for role in ("k", "v")]
    assert plan.verdict_predicted.outcome == "ok"


def test_names_and_choices() -> None:
    engine = get_engine(ENGINE)
    first, second = engine.map_names(
        [beside(0, "k"), "model.layers.0.self_attn.k_scale"], method=None, architecture=None
    )
    assert first.result == "model.layers.0.self_attn.qkv_proj.kv_scales"
    assert second.result == second.name
    with pytest.raises(UsageError, match="has no KV-cache dtype 'fp8_e5m2'"):
        deliver("FP8", {}, kv_cache_dtype="fp8_e5m2")
    with pytest.raises(UsageError, match="has no model dtype 'int4'"):
        deliver("FP8", {}, dtype="int4")
    with pytest.raises(UsageError, match="has no description of the architecture 'Nope'"):
        deliver("FP8", {}, architecture="Nope")
