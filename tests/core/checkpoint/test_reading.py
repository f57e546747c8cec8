from __future__ import annotations

import json
import math
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from core.checkpoint import Checkpoint, open_checkpoint
from core.errors import KVScopeError
from tests.core.checkpoint.writing import entry, pack, write


def opened(path: Path, tree: dict[str, Any], data: bytes) -> Checkpoint:
    path.write_bytes(pack(tree, data))
    return open_checkpoint(path)


def test_values_of_several_types_in_one_call(tmp_path: Path) -> None:
    data = struct.pack("<2f", 0.5, -2.0) + struct.pack("<H", 0x3C00) + b"\x00\x40" + b"\x38\x39" + b"\x00\x00\x80\x3f"
    tree = {
        "f32": entry("F32", [2], 0, 8),
        "f16": entry("F16", [], 8, 10),
        "bf16": entry("BF16", [1], 10, 12),
        "f8": entry("F8_E4M3", [2, 1], 12, 14),
        "one": entry("F32", [1, 1], 14, 18),
        "none": entry("F32", [0, 4], 18, 18),
    }
    checkpoint = opened(tmp_path / "x.safetensors", tree, data)
    found = checkpoint.read(["one", "f8", "f32", "none", "bf16", "f16"])
    assert list(found) == ["one", "f8", "f32", "none", "bf16", "f16"]
    assert {key: values.values for key, values in found.items()} == {
        "one": (1.0,),
        "f8": (1.0, 1.125),
        "f32": (0.5, -2.0),
        "none": (),
        "bf16": (2.0,),
        "f16": (1.0,),
    }
    assert (found["f8"].dtype, found["f8"].shape, found["f8"].fault) == ("F8_E4M3", (2, 1), None)
    assert all(type(value) is float for value in found["f32"].values)
    assert checkpoint.read_bytes("f8") == b"\x38\x39"
    assert checkpoint.read_bytes("none") == b""
    assert checkpoint.read([]) == {}


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    tree = {"f4": entry("F4", [2], 0, 1), "new": entry("F3", [2], 1, 2), "long": entry("U8", [9], 2, 11)}
    checkpoint = opened(tmp_path / "x.safetensors", tree, bytes(range(11)))
    found = checkpoint.read(["f4", "new", "long", "absent"], limit=8)
    assert {key: values.fault for key, values in found.items()} == {
        "f4": "values of type 'F4' are not decoded",
        "new": "values of type 'F3' are not decoded",
        "long": "holds 9 values, more than the 8 that are read",
        "absent": "no readable shard holds this key",
    }
    assert all(values.values == () for values in found.values())
    assert (found["new"].dtype, found["new"].shape) == ("F3", (2,))
    assert checkpoint.read(["long"], limit=9)["long"].values == tuple(map(float, range(2, 11)))
    assert checkpoint.read_bytes("new") == b"\1"
    with pytest.raises(KVScopeError, match="key 'absent': no readable shard holds this key"):
        checkpoint.read_bytes("absent")


def test_a_key_in_two_shards_is_read_from_the_first_and_by_row_from_each(tmp_path: Path) -> None:
    (tmp_path / "1.safetensors").write_bytes(pack({"a": entry("U8", [], 0, 1)}, b"\1"))
    (tmp_path / "2.safetensors").write_bytes(pack({"a": entry("U8", [], 0, 1)}, b"\2"))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.read(["a"])["a"].values == (1.0,)
    rows = checkpoint.catalog.rows_of("a")
    assert [values.values for values in checkpoint.read_rows([*rows, rows[0]])] == [(1.0,), (2.0,), (1.0,)]


def test_a_file_that_changed_since_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", {"a": ("U8", (4,)), "b": ("U8", (4,))})
    checkpoint = open_checkpoint(path)
    path.write_bytes(path.read_bytes() + b"!")
    values = checkpoint.read(["a", "b"])
    expected = "x.safetensors changed since it was opened. Open the checkpoint again."
    assert (values["a"].fault, values["b"].fault) == (expected, expected)
    with pytest.raises(KVScopeError, match="key 'a': changed since it was opened"):
        checkpoint.read_bytes("a")
    path.unlink()
    assert checkpoint.read(["a"])["a"].fault == "x.safetensors does not exist. Check the path."


def test_only_the_bytes_asked_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    size = 1 << 30
    tree = {"large": entry("U8", [size], 0, size), "scale": entry("F32", [], size, size + 4)}
    with path.open("wb") as file:
        file.write(pack(tree))
        file.seek(size, 1)
        file.write(struct.pack("<f", 0.25))
    tracemalloc.start()
    try:
        found = open_checkpoint(path).read(["scale", "large"])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found["scale"].values == (0.25,)
    assert found["large"].fault == "holds 1,073,741,824 values, more than the 1,048,576 that are read"
    assert peak < 1 << 20


def test_values_of_real_checkpoints_are_those_that_the_safetensors_package_reads(checkpoint_folder: Path) -> None:
    checkpoint = open_checkpoint(checkpoint_folder)
    keys = [key for key in checkpoint.catalog.names if key.rpartition(".")[2] != "weight"]
    found = checkpoint.read(keys)
    for shard in checkpoint.shards:
        with safe_open(shard.path, "pt") as file:
            for key in set(file.keys()).intersection(keys):
                values = found[key]
                assert values.fault is None
                expected = file.get_tensor(key).double().flatten().tolist()
                assert len(values.values) == len(expected)
                assert all(
                    one == other or (math.isnan(one) and math.isnan(other))
                    for one, other in zip(values.values, expected, strict=True)
                )


def test_scales_are_those_that_their_tools_reported(shared: Path) -> None:
    inventory = json.loads((shared / "checkpoints" / "inventory.json").read_text())
    compared = 0
    for name, facts in inventory.items():
        folder = shared / "checkpoints" / name
        expected = {tensor["key"]: tensor for tensor in facts["scale_tensors"]}
        for key, found in open_checkpoint(folder).read(expected).items():
            tensor = expected[key]
            assert found.fault is None
            assert list(found.shape) == tensor["shape"]
            values = tensor.get("values", tensor.get("value"))
            if not str(values).startswith("<"):  # of longer tensors it has the first values, or none
                flat = np.asarray(values, dtype=np.float64).reshape(-1).tolist()
                assert list(found.values[: len(flat)]) == pytest.approx(flat, rel=1e-12, nan_ok=True)
                compared += 1
    assert compared > 1000
