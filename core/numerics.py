"""Rounding of single numbers to the float types engines keep scales in, without torch."""

from __future__ import annotations

import math
import struct

FLOAT_TYPES = ("float32", "float16", "bfloat16")


def to_float32(value: float) -> float:
    """``value`` rounded to float32 (nearest even); too large becomes infinite, as in C."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def to_float16(value: float) -> float:
    """``value`` rounded to float16 by way of float32, as torch converts."""
    single = to_float32(value)
    try:
        return float(struct.unpack("<e", struct.pack("<e", single))[0])
    except OverflowError:
        return math.copysign(math.inf, single)


def to_bfloat16(value: float) -> float:
    """``value`` rounded to bfloat16 (nearest even) by way of float32."""
    single = to_float32(value)
    if math.isnan(single) or math.isinf(single):
        return single
    bits = int(struct.unpack("<I", struct.pack("<f", single))[0])
    bits += 0x7FFF + ((bits >> 16) & 1)
    return float(struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0])


def round_to(dtype: str, value: float) -> float:
    """``value`` as a number of the given dtype; raises ValueError for a dtype that is not a float type named above."""
    match dtype:
        case "float32":
            return to_float32(value)
        case "float16":
            return to_float16(value)
        case "bfloat16":
            return to_bfloat16(value)
    raise ValueError(f"no rounding known for {dtype!r}; known: {', '.join(FLOAT_TYPES)}")
