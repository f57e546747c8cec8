"""Reading declarations: every trap the wild has set, one test each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from core.errors import CancelledError, KVScopeError
from core.quantization import Declaration, Source, read_declaration
from tests.core.quantization.configs import (
    BLOCK,
    COMPRESSED,
    FP8_ARGS,
    HF_QUANT,
    JSON,
    LLAMA,
    METHODS,
    MODELOPT,
    TOP_LEVEL,
    read,
)
from tests.core.quantization.folder import Files

# ------------------------------------------------------------------------------------------------- the ordinary layouts


def test_compressed_tensors() -> None:
    declared = read(COMPRESSED)
    assert (declared.method, declared.quant_method) == ("compressed-tensors", "compressed-tensors")
    assert declared.kv_scheme is not None
    assert declared.kv_scheme.source == Source("config.json", "quantization_config.kv_cache_scheme", FP8_ARGS)
    assert declared.kv_scheme.label == "FP8, one scale per tensor, static"
    assert declared.producer is not None
    assert (declared.producer.name, declared.producer.version) == ("compressed-tensors", "0.19.0")
    assert declared.producer.label == "llm-compressor (compressed-tensors 0.19.0)"
    assert declared.ignore == ("lm_head",)
    assert (declared.architectures, declared.model_type) == (("LlamaForCausalLM",), "llama")
    assert (declared.torch_dtype, declared.dialect, declared.notes) == ("bfloat16", "huggingface", ())
    assert {source.field for source in declared.sources} == {
        "architectures",
        "model_type",
        "quantization_config.quant_method",
        "quantization_config.version",
        "quantization_config.kv_cache_scheme",
        "quantization_config.ignore",
    }


def test_modelopt_flat_and_the_side_file_agree() -> None:
    side = {**HF_QUANT, "quantization": {**HF_QUANT["quantization"], "exclude_modules": ["lm_head"]}}
    declared = read(MODELOPT, hf_quant_config=side)
    assert declared.method == "modelopt"
    assert declared.kv_scheme is not None
    assert (declared.kv_scheme.algorithm, declared.kv_scheme.strategy) == ("FP8", "tensor")
    assert declared.producer is not None
    assert (declared.producer.name, declared.producer.version, declared.producer.inferred) == (
        "modelopt",
        "0.47.0",
        False,
    )
    assert declared.notes == ()
    assert declared.remarks == (
        "hf_quant_config.json stands beside config.json: quantization_config; vLLM 0.33.0 does not read it",
    )


def test_modelopt_before_0_31_keeps_everything_in_the_side_file() -> None:
    declared = read(hf_quant_config=HF_QUANT)
    assert (declared.method, declared.quant_method) == ("modelopt", None)
    assert declared.config["quant_method"] == "modelopt"
    assert declared.config_source == Source("hf_quant_config.json", "", HF_QUANT)
    assert declared.kv_scheme is not None
    assert declared.kv_scheme.source.field == "quantization.kv_cache_quant_algo"
    assert declared.ignore == ("lm_head", "proj*")
    assert declared.source_of("quantization.quant_algo") == Source(
        "hf_quant_config.json", "quantization.quant_algo", "FP8"
    )


@pytest.mark.parametrize(
    ("algorithm", "method"),
    [
        ("FP8", "modelopt"),
        ("fp8", "modelopt"),
        ("FP8_PB_WO", "modelopt"),
        ("NVFP4", "modelopt_fp4"),
        ("W4A16_NVFP4", "modelopt_fp4"),
        ("MXFP8", "modelopt_mxfp8"),
        ("MIXED_PRECISION", "modelopt_mixed"),
    ],
)
def test_modelopt_method_follows_the_algorithm(algorithm: str, method: str) -> None:
    assert read({**MODELOPT, "quant_algo": algorithm}).method == method
    assert read({"quant_method": "modelopt", "quantization": {"quant_algo": algorithm}}).method == method


@pytest.mark.parametrize(
    ("written", "model_type", "platform", "method"),
    [
        ("awq", "llama", "cuda", "auto_awq"),
        ("awq", "llama", "cpu", "awq"),
        ("gptq", "llama", "cuda", "auto_gptq"),
        ("auto-round", "llama", "cuda", "inc"),
        ("compressed_tensors", "llama", "cuda", "compressed-tensors"),
        ("FP8", "llama", "cuda", "fp8"),
        ("fp8", "deepseek_v4", "cpu", "deepseek_v4_fp8"),
        ("fp8", "deepseek_v41", "cuda", "deepseek_v4_fp8"),
        ("fp8", "deepseek_v41", "cpu", "fp8"),
        ("mxfp4", "gpt_oss", "cuda", "gpt_oss_mxfp4"),
        ("mxfp4", "llama", "cuda", "mxfp4"),
        ("", "llama", "cuda", None),
    ],
)
def test_method_names_after_override(written: str, model_type: str, platform: str, method: str | None) -> None:
    config = {**LLAMA, "model_type": model_type, "quantization_config": {"quant_method": written}}
    assert read_declaration(Files(config=config), platform=platform).method == method


def test_kimi_k3_runs_its_packed_experts_as_mxfp4() -> None:
    config = {"architectures": ["KimiK3ForConditionalGeneration"]}
    packed = {**COMPRESSED, "format": "mxfp4-pack-quantized"}
    assert read(packed, config=config).method == "mxfp4"
    assert read(COMPRESSED, config=config).method == "compressed-tensors"


# --------------------------------------------------------------------------------------- traps in the place of the dict


def test_dict_in_text_config_is_seen_but_auto_is_not_resolved_from_there() -> None:
    declared = read(
        config={"model_type": "gemma3", "text_config": {"dtype": "float16", "quantization_config": MODELOPT}}
    )
    assert declared.method == "modelopt"
    assert declared.nested
    assert declared.config_source is not None
    assert declared.config_source.field == "text_config.quantization_config"
    assert declared.text_config["dtype"] == "float16"
    assert any("--kv-cache-dtype auto stays in the model dtype" in note for note in declared.notes)


def test_kimi_k3_hoists_the_dict_of_its_text_config() -> None:
    declared = read(config={"model_type": "kimi_k3", "text_config": {"quantization_config": COMPRESSED}})
    assert (declared.method, declared.nested) == ("compressed-tensors", False)


def test_compression_config_counts_where_no_other_dict_stands() -> None:
    declared = read(config={"compression_config": COMPRESSED})
    assert declared.method == "compressed-tensors"
    assert declared.kv_scheme is not None
    assert declared.kv_scheme.source.field == "compression_config.kv_cache_scheme"


@pytest.mark.parametrize("nest", ["llm_config", "thinker_config"])
def test_dict_where_vllm_does_not_look(nest: str) -> None:
    inner: dict[str, Any] = {"quantization_config": COMPRESSED}
    declared = read(config={nest: inner if nest == "llm_config" else {"text_config": inner}})
    assert (declared.method, declared.quant_method, dict(declared.config)) == (None, "compressed-tensors", {})
    assert declared.kv_scheme is not None  # declared all the same
    assert any("stands where vLLM 0.33.0 does not look" in note for note in declared.notes)


def test_null_dict_falls_back_to_the_side_file() -> None:
    declared = read_declaration(Files(config={**LLAMA, "quantization_config": None}, hf_quant_config=HF_QUANT))
    assert declared.method == "modelopt"


def test_second_file_alone_is_not_read_by_vllm() -> None:
    declared = read(quantization_config={"quant_method": "auto-round", "static_kv_dtype": "fp8", "bits": 4})
    assert declared.method is None
    assert declared.kv_scheme is not None
    assert declared.kv_scheme.source.file == "quantization_config.json"
    assert any("config.json has no quantization_config" in note for note in declared.notes)


# ------------------------------------------------------------------------------------------- traps in kv_cache_scheme


def test_null_scheme_is_no_scheme() -> None:
    assert read({**COMPRESSED, "kv_cache_scheme": None}).kv_scheme is None


def test_word_as_scheme() -> None:
    declared = read({**MODELOPT, "kv_cache_scheme": "NVFP4"})
    assert declared.kv_scheme is not None
    assert (declared.kv_scheme.algorithm, declared.kv_scheme.num_bits) == ("NVFP4", 4)
    assert declared.kv_scheme.strategy == "tensor_group"


def test_autofp8_static() -> None:
    declared = read({"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": "static"})
    assert declared.kv_scheme is not None
    assert (declared.kv_scheme.algorithm, declared.kv_scheme.dynamic) == ("FP8", False)
    assert declared.producer is not None
    assert (declared.producer.name, declared.producer.inferred) == ("autofp8", True)
    assert any("method fp8 does not read it" in remark for remark in declared.remarks)


def test_quark_fp8_mode_drops_tool_and_version() -> None:
    export = {"kv_cache_group": ["*k_proj", "*v_proj"], "min_kv_scale": 0.0}
    declared = read(
        {"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": "static", "export": export}
    )
    assert (declared.method, declared.producer and declared.producer.tool) == ("fp8", "quark")
    assert declared.producer is not None
    assert (declared.producer.version, declared.producer.inferred) == (None, True)


def test_old_llm_compressor_has_no_version() -> None:
    old = {key: value for key, value in COMPRESSED.items() if key != "version"} | {"quantization_status": "frozen"}
    declared = read(old)
    assert declared.producer is not None
    assert (declared.producer.tool, declared.producer.version) == ("llm-compressor", None)
    assert declared.producer.source.field == "quantization_config.quantization_status"
    assert any("llm-compressor 0.6 or older" in remark for remark in declared.remarks)


def test_attention_quantization_writes_the_kv_scheme_too() -> None:
    group = {"targets": ["LlamaAttention"], "weights": None, "input_activations": FP8_ARGS}
    declared = read({**COMPRESSED, "config_groups": {"group_0": group}})
    assert declared.attention_scheme is not None
    assert declared.attention_scheme.source.field == "quantization_config.config_groups.group_0.input_activations"
    assert any("attention is quantized as a whole" in remark for remark in declared.remarks)
    linear = {"targets": ["Linear"], "weights": FP8_ARGS, "input_activations": FP8_ARGS}
    assert read({**COMPRESSED, "config_groups": {"group_0": linear}}).attention_scheme is None


def test_per_head_without_groups_is_noted() -> None:
    per_head = {key: value for key, value in COMPRESSED.items() if key != "config_groups"}
    declared = read({**per_head, "kv_cache_scheme": {**FP8_ARGS, "strategy": "attn_head"}})
    assert any("does not know the head counts" in note for note in declared.notes)


def test_dynamic_scheme_is_remarked() -> None:
    declared = read({**COMPRESSED, "kv_cache_scheme": {**FP8_ARGS, "dynamic": True}})
    assert declared.kv_scheme is not None
    assert declared.kv_scheme.dynamic
    assert any("is dynamic" in remark for remark in declared.remarks)


# ------------------------------------------------------------------------------------------------------ disagreements


def test_config_and_side_file_disagree() -> None:
    other: dict[str, Any] = {
        "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "exclude_modules": []}
    }
    notes = read(MODELOPT, hf_quant_config=other).notes
    assert "config.json and hf_quant_config.json disagree on quant_algo: FP8 and NVFP4; vLLM uses config.json" in notes
    assert "config.json and hf_quant_config.json disagree on the KV cache: FP8 and none; vLLM uses config.json" in notes


def test_config_and_second_file_disagree_on_the_method() -> None:
    notes = read(COMPRESSED, quantization_config={"quant_method": "auto-round", "provider": "auto-round"}).notes
    assert len(notes) == 1
    assert notes[0] == (
        "config.json and quantization_config.json disagree on quant_method: compressed-tensors and auto-round; "
        "vLLM uses config.json"
    )


def test_modelopt_without_algorithm() -> None:
    only_kv = {key: value for key, value in MODELOPT.items() if key not in ("quant_algo", "ignore")}
    declared = read(only_kv)
    assert declared.method == "modelopt"
    assert any("names no quant_algo" in note for note in declared.notes)


def test_side_file_without_algorithm_leaves_the_model_unquantized() -> None:
    declared = read(hf_quant_config={**HF_QUANT, "quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}})
    assert declared.method is None
    assert any("ignores its KV scales" in note for note in declared.notes)


# ---------------------------------------------------------------------------------------------------- broken files


def test_nothing_at_all() -> None:
    declared = read_declaration(Files())
    assert (declared.method, declared.dialect, declared.notes, declared.sources) == (None, "none", (), ())
    assert not declared.quantized


@pytest.mark.parametrize(
    "error",
    [
        KVScopeError("is not JSON", path="config.json"),
        json.JSONDecodeError("Expecting value", "{", 1),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        PermissionError(13, "Permission denied"),
    ],
)
def test_unreadable_file_is_a_note(error: Exception) -> None:
    declared = read_declaration(Files(config=error, hf_quant_config=HF_QUANT))
    assert declared.notes[0].startswith("config.json could not be read and was not used: ")
    assert declared.method == "modelopt"


def test_cancelling_is_not_a_broken_file() -> None:
    with pytest.raises(CancelledError):
        read_declaration(Files(config=CancelledError("reading")))


def test_file_that_holds_no_object() -> None:
    assert read_declaration(Files(config=[1, 2])).notes == (
        "config.json holds a JSON array instead of an object; it was not used",
    )
    assert read_declaration(Files(config=None)).notes == (
        "config.json is there but could not be read as a JSON object; it was not used",
    )


def test_file_nested_too_deeply() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    notes = read_declaration(Files(config=deep)).notes
    assert notes == ("config.json could not be read and was not used: it is nested too deeply",)
    while deep:
        deep = deep["a"]  # taken apart one by one: freeing it at once recurses in C


@pytest.mark.parametrize(("value", "kind"), [([1], "list"), ("fp8", "str"), (8, "int")])
def test_dict_that_is_none(value: Any, kind: str) -> None:
    declared = read(value)
    assert declared.method is None
    assert declared.config_error == f"AttributeError: '{kind}' object has no attribute 'to_dict'"
    assert any(f"is a JSON {kind}, not an object" in note for note in declared.notes)


def test_nul_characters_are_removed_and_noted() -> None:
    pattern = "M\0*-M\0"
    declared = read({**MODELOPT, "ignore": ["lm_head\0"]}, config={"hybrid_override_pattern": pattern})
    assert declared.ignore == ("lm_head",)
    assert declared.hf_config["hybrid_override_pattern"] == "M*-M"
    assert declared.notes == (
        "config.json: NUL characters were removed from hybrid_override_pattern, quantization_config.ignore[0]",
    )


def test_source_in_words() -> None:
    assert str(Source("config.json", "model_type", "llama")) == 'config.json: model_type = "llama"'
    assert str(Source("config.json", "ignore", ["x" * 200])).endswith("...")


@given(
    block=BLOCK,
    method=METHODS | JSON,
    outer=TOP_LEVEL,
    side=JSON | BLOCK,
)
def test_no_json_makes_it_raise(block: dict[str, Any], method: Any, outer: dict[str, Any], side: Any) -> None:
    config = {**outer, "quantization_config": {**block, "quant_method": method}}
    declared = read_declaration(Files(config=config, hf_quant_config=side, params=side, quantization_config=side))
    assert isinstance(declared, Declaration)
