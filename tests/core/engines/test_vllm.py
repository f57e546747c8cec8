"""vLLM 0.33.0, rule by rule: why a name ends where it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from core.architectures import build_model, known_architectures
from core.backends import get_backend
from core.engines import ENGINES, Fed, Wish, get_engine
from core.engines.outcome import Deliveries
from core.engines.vllm.remap import maybe_remap_kv_scale_name
from core.engines.vllm.walk import Walk
from core.errors import UsageError
from core.naming.mapper import RuleKind, WeightsMapper, rules
from core.quantization.declaration import Declaration, Source

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "torch_dtype": "bfloat16",
}
METHODS: dict[str, dict[str, Any]] = {
    "modelopt": {"quant_method": "modelopt", "quant_algo": "FP8"},
    "quark": {"quant_method": "quark", "export": {"kv_cache_group": [], "pack_method": "reorder"}, "exclude": []},
    "fp8": {"quant_method": "fp8", "activation_scheme": "static"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True},
}


def declared(config: Mapping[str, Any], method: str | None) -> Declaration:
    quantization = METHODS[method] if method is not None else {}
    return Declaration(
        method=method,
        config=quantization,
        config_source=Source("config.json", "quantization_config", quantization) if method is not None else None,
        hf_config={**config, **({"quantization_config": quantization} if method is not None else {})},
        text_config=config,
        architectures=tuple(config["architectures"]),
        model_type=config["model_type"],
        torch_dtype=config.get("torch_dtype"),
        dialect="huggingface",
    )


def deliver(
    config: Mapping[str, Any], method: str | None, tensors: Mapping[str, tuple[float, ...]], **wish: Any
) -> Deliveries:
    engine = get_engine("vllm-0.33.0")
    declaration = declared(config, method)
    asked = Wish(**{"kv_cache_dtype": "fp8", **wish})
    fed = [Fed(key, () if len(values) == 1 else (len(values),), values) for key, values in tensors.items()]
    return engine.deliver(declaration, engine.settle(declaration, asked), fed, asked)


def k(layer: int, spelling: str = "self_attn.k_scale") -> str:
    return f"model.layers.{layer}.{spelling}"


def test_a_scale_that_arrives_has_its_steps_and_its_target() -> None:
    result = deliver(
        LLAMA, "modelopt", {k(0, "self_attn.k_proj.k_scale"): (0.5,), k(0, "self_attn.v_proj.v_scale"): (0.25,)}
    )
    first = result.deliveries[0]
    assert (first.outcome, first.target) == ("loaded", "model.layers.0.self_attn.attn.k_scale")
    assert [step.by for step in first.steps] == ["LlamaForCausalLM"]
    assert "get_cache_scale_mapper" in first.steps[0].rule.source
    assert [layer.final["k"] for layer in result.attention] == [0.5, 1.0]
    assert [layer.source["k"] for layer in result.attention] == ["checkpoint", "default"]


def test_the_engine_dtype_rounds_the_value() -> None:
    tensors = {k(0): (0.3,), k(0, "self_attn.v_scale"): (0.3,)}
    assert deliver(LLAMA, "modelopt", tensors).attention[0].final["k"] == 0.30078125
    assert deliver(LLAMA, "modelopt", tensors, dtype="float16").attention[0].final["k"] == 0.300048828125


def test_the_last_of_two_names_for_one_parameter_wins() -> None:
    result = deliver(
        LLAMA, "modelopt", {k(0, "self_attn.attn.k_scale"): (0.5,), k(0): (0.25,), k(0, "self_attn.v_scale"): (1.0,)}
    )
    assert [each.outcome for each in result.deliveries] == ["loaded"] * 3
    assert result.attention[0].final["k"] == 0.25
    assert "replaces the value before" in result.deliveries[1].reason


def test_a_method_without_scales_ignores_them() -> None:
    result = deliver(LLAMA, "awq", {k(0): (0.5,)})
    assert (result.deliveries[0].outcome, result.deliveries[0].target) == ("ignored", None)
    assert result.deliveries[0].name == "model.layers.0.self_attn.attn.k_scale"
    assert result.attention[0].kv_method is None
    assert result.attention[0].final["k"] == 1.0


def test_without_a_quantization_config_the_names_raise() -> None:
    result = deliver(LLAMA, None, {k(0): (0.5,), k(1): (0.5,)})
    assert result.load.outcome == "raises"
    assert result.load.key == k(0)
    assert str(result.load.error).startswith(
        "ValueError: There is no module or parameter named 'layers.0.self_attn.k_scale'"
    )
    assert [each.outcome for each in result.deliveries] == ["raises", "not_reached"]
    assert k(0) in result.deliveries[1].reason
    assert result.attention[0].final == {}


def test_stacked_names_shadow_the_output_scale_rule_in_gemma_3() -> None:
    gemma = {**LLAMA, "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
    key = k(0, "self_attn.k_proj.output_scale")
    result = deliver(gemma, "quark", {key: (0.5,)})
    assert result.load.error == "AttributeError: 'QKVParallelLinear' object has no attribute 'data'"
    assert [str(step.rule.kind) for step in result.deliveries[0].steps] == ["stacked"]
    assert deliver(LLAMA, "quark", {key: (0.5,)}).deliveries[0].outcome == "loaded"


def test_no_spelling_reaches_an_mla_layer() -> None:
    deepseek = {
        **LLAMA, "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "kv_lora_rank": 512,
        "q_lora_rank": 32, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    }  # fmt: skip
    for spelling in ("k_proj.k_scale", "k_scale", "attn.k_scale", "mla_attn.mla_attn.k_scale"):
        result = deliver(deepseek, "modelopt", {k(0, f"self_attn.{spelling}"): (0.5,)})
        assert result.load.outcome == "loads"
        assert result.deliveries[0].outcome == "dropped"
        assert result.attention[0].final["k"] == 1.0
        assert "k_scale" in result.attention[0].parameters
    draft = deliver({**deepseek, "num_nextn_predict_layers": 1}, "modelopt", {k(2): (0.5,)})
    assert draft.deliveries[0].outcome == "ignored"
    assert "draft" in draft.deliveries[0].reason


def test_a_tensor_that_does_not_fit_raises_at_its_key() -> None:
    result = deliver(LLAMA, "fp8", {k(0): (0.5,), k(1): (0.5, 0.25)})
    assert result.load.error == "ValueError: KV-cache scale expects a scalar weight, got shape (2,)"
    assert result.load.key == k(1)
    assert [each.outcome for each in result.deliveries] == ["loaded", "raises"]


def test_post_processing_fails_in_the_layer_and_not_in_the_load() -> None:
    result = deliver(LLAMA, "fp8", {k(1, "self_attn.v_scale"): (0.5,)})
    assert result.load.outcome == "loads"
    assert result.attention[0].error is None
    assert str(result.attention[1].error).startswith("AssertionError")


def test_rules_from_outside_are_merged_after_the_methods_own() -> None:
    extra = WeightsMapper(rules(RuleKind.SUFFIX, ((".cache_k", ".attn.k_scale"),)))
    key = k(0, "self_attn.cache_k")
    assert deliver(LLAMA, "modelopt", {key: (0.5,)}).load.outcome == "raises"
    assert deliver(LLAMA, "modelopt", {key: (0.5,)}, rules=extra).deliveries[0].outcome == "loaded"


def test_unknown_is_an_answer() -> None:
    result = deliver({**LLAMA, "architectures": ["BrandNewForCausalLM"]}, "modelopt", {"k_scale": (0.5,)})
    assert result.load.outcome == "unknown"
    assert result.load.reason == "the module tree of BrandNewForCausalLM is not known for vLLM 0.33.0"
    assert result.deliveries[0].outcome == "not_reached"
    assert result.attention == ()


def test_names_are_mapped_with_the_architectures_own_rules() -> None:
    engine = get_engine("vllm-0.33.0")
    names = ["model.layers.0.self_attn.k_proj.output_scale"]
    plain = engine.map_names(names, method="quark", architecture=None)[0]
    assert plain.result == "model.layers.0.self_attn.attn.k_scale"
    inside = engine.map_names(names, method="quark", architecture="Gemma3ForCausalLM")[0]
    assert inside.result == "model.layers.0.self_attn.qkv_proj.output_scale"
    with pytest.raises(UsageError, match=r"the architecture 'Nope' is not known for vLLM 0\.33\.0"):
        engine.map_names(names, method="quark", architecture="Nope")


def test_every_engine_says_how_it_was_checked() -> None:
    assert all(profile.source and profile.how_checked and profile.title for profile in ENGINES.values())
    with pytest.raises(UsageError, match="no engine is called 'tgi-1'"):
        get_engine("tgi-1")


@pytest.mark.parametrize("architecture", known_architectures())
def test_every_known_architecture_builds_and_finds_its_attention(architecture: str) -> None:
    root = build_model(architecture, {}, method=None, layers=3)
    assert root is not None
    walk = Walk(root, get_backend("modelopt"), {})
    mapper, ignored = walk.mapper_of(root)
    assert mapper.map_name("x.rotary_emb.inv_freq") is None
    assert ".bias" in ignored


PARAMETERS = {"layers.0.self_attn.attn.k_scale", "layers.0.self_attn.mla_attn.mla_attn.v_scale"}


@pytest.mark.parametrize(
    ("name", "mla", "result"),
    [
        ("layers.0.self_attn.attn.k_scale", False, "layers.0.self_attn.attn.k_scale"),
        ("layers.0.self_attn.kv_scale", False, "layers.0.self_attn.attn.k_scale"),
        ("layers.0.self_attn.k_proj.k_scale", False, "layers.0.self_attn.attn.k_scale"),
        ("layers.0.self_attn.v_proj.v_scale", True, "layers.0.self_attn.mla_attn.mla_attn.v_scale"),
        ("layers.0.self_attn.v_proj.v_scale", False, None),
        ("layers.0.self_attn.k_cache.scale", False, "layers.0.self_attn.attn.k_scale"),
        ("layers.9.self_attn.k_scale", False, None),
        ("layers.0.mlp.weight_scale", False, "layers.0.mlp.weight_scale"),
    ],
)
def test_the_remap_helper(name: str, mla: bool, result: str | None) -> None:
    found, step = maybe_remap_kv_scale_name(name, PARAMETERS, mla=mla, by="Model")
    assert found == result
    assert (step is None) == (name == result)
