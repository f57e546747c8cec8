from __future__ import annotations

from pathlib import Path

from core.inspection import inspect
from tests.core.diagnosis.build import COMPRESSED, FP8, MODELOPT, PER_HEAD, Tensor, codes, finding, llama, look, scales
from tests.core.diagnosis.examples import EXAMPLES, GOOD, K0, K1, V0, V1
from tests.places import SAMPLES


def test_a_refusal_gives_the_engines_words_and_a_way_out(tmp_path: Path) -> None:
    found = finding(EXAMPLES["load-refused"](tmp_path), "load-refused")
    assert found.evidence.startswith("NotImplementedError: Currently supported kv cache quantization is num_bits=8")
    assert found.fix == "Make FP8 scales of them on export (times 127 / 448), or calibrate the KV cache for FP8."
    assert found.remedy == "to-fp8"


def test_an_odd_field_that_ends_the_start_is_to_be_mended(tmp_path: Path) -> None:
    compressed = COMPRESSED | {"ignore": None}
    found = finding(look(tmp_path, llama(compressed), GOOD), "load-refused")
    assert found.evidence == (
        "TypeError: 'NoneType' object is not iterable. "
        "vLLM cannot read the list of layers that are left unquantized, ignore."
    )
    assert found.fix == (
        "Mend this field, which the engine reads and does not check: config.json: quantization_config.ignore = null."
    )


def test_a_name_that_leads_into_a_projection_shows_the_rule_that_did_it() -> None:
    inspection = inspect(SAMPLES / "quark" / "gemma3-26layers-fp8-kvfp8")
    found = finding(inspection, "load-raises")
    assert found.remedy == "rename"
    assert len(found.keys) == 52
    assert found.layers == tuple(range(26))
    assert found.evidence == (
        "model.layers.0.self_attn.k_proj.output_scale -> model.layers.0.self_attn.qkv_proj.output_scale "
        "(stacked rule .k_proj of Gemma3ForCausalLM): "
        "AttributeError: 'QKVParallelLinear' object has no attribute 'data'."
    )
    assert found.consequence == "vLLM 0.33.0 stops there and does not reach 51 more scales."


def test_a_tensor_that_is_no_scale_is_to_be_left_out(tmp_path: Path) -> None:
    quark = FP8 | {"kv_cache_scheme": None}
    inspection = look(tmp_path, llama(quark), {"model.layers.0.mlp.down_proj.output_scale": 0.1})
    found = finding(inspection, "load-raises")
    assert found.keys == ("model.layers.0.mlp.down_proj.output_scale",)
    assert found.remedy == "drop"
    assert "no KV scale" in found.fix


def test_a_role_that_the_engine_has_no_parameter_for(tmp_path: Path) -> None:
    prob = {f"model.layers.{layer}.self_attn.attn.prob_scale": 0.002 for layer in range(2)}
    named = {key.replace("self_attn.", "self_attn.attn."): value for key, value in GOOD.items()}
    found = finding(look(tmp_path, llama(COMPRESSED), {**named, **prob}), "load-raises")
    assert found.keys == tuple(prob)
    assert found.remedy == "drop"


def test_what_ends_the_load_comes_first(tmp_path: Path) -> None:
    heads = {K0: Tensor([0.1, 0.2], [2]), V0: Tensor([0.1, 0.2], [2]), K0.replace("k_", "q_"): Tensor([0.1], [1])}
    inspection = look(tmp_path, llama(PER_HEAD, layers=1), heads, kv_cache_dtype="bfloat16")
    assert codes(inspection, "error") == ["head-count", "cache-not-quantized"]


def test_without_a_declaration_no_name_helps(tmp_path: Path) -> None:
    found = finding(EXAMPLES["load-raises"](tmp_path), "load-raises")
    assert found.keys == (K0, V0, K1, V1)
    assert found.remedy == "declare"


def test_an_amax_by_name_is_to_be_converted(tmp_path: Path) -> None:
    tensors = {f"model.layers.0.self_attn.{role}_bmm_quantizer._amax": 15.0 for role in "kv"}
    inspection = look(tmp_path, llama(None), tensors)
    assert codes(inspection, "error") == ["load-raises", "amax-stored"]
    assert {found.remedy for found in inspection.findings if found.severity == "error"} == {"amax-to-scale"}


def test_a_shape_that_does_not_fit(tmp_path: Path) -> None:
    inspection = EXAMPLES["shape"](tmp_path)
    found = finding(inspection, "shape")
    assert codes(inspection) == ["shape"]
    assert found.keys == (K0,)
    assert found.evidence.endswith("ValueError: KV-cache scale expects a scalar weight, got shape (4,).")
    assert found.remedy == "reshape"


