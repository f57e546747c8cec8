from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from core.checkpoint import BrokenFileError, HeaderColumns, parse_header
from core.checkpoint.columns import byte_length
from core.checkpoint.dtypes import DTYPES
from core.checkpoint.scan import scan_header
from core.checkpoint.strict import read_strictly
from tests.core.checkpoint.writing import entry, header, pack, parse

ONE = {"a": entry("F32", [2], 0, 8)}

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda name: name != "__metadata__")
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
kinds = st.tuples(st.sampled_from([name for name, dtype in DTYPES.items() if dtype.bits % 8 == 0]), shapes)
metadata = st.none() | st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8), st.just('v "\\ é')
)


def rows(columns: HeaderColumns) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    dtypes = [columns.dtype_names[code] for code in columns.dtype_codes.tolist()]
    shapes = [columns.shape_table[code] for code in columns.shape_codes.tolist()]
    return list(zip(columns.names, dtypes, shapes, columns.begins.tolist(), columns.ends.tolist(), strict=True))


def same(one: HeaderColumns, other: HeaderColumns) -> bool:
    return rows(one) == rows(other) and dict(one.metadata) == dict(other.metadata)


@given(st.dictionaries(names, kinds, max_size=12), metadata, st.booleans(), st.randoms())
def test_a_header_of_ours_is_read_as_it_was_written(
    tensors: dict[str, Any], notes: dict[str, str] | None, compact: bool, random: Any
) -> None:
    tree = header(tensors, notes)
    order = list(tree)
    random.shuffle(order)
    size = max((tree[name]["data_offsets"][1] for name in tensors), default=0)
    data, file_size = parse(pack({name: tree[name] for name in order}, bytes(size), compact=compact))
    columns = parse_header(data, file_size)
    begin = 8 + len(data)
    assert rows(columns) == sorted(
        (name, tree[name]["dtype"], tuple(tree[name]["shape"]), *(begin + at for at in tree[name]["data_offsets"]))
        for name in tensors
    )
    assert columns.metadata == (notes or {})
    assert same(columns, read_strictly(data, file_size))


