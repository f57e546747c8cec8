"""Quantization dicts as the tools write them, shortened, and JSON of every kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from core.quantization import Declaration, read_declaration
from tests.core.quantization.folder import Files

FP8_ARGS = {"num_bits": 8, "type": "float", "strategy": "tensor", "dynamic": False, "symmetric": True}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16"}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "ignore": ["lm_head"],
    "config_groups": {},
    "kv_cache_scheme": FP8_ARGS,
    "quantization_status": "compressed",
    "version": "0.19.0",
}
MODELOPT = {
    "quant_method": "modelopt",
    "quant_algo": "FP8",
    "ignore": ["lm_head"],
    "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
    "producer": {"name": "modelopt", "version": "0.47.0"},
}
HF_QUANT: dict[str, Any] = {
    "producer": {"name": "modelopt", "version": "0.29.0"},
    "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head", "proj*"]},
}


def read(quantization: Any = None, *, config: dict[str, Any] | None = None, **files: Any) -> Declaration:
    whole = {**LLAMA, **(config or {})}
    if quantization is not None:
        whole["quantization_config"] = quantization
    return read_declaration(Files(config=whole, **files))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "quant_method",
        "quantization",
        "quant_algo",
        "kv_cache_scheme",
        "kv_cache_quant_algo",
        "config_groups",
        "export",
        "layer_quant_config",
        "kv_cache_quant_config",
        "producer",
        "version",
        "ignore",
        "exclude_modules",
        "meta",
        "provider",
        "static_kv_dtype",
        "quantized_layers",
        "attention_input_activations",
        "softmax_quant_spec",
    ]
)
METHODS = st.sampled_from(["modelopt", "compressed-tensors", "quark", "fp8", "auto-round", "gptq", "awq", "mxfp8"])
BLOCK = st.dictionaries(KEYS, JSON, max_size=6)
TOP_LEVEL = st.dictionaries(
    st.sampled_from(
        ["architectures", "architecture", "model_type", "text_config", "attn_quant_config", "quantization"]
    ),
    JSON | BLOCK,
    max_size=4,
)
