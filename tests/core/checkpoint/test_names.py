from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.checkpoint import index_scan
from core.checkpoint.index_scan import scan_index
from core.checkpoint.names import Names, Spelled
from core.checkpoint.scan import scan_headers
from core.checkpoint.spans import FRONT, Text, comma_before, hashes_of
from tests.core.checkpoint.writing import header, pack, parse

texts = st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20), max_size=12)


def spelled(names: list[str]) -> Spelled:
    lengths = np.array([len(name) for name in names], dtype=np.int64)
    ends = np.cumsum(lengths)
    return Spelled("".join(names).encode(), ends - lengths, ends)


@given(st.lists(texts, max_size=4), st.booleans())
def test_names_are_a_sequence_like_a_list(parts: list[list[str]], asked: bool) -> None:
    expected = [name for part in parts for name in part]
    names = Names([spelled(part) if number % 2 else part for number, part in enumerate(parts)])
    if asked:
        assert list(names) == expected
    assert len(names) == len(expected)
    assert [names[row] for row in range(len(expected))] == expected
    assert [names[row - len(expected)] for row in range(len(expected))] == expected
    for wrong in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            names[wrong]
    assert names == expected
    assert names[1:3] == expected[1:3]
    assert Names([names, Names([["more"]])]) == [*expected, "more"]
    assert names != [*expected, ""]
    assert repr(names) == f"<{len(expected)} names>"


@pytest.mark.parametrize("odd", ["", " ", "!", "#", "~"], ids=["none", "space", "!", "#", "~"])
def test_the_quick_reader_sorts_as_python_does(odd: str) -> None:
    random = Random(odd)  # noqa: S311 - to shuffle
    names = [f"model.layers.{layer}.a{odd}b.{part}" for layer in range(30) for part in ("weight", "weight_scale", "w")]
    names += [f"model.layers.{layer}.a" for layer in range(30)] + ["a" * 200, f"a{odd}", f"a{odd}{odd}{odd}"]
    names = list(dict.fromkeys(names))
    random.shuffle(names)
    data, size = parse(pack(header(dict.fromkeys(names, ("BF16", (2, 3)))), bytes(12 * len(names))))
    found = scan_headers([data], [size])
    assert found is not None
    assert found.columns.names == sorted(names)
    assert found.hashes.tolist() == hashes_of(sorted(names)).tolist()


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**13)), min_size=1, max_size=9))
def test_the_last_comma_before_an_end(pairs: list[tuple[int, int]]) -> None:
    pieces = [f"{first},{second}" for first, second in pairs]
    text = Text([";".join(pieces).encode()])
    ends = FRONT + np.cumsum([len(piece) + 1 for piece in pieces]) - 1
    found = comma_before(text, ends)
    assert found is not None
    assert (ends - found - 1).tolist() == [len(str(second)) for _, second in pairs]


def test_no_comma_near_an_end() -> None:
    text = Text([b"1,2;" + b"0" * 20])
    assert comma_before(text, np.array([FRONT + 3, FRONT + 24])) is None


def test_a_long_index_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    weight_map = {f"layers.{row}.weight": f"model-{row // 7}.safetensors" for row in range(500)}
    whole = {}
    for at_a_time in (1 << 20, 1000, 64, 1):
        monkeypatch.setattr(index_scan, "_AT_A_TIME", at_a_time)
        for indent in (None, 2):
            found = scan_index(json.dumps({"metadata": {}, "weight_map": weight_map}, indent=indent).encode())
            assert found is not None
            shards = [found.shard_names[number] for number in found.shards.tolist()]
            whole[at_a_time, indent] = (found.hashes.tolist(), found.lengths.tolist(), shards)
    expected = hashes_of(list(weight_map)).tolist(), list(map(len, weight_map)), list(weight_map.values())
    assert all(found == expected for found in whole.values())


@pytest.mark.parametrize(
    "text",
    [
        '{"weight_map": {"a": "x",, "b": "y"}}',
        '{"weight_map": {"a": "x", "b": "y",}}',
        '{"weight_map": {,"a": "x", "b": "y"}}',
        '{"weight_map": {"a": "x", "b", "y"}}',
        '{"weight_map": {"a": "x", 1 "b": "y"}}',
    ],
)
def test_parts_that_are_not_in_the_usual_form(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for at_a_time in (1 << 20, 1):
        monkeypatch.setattr(index_scan, "_AT_A_TIME", at_a_time)
        assert scan_index(text.encode()) is None


@given(st.lists(texts, max_size=4), st.text("ab_.scale", max_size=20))
def test_names_that_end_in_something(parts: list[list[str]], suffix: str) -> None:
    parts = [[*part, suffix, f"x{suffix}", suffix[1:], f"{suffix}x", f"model.layers.0.{suffix}"] for part in parts]
    expected = [name for part in parts for name in part]
    names = Names([spelled(part) if number % 2 else part for number, part in enumerate(parts)])
    found = names.ending(np.arange(len(expected)), suffix)
    assert found.tolist() == [row for row, name in enumerate(expected) if name.endswith(suffix)]
