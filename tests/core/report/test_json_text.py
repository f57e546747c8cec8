"""The report's JSON is written as ``json.dumps`` would write it, but for numbers that JSON has no words for."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from core.inspection import inspect
from core.naming.mapper import RuleKind
from core.report import json_text, report

PLAIN: dict[str, object] = {
    "empty": [{}, [], ()],
    "numbers": (1, -7, 2.5, -0.0, 1e300, 5e-324, True, False, None),
    'quo"ted\\': "ü\n\t\x01\N{GRINNING FACE}",
    "kind": RuleKind.REGEX,
    "deep": [[{"x": [False, {"y": None}]}]],
}


@pytest.mark.parametrize("indent", [None, 2, 4])
def test_it_is_what_json_dumps_writes(indent: int | None, samples: Path) -> None:
    whole = report(inspect(samples / "modelopt/deepseekv3-30layers-fp8-kvfp8"))
    told: tuple[object, ...] = (PLAIN, [], "text", 3, whole)
    for data in told:
        assert json_text(data, indent=indent) == json.dumps(data, indent=indent, ensure_ascii=False)


def test_what_json_has_no_words_for_is_said() -> None:
    data = {3: math.nan, "up": [math.inf, -math.inf], "path": Path("a/b"), "array": np.float64(0.25)}
    spoken = {"3": "nan", "up": ["inf", "-inf"], "path": "a/b", "array": 0.25}
    assert json.loads(json_text(data)) == spoken


@pytest.mark.parametrize("char", ["\x7f", "\x9b", "\u2028", "\u202e", "\u2066", "\udcff", "\U000e0001"])
def test_what_cannot_be_printed_is_escaped(char: str) -> None:
    told = json_text({char: [char]}, indent=None)
    assert told.isprintable()
    assert json.loads(told) == {char: [char]}
