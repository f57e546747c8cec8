"""Rounding agrees with torch's on awkward numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.numerics import round_to

TORCH = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
AWKWARD = [
    0.3,
    1e-45,
    1e-40,
    65519.999,
    65520.0,
    3.4e38,
    1e39,
    -1e39,
    math.inf,
    -math.inf,
    0.0,
    -0.0,
    0.00390625 * 1.001,
]


@pytest.mark.parametrize("dtype", TORCH)
@pytest.mark.parametrize("value", AWKWARD)
def test_like_torch(dtype: str, value: float) -> None:
    expected = torch.tensor(value, dtype=torch.float32).to(TORCH[dtype]).item()
    assert round_to(dtype, value) == expected


@pytest.mark.parametrize("dtype", TORCH)
@given(value=st.floats(width=32, allow_nan=False))
def test_like_torch_on_any_float32(dtype: str, value: float) -> None:
    assert round_to(dtype, value) == torch.tensor(value, dtype=torch.float32).to(TORCH[dtype]).item()


@pytest.mark.parametrize("dtype", TORCH)
def test_nan_stays_nan(dtype: str) -> None:
    assert math.isnan(round_to(dtype, math.nan))


def test_an_integer_type_has_no_rounding() -> None:
    with pytest.raises(ValueError, match="no rounding known for 'int8'; known: float32, float16, bfloat16"):
        round_to("int8", 1.0)
