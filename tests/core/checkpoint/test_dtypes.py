from __future__ import annotations

import math
import re
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from core.checkpoint.dtypes import DTYPES, ENCODABLE, decode, encode, is_raw
from tests.core.checkpoint.writing import entry, pack

TORCH = {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F8_E8M0": torch.float8_e8m0fnu,
}
LARGEST = {"F64": 1.7976931348623157e308, "F32": 3.4028234663852886e38, "F16": 65504.0, "BF16": 3.3895313892515355e38}
LARGEST |= {"F8_E4M3": 448.0, "F8_E5M2": 57344.0, "F8_E4M3FNUZ": 240.0, "F8_E5M2FNUZ": 57344.0, "F8_E8M0": 2.0**127}


def test_the_table_holds_every_type_that_the_format_defines() -> None:
    with pytest.raises(SafetensorError) as refusal:
        deserialize(pack({"a": entry("none such", [0], 0, 0)}))  # type: ignore[no-untyped-call]
    named = set(re.findall("`([A-Z0-9_]+)`", str(refusal.value)))
    assert set(DTYPES) == named
    assert len(named) == 22


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_widths_are_those_of_the_format(dtype: str) -> None:
    size = DTYPES[dtype].bits  # eight elements take as many bytes as one has bits
    blob = pack({"a": entry(dtype, [8], 0, size)}, bytes(size))
    [(_, tensor)] = deserialize(blob)  # type: ignore[no-untyped-call]
    assert len(tensor["data"]) == size


@pytest.mark.parametrize("dtype", TORCH)
def test_all_256_codes_of_an_8_bit_float_are_what_torch_reads(dtype: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    expected = codes.view(TORCH[dtype]).to(torch.float64).numpy()
    found = decode(bytes(range(256)), dtype)
    assert found.dtype == np.float64
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found)[expected == 0], np.signbit(expected)[expected == 0])


def test_all_codes_of_bfloat16_and_float16_are_what_torch_reads() -> None:
    codes = np.arange(65536, dtype=np.uint16)
    for dtype, kind in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        expected = torch.from_numpy(codes.copy()).view(kind).to(torch.float64).numpy()
        assert np.array_equal(decode(codes.astype("<u2").tobytes(), dtype), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("dtype", "form", "values"),
    [
        ("F64", "<3d", (0.1, -math.inf, 5e-324)),
        ("F32", "<3f", (0.5, -3.4028234663852886e38, 1.401298464324817e-45)),
        ("I64", "<3q", (-(2**63), 2**53, -1)),
        ("U64", "<2Q", (2**63, 7)),
        ("I32", "<2i", (-(2**31), 2**31 - 1)),
        ("U32", "<2I", (0, 2**32 - 1)),
        ("I16", "<2h", (-(2**15), 9)),
        ("U16", "<2H", (0, 65535)),
        ("I8", "<3b", (-128, 0, 127)),
        ("U8", "<3B", (0, 128, 255)),
    ],
)
def test_numbers_are_read_as_little_endian(dtype: str, form: str, values: tuple[float, ...]) -> None:
    assert decode(struct.pack(form, *values), dtype).tolist() == [float(value) for value in values]


def test_a_bool_is_any_byte_but_zero() -> None:
    assert decode(b"\0\1\2", "BOOL").tolist() == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2", "C64", "I4", "", "f32"])
def test_packed_complex_and_unknown_types_are_raw(dtype: str) -> None:
    assert is_raw(dtype)
    with pytest.raises(ValueError, match="not decoded"):
        decode(b"\0" * 8, dtype)
    with pytest.raises(ValueError, match="not written"):
        encode([1.0], dtype)


def test_a_part_of_an_element_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple"):
        decode(b"\0\0\0", "F32")