def test_per_head_scales_for_other_heads(tmp_path: Path) -> None:
    found = finding(EXAMPLES["head-count"](tmp_path), "head-count")
    assert found.keys == (K0,)
    assert found.evidence == f"{K0} holds 3 values; the layer has 2 KV heads."
    assert found.consequence == "Layer 0 ends with k = 0.2."


def test_q_heads_that_do_not_make_groups_stop_the_load(tmp_path: Path) -> None:
    heads = {K0: Tensor([0.1, 0.2], [2]), V0: Tensor([0.1, 0.2], [2]), K0.replace("k_", "q_"): Tensor([0.1], [1])}
    inspection = look(tmp_path, llama(PER_HEAD, layers=1), heads)
    found = finding(inspection, "head-count")
    assert found.keys == (K0.replace("k_", "q_"),)
    assert found.consequence == "vLLM 0.33.0 stops: RuntimeError: shape '[-1, 2]' is invalid for input of size 1."


def test_per_head_scales_that_fit_are_fine(tmp_path: Path) -> None:
    heads = {key: Tensor([0.1, 0.2], [2, 1, 1]) for key in GOOD}
    assert codes(look(tmp_path, llama(PER_HEAD), heads), "error", "warning") == []


def test_an_assertion_without_a_visible_cause(tmp_path: Path) -> None:
    inspection = EXAMPLES["layer-assertion"](tmp_path)
    assert finding(inspection, "layer-assertion").layers == (0,)
    assert inspection.verdict.outcome == "fails"


def test_an_assertion_that_a_value_explains_is_told_once(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(MODELOPT), scales([0.0, 0.04], [0.01, 0.02]))
    assert codes(inspection, "error", "warning") == ["zero"]
    assert finding(inspection, "zero").consequence == (
        "vLLM 0.33.0 stops after loading with AssertionError in layer 0: it asserts that k is above 0."
    )


def test_mla_layers_are_out_of_reach_of_any_name() -> None:
    inspection = inspect(SAMPLES / "modelopt" / "deepseekv3-30layers-fp8-kvfp8")
    found = finding(inspection, "dropped-scale")
    assert len(found.keys) == 60
    assert found.remedy == ""
    assert r"(regex rule \.self_attn\.[kv]_proj\.([kv])_scale$ of DeepseekV3ForCausalLM)" in found.evidence
    assert "the parameter is model.layers.0.self_attn.mla_attn.mla_attn.k_scale" in found.evidence
    assert found.fix.startswith("No name reaches MLAAttention layers in vLLM 0.33.0")
    assert found.consequence == (
        "All 30 attention layers end with k = 1.0 (the engine's default), v = 1.0 (the engine's default)."
    )


def test_a_method_without_kv_scales_drops_them_whatever_the_name(tmp_path: Path) -> None:
    inspection = EXAMPLES["q-dropped"](tmp_path)
    assert finding(inspection, "dropped-scale").evidence == (
        "All 4 k and v scales; vLLM 0.33.0 with auto_awq creates no KV-cache scales."
    )
    assert finding(inspection, "q-dropped").consequence == "No parameter of vLLM 0.33.0 takes them: nothing changes."


def test_two_names_for_one_parameter(tmp_path: Path) -> None:
    found = finding(EXAMPLES["conflict"](tmp_path / "conflict"), "conflict")
    assert found.keys == ("model.layers.0.self_attn.k_proj.k_scale", K0)
    assert found.consequence == "Layer 0 ends with k = 0.030029."
    same = look(tmp_path / "same", llama(MODELOPT), GOOD | {"model.layers.0.self_attn.k_proj.k_scale": 0.03})
    assert "conflict" not in codes(same)


def test_scales_of_a_layer_that_the_model_does_not_have_are_to_be_left_out(tmp_path: Path) -> None:
    inspection = EXAMPLES["draft-scale"](tmp_path)
    assert finding(inspection, "load-raises").remedy == "drop"
    assert "stops while loading, at model.layers.2" in finding(inspection, "draft-scale").consequence


def test_clean_checkpoints_have_no_problem(tmp_path: Path) -> None:
    for name, quantization in (("modelopt", MODELOPT), ("compressed", COMPRESSED)):
        inspection = look(tmp_path / name, llama(quantization), GOOD)
        assert codes(inspection, "error", "warning") == []
        assert inspection.verdict.outcome == "ok"
