"""The shard writer: what safetensors itself reads from a rewritten shard is what was asked for, and nothing else."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize

from core.checkpoint.dtypes import DTYPES
from core.errors import ExportError
from core.export import safetensors_writer
from core.export.copying import Copier
from core.export.safetensors_writer import (
    BLOCK,
    NewTensor,
    ShardLayout,
    SourceRange,
    lay_out,
    read_header,
)
from tests.core.export.exporting import Stored, shard_bytes

BYTES = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "I64": 8, "U8": 1}


def read(data: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for name, t in deserialize(data)}  # type: ignore[no-untyped-call]


def rewrite(
    folder: Path, source: bytes, *, replaced: dict[str, list[NewTensor]], added: Sequence[NewTensor] = ()
) -> tuple[ShardLayout, bytes]:
    old, new = folder / "old.safetensors", folder / "new.safetensors"
    old.write_bytes(source)
    layout = lay_out(read_header(old), file_size=len(source), replaced=replaced, added=added)
    Copier().write_shard(old, new, layout)
    return layout, new.read_bytes()


@st.composite
def stored(draw: st.DrawFn) -> list[Stored]:
    names = draw(st.lists(st.text('abcé."\\_0', min_size=1, max_size=8), min_size=1, max_size=7, unique=True))
    tensors = []
    for name in names:
        dtype = draw(st.sampled_from(sorted(BYTES)))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        count = BYTES[dtype]
        for size in shape:
            count *= size
        tensors.append(Stored(name, dtype, shape, draw(st.binary(min_size=count, max_size=count))))
    return tensors


@settings(max_examples=150)
@given(
    tensors=stored(),
    actions=st.lists(st.sampled_from(["keep", "rename", "flatten", "drop", "twice", "values"]), min_size=7, max_size=7),
    metadata=st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
    add=st.booleans(),
    pad=st.sampled_from([0, 8, 4096, 3]),
)
def test_safetensors_reads_back_exactly_what_was_asked_for(
    tensors: list[Stored], actions: list[str], metadata: dict[str, str] | None, add: bool, pad: int
) -> None:
    replaced: dict[str, list[NewTensor]] = {}
    expected: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for tensor, action in zip(tensors, actions, strict=False):
        name, dtype, shape, data = tensor.name, tensor.dtype, tensor.shape, tensor.data
        match action:
            case "rename":
                replaced[name] = [NewTensor(f"new {name}", dtype, shape)]
                expected[f"new {name}"] = (dtype, shape, data)
            case "flatten":
                count = len(data) // BYTES[dtype]
                replaced[name] = [NewTensor(name, dtype, (count,))]
                expected[name] = (dtype, (count,), data)
            case "drop":
                replaced[name] = []
            case "twice":
                replaced[name] = [NewTensor(f"{role} {name}", dtype, shape) for role in "kv"]
                expected.update({f"{role} {name}": (dtype, shape, data) for role in "kv"})
            case "values":
                replaced[name] = [NewTensor(name, "F32", (), b"\0\1\2\3")]
                expected[name] = ("F32", (), b"\0\1\2\3")
            case _:
                expected[name] = (dtype, shape, data)
    added = [NewTensor("added!", "BF16", (1,), b"\x80\x3f")] if add else []
    expected.update({new.name: (new.dtype, new.shape, new.data or b"") for new in added})

    source = shard_bytes(tensors, metadata=metadata, pad=pad)
    with TemporaryDirectory() as folder:
        layout, written = rewrite(Path(folder), source, replaced=replaced, added=added)

    assert read(written) == expected
    assert len(written) == layout.size
    text = json.loads(written[8 : 8 + struct.unpack("<Q", written[:8])[0]])
    assert text.pop("__metadata__", None) == metadata
    # names stay in the source's order
    changed = {old: [new.name for new in news] for old, news in replaced.items()}
    order = [name for tensor in reversed(tensors) for name in changed.get(tensor.name, [tensor.name])]
    assert list(text) == order + [new.name for new in added]
    old_begin, new_begin = (8 + struct.unpack("<Q", data[:8])[0] for data in (source, written))
    assert new_begin % 8 == 0
    if old_begin % 8 == 0:
        assert new_begin % BLOCK == old_begin % BLOCK
    moved = any(actions[n] in {"drop", "twice", "values"} for n in range(len(tensors))) or add
    if moved:
        sizes = {name: BYTES[dtype] for name, (dtype, _, _) in expected.items()}
        assert all(tensor.begin % sizes[tensor.name] == 0 for tensor in layout.tensors)
    else:
        assert written[new_begin:] == source[old_begin:]


def test_dropping_a_tensor_keeps_the_order_of_the_rest_and_copies_in_two_runs(tmp_path: Path) -> None:
    tensors = [Stored(name, "F32", (2,), os.urandom(8)) for name in "abcde"]
    layout, written = rewrite(tmp_path, shard_bytes(tensors), replaced={"c": []})
    assert [type(piece) for piece in layout.pieces] == [SourceRange, SourceRange]
    assert [len(piece) for piece in layout.pieces] == [16, 16]
    assert written.endswith(b"".join(t.data for t in tensors if t.name != "c"))


def test_a_tensor_that_would_lose_its_alignment_moves_the_widest_to_the_front(tmp_path: Path) -> None:
    tensors = [
        Stored("half", "BF16", (1,), b"hh"), Stored("other half", "BF16", (1,), b"HH"),
        Stored("wide", "F32", (1,), b"wwww"), Stored("byte", "U8", (1,), b"b"),
    ]  # fmt: skip
    layout, written = rewrite(tmp_path, shard_bytes(tensors), replaced={"half": []})
    assert written.endswith(b"wwwwHHb")
    assert [tensor.name for tensor in layout.tensors] == ["byte", "wide", "other half"]


def test_a_real_shard_keeps_its_data_and_its_place_in_the_block(tmp_path: Path, samples: Path) -> None:
    source = (samples / "quark/gemma3-26layers-fp8-kvfp8/model.safetensors").read_bytes()
    header = read_header(samples / "quark/gemma3-26layers-fp8-kvfp8/model.safetensors")
    replaced = {
        t.name: [NewTensor(t.name.replace("k_proj.output_scale", "k_scale"), t.dtype, t.shape)]
        for t in header.tensors
        if t.name.endswith("k_proj.output_scale")
    }
    assert len(replaced) == 26
    layout, written = rewrite(tmp_path, source, replaced=replaced)
    begin = 8 + struct.unpack("<Q", written[:8])[0]
    assert written[begin:] == source[header.data_begin :]
    assert begin % BLOCK == header.data_begin % BLOCK
    assert len(layout.pieces) == 1
    assert sum(name.endswith("self_attn.k_scale") for name in read(written)) == 26


def test_two_tensors_with_one_name_are_refused(tmp_path: Path) -> None:
    tensors = [Stored(name, "F32", (1,), b"1234") for name in ("kv_scale", "k_scale")]
    with pytest.raises(ExportError, match=r"key 'k_scale': two tensors of one shard would have this name. Drop one"):
        rewrite(tmp_path, shard_bytes(tensors), replaced={"kv_scale": [NewTensor("k_scale", "F32", (1,))]})
    assert not (tmp_path / "new.safetensors").exists()


def test_a_header_longer_than_readers_accept_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shard_bytes([Stored("a", "F32", (1,), b"1234")])
    monkeypatch.setattr(safetensors_writer, "MAX_HEADER", 200)
    with pytest.raises(ExportError, match=r"would be \d+ bytes long and readers of safetensors accept 200. Split"):
        rewrite(tmp_path, source, replaced={"a": [NewTensor("a" * 200, "F32", (1,))]})


@pytest.mark.parametrize(
    "data", [b"", b"\x10", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9)]
)
def test_a_file_that_is_no_shard_any_more_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"model.safetensors: the file does not begin with a safetensors header. It"):
        read_header(path)


def test_the_widths_used_here_are_those_of_the_format() -> None:
    assert {name: DTYPES[name].bits // 8 for name in BYTES} == BYTES
