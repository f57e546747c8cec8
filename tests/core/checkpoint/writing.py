"""Writes safetensors files byte by byte, right ones and wrong ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

from core.checkpoint.dtypes import DTYPES


def entry(dtype: str, shape: Iterable[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def header(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The header of tensors that lie one behind the other in the order given."""
    tree: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + prod(shape) * DTYPES[dtype].bits // 8
        tree[name] = entry(dtype, shape, begin, end)
    return tree


def pack(tree: Any, data: bytes = b"", *, padding: int = 8, compact: bool = True) -> bytes:
    """A whole file: a header (an object to spell as JSON, or the bytes themselves) and the data behind it."""
    separators = (",", ":") if compact else None
    text = tree if isinstance(tree, bytes) else json.dumps(tree, separators=separators, ensure_ascii=False).encode()
    text += b" " * (-len(text) % padding)
    return len(text).to_bytes(8, "little") + text + data


def write(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], **options: Any) -> Path:
    """A right file whose data is 0, 1, 2, ... bytewise."""
    tree = header(tensors, options.pop("metadata", None))
    size = max((tensor["data_offsets"][1] for name, tensor in tree.items() if name != "__metadata__"), default=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(tree, bytes(byte % 256 for byte in range(size)), **options))
    return path


def write_index(
    folder: Path, weight_map: Mapping[str, str], name: str = "model.safetensors.index.json", **rest: Any
) -> Path:
    path = folder / name
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": dict(weight_map), **rest}, indent=2))
    return path


def parse(data: bytes) -> tuple[bytes, int]:
    """The header's bytes and the file's size: what ``parse_header`` takes."""
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length], len(data)
