"""Config files and indexes that no JSON writer laid out: an export changes what it must, and not a byte beside it."""

from __future__ import annotations

import copy
import json
import random
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import pytest

from core.export import plan_export, write_export
from core.export.fixes import parse_fixes
from core.export.index import in_style_of
from core.export.splicing import spliced
from core.inspection import inspect
from tests.core.diagnosis.build import COMPRESSED, llama
from tests.core.diagnosis.examples import GOOD
from tests.core.export.exporting import Stored, shard_bytes

MIXED = (
    '{\r\n  "a": 1.0E-06,\n  "b" : ["x", "y"],\r\n  "c": {\n    "d": null,\r\n    "e": {}\n  },\r\n'
    '  "f": "\\u00e9"\r\n}\n'
)


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("a", {"a": 2}, [("1.0E-06", "2")]),
        ("b", {"b": ["z"]}, [('["x", "y"]', '["z"]')]),
        ("c", {"c": {"d": 1, "e": {}}}, [("null", "1")]),
        ("c", {"c": {"d": None, "e": {"g": [1]}}}, [("{}", '{\n      "g": [\n        1\n      ]\n    }')]),
        ("c", {"c": {"e": {}}}, [('\n    "d": null,\r\n', "\n")]),
        ("c", {"c": {}}, [('{\n    "d": null,\r\n    "e": {}\n  }', "{}")]),
        ("b", {}, [('\n  "b" : ["x", "y"],\r\n', "\n")]),
        ("b", {"B": 1, "C": 2}, [('"b" : ["x", "y"],\r\n', '"B": 1,\n  "C": 2,\r\n')]),
        ("f", {"f": "\u00e9", "g": "\u00fc"}, [('"\\u00e9"', '"\\u00e9",\r\n  "g": "\\u00fc"')]),
    ],
)
def test_only_what_changes_is_written_anew(old: str, new: dict[str, Any], changes: list[tuple[str, str]]) -> None:
    value: dict[str, Any] = {}
    for name, stored in json.loads(MIXED).items():
        value |= new if name == old else {name: stored}
    expected = MIXED
    for before, after in changes:
        assert expected.count(before) == 1
        expected = expected.replace(before, after)
    assert in_style_of(MIXED, value) == expected
    assert json.loads(expected) == value


def test_an_unchanged_value_is_the_same_text() -> None:
    for text in (MIXED, "{}", " [1 ,2]\n", '{"a":1, "a" :2}'):
        assert in_style_of(text, json.loads(text, strict=False)) == text


def test_a_name_that_stands_twice_goes_on_doing_so() -> None:
    text = '{"a": 1,\n "b": 2, "a": 3, "b": 4}'
    assert spliced(text, {"a": 5, "b": 4}) == text.replace("3", "5")
    assert json.loads(spliced(text, {"b": 4, "c": 1})) == {"b": 4, "c": 1}


def _value(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(8 if depth else 5)
    if kind < 5:
        return [None, True, chance.random(), chance.randrange(9), 'q"\u00e9\n'][kind]
    if kind == 5:
        return [_value(chance, depth - 1) for _ in range(chance.randrange(3))]
    return {chance.choice("abcdefg\u00fc"): _value(chance, depth - 1) for _ in range(chance.randrange(5))}


def _laid_out(chance: random.Random, value: Any) -> str:
    """JSON with white space wherever it may stand."""

    def space() -> str:
        return chance.choice(["", "", " ", "\n", "\r\n", "\n  ", "\t"])

    if isinstance(value, dict):
        members = (f"{space()}{json.dumps(key)}{space()}:{space()}{_laid_out(chance, value[key])}" for key in value)
        return f"{{{f'{space()},'.join(members)}{space()}}}"
    if isinstance(value, list):
        return f"[{f'{space()},{space()}'.join(_laid_out(chance, one) for one in value)}]"
    return json.dumps(value)


def _altered(chance: random.Random, value: Any) -> Any:
    if not isinstance(value, dict) or not value:
        return _value(chance, 2)
    changed = copy.deepcopy(value)
    name = chance.choice(list(changed))
    match chance.randrange(4):
        case 0:
            del changed[name]
        case 1:
            changed = {("new" if key == name else key): one for key, one in changed.items()}
        case 2:
            changed["more"] = _value(chance, 1)
        case _:
            changed[name] = _altered(chance, changed[name])
    return changed


@pytest.mark.parametrize("seed", range(300))
def test_whatever_changes_the_text_says_it(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same every time
    value = {"first": _value(chance, 3), **{f"n{number}": _value(chance, 3) for number in range(4)}}
    text = _laid_out(chance, value)
    changed = _altered(chance, value)
    written = spliced(text, changed)
    assert json.dumps(json.loads(written)) == json.dumps(changed)
    if chance.randrange(4) and isinstance(changed, dict):
        same = [name for name in value if name in changed and json.dumps(value[name]) == json.dumps(changed[name])]
        for name in same:
            begin = text.index(json.dumps(name))
            assert text[begin : begin + len(json.dumps(name)) + 1] in written


def test_an_export_changes_the_lines_that_it_must(tmp_path: Path) -> None:
    """A config and an index with line ends of two kinds, arrays in a line and numbers as somebody typed them."""
    folder = tmp_path / "in"
    folder.mkdir()
    shard = "model-00001-of-00001.safetensors"
    (folder / shard).write_bytes(shard_bytes([Stored(name, "F32", (), b"\0\0\x80\x3e") for name in GOOD]))
    config = llama(COMPRESSED)
    del config["quantization_config"]["kv_cache_scheme"]
    text = json.dumps(config, indent=3).replace('[\n      "LlamaForCausalLM"\n   ]', '["LlamaForCausalLM"]')
    mixed = "\r\n".join(text.split("\n")[:4]) + "\r\n" + "\n".join(text.split("\n")[4:]) + "\n\n"
    (folder / "config.json").write_bytes(mixed.encode())
    index = json.dumps({"metadata": {"total_size": 4 * len(GOOD)}, "weight_map": dict.fromkeys(GOOD, shard)}, indent=2)
    half = index.replace("\n", "\r\n", 3).encode()
    (folder / "model.safetensors.index.json").write_bytes(half)
    plan = plan_export(inspect(folder), names="modelopt", fixes=parse_fixes(["declare"]))
    write_export(plan, tmp_path / "out")
    written = (tmp_path / "out/model.safetensors.index.json").read_bytes()
    expected = half
    for edit in plan.edits:
        expected = expected.replace(f'"{edit.key}"'.encode(), f'"{edit.new_key}"'.encode())
    assert written == expected
    after = (tmp_path / "out/config.json").read_bytes()
    opcodes = SequenceMatcher(None, mixed.encode(), after, autojunk=False).get_opcodes()
    assert {kind for kind, *_ in opcodes} == {"equal", "insert"}
    assert json.loads(after)["quantization_config"]["kv_cache_scheme"]["num_bits"] == 8
    [changed] = plan.config_edits
    assert [line for line in changed.diff.splitlines()[2:] if line.startswith("-")] == ['-      "version": "0.19.0"']
