"""Refusals that no recorded run shows: other versions, dtypes and layers; and that no config file makes them raise."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from core.quantization import Refusal, kv_method_layers, read_declaration, refusal, resolve_kv_cache_dtype
from core.quantization.cache_dtype import KV_CACHE_DTYPES, is_quantized
from tests.core.quantization.configs import BLOCK, COMPRESSED, FP8_ARGS, HF_QUANT, JSON, LLAMA, METHODS, MODELOPT, read
from tests.core.quantization.folder import Files

INT8 = {**COMPRESSED, "kv_cache_scheme": {**FP8_ARGS, "type": "int"}}


def refused(quantization: Any, **settings: Any) -> Refusal:
    found = refusal(read(quantization), **settings)
    assert found is not None
    return found


def test_int8_scheme_was_accepted_before_0_25() -> None:
    assert refusal(read(INT8), version=(0, 23)) is None
    found = refused(INT8, version=(0, 25))
    assert found.error == (
        "NotImplementedError: Currently supported kv cache quantization is num_bits=8, type=float, however received "
        "num_bits=8, type=int"
    )
    assert (found.stage, found.exception) == ("attention layer", "NotImplementedError")
    assert found.layers == {"Attention"}
    assert found.source is not None
    assert str(found.source) == 'config.json: quantization_config.kv_cache_scheme.type = "int"'


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (("Attention",), True),
        (("CrossAttention",), True),
        (("MLAAttention", "Attention"), True),
        (("MLAAttention",), False),
        ((), False),
    ],
)
def test_scheme_is_only_refused_where_an_attention_layer_is_built(layers: tuple[str, ...], expected: bool) -> None:
    assert (refusal(read(INT8), attention_layers=layers) is not None) is expected


def test_e5m2_needs_a_layer_with_a_kv_method() -> None:
    for layers, expected in ((("MLAAttention",), {"MLAAttention"}), (("Attention",), {"Attention"})):
        found = refusal(read(MODELOPT), kv_cache_dtype="fp8_e5m2", attention_layers=layers)
        assert found is not None
        assert found.layers == expected
    fp8 = {"quant_method": "fp8", "activation_scheme": "static"}
    assert refusal(read(fp8), kv_cache_dtype="fp8_e5m2", attention_layers=("MLAAttention",)) is None
    assert refusal(read({"quant_method": "awq", "w_bit": 4, "group_size": 32, "zero_point": True})) is None


def test_weight_only_compressed_tensors_may_run_e5m2_since_0_25() -> None:
    weights_only = read({**COMPRESSED, "kv_cache_scheme": None})
    assert refusal(weights_only, kv_cache_dtype="fp8_e5m2") is None
    assert refusal(weights_only, kv_cache_dtype="fp8_e5m2", version=(0, 25)) is None
    assert refusal(weights_only, kv_cache_dtype="fp8_e5m2", version=(0, 24)) is not None


@pytest.mark.parametrize(
    ("quantization", "dtype", "error"),
    [
        (MODELOPT, "float32", "torch.float32 is not supported for quantization method modelopt"),
        ({"quant_method": "mxfp4"}, "float16", "Supported dtypes: [torch.bfloat16]"),
        (COMPRESSED, "float32", ""),
        (None, "float32", ""),
    ],
)
def test_model_dtype(quantization: Any, dtype: str, error: str) -> None:
    found = refusal(read(quantization), dtype=dtype)
    assert (found is not None) is bool(error)
    assert found is None or error in found.error
    assert refusal(read(quantization), dtype=None) is None


def test_cache_in_another_float_than_the_model() -> None:
    found = refused(None, kv_cache_dtype="float16", dtype="bfloat16")
    assert "Please set `--kv-cache-dtype` to `auto` or `bfloat16`." in found.error
    assert "to `auto`." in refused(None, kv_cache_dtype="float16", dtype="float32").error
    assert refusal(read(None), kv_cache_dtype="bfloat16", dtype="bfloat16") is None


def test_unknown_cache_dtype_lists_the_known_ones() -> None:
    found = refused(None, kv_cache_dtype="fp9")
    assert found.error.startswith("ValidationError: 1 validation error for CacheConfig cache_dtype")
    assert all(repr(name) in found.error for name in KV_CACHE_DTYPES)


def test_auto_may_resolve_to_a_cache_that_mla_lacks() -> None:
    nvfp4 = {**MODELOPT, "kv_cache_scheme": "NVFP4"}
    found = refused(nvfp4, attention_layers=("MLAAttention",))
    assert found.source is not None
    assert found.source.field == "quantization_config.kv_cache_scheme"
    assert refusal(read(nvfp4), attention_layers=("Attention",)) is None


def test_folder_of_tensorrt_llm() -> None:
    config = {"architecture": "LlamaForCausalLM", "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    found = refusal(read_declaration(Files(config=config)))
    assert found is not None
    assert found.reason == "TensorRT-LLM wrote this folder, so Transformers cannot tell which model it is"


def test_broken_files() -> None:
    broken = ValueError("no JSON")
    found = refusal(read_declaration(Files(config=broken, hf_quant_config=HF_QUANT)))
    assert found is not None
    assert found.error == "OSError: It looks like the config file at 'config.json' is not a valid JSON file."
    side = refusal(read(hf_quant_config=broken))
    assert side is not None
    assert side.exception == "ValidationError"
    assert refusal(read(MODELOPT, hf_quant_config=broken)) is None  # vLLM never opens it


def test_files_without_a_config_are_not_refused() -> None:
    assert refusal(read_declaration(Files())) is None


def test_mixed_modelopt_takes_its_layers_from_the_side_file() -> None:
    mixed = {**MODELOPT, "quant_algo": "MIXED_PRECISION"}
    layers = {"model.layers.0.mlp.up_proj": {"quant_algo": "FP8"}}
    inner = {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8", "quantized_layers": layers}
    side = {"producer": {"name": "modelopt"}, "quantization": inner}
    declared = read(mixed, hf_quant_config=side)
    assert refusal(declared) is None
    assert kv_method_layers(declared) == {"Attention"}
    assert kv_method_layers(read({**mixed, "kv_cache_scheme": "NVFP4", "quantized_layers": layers})) == set()
    no_algorithm = {**side, "quantization": {**inner, "quant_algo": None}}
    found = refusal(read(mixed, hf_quant_config=no_algorithm))
    assert found is not None
    assert found.source is not None
    assert (found.source.file, found.source.field) == ("hf_quant_config.json", "quantization.quant_algo")


@pytest.mark.parametrize(
    ("requested", "quantization", "configured", "resolved"),
    [
        ("auto", COMPRESSED, "auto", "fp8"),
        ("auto", {**COMPRESSED, "kv_cache_scheme": None}, "auto", "auto"),
        ("auto", MODELOPT, "fp8_e4m3", "fp8_e4m3"),
        ("auto", {**MODELOPT, "kv_cache_scheme": "FP8_AFFINE"}, "auto", "auto"),
        ("auto", None, "auto", "auto"),
        ("bfloat16", COMPRESSED, "bfloat16", "bfloat16"),
        ("fp8", None, "fp8", "fp8"),
    ],
)
def test_cache_dtype(requested: str, quantization: Any, configured: str, resolved: str) -> None:
    cache = resolve_kv_cache_dtype(requested, read(quantization))
    assert (cache.requested, cache.configured, cache.resolved) == (requested, configured, resolved)
    assert cache.quantized is resolved.startswith("fp8")
    assert cache.reason


def test_mla_does_not_apply_a_compressed_tensors_scheme() -> None:
    cache = resolve_kv_cache_dtype("auto", read(COMPRESSED), attention_layers=("MLAAttention",))
    assert (cache.resolved, cache.quantized) == ("auto", False)


def test_auto_is_not_resolved_from_a_nested_or_a_compression_config() -> None:
    nested = read(config={"text_config": {"quantization_config": MODELOPT}})
    compression = read(config={"compression_config": MODELOPT})
    assert resolve_kv_cache_dtype("auto", nested).resolved == "auto"
    assert resolve_kv_cache_dtype("auto", compression).resolved == "auto"


def test_deepseek_v32_reads_bfloat16_as_auto() -> None:
    declared = read(config={"architectures": ["DeepseekV32ForCausalLM"]})
    assert resolve_kv_cache_dtype("bfloat16", declared).resolved == "auto"


def test_quantized_dtypes() -> None:
    plain = [name for name in KV_CACHE_DTYPES if not is_quantized(name)]
    assert plain == ["auto", "float16", "bfloat16"]
    assert not is_quantized("no such dtype")


@given(block=BLOCK, method=METHODS | JSON, side=JSON | BLOCK, groups=JSON, scheme=JSON)
def test_no_json_makes_it_raise(block: dict[str, Any], method: Any, side: Any, groups: Any, scheme: Any) -> None:
    quantization = {
        **dict.fromkeys(("bits", "desc_act", "activation_scheme"), groups),
        **dict.fromkeys(("group_size", "sym", "zero_point", "weight_block_size"), scheme),
        "sparsity_config": side,
        **block,
        "quant_method": method,
        "config_groups": groups,
        "kv_cache_scheme": scheme,
    }
    source = Files(config={**LLAMA, "quantization_config": quantization}, hf_quant_config=side)
    declared = read_declaration(source)
    for dtype in ("auto", "fp8_e5m2", "nvfp4"):
        for layers in (("Attention",), ("MLAAttention",)):
            resolve_kv_cache_dtype(dtype, declared, attention_layers=layers)
            found = refusal(declared, kv_cache_dtype=dtype, dtype="bfloat16", attention_layers=layers)
            assert found is None or (found.exception.isidentifier() and found.reason)