@pytest.mark.parametrize("dtype", TORCH)
def test_rounding_to_8_bits_is_torchs_where_it_does_not_overflow(dtype: str) -> None:
    codes = decode(bytes(range(256)), dtype)
    finite = np.unique(codes[np.isfinite(codes)])
    halfway = (finite[1:] + finite[:-1]) / 2
    noise = np.random.default_rng(0).standard_normal(20_000) * 2.0 ** np.arange(-10, 10).repeat(1000)
    near = [np.nextafter(halfway.astype(np.float32), np.float32(to)) for to in (-np.inf, np.inf)]
    values = np.concatenate([finite, halfway, *near, noise]).astype(np.float32)
    values = values[np.abs(values) <= LARGEST[dtype]]
    if dtype == "F8_E8M0":  # torch rounds float32's subnormal numbers up here; and it has neither sign nor zero
        values = values[values > 2.0**-126]
    expected = torch.from_numpy(values).to(TORCH[dtype]).view(torch.uint8).numpy()
    assert np.array_equal(np.frombuffer(encode(values.astype(np.float64), dtype), np.uint8), expected)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**15), max_value=2.0**15)))
def test_rounding_to_16_bits_is_torchs(values: list[float]) -> None:
    for dtype, kind in (("BF16", torch.bfloat16), ("F16", torch.float16)):
        expected = torch.tensor(values, dtype=torch.float32).to(kind).view(torch.int16).numpy()
        assert encode(values, dtype) == expected.astype("<i2").tobytes()


def test_bfloat16_is_rounded_once() -> None:
    just_above_halfway = 1 + 2.0**-8 + 2.0**-30  # rounded to float32 first, it would be a tie, and lose to even
    assert decode(encode([just_above_halfway], "BF16"), "BF16").tolist() == [1 + 2.0**-7]


@given(st.sampled_from(ENCODABLE), st.binary(max_size=64))
def test_what_was_read_is_written_back_the_same(dtype: str, data: bytes) -> None:
    data = data[: len(data) // 8 * 8]
    values = decode(data, dtype)
    assert np.array_equal(decode(encode(values, dtype), dtype), values, equal_nan=True)


@given(st.sampled_from(ENCODABLE), st.floats(allow_nan=False, min_value=1e-300, max_value=1e300))
def test_no_neighbour_is_nearer_than_what_was_written(dtype: str, value: float) -> None:
    if value > LARGEST[dtype]:
        return
    code = int.from_bytes(encode([value], dtype), "little")
    size = DTYPES[dtype].bits // 8
    written = decode(code.to_bytes(size, "little"), dtype)[0]
    for other in (max(code - 1, 0), code + 1):
        beside = decode(other.to_bytes(size, "little"), dtype)[0]
        assert not abs(beside - value) < abs(written - value)


@pytest.mark.parametrize("dtype", ENCODABLE)
def test_nan_stays_nan(dtype: str) -> None:
    assert math.isnan(decode(encode([math.nan], dtype), dtype)[0])


@pytest.mark.parametrize("dtype", [dtype for dtype in ENCODABLE if dtype != "F64"])
def test_a_value_beyond_the_type_is_refused_and_not_turned_into_something_else(dtype: str) -> None:
    for value in (LARGEST[dtype] * 1.5, -LARGEST[dtype] * 1.5):
        with pytest.raises(OverflowError, match=f"no counterpart in type {dtype}"):
            encode([1.0, value], dtype)
    assert decode(encode([LARGEST[dtype]], dtype), dtype).tolist() == [LARGEST[dtype]]


def test_an_infinity_is_kept_where_the_type_has_one_and_refused_elsewhere() -> None:
    for dtype in ("F64", "F32", "F16", "BF16", "F8_E5M2"):
        assert decode(encode([math.inf, -math.inf], dtype), dtype).tolist() == [math.inf, -math.inf]
    for dtype in ("F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0"):
        with pytest.raises(OverflowError, match="inf has no counterpart"):
            encode([math.inf], dtype)


def test_the_exponent_type_has_neither_zero_nor_sign() -> None:
    for value in (0.0, -1.0):
        with pytest.raises(OverflowError):
            encode([value], "F8_E8M0")
    assert encode([1e-60], "F8_E8M0") == b"\0"
