from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.checkpoint.lookup import Lookup
from core.checkpoint.spans import FRONT, Text, digits, ending_in, group, hashes_of, pieces_of, summed, word

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


def spans(pieces: list[str]) -> tuple[Text, np.ndarray, np.ndarray]:
    lengths = [len(piece) for piece in pieces]
    ends = FRONT + np.cumsum(np.array(lengths, dtype=np.int64) + 1) - 1
    return Text([",".join(pieces).encode()]), ends - np.array(lengths, dtype=np.int64), ends


def test_positions_and_words() -> None:
    text = Text([b"ab,cdefgh", b"ijk,"])
    assert (text.positions(",") - FRONT).tolist() == [2, 12]
    at = np.array([FRONT + 3])
    assert text.words(at) == word("cdefghij")


@given(st.lists(st.integers(0, 10**18 - 1), min_size=1, max_size=20))
def test_numbers(values: list[int]) -> None:
    text, begins, ends = spans(list(map(str, values)))
    found = text.numbers(begins, ends)
    assert found is not None
    assert found.tolist() == values


@pytest.mark.parametrize(
    "piece",
    ["", "01", "00", "1000000000000000000", "-1", "1.0", "1e3", "12a", ":", "/", "1 2", "\x00", "\xb9", "123456789:12"],
)
def test_what_is_no_number(piece: str) -> None:
    text, _, _ = spans(["7", piece, "42"])
    lengths = np.array([1, len(piece.encode()), 2])
    begins = FRONT + np.concatenate(([0], np.cumsum(lengths + 1)[:-1]))
    assert text.numbers(begins, begins + lengths) is None


def test_no_numbers_at_all() -> None:
    none = np.empty(0, dtype=np.int64)
    found = Text([b""]).numbers(none, none)
    assert found is not None
    assert len(found) == 0


@given(st.lists(words, max_size=30))
def test_equal_names_and_no_others_have_equal_hashes(names: list[str]) -> None:
    hashes = hashes_of(names).tolist()
    by_name = dict(zip(names, hashes, strict=True))
    assert [by_name[name] for name in names] == hashes
    assert len(set(hashes)) == len(set(names))


def test_names_that_differ_in_one_place_or_in_length_alone_have_different_hashes() -> None:
    names = {"x" * length for length in range(300)}
    names |= {"x" * at + letter + "x" * (130 - at) for at in range(131) for letter in "yzX0"}
    names |= {"\0" * length for length in range(1, 100)}
    assert len(set(hashes_of(sorted(names)).tolist())) == len(names)


def test_many_names() -> None:
    names = [f"model.layers.{layer}.mlp.experts.{expert}.weight" for layer in range(100) for expert in range(300)]
    assert len(set(hashes_of(names).tolist())) == len(names)


@given(st.lists(st.integers(0, 3), max_size=50))
def test_groups(keys: list[int]) -> None:
    numbers, examples = group(np.array(keys, dtype=np.uint64))
    assert len(examples) == len(set(keys))
    assert [keys[examples[number]] for number in numbers.tolist()] == keys


@given(st.lists(st.text("ab", max_size=4), max_size=9), st.lists(st.text("ab", max_size=4), max_size=9))
def test_sums_are_equal_where_the_same_is_summed_in_whatever_order(some: list[str], others: list[str]) -> None:
    others += some[len(others) :]
    some += others[len(some) :]
    assert (summed(hashes_of(some)) == summed(hashes_of(others))) == (sorted(some) == sorted(others))


@given(st.lists(st.integers(0, 10**18), max_size=30))
def test_the_length_of_numbers(values: list[int]) -> None:
    values = [*values, *(10**power + by for power in range(1, 18) for by in (-1, 0))]
    assert digits(np.array(values)).tolist() == [len(str(value)) for value in values]


def test_brackets_are_found_and_nothing_else() -> None:
    text = Text([bytes(range(1, 256))])
    assert bytes(text.data[text.brackets()]) == b"[]{}"


@given(st.lists(st.text(st.characters(min_codepoint=45, max_codepoint=126), max_size=20), min_size=1, max_size=20))
def test_sorting_keys_are_sorted_as_the_names_are(names: list[str]) -> None:
    text, begins, ends = spans(names)
    marked = Text([text.joined[FRONT : int(ends[-1])].replace(b",", b'"') + b'"'])
    order = np.argsort(marked.sorting_keys(begins, 21), kind="stable")
    assert [names[row] for row in order.tolist()] == sorted(names)


@given(st.lists(st.text("ab", max_size=3), max_size=40), st.lists(st.text("abc", max_size=3), max_size=10))
def test_lookup(names: list[str], asked: list[str]) -> None:
    lookup = Lookup(names, hashes_of(names))
    expected = [names.index(name) if name in names else None for name in asked]
    assert lookup.first_of(asked) == expected
    assert [lookup.first(name) for name in asked] == expected
    assert lookup.repeated == {
        name: tuple(row for row, other in enumerate(names) if other == name)
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    }


def test_lookup_among_many_before_and_after_it_makes_a_dictionary() -> None:
    names = [f"n{number % 4000}" for number in range(5000)]
    lookup = Lookup(names, hashes_of(names))
    assert lookup.first_of(["n5", "none", "n3999"]) == [5, None, 3999]
    for number in range(600):
        assert lookup.first(f"n{number}") == number
        assert lookup.first(f"m{number}") is None
    assert lookup.first("\ud800") is None
    assert lookup.first_of(["n5", "none", "n3999"]) == [5, None, 3999]
    assert lookup.repeated["n7"] == (7, 4007)


@given(st.lists(words, max_size=20), st.text("abé.", max_size=12))
def test_what_ends_in_a_suffix(names: list[str], suffix: str) -> None:
    names = [*names, suffix, f"{suffix}!", f"x{suffix}", f"a long name with{suffix}"]
    text, begins, ends = pieces_of(names)
    found = ending_in(text.tails(begins, ends), suffix).tolist()
    assert found == [row for row, name in enumerate(names) if name.encode().endswith(suffix.encode()[-8:])]
