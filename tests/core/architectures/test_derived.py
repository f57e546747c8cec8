"""Architectures that no profile knows: attention modules derived from the names of scales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.architectures import derive_model
from core.architectures.derived import attention_module
from core.engines import get_engine
from core.inspection import Inspection, inspect
from core.report import report, text_report
from tests.golden_data import disagreement, golden, write_case

MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}}
CONFIG: dict[str, Any] = {
    "architectures": ["BrandNewForCausalLM"],
    "model_type": "brand_new",
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "torch_dtype": "bfloat16",
    "quantization_config": MODELOPT,
}
REFUSED = (
    "ValidationError: 1 validation error for ModelConfig Value error, "
    "Model architectures ['NewT5'] are not supported for now."
)
NAMES = {
    "model.layers.3.self_attn.k_proj.k_scale": "model.layers.3.self_attn",
    "model.layers.3.self_attn.attn.k_scale": "model.layers.3.self_attn",
    "model.layers.3.self_attn.v_scale": "model.layers.3.self_attn",
    "model.layers.3.self_attn.kv_scale": "model.layers.3.self_attn",
    "model.layers.3.self_attn.qkv_proj.k_scale": "model.layers.3.self_attn",
    "model.layers.3.self_attn.k_cache.scale": "model.layers.3.self_attn",
    "model.layers.3.self_attn.mla_attn.mla_attn.k_scale": "model.layers.3.self_attn",
    "transformer.h.0.attn.k_scale": "transformer.h.0.attn",
    "transformer.h.0.attn.attn.k_scale": "transformer.h.0.attn",
    "backbone.layers.4.mixer.k_proj.output_scale": "backbone.layers.4.mixer",
    "vision_tower.layers.0.self_attn.k_scale": None,
    "model.visual.blocks.0.attn.k_scale": None,
    "k_scale": None,
}


def scales(module: str, *leaves: str, layers: int = 3) -> dict[str, dict[str, Any]]:
    return {
        f"{module.format(i=index)}.{leaf}": {
            "shape": [],
            "dtype": "F32",
            "values": [0.25 + index / 8 + 0.0625 * (leaf[0] == "v")],
        }
        for index in range(layers)
        for leaf in leaves
    }


def checked(folder: Path, tensors: dict[str, dict[str, Any]], engine: str = "vllm-0.33.0", **config: Any) -> Inspection:
    return inspect(write_case(folder / "model", {**CONFIG, **config}, tensors), engine=engine, kv_cache_dtype="fp8")


@pytest.mark.parametrize("name", NAMES)
def test_the_module_that_a_name_points_at(name: str) -> None:
    assert attention_module(name) == NAMES[name]


def test_what_no_name_points_at_is_not_derived() -> None:
    assert derive_model("BrandNewForCausalLM", CONFIG, ["k_scale", "vision_tower.layers.0.attn.k_scale"]) is None


def test_every_layer_that_attends_has_the_modules_of_any() -> None:
    kinds = ["linear_attention", "full_attention", "sliding_attention", "full_attention"]
    config = {"layer_types": kinds, "num_hidden_layers": 4}
    derived = derive_model("BrandNewForCausalLM", config, ["decoder.block.1.mix.k_proj.k_scale"])
    assert derived is not None
    assert derived.places == ("decoder.block.{i}.mix",)
    assert [path for path, _ in derived.root.attention_layers()] == [
        f"decoder.block.{index}.mix.attn" for index in (1, 2, 3)
    ]


def test_without_a_number_of_layers_the_highest_seen_counts() -> None:
    derived = derive_model("BrandNewForCausalLM", {}, ["layers.2.self_attn.k_scale", "shared.attention.k_scale"])
    assert derived is not None
    assert [path for path, _ in derived.root.attention_layers()] == [
        *(f"layers.{index}.self_attn.attn" for index in (0, 1, 2)),
        "shared.attention.attn",
    ]


def test_an_invented_architecture_loads_and_says_that_it_was_derived(tmp_path: Path) -> None:
    found = checked(tmp_path, scales("net.blocks.{i}.mixing", "k_scale", "v_scale"))
    assert found.deliveries.load.outcome == "loads"
    assert not found.deliveries.confirmed
    (note,) = found.deliveries.notes
    assert note == (
        "not confirmed by execution: vLLM 0.33.0 registers no BrandNewForCausalLM; its attention layers are derived "
        "from the tensors' names (net.blocks.{i}.mixing), as its Transformers backend nests them; a model that neither "
        "transformers nor the checkpoint's own code (auto_map) knows is refused"
    )
    assert found.verdict.text.endswith("Not confirmed by execution.")


def test_names_below_self_attn_are_delivered(tmp_path: Path) -> None:
    found = checked(tmp_path, scales("model.layers.{i}.self_attn", "k_proj.k_scale", "v_proj.v_scale"))
    assert {layer.source["k"] for layer in found.deliveries.attention} == {"checkpoint"}
    assert [layer.final["k"] for layer in found.deliveries.attention] == [0.25, 0.375, 0.5]
    assert "note         not confirmed by execution: " in text_report(found)
    assert report(found)["engine"]["notes"] == list(found.deliveries.notes)


def test_the_rules_for_names_hold_for_it_too(tmp_path: Path) -> None:
    """A scale below k_proj is moved to .attn for modules that are called self_attn or mixer alone."""
    found = checked(tmp_path, scales("net.blocks.{i}.mixing", "k_proj.k_scale"))
    assert found.deliveries.load.error == "AttributeError: QKVParallelLinear has no attribute `attn`"
    assert found.verdict.text.endswith("Not confirmed by execution.")


def test_a_layer_without_scales_is_seen(tmp_path: Path) -> None:
    found = checked(tmp_path, scales("model.layers.{i}.self_attn", "k_scale", "v_scale", layers=2))
    assert found.verdict.outcome == "degraded"
    assert [layer.path for layer in found.deliveries.attention] == [
        f"model.layers.{index}.self_attn.attn" for index in range(3)
    ]
    assert found.deliveries.attention[2].final["k"] == 1.0


def test_without_any_scale_the_answer_stays_unknown(tmp_path: Path) -> None:
    weight = {"model.norm.weight": {"shape": [1], "dtype": "F32", "values": [1.0]}}
    found = checked(tmp_path, weight)
    assert found.deliveries.load.outcome == "unknown"
    assert found.deliveries.load.reason == "the module tree of BrandNewForCausalLM is not known for vLLM 0.33.0"


@pytest.mark.parametrize(
    ("engine", "error"),
    [
        ("vllm-0.33.0", "ValueError: Argument position_ids not found in the forward method of NewT5's layers"),
        (
            "vllm-0.27.1",
            REFUSED,
        ),
    ],
)
def test_no_release_runs_an_encoder_decoder_that_it_does_not_register(tmp_path: Path, engine: str, error: str) -> None:
    tensors = scales("decoder.block.{i}.layer.0.SelfAttention", "k_scale")
    found = checked(tmp_path, tensors, engine, architectures=["NewT5"], is_encoder_decoder=True)
    assert (found.deliveries.load.outcome, found.deliveries.load.error) == ("refused", error)
    assert found.deliveries.load.reason.endswith("and its Transformers backend runs no encoder-decoders")
    assert found.deliveries.notes == ()


@pytest.mark.parametrize(("engine", "answered"), [("vllm-0.27.1", True), ("vllm-0.25.0", True), ("vllm-0.23.0", False)])
def test_a_release_whose_model_was_not_built_has_the_newest_ones_modules(
    tmp_path: Path, engine: str, answered: bool
) -> None:
    config = {"architectures": ["TransformersMoEForCausalLM"], "model_type": "flex_olmo"}
    found = checked(tmp_path, scales("model.layers.{i}.self_attn", "k_scale", "v_scale"), engine, **config).deliveries
    assert (found.load.outcome == "loads") == answered
    assert (found.load.outcome == "unknown") != answered
    if answered:
        version = engine.removeprefix("vllm-")
        (note,) = found.notes
        assert note == (
            "not confirmed by execution: the modules of TransformersMoEForCausalLM are taken to be nested in "
            f"vLLM {version} as in vLLM 0.33.0"
        )


@pytest.mark.parametrize("engine", ["vllm-0.33.0", "vllm-0.22.1"])
@pytest.mark.parametrize(
    ("architecture", "refuses"),
    [("BrandNewForCausalLM", True), ("TransformersForCausalLM", True), ("LlamaForCausalLM", False)],
)
def test_the_transformers_backend_has_no_mxfp4(tmp_path: Path, architecture: str, refuses: bool, engine: str) -> None:
    quantization = {"quant_method": "mxfp4"}
    tensors = scales("model.layers.{i}.self_attn", "k_scale")
    config = {"architectures": [architecture], "model_type": "olmo", "quantization_config": quantization}
    load = checked(tmp_path, tensors, engine, **config).deliveries.load
    assert (load.outcome == "refused") == refuses
    if refuses:
        assert load.error == (
            "NotImplementedError: Transformers modeling backend does not support MXFP4 quantization yet."
        )
        assert load.reason.endswith("through its Transformers backend, which has no MXFP4")


def test_a_registered_architecture_is_never_derived(tmp_path: Path) -> None:
    """No profile of vLLM 0.22.1 can be asked about a model that came later, whatever its tensors are called."""
    name = "Gemma4UnifiedForConditionalGeneration"
    assert not get_engine("vllm-0.22.1").build(name, {}, method=None, layers=1)  # type: ignore[attr-defined]
    found = checked(tmp_path, scales("model.layers.{i}.self_attn", "k_scale"), "vllm-0.22.1", architectures=[name])
    assert found.deliveries.load.outcome == "unknown"


def test_what_the_engine_did_with_a_model_it_does_not_register(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    data = golden("vllm-0.33.0", "unregistered")
    misses = []
    for name, case in data["cases"].items():
        folder = write_case(tmp_path / name, data["configs"][case["config"]], case["tensors"])
        found = inspect(folder, kv_cache_dtype=case["kv_cache_dtype"], dtype="bfloat16")
        assert not found.deliveries.confirmed
        if why := disagreement(case["outcome"], report(found)):
            misses.append(f"{name}: {why}")
    total = len(data["cases"])
    record_property(
        "agreement", f"vllm-0.33.0, a model it does not register: {total - len(misses)} of {total} cases agree"
    )
    assert total == 16
    assert misses == []
