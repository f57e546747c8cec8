from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.diagnosis import Thresholds
from core.diagnosis.catalog import BY_CODE, DOUBTS
from core.diagnosis.marks import marks
from core.naming.scales import KVScale, Quantity, Role

LIMITS = Thresholds()


def scale(
    role: Role,
    layer: int,
    *values: float,
    dtype: str = "F32",
    quantity: Quantity = "scale",
    convention: str = "portable",
    fault: str | None = None,
) -> KVScale:
    return KVScale(
        key=f"model.layers.{layer}.self_attn.{role}_scale",
        file="model.safetensors",
        role=role,
        kind="scale",
        layer=layer,
        module=f"model.layers.{layer}.self_attn",
        convention=convention,
        dtype=dtype,
        shape=(len(values),),
        values=values,
        quantity=quantity,
        fault=fault,
    )


def marked(
    scales: Sequence[KVScale], limits: Thresholds = LIMITS, unit: float = 1.0
) -> dict[tuple[str, int | None], str]:
    found = marks(scales, limits, unit)
    return {(each.role, each.layer): found[each.key, each.file] for each in scales if (each.key, each.file) in found}


def test_real_scales_have_no_mark() -> None:
    k, v = [0.032, 0.054, 0.148], [0.00023, 0.0014, 0.042]  # Qwen3-235B: smallest, median, largest
    scales = [scale("k", layer, value) for layer, value in enumerate(k)]
    scales += [scale("v", layer, value) for layer, value in enumerate(v)]
    assert marked(scales) == {}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (math.nan, "not-finite"),
        (-math.inf, "not-finite"),
        (0.0, "zero"),
        (-0.0, "zero"),
        (-1.0, "negative"),
        (3.7e-40, "uninitialised"),
        (2.5e-21, "uninitialised"),
        (-1.3e29, "uninitialised"),
        (1e-5, "tiny"),
        (1.0, "exactly-one"),
        (0.7, "above-half"),
        (1.3, "large"),
    ],
)
def test_one_strange_value_among_good_ones(value: float, code: str) -> None:
    scales = [scale("k", layer, 0.1) for layer in range(4)] + [scale("v", 0, value), scale("v", 1, 0.1)]
    assert marked(scales) == {("v", 0): code}


def test_a_query_scale_of_one_is_what_engines_use_without_one() -> None:
    scales = [scale(role, layer, 0.1) for role in ("k", "v") for layer in range(2)]
    assert marked([*scales, scale("q", 0, 1.0), scale("q", 1, 1.0)]) == {}
    assert marked([*scales, scale("q", 0, 1.0), scale("q", 1, 3.0)]) == {("q", 1): "large"}


def test_garbage_explains_the_zeros_beside_it() -> None:
    assert marked([scale("k", 0, 0.0), scale("v", 0, 2.5e-21), scale("k", 1, 0.03)]) == {
        ("k", 0): "uninitialised",
        ("v", 0): "uninitialised",
    }


def test_garbage_of_one_tool_does_not_explain_anothers_zeros() -> None:
    scales = [scale("k", 0, 0.0, convention="modelopt"), scale("q", 0, 1e20)]
    assert marked(scales) == {("k", 0): "zero", ("q", 0): "uninitialised"}


def test_large_medians_are_an_amax_or_a_reciprocal() -> None:
    amaxes = [scale("k", 0, 15.0), scale("v", 0, 6.0), scale("k", 1, 40.0), scale("v", 1, 20.0)]
    assert set(marked(amaxes).values()) == {"amax-stored"}
    reciprocals = [scale("k", 0, 30.0), scale("v", 0, 90.0), scale("k", 1, 25.0), scale("v", 1, 700.0)]
    assert set(marked(reciprocals).values()) == {"reciprocal-stored"}


def test_one_large_layer_is_no_amax() -> None:
    scales = [scale(role, layer, 9.2 if layer == 1 else 0.03) for role in ("k", "v") for layer in range(2)]
    assert marked(scales) == {("k", 1): "large", ("v", 1): "large"}


def test_names_that_say_amax_are_believed() -> None:
    assert marked([scale("k", 0, 15.25, quantity="amax"), scale("v", 0, 0.5, quantity="reciprocal")]) == {
        ("k", 0): "amax-stored",
        ("v", 0): "reciprocal-stored",
    }


def test_an_outlier_is_measured_against_its_own_role() -> None:
    scales = [scale("k", layer, value) for layer, value in enumerate([0.03, 0.03, 0.03, 0.95])]
    scales += [scale("v", layer, 0.0005) for layer in range(4)]
    assert marked(scales) == {("k", 3): "outlier"}
    assert marked(scales, Thresholds(outlier_ratio=40.0)) == {("k", 3): "above-half"}


def test_per_head_scales_are_judged_by_their_worst_head() -> None:
    assert marked([scale("k", 0, 0.03, math.nan), scale("k", 1, 0.03, 0.9)]) == {
        ("k", 0): "not-finite",
        ("k", 1): "above-half",
    }


def test_int4_scales_are_larger_and_not_suspicious() -> None:
    scales = [scale("k", 0, 0.9), scale("v", 0, 0.7), scale("k", 1, 3.5), scale("v", 1, 2.5)]
    assert marked(scales, unit=7 / 448) == {}


def test_epsilon_counts_where_chance_does_not_explain_it() -> None:
    few = [scale("k", 0, 0.0044, dtype="BF16"), scale("k", 1, 0.005, dtype="BF16"), scale("v", 0, 0.0049, dtype="BF16")]
    assert marked([*few, scale("v", 1, 2**-7, dtype="BF16")]) == {("v", 1): "dtype-epsilon"}


def test_one_epsilon_among_many_scales_near_it_is_chance() -> None:
    many = [scale(role, layer, 0.005 + layer / 10000, dtype="BF16") for role in ("k", "v") for layer in range(31)]
    assert marked([*many, scale("k", 31, 2**-7, dtype="BF16")]) == {}
    several = [scale("k", layer, 2**-7, dtype="BF16") for layer in range(31, 37)]
    assert set(marked([*many, *several]).values()) == {"dtype-epsilon"}


def test_the_epsilon_of_another_type_means_nothing() -> None:
    assert marked([scale("k", 0, 2**-7), scale("v", 0, 0.01)]) == {}


def test_unreadable_values_are_said_to_be_so() -> None:
    assert marked([scale("k", 0, fault="gone"), scale("v", 0)]) == {
        ("k", 0): "unreadable-scale",
        ("v", 0): "unreadable-scale",
    }


def test_conventions_with_units_of_their_own_have_no_size() -> None:
    assert marked([scale("k", 0, 512.0, convention="nvfp4-global")]) == {}


_VALUES = st.floats(width=32) | st.sampled_from([1.0, 0.0, -1.0, 0.03, 2**-7, 448.0])


@given(st.lists(st.tuples(st.sampled_from(["k", "v", "kv", "q", "prob"]), st.lists(_VALUES, max_size=3)), max_size=12))
def test_every_mark_is_a_code_that_doubts_and_impossible_values_never_pass(
    drawn: list[tuple[Role, list[float]]],
) -> None:
    scales = [scale(role, layer, *values) for layer, (role, values) in enumerate(drawn)]
    found = marks(scales, LIMITS)
    assert set(found.values()) <= DOUBTS <= set(BY_CODE)
    for each in scales:
        if any(not math.isfinite(value) or value <= 0 for value in each.values):
            assert (each.key, each.file) in found
