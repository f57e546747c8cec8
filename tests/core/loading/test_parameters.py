from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.loading.parameters import (
    SENTINEL,
    KVCacheScaleParameter,
    WeightPlaceholder,
    default_weight_loader,
    weight_loader_of,
)
from core.numerics import round_to


def test_it_is_a_parameter_that_starts_at_the_sentinel() -> None:
    scale = KVCacheScaleParameter()
    assert isinstance(scale, torch.nn.Parameter)
    assert (scale.item(), tuple(scale.shape), scale.dtype, scale.requires_grad) == (SENTINEL, (), torch.float32, False)
    assert SENTINEL == -1.0


def test_it_takes_pytorchs_default_dtype_or_the_one_given() -> None:
    assert KVCacheScaleParameter(dtype=torch.bfloat16).dtype == torch.bfloat16
    torch.set_default_dtype(torch.float16)
    try:
        assert KVCacheScaleParameter().dtype == torch.float16
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1)])
def test_it_takes_one_element_of_any_rank(shape: tuple[int, ...]) -> None:
    scale = KVCacheScaleParameter()
    scale.weight_loader(scale, torch.full(shape, 0.25))
    assert scale.item() == 0.25
    assert scale.shape == ()


@pytest.mark.parametrize("shape", [(0,), (2,), (8, 1, 1), (1, 32)])
def test_it_refuses_anything_else_in_the_engines_words(shape: tuple[int, ...]) -> None:
    scale = KVCacheScaleParameter()
    with pytest.raises(ValueError, match="KV-cache scale expects a scalar weight, got shape") as caught:
        scale.weight_loader(scale, torch.zeros(shape))
    assert str(caught.value).endswith(str(shape))
    assert scale.item() == SENTINEL


@given(st.floats(width=32))
def test_it_rounds_as_the_prediction_does(value: float) -> None:
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("float32", torch.float32)):
        scale = KVCacheScaleParameter(dtype=dtype)
        scale.weight_loader(scale, torch.tensor([value]))
        assert scale.item() == round_to(name, value) or (math.isnan(scale.item()) and math.isnan(value))


def test_0_3_becomes_0_30078125_in_bfloat16() -> None:
    scale = KVCacheScaleParameter(dtype=torch.bfloat16)
    scale.weight_loader(scale, torch.tensor(0.3))
    assert scale.item() == 0.30078125


def _fill(param: torch.Tensor, loaded: torch.Tensor, *, value: float) -> None:
    param.data.fill_(value)


def test_an_instance_may_bring_its_own_loader() -> None:
    scale, other = KVCacheScaleParameter(), KVCacheScaleParameter()
    scale.weight_loader = partial(_fill, value=7.0)  # type: ignore[method-assign]
    for parameter in (scale, other):
        weight_loader_of(parameter)(parameter, torch.tensor(0.5))
    assert (scale.item(), other.item()) == (7.0, 0.5)


def test_it_can_be_copied_with_its_value() -> None:
    scale = KVCacheScaleParameter(dtype=torch.bfloat16)
    scale.weight_loader(scale, torch.tensor(0.5))
    copied = copy.deepcopy(scale)
    scale.data.fill_(2.0)
    assert (type(copied), copied.item(), copied.dtype) == (KVCacheScaleParameter, 0.5, torch.bfloat16)


def test_it_stays_itself_when_a_module_moves() -> None:
    module = torch.nn.Module()
    module.k_scale = KVCacheScaleParameter()
    module.to(torch.float64)
    assert type(module.k_scale) is KVCacheScaleParameter


def test_the_default_loader_takes_one_element_or_its_own_shape() -> None:
    one, three = torch.zeros(1), torch.zeros(3)
    default_weight_loader(one, torch.tensor(0.5))
    default_weight_loader(three, torch.tensor([1.0, 2.0, 3.0]))
    assert (one.tolist(), three.tolist()) == ([0.5], [1.0, 2.0, 3.0])


def test_the_default_loader_refuses_another_shape() -> None:
    with pytest.raises(AssertionError) as caught:
        default_weight_loader(torch.zeros(1), torch.zeros(8, 1, 1))
    assert str(caught.value) == "Attempted to load weight (torch.Size([8, 1, 1])) into parameter (torch.Size([1]))"


def test_a_placeholder_costs_nothing_and_keeps_parts() -> None:
    placeholder = WeightPlaceholder()
    assert placeholder.numel() == 0
    query, key = torch.ones(4, 2), torch.zeros(2, 2)
    query.key = "q_proj.weight"  # type: ignore[attr-defined]
    placeholder.weight_loader(placeholder, query, "q")
    placeholder.weight_loader(placeholder, key, "k")
    assert {shard: (part.key, tuple(part.tensor.shape)) for shard, part in placeholder.parts.items()} == {
        "q": ("q_proj.weight", (4, 2)),
        "k": ("", (2, 2)),
    }
