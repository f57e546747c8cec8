"""Checkpoints of real size that cost no disk: true headers, index and scales over sparse weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

Tensor = tuple[str, str, tuple[int, ...]]  # name, safetensors dtype, shape

BYTES = {"F8_E4M3": 1, "U8": 1, "BF16": 2, "F32": 4}
HIDDEN, INTERMEDIATE = 7168, 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The outline of a checkpoint: ``experts`` 0 is a dense Llama, otherwise a DeepSeek-V3 whose first
    layers are dense.

    ``parts`` are the tensors of one quantized linear layer.
    """

    name: str
    shards: int
    layers: int
    dense_layers: int = 0
    experts: int = 0
    parts: tuple[str, ...] = ("weight", "weight_scale")

    @property
    def architecture(self) -> str:
        return "DeepseekV3ForCausalLM" if self.experts else "LlamaForCausalLM"


SIZES = {
    size.name: size
    for size in (
        Size(name="A", shards=30, layers=80, parts=("weight", "weight_scale", "input_scale")),
        Size(name="P", shards=8, layers=128),
        Size(name="B", shards=163, layers=61, dense_layers=3, experts=256),
        Size(
            name="C",
            shards=200,
            layers=61,
            dense_layers=1,
            experts=384,
            parts=("weight", "weight_scale", "weight_scale_2"),
        ),
        Size(
            name="D",
            shards=200,
            layers=101,
            dense_layers=1,
            experts=1108,
            parts=("weight", "weight_scale", "weight_scale_2"),
        ),
    )
}


