from __future__ import annotations

import math

import pytest

from core.wording import (
    are,
    capital,
    edited,
    joined,
    listed,
    number,
    numbered,
    of,
    plural,
    say,
    sentence,
    short,
    size,
    small,
    spoken,
    spread,
)


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (695_000, "695.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (48_500_000, "48.5 MB"),
        (671_900_000_000, "671.9 GB"),
        (5 * 10**15, "5,000.0 TB"),
    ],
)
def test_sizes(count: int, told: str) -> None:
    assert size(count) == told


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


_CHINESE = {
    "{engine} drops {keys}.": "{engine} 丢弃 {keys}。",
    "{count:,} keys": "{count:,} 个键",
    "{sentence}.": "{sentence}。",
    ", ": "、",
    "{first} and {last}": "{first} 和 {last}",
}


def _chinese(text: str) -> str:
    return spoken(text, _CHINESE.__getitem__)


def test_a_sentence_is_english_and_can_be_said_otherwise() -> None:
    told = say("{engine} drops {keys}.", engine="vLLM", keys=plural(1, "key"))
    assert told == "vLLM drops 1 key."
    assert _chinese(told) == "vLLM 丢弃 1 个键。"
    assert _chinese(listed(["a", "b", "c"])) == "a、b 和 c"
    assert _chinese("model.layers.0.self_attn.k_scale") == "model.layers.0.self_attn.k_scale"


def test_another_reading_keeps_the_template() -> None:
    told = say("{first} and {last}", first="a", last="b")
    assert sentence(told) == "a and b."
    assert [_chinese(each) for each in (sentence(told), capital(told), short(told))] == ["a 和 b。", "a 和 b", "a 和 b"]
    assert capital(told) == "A and b"


def test_what_has_no_translation_reads_as_english_does() -> None:
    told = capital(joined("; ", [plural(1, "key"), say("{first} and {last}", first=of(1, 1, "layer"), last="b")]))
    assert spoken(told, str) == told == "1 key; the only layer and b"
    assert spoken(sentence(plural(1, "key")), str) == "1 key."
    assert spoken(capital(plural(1, "key")), str) == "1 key"
    differs = capital(say("differs from {first}", first="a"))
    assert spoken(differs, str) == "Differs from a"
    assert type(spoken(differs, str)) is str


def test_nothing_joined_is_nothing_in_any_language() -> None:
    assert joined(", ", ["", ""]) == ""
    assert _chinese(joined(", ", [])) == ""
    assert _chinese(joined(", ", ["a", "", "b"])) == "a、b"


def test_what_fills_a_sentence_is_edited_with_it() -> None:
    told = joined(", ", [say("{first} and {last}", first="model.layers.0.a", last=3), "model.layers.0.b"])
    cut = edited(told, lambda text: text.replace("model.layers.0.", "…"))
    assert cut == "…a and 3, …b"
    assert _chinese(cut) == "…a 和 3、…b"
    assert edited("model.layers.0.c", str.upper) == "MODEL.LAYERS.0.C"
