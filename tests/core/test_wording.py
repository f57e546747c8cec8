from __future__ import annotations

import math

import pytest

from core.wording import are, capital, listed, number, numbered, of, plural, sentence, short, small, spread


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.034120001, "0.03412"),
        (3.7e-40, "3.7e-40"),
        (-1.3e29, "-1.3e29"),
        (1.0, "1.0"),
        (448.0, "448.0"),
        (math.nan, "NaN"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers(value: float, told: str) -> None:
    assert number(value) == told


def test_a_spread_keeps_nan_apart() -> None:
    assert spread([0.04, 0.03, 0.05]) == "0.03 to 0.05"
    assert spread([0.04, 0.04]) == "0.04"
    assert spread([0.04, math.nan]) == "0.04 and NaN"
    assert spread([math.nan]) == "NaN"
    assert spread([]) == "NaN"


def test_layers_are_told_as_ranges() -> None:
    assert numbered([3]) == "layer 3"
    assert numbered([7, 0, 1, 2, 2]) == "layers 0-2, 7"
    assert numbered(range(0, 100, 2)) == "layers 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, ..."
    assert numbered([]) == "no numbered layer"


def test_counts_and_verbs_agree() -> None:
    assert plural(1, "key") == "1 key"
    assert plural(1024, "key") == "1,024 keys"
    assert [are(1), are(2), are(1, "reaches"), are(2, "reaches"), are(2, "runs"), are(2, "has")] == [
        "is",
        "are",
        "reaches",
        "reach",
        "run",
        "have",
    ]
    assert [of(1, 1, "layer"), of(2, 2, "layer"), of(36, 36, "layer"), of(2, 36, "layer")] == [
        "the only layer",
        "both layers",
        "all 36 layers",
        "2 of 36 layers",
    ]


def test_lists_end_in_a_count_when_they_are_long() -> None:
    assert [listed([]), listed(["a"]), listed(["a", "b", "c"]), listed(["a", "b", "c", "d"])] == [
        "none",
        "a",
        "a, b and c",
        "a, b, c and 1 more",
    ]


def test_exceptions_become_one_short_line() -> None:
    assert short("AssertionError: ") == "AssertionError"
    assert short("ValueError: a\n  b.") == "ValueError: a b"
    assert short(None) == "an exception"
    long = f"ValueError: There is no module 'x' in Y. The available parameters are: {'z' * 300}"
    assert short(long) == "ValueError: There is no module 'x' in Y"
    assert short("E: " + "z" * 400).endswith("zzz...")
    assert len(short("E: " + "z" * 400)) == 200


def test_sentences_leave_names_as_they_are() -> None:
    assert sentence("both layers fail") == "Both layers fail."
    assert sentence("config.json says so.") == "config.json says so."
    assert sentence("vLLM stops...") == "vLLM stops..."
    assert sentence("k: 1 of 2") == "k: 1 of 2."
    assert sentence("") == ""
    assert capital("all 3") == "All 3"
    assert [small("NaN or infinite"), small("Scales of 1.0"), small("An amax")] == [
        "NaN or infinite",
        "scales of 1.0",
        "an amax",
    ]
