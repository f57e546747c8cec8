"""Small checkpoints with chosen scales, written to disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 128,
    "torch_dtype": "bfloat16",
}
NOVEL = {"stack.a.mixing": 0.25}
"""Names from which nobody can tell where the attention layers are."""

FP8 = {"quant_method": "fp8", "activation_scheme": "static"}
MODELOPT = {"quant_method": "modelopt", "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}


def compressed_tensors(strategy: str) -> dict[str, Any]:
    numbers = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": numbers, "input_activations": numbers}},
        "kv_cache_scheme": {**numbers, "strategy": strategy},
    }


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, Any],
    *,
    quantization: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] = LLAMA,
) -> Path:
    """A folder with config.json and model.safetensors; plain numbers among the tensors become float32 scalars."""
    folder.mkdir(exist_ok=True)
    content = {**config, "quantization_config": dict(quantization or FP8)}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    save_file({name: torch.as_tensor(value) for name, value in tensors.items()}, folder / "model.safetensors")
    return folder


def write_heads(folder: Path, *, layers: int, heads: int) -> Path:
    """A synthetic checkpoint with one k, v and q scale for each head, all different; no other tensors."""
    config = {
        **LLAMA,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": 128,
        "hidden_size": 128 * heads,
    }
    tensors = {
        f"model.layers.{layer}.self_attn.{role}_scale": (0.001 * (1 + layer % 7))
        + 0.0001 * torch.arange(heads, dtype=torch.float32).roll(layer + place).reshape(heads, 1, 1)
        for layer in range(layers)
        for place, role in enumerate("kvq")
    }
    return write_checkpoint(folder, tensors, quantization=compressed_tensors("attn_head"), config=config)


def kv(k: float, v: float, *, layers: int = 2) -> dict[str, float]:
    """ModelOpt's names; every layer's scales are half of the layer's before."""
    found = {}
    for layer in range(layers):
        found[f"model.layers.{layer}.self_attn.k_proj.k_scale"] = k / 2**layer
        found[f"model.layers.{layer}.self_attn.v_proj.v_scale"] = v / 2**layer
    return found
