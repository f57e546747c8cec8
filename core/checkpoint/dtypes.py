"""The element types a checkpoint may hold: their widths, and their values as Python floats and back.

The names are those of the safetensors format (safetensors 0.8, ``Dtype``). A type that is not in the table is *raw*:
its tensors stay in the catalog with their length, and nothing is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DType:
    """One element type. ``bits`` is the width of one element; sub-byte elements are packed without padding."""

    name: str
    bits: int
    decodable: bool


@dataclass(frozen=True, slots=True)
class _Float8:
    """The layout of an 8-bit float with a sign bit (OCP FP8, and the FNUZ variants of AMD's CDNA3).

    ``fnuz`` types have one zero and one NaN (0x80); ``infinities`` says whether the top exponent is reserved as in
    IEEE 754, otherwise only the all-ones code of each sign is NaN.
    """

    exponent: int
    mantissa: int
    bias: int
    infinities: bool = False
    fnuz: bool = False


_FLOAT8 = {
    "F8_E4M3": _Float8(4, 3, 7),
    "F8_E5M2": _Float8(5, 2, 15, infinities=True),
    "F8_E4M3FNUZ": _Float8(4, 3, 8, fnuz=True),
    "F8_E5M2FNUZ": _Float8(5, 2, 16, fnuz=True),
}

_NUMPY = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "I16": "<i2",
    "U16": "<u2",
    "F16": "<f2",
    "I32": "<i4",
    "U32": "<u4",
    "F32": "<f4",
    "F64": "<f8",
    "I64": "<i8",
    "U64": "<u8",
}

_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

_DECODABLE = {*_NUMPY, *_FLOAT8, "F8_E8M0", "BF16"}

DTYPES: dict[str, DType] = {name: DType(name, bits, name in _DECODABLE) for name, bits in _BITS.items()}
"""Every type that the safetensors format defines, by name."""

ENCODABLE = ("F64", "F32", "F16", "BF16", *_FLOAT8, "F8_E8M0")
"""The types that :func:`encode` writes."""


def is_raw(name: str) -> bool:
    """Whether values of this type cannot be decoded (an unknown type, a packed or a complex one)."""
    known = DTYPES.get(name)
    return known is None or not known.decodable


def decode(data: bytes | bytearray | memoryview, dtype: str) -> Float64s:
    """The values of little-endian ``data`` as a flat float64 array.

    Every float type is converted exactly; 64-bit integers beyond 2**53 are rounded to the nearest float64.

    Raises:
        ValueError: the type cannot be decoded, or the data is not a whole number of elements.
    """
    if dtype in _NUMPY:
        if dtype == "BOOL":
            return np.asarray(np.frombuffer(data, dtype=np.uint8) != 0, dtype=np.float64)
        with np.errstate(invalid="ignore"):  # signalling NaNs
            return np.asarray(np.frombuffer(data, dtype=_NUMPY[dtype]), dtype=np.float64)
    if dtype == "BF16":
        return _bfloat16_values(np.frombuffer(data, dtype="<u2"))
    if dtype == "F8_E8M0" or dtype in _FLOAT8:
        return np.take(_code_values(dtype), np.frombuffer(data, dtype=np.uint8))
    raise ValueError(f"values of type {dtype} are not decoded")


def encode(values: Sequence[float] | Float64s, dtype: str) -> bytes:
    """``values`` as little-endian elements of ``dtype``, rounded once, to nearest, ties to even.

    NaN becomes the type's NaN. Values below the smallest magnitude round to zero, or to 2**-127 in F8_E8M0, which has
    neither zero nor sign (ties go to the larger power of two there: it has no mantissa to be even).

    Raises:
        ValueError: the type is none of :data:`ENCODABLE`.
        OverflowError: a value has no counterpart in the type. Libraries disagree on what it should then become (an
            infinity, NaN or the largest value, for PyTorch depending on its version), so none is chosen here.
    """
    array = np.asarray(values, dtype=np.float64).reshape(-1)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype in ("F64", "F32", "F16"):
            encoded: npt.NDArray[Any] = array.astype(_NUMPY[dtype])
        elif dtype == "F8_E8M0":
            encoded = _encode_e8m0(array)
        elif dtype in ENCODABLE:
            encoded = _encode_small(array, dtype)
        else:
            raise ValueError(f"values are not written as type {dtype}")
    data = encoded.tobytes()
    back = decode(data, dtype)
    lost = (np.isfinite(array) & ~np.isfinite(back)) | (np.isinf(array) & (back != array))
    if dtype == "F8_E8M0":
        lost |= array <= 0
    if lost.any():
        raise OverflowError(f"{float(array[lost][0])!r} has no counterpart in type {dtype}")
    return data


@cache
def _code_values(dtype: str) -> Float64s:
    """The value of each of the 256 codes of an 8-bit float type."""
    if dtype == "F8_E8M0":  # a bare exponent; 255 is NaN (OCP Microscaling Formats 1.0)
        values = np.ldexp(1.0, np.arange(256) - 127)
        values[255] = np.nan
    else:
        layout = _FLOAT8[dtype]
        codes = np.arange(256)
        magnitudes = _float8_magnitudes(layout)[codes & 0x7F]
        values = np.where(codes & 0x80, -magnitudes, magnitudes)
        if layout.fnuz:
            values[0x80] = np.nan
    values.setflags(write=False)
    return values


def _float8_magnitudes(layout: _Float8) -> Float64s:
    """The magnitude of each 7-bit code (the sign bit clear)."""
    codes = np.arange(128)
    exponents, fractions = codes >> layout.mantissa, codes & ((1 << layout.mantissa) - 1)
    significands = np.where(exponents == 0, 0, 1 << layout.mantissa) + fractions
    values: Float64s = np.ldexp(
        significands.astype(np.float64), np.maximum(exponents, 1) - layout.bias - layout.mantissa
    )
    if layout.infinities:
        top = ((1 << layout.exponent) - 1) << layout.mantissa
        values[top:] = np.nan
        values[top] = np.inf
    elif not layout.fnuz:
        values[0x7F] = np.nan
    return values


def _bfloat16_values(codes: npt.NDArray[np.uint16]) -> Float64s:
    wide = np.left_shift(codes, 16, dtype=np.uint32)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return np.asarray(wide.view(np.float32), dtype=np.float64)


@cache
def _ladder(dtype: str) -> Float64s:
    """The finite magnitudes in the order of their codes, then the one that would follow if the range went on.

    The code of that last step is what rounding beyond the largest finite value yields.
    """
    if dtype == "BF16":
        finite = _bfloat16_values(np.arange(0x7F80, dtype=np.uint16))
    else:
        magnitudes = _float8_magnitudes(_FLOAT8[dtype])
        finite = magnitudes[np.isfinite(magnitudes)]
    return np.append(finite, 2 * finite[-1] - finite[-2])


def _encode_small(array: Float64s, dtype: str) -> npt.NDArray[Any]:
    ladder = _ladder(dtype)
    halfway = (ladder[:-1] + ladder[1:]) / 2  # exact: neighbours differ by one bit of few
    magnitudes = np.abs(array)
    below, above = np.searchsorted(halfway, magnitudes, "left"), np.searchsorted(halfway, magnitudes, "right")
    codes = np.where(below & 1, above, below)  # they differ only in a tie, which the even code wins
    sign, nan, container = (0x8000, 0x7FC0, "<u2") if dtype == "BF16" else (0x80, 0x7F, "u1")
    signed = codes | np.where(np.signbit(array), sign, 0)
    if dtype in _FLOAT8 and _FLOAT8[dtype].fnuz:
        signed, nan = np.where(codes == 0, 0, signed), 0x80  # -0 would be the NaN
    return np.where(np.isnan(array), nan, signed).astype(container)


def _encode_e8m0(array: Float64s) -> npt.NDArray[np.uint8]:
    fractions, exponents = np.frexp(np.abs(array))  # magnitude = fraction * 2**exponent, fraction in [0.5, 1)
    codes = exponents + 126 + (fractions >= 0.75)
    codes = np.where(np.abs(array) == 0, 0, np.clip(codes, 0, 255))
    return np.where(np.isfinite(array), codes, 255).astype(np.uint8)