@given(
    st.dictionaries(names, st.tuples(st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i8", "?"]), shapes), max_size=12),
    st.none() | st.dictionaries(st.text('ab"\\é'), st.text("xyz\n"), min_size=1),
)
def test_what_the_safetensors_package_writes_is_read_as_it_reads_it(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Any], notes: dict[str, str] | None
) -> None:
    blob = save({name: np.zeros(shape, dtype) for name, (dtype, shape) in tensors.items()}, notes)
    path = tmp_path_factory.getbasetemp() / "written.safetensors"
    path.write_bytes(blob)
    columns = parse_header(*parse(blob))
    with safe_open(path, "np") as file:
        listed = list(file.keys())
        slices = [file.get_slice(name) for name in listed]
        assert [row[:3] for row in rows(columns)] == [
            (name, found.get_dtype(), tuple(found.get_shape())) for name, found in zip(listed, slices, strict=True)
        ]
        assert dict(columns.metadata) == (file.metadata() or {})
    assert same(columns, read_strictly(*parse(blob)))


def test_the_quick_reader_takes_what_the_safetensors_package_writes() -> None:
    tensors = {f"model.layers.{layer}.k_scale": np.zeros((), "f4") for layer in range(300)}
    tensors["weight"] = np.zeros((3, 4), "f2")
    blob = save(tensors, {"format": "pt"})
    columns = scan_header(*parse(blob))
    assert columns is not None
    assert same(columns, read_strictly(*parse(blob)))
    assert len(columns.shape_table) == 2


def test_the_columns_are_typed() -> None:
    for reader in (scan_header, read_strictly):
        columns = reader(*parse(pack(ONE, bytes(8))))
        assert columns is not None
        assert [str(column.dtype) for column in (columns.dtype_codes, columns.shape_codes)] == ["int32"] * 2
        assert [str(column.dtype) for column in (columns.begins, columns.ends)] == ["int64"] * 2


def test_the_header_may_be_a_memoryview() -> None:
    for tree in (ONE, {"é": ONE["a"]}):
        data, size = parse(pack(tree, bytes(8)))
        assert parse_header(memoryview(data), size).names == list(tree)


def test_names_are_sorted_by_code_point() -> None:
    tree = header(dict.fromkeys(["b", "a.10", "a.2", "Z", "\U0001f600", "\uffee", ""], ("U8", (1,))))
    assert parse_header(*parse(pack(tree, bytes(7)))).names == ["", "Z", "a.10", "a.2", "b", "\uffee", "\U0001f600"]


def test_an_unknown_type_is_kept_with_its_length() -> None:
    tree = {"a": entry("I3", [7], 0, 5), "b": entry("F8_E4M3", [3], 5, 8), "c": entry("I3", [1], 8, 9)}
    found = rows(parse_header(*parse(pack(tree, bytes(9), padding=1))))
    assert [(name, dtype, shape, end - begin) for name, dtype, shape, begin, end in found] == [
        ("a", "I3", (7,), 5),
        ("b", "F8_E4M3", (3,), 3),
        ("c", "I3", (1,), 1),
    ]


@pytest.mark.parametrize(("dtype", "shape", "size"), [("F4", [6], 3), ("F6_E2M3", [4], 3), ("F6_E3M2", [2, 4], 6)])
def test_types_narrower_than_a_byte_are_packed(dtype: str, shape: list[int], size: int) -> None:
    assert parse_header(*parse(pack({"a": entry(dtype, shape, 0, size)}, bytes(size)))).names == ["a"]


def test_a_header_without_tensors_is_right() -> None:
    trees: list[dict[str, Any]] = [{}, {"__metadata__": {}}, {"__metadata__": None}]
    for tree in trees:
        assert parse_header(*parse(pack(tree))).names == []


def test_fields_that_the_format_does_not_define_are_ignored() -> None:
    assert parse_header(*parse(pack({"a": {**ONE["a"], "note": [1.5]}}, bytes(8)))).names == ["a"]


WRONG: dict[str, tuple[Any, str, str | None]] = {
    # what: (header, the problem, the text at which the offset points)
    "hole": (
        {"a": entry("U8", [1], 0, 1), "b": entry("U8", [6], 2, 8)},
        "tensor 'b' begins at data offset 2 and leaves a hole: it should be 1",
        '"b"',
    ),
    "hole at the start": (
        {"a": entry("U8", [7], 1, 8)},
        "tensor 'a' begins at data offset 1 and leaves a hole: it should be 0",
        '"a"',
    ),
    "overlap": (
        {"a": entry("U8", [5], 0, 5), "b": entry("U8", [4], 4, 8)},
        "tensor 'b' begins at data offset 4 and overlaps another tensor: it should be 5",
        '"b"',
    ),
    "beyond the file": (
        {"a": entry("U8", [9], 0, 9)},
        "was cut short: its tensors take 9 bytes, but only 8 follow its header",
        None,
    ),
    "data left": ({"a": entry("U8", [7], 0, 7)}, "1 byte after the last tensor belong to no tensor", None),
    "data and no tensor": ({}, "8 bytes of data belong to no tensor", None),
    "swapped offsets": (
        {"a": entry("F32", [2], 8, 0)},
        "tensor 'a' ends at data offset 0, before it begins at 8",
        '"a"',
    ),
    "too short for its shape": (
        {"a": entry("F32", [3], 0, 8)},
        "tensor 'a' of shape [3] and type F32 takes 12 bytes, but its offsets span 8",
        '"a"',
    ),
    "too long for its shape": (
        {"a": entry("F32", [], 0, 8)},
        "tensor 'a' of shape [] and type F32 takes 4 bytes, but its offsets span 8",
        '"a"',
    ),
    "half a byte": (
        {"a": entry("F4", [3], 0, 8)},
        "tensor 'a' of shape [3] and type F4 has no whole number of bytes below 2**63",
        '"a"',
    ),
    "shape beyond 2**63": (
        {"a": entry("U8", [2**62, 2], 0, 8)},
        "tensor 'a' of shape [4611686018427387904, 2] and type U8 has no whole number of bytes below 2**63",
        '"a"',
    ),
    "bits beyond 2**63": (
        {"a": entry("F64", [2**58], 0, 8)},
        "tensor 'a' of shape [288230376151711744] and type F64 has no whole number of bytes below 2**63",
        '"a"',
    ),
    "overflow before a zero": (
        {"a": entry("U8", [2**62, 2**62, 0], 0, 0), "b": entry("U8", [8], 0, 8)},
        "tensor 'a' of shape [4611686018427387904, 4611686018427387904, 0] and type U8 has no whole number",
        '"a"',
    ),
    "many dimensions": (
        {"a": entry("U8", [1] * 9, 0, 8)},
        "tensor 'a' of shape [1, 1, 1, 1, 1, 1, 1, 1, ...] and type U8 takes 1 byte, but its offsets span 8",
        '"a"',
    ),
    "negative size": ({"a": entry("U8", [-8], 0, 8)}, "tensor 'a' has a shape that is no list of sizes", '"a"'),
    "negative offset": (
        {"a": entry("U8", [8], -8, 0)},
        "tensor 'a' has data_offsets that are no pair of offsets",
        '"a"',
    ),
    "number of 2**63": (
        {"a": entry("U8", [2**63], 0, 8)},
        "its header holds the number '9223372036854775808', which no size or offset can be",
        "9223372036854775808",
    ),
    "number of 5000 digits": (
        b'{"a":{"dtype":"U8","shape":[' + b"1" * 5000 + b'],"data_offsets":[0,8]}}',
        "its header holds the number '11111111111111111111...1111111111111111111111111111111111111', which no",
        "1111",
    ),
    "minus zero": (
        b'{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}',
        "its header holds the number '-0', which no size or offset can be",
        "-0",
    ),
    "fraction": (
        b'{"a":{"dtype":"U8","shape":[8.0],"data_offsets":[0,8]}}',
        "tensor 'a' has a shape that is no list of sizes",
        '"a"',
    ),
    "exponent": (
        b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8e0]}}',
        "tensor 'a' has data_offsets that are no pair of offsets",
        '"a"',
    ),
    "true for a size": ({"a": entry("U8", [True], 0, 8)}, "tensor 'a' has a shape that is no list of sizes", '"a"'),
    "NaN": (
        b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,8]}}',
        "its header is not JSON: NaN is no number",
        "NaN",
    ),
    "three offsets": (
        {"a": {**ONE["a"], "data_offsets": [0, 4, 8]}},
        "tensor 'a' has data_offsets that are no pair of offsets",
        '"a"',
    ),
    "no offsets": ({"a": {"dtype": "U8", "shape": [8]}}, "tensor 'a' has no data_offsets", '"a"'),
    "no shape": ({"a": {"dtype": "U8", "data_offsets": [0, 8]}}, "tensor 'a' has no shape", '"a"'),
    "no type": ({"a": {"shape": [8], "data_offsets": [0, 8]}}, "tensor 'a' has no dtype", '"a"'),
    "a number for a type": ({"a": {**ONE["a"], "dtype": 7}}, "tensor 'a' has a dtype that is no type name", '"a"'),
    "a tale for a type": ({"a": {**ONE["a"], "dtype": "x" * 65}}, "tensor 'a' has a dtype that is no type name", '"a"'),
    "an empty type": ({"a": {**ONE["a"], "dtype": ""}}, "tensor 'a' has a dtype that is no type name", '"a"'),
    "text for a shape": ({"a": {**ONE["a"], "shape": "2"}}, "tensor 'a' has a shape that is no list of sizes", '"a"'),
    "a list for a tensor": ({"a": ["F32", [2], [0, 8]]}, "tensor 'a' is described by no JSON object", '"a"'),
    "an endless name": (
        {"a" * 1025: ONE["a"]},
        f"tensor '{'a' * 80}...{'a' * 37}' has a name of 1,025 characters; names of up to 1,024 are read",
        f'"{"a" * 1025}"',
    ),
    "tensor twice": (
        b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
        "its header names 'a' twice",
        '"a"',
    ),
    "field twice": (
        b'{"a":{"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8]}}',
        "its header names 'dtype' twice",
        '"dtype"',
    ),
    "metadata twice": (
        b'{"__metadata__":{"x":"1"},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"__metadata__":{}}',
        "its header names '__metadata__' twice",
        '"__metadata__"',
    ),
    "metadata of numbers": (
        {"__metadata__": {"x": 1}, **ONE},
        "its __metadata__ entry 'x' is no string",
        '"x"',
    ),
    "metadata as a list": ({"__metadata__": [], **ONE}, "its __metadata__ is no JSON object", '"__metadata__"'),
    "metadata as a tensor": (
        {"__metadata__": entry("U8", [8], 0, 8)},
        "its __metadata__ entry 'shape' is no string",
        '"shape"',
    ),
    "metadata as a later tensor": (
        {"a": entry("U8", [4], 0, 4), "__metadata__": entry("U8", [4], 4, 8)},
        "its __metadata__ entry 'shape' is no string",
        '"shape"',
    ),
    "no comma behind the metadata": (
        b'{"__metadata__":{}."a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
        "its header is not JSON: Expecting ',' delimiter",
        ".",
    ),
    "half a character in a name": (
        b'{"\\ud800":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
        "tensor '\\ud800' has a name that is not valid text",
        '"\\ud800"',
    ),
    "half a character in the metadata": (
        b'{"__metadata__":{"x":"\\udfff"},"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}',
        "its __metadata__ entry 'x' is not valid text",
        '"__metadata__"',
    ),
    "no object": (b"[1]", "its header does not begin with '{'", "["),
    "a blank in front": (b" {}", "its header does not begin with '{'", " "),
    "cut JSON": (b'{"a":{"dtype":"U8"', "its header is not JSON: Expecting ',' delimiter", None),
    "zeros behind": (b"{}\0\0", "its header is not JSON: Extra data", "\0"),
    "a second object": (b"{}{}", "its header is not JSON: Extra data", None),
    "no UTF-8": (b'{"\xff":1}', "its header is not UTF-8", None),
    "deep": (b'{"a":' + b"[" * 200_000, "its header is nested too deeply", "{"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_header_that_breaks_a_rule_is_refused_with_its_reason_and_place(what: str) -> None:
    tree, problem, at = WRONG[what]
    blob = pack(tree, bytes(8), padding=1)
    data, size = parse(blob)
    with pytest.raises(BrokenFileError) as refusal:
        parse_header(data, size)
    error = refusal.value
    assert error.detail.startswith(problem)
    assert error.remedy
    assert error.offset is not None
    assert 0 <= error.offset <= len(blob)
    if at is not None:
        written = at if at.isascii() else json.dumps(at)
        assert blob[error.offset :].startswith(written.encode())
    assert scan_header(data, size) is None


def test_the_remedy_tells_a_wrong_length_from_a_wrong_header() -> None:
    def remedy(tree: Any) -> str:
        with pytest.raises(BrokenFileError) as refusal:
            parse_header(*parse(pack(tree, bytes(8))))
        return refusal.value.remedy

    assert "copy the file again" in remedy({"a": entry("U8", [9], 0, 9)})
    assert "copy the file again" in remedy({"a": entry("U8", [7], 0, 7)})
    assert "safetensors library" in remedy({"a": entry("U8", [1], 0, 8)})


def test_a_later_offset_is_counted_in_bytes_not_characters() -> None:
    blob = pack({"éü": entry("U8", [4], 0, 4), "b": entry("U8", [1], 4, 8)}, bytes(8))
    with pytest.raises(BrokenFileError) as refusal:
        parse_header(*parse(blob))
    assert refusal.value.offset == blob.index(b'"b"')


def test_a_zero_excuses_large_sizes_as_in_the_rust_reader() -> None:
    assert byte_length((0, 2**62), 8) == 0
    assert byte_length((2**62, 2**62, 0), 8) is None
    assert byte_length((), 4) is None
    assert byte_length((), 64) == 8


def test_tensors_need_not_lie_in_the_order_of_their_names_nor_be_aligned() -> None:
    tree = {"a": entry("F32", [1], 1, 5), "b": entry("U8", [1], 0, 1), "c": entry("U8", [0], 1, 1)}
    found = parse_header(*parse(pack(tree, bytes(5))))
    assert (found.ends - found.begins).tolist() == [4, 1, 0]


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_left_as_it_was(enabled: bool) -> None:
    was_enabled = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        parse_header(*parse(pack(ONE, bytes(8))))
        with pytest.raises(BrokenFileError):
            parse_header(b"[", 9)
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize(
    "change",
    [
        (b'","shape"', b'" ,"shape"'),
        (b'"a":', b'"a" :'),
        (b'"shape":[2],"data_offsets":[0,8]', b'"data_offsets":[0,8],"shape":[2]'),
        (b'"a"', b'"\\u0061"'),
        (b'{"a"', b'{\n"a"'),
        (b"[2]", b"[ 2 ]"),
    ],
)
def test_other_spellings_of_the_same_header_are_left_to_the_exact_reader(change: tuple[bytes, bytes]) -> None:
    plain = json.dumps(ONE, separators=(",", ":")).encode()
    data, size = parse(pack(plain.replace(*change), bytes(8)))
    assert scan_header(data, size) is None
    assert [row[:3] for row in rows(parse_header(data, size))] == [("a", "F32", (2,))]


def test_every_real_header_is_read_alike_by_both_readers(checkpoint_folder: Path) -> None:
    for path in checkpoint_folder.glob("*.safetensors"):
        data, size = parse(path.read_bytes())
        quick = scan_header(data, size)
        assert quick is not None
        assert same(quick, read_strictly(data, size))
