"""Small checkpoints of scales alone, written byte by byte, with the configs that their tools write."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.diagnosis import Thresholds
from core.diagnosis.finding import Finding
from core.inspection import Inspection, inspect

_PACKED = {"F32": "<f", "F16": "<e", "I8": "<b"}

MODELOPT = {
    "quant_method": "modelopt",
    "quant_algo": "FP8",
    "producer": {"name": "modelopt", "version": "0.47.0"},
    "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
    "ignore": ["lm_head"],
}
_FP8_ARGS = {"dynamic": False, "num_bits": 8, "symmetric": True, "type": "float"}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "dense",
    "config_groups": {},
    "ignore": [],
    "kv_cache_scheme": _FP8_ARGS | {"strategy": "tensor"},
    "quantization_status": "compressed",
    "version": "0.19.0",
}
PER_HEAD = COMPRESSED | {"kv_cache_scheme": _FP8_ARGS | {"strategy": "attn_head"}}
FP8 = {"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": "static"}


def llama(quantization: Mapping[str, Any] | None, *, layers: int = 2, **more: Any) -> dict[str, Any]:
    """config.json of a Llama with four query heads and two KV heads."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": layers,
        "vocab_size": 128,
        "torch_dtype": "bfloat16",
        **more,
    }
    return config | ({"quantization_config": dict(quantization)} if quantization is not None else {})


@dataclass
class Tensor:
    """Values with a shape and a dtype; BF16 is cut from float32, so give it values that fit."""

    values: Sequence[float]
    shape: Sequence[int] = ()
    dtype: str = "F32"

    def data(self) -> bytes:
        if self.dtype == "BF16":
            return b"".join(struct.pack("<f", value)[2:] for value in self.values)
        if self.dtype == "F4":
            return bytes(len(self.values) // 2)
        if self.dtype == "F8_E4M3":
            return bytes(int(value) for value in self.values)
        return b"".join(struct.pack(_PACKED[self.dtype], value) for value in self.values)


Value = float | Tensor
Tensors = Mapping[str, Value]


def write_shard(path: Path, tensors: Tensors) -> None:
    """A safetensors file."""
    header: dict[str, Any] = {}
    data = b""
    for key, given in tensors.items():
        tensor = given if isinstance(given, Tensor) else Tensor([given])
        begin = len(data)
        data += tensor.data()
        header[key] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [begin, len(data)]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + data)


def scales(k: Sequence[float | None], v: Sequence[float | None], *, q: Sequence[float] = ()) -> dict[str, Value]:
    """Scales named as llm-compressor does, one for each layer; None leaves one out."""
    found: dict[str, Value] = {}
    for role, values in (("k", k), ("v", v), ("q", q)):
        for layer, value in enumerate(values):
            if value is not None:
                found[f"model.layers.{layer}.self_attn.{role}_scale"] = value
    return found


@dataclass
class Folder:
    """A checkpoint in the making."""

    path: Path
    config: Mapping[str, Any]
    shards: Mapping[str, Tensors]
    weight_map: Mapping[str, str] | None = None
    files: Mapping[str, Any] = field(default_factory=dict)

    def write(self) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "config.json").write_text(json.dumps(self.config))
        for name, content in self.files.items():
            (self.path / name).write_text(json.dumps(content))
        for name, tensors in self.shards.items():
            write_shard(self.path / name, tensors)
        if self.weight_map is not None:
            (self.path / "model.safetensors.index.json").write_text(
                json.dumps({"metadata": {}, "weight_map": dict(self.weight_map)})
            )
        return self.path


def look(
    path: Path,
    config: Mapping[str, Any],
    tensors: Tensors,
    *,
    kv_cache_dtype: str = "auto",
    method: str | None = None,
    dtype: str | None = "bfloat16",
    thresholds: Thresholds | None = None,
) -> Inspection:
    """Write a checkpoint of one file and inspect it."""
    folder = Folder(path, config, {"model.safetensors": tensors}).write()
    return inspect(folder, kv_cache_dtype=kv_cache_dtype, method=method, dtype=dtype, thresholds=thresholds)


def codes(inspection: Inspection, *severities: str) -> list[str]:
    """The codes of the findings, in order."""
    wanted = severities or ("error", "warning", "info")
    return [finding.code for finding in inspection.findings if finding.severity in wanted]


def finding(inspection: Inspection, code: str) -> Finding:
    """The one finding with this code."""
    found = [finding for finding in inspection.findings if finding.code == code]
    assert len(found) == 1, f"{code}: {len(found)} among {codes(inspection)}"
    return found[0]