CURVE = tuple(
    Size(name=f"{tensors}-tensors", shards=max(1, tensors // 5000), layers=tensors // 18)
    for tensors in (1_000, 10_000, 100_000, 1_000_000)
)
"""Of one kind, from small to large: what a tensor costs should not depend on how many there are."""


def _linear(size: Size, name: str, rows: int, columns: int) -> Iterator[Tensor]:
    packed = "weight_scale_2" in size.parts  # NVFP4: two values a byte, an FP8 scale for 16
    for part in size.parts:
        if part == "weight":
            yield (
                (f"{name}.weight", "U8", (rows, columns // 2))
                if packed
                else (f"{name}.weight", "F8_E4M3", (rows, columns))
            )
        elif part == "weight_scale" and packed:
            yield f"{name}.weight_scale", "F8_E4M3", (rows, columns // 16)
        else:
            yield f"{name}.{part}", "F32", ()


def _attention(size: Size, name: str) -> Iterator[Tensor]:
    if size.experts:
        yield f"{name}.q_a_layernorm.weight", "BF16", (1536,)
        yield f"{name}.kv_a_layernorm.weight", "BF16", (512,)
        shapes = {"q_a_proj": (1536, HIDDEN), "q_b_proj": (24576, 1536), "kv_a_proj_with_mqa": (576, HIDDEN)}
        shapes |= {"kv_b_proj": (32768, 512), "o_proj": (HIDDEN, 16384)}
    else:
        shapes = {"q_proj": (HIDDEN, HIDDEN), "k_proj": (1024, HIDDEN), "v_proj": (1024, HIDDEN)}
        shapes |= {"o_proj": (HIDDEN, HIDDEN)}
    for projection, (rows, columns) in shapes.items():
        yield from _linear(size, f"{name}.{projection}", rows, columns)
    yield f"{name}.k_proj.k_scale", "F32", ()
    yield f"{name}.v_proj.v_scale", "F32", ()


def _mlp(size: Size, name: str) -> Iterator[Tensor]:
    for projection in ("gate_proj", "up_proj"):
        yield from _linear(size, f"{name}.{projection}", INTERMEDIATE, HIDDEN)
    yield from _linear(size, f"{name}.down_proj", HIDDEN, INTERMEDIATE)


def tensors(size: Size) -> Iterator[Tensor]:
    """Every tensor of the checkpoint, layer by layer."""
    yield "model.embed_tokens.weight", "BF16", (129280, HIDDEN)
    for layer in range(size.layers):
        name = f"model.layers.{layer}"
        yield f"{name}.input_layernorm.weight", "BF16", (HIDDEN,)
        yield f"{name}.post_attention_layernorm.weight", "BF16", (HIDDEN,)
        yield from _attention(size, f"{name}.self_attn")
        if layer < size.dense_layers or not size.experts:
            yield from _mlp(size, f"{name}.mlp")
            continue
        yield f"{name}.mlp.gate.weight", "BF16", (size.experts, HIDDEN)
        yield f"{name}.mlp.gate.e_score_correction_bias", "F32", (size.experts,)
        yield from _mlp(size, f"{name}.mlp.shared_experts")
        for expert in range(size.experts):
            yield from _mlp(size, f"{name}.mlp.experts.{expert}")
    yield "model.norm.weight", "BF16", (HIDDEN,)
    yield "lm_head.weight", "BF16", (129280, HIDDEN)


def config(size: Size) -> dict[str, Any]:
    """What config.json says: the architecture, and FP8 by ModelOpt with an FP8 KV cache."""
    algorithm = "NVFP4" if "weight_scale_2" in size.parts else "FP8"
    common = {
        "architectures": [size.architecture],
        "dtype": "bfloat16",
        "hidden_size": HIDDEN,
        "num_hidden_layers": size.layers,
        "num_attention_heads": 128 if size.experts else 56,
        "num_key_value_heads": 128 if size.experts else 8,
        "vocab_size": 129280,
        "quantization_config": {
            "quant_method": "modelopt",
            "quant_algo": algorithm,
            "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
            "ignore": ["lm_head", "model.embed_tokens"],
            "producer": {"name": "modelopt", "version": "0.47.0"},
        },
    }
    if not size.experts:
        return {**common, "model_type": "llama", "intermediate_size": INTERMEDIATE}
    return {
        **common,
        "model_type": "deepseek_v3",
        "first_k_dense_replace": size.dense_layers,
        "intermediate_size": INTERMEDIATE,
        "kv_lora_rank": 512,
        "moe_intermediate_size": INTERMEDIATE,
        "n_routed_experts": size.experts,
        "n_shared_experts": 1,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
    }


def _write_shard(path: Path, shard: list[Tensor]) -> int:
    """Writes the header, then only the KV scales' bytes; returns how many bytes of data the header promises."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    scales: dict[int, float] = {}
    end = 0
    for name, dtype, shape in sorted(shard, key=lambda tensor: (-BYTES[tensor[1]], tensor[0])):
        start, end = end, end + prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
        if name.endswith((".k_scale", ".v_scale")):
            scales[start] = 0.01 + len(name) / 4096
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start, value in scales.items():
            file.seek(8 + len(text) + start)
            file.write(struct.pack("<f", value))
        file.truncate(8 + len(text) + end)
    return end


def write_checkpoint(folder: Path, size: Size) -> Path:
    """The checkpoint's folder below ``folder``, made when it is not there yet. Returns that folder."""
    checkpoint = folder / size.name
    complete = folder / f"{size.name}.complete"  # written last: without it, the folder is made again
    if complete.exists():
        return checkpoint
    checkpoint.mkdir(parents=True, exist_ok=True)
    every = list(tensors(size))
    weight_map: dict[str, str] = {}
    total = 0
    for shard in range(size.shards):
        name = f"model-{shard + 1:05d}-of-{size.shards:05d}.safetensors"
        part = every[shard * len(every) // size.shards : (shard + 1) * len(every) // size.shards]
        total += _write_shard(checkpoint / name, part)
        weight_map |= {tensor[0]: name for tensor in part}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (checkpoint / "config.json").write_text(json.dumps(config(size), indent=2))
    complete.touch()
    return checkpoint
