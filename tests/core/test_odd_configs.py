"""Configs in which any field may hold anything: everything is still said about them, or one error.

KVSCOPE_FULL=1 tries far more.
"""

from __future__ import annotations

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import KVScopeError
from core.export import plan_export
from core.inspection import inspect
from core.matrix import matrix
from core.report import report, text_report
from tests.places import checkpoint_folders

_FULL = os.environ.get("KVSCOPE_FULL") == "1"
_CONFIGS = ("config.json", "hf_quant_config.json", "quantization_config.json")
_ODD: tuple[Any, ...] = (
    10**12, 10**400, -1, 0, 1.5, float("inf"), float("nan"), True, None, "x", "", "10", [], {}, [None], [{}], [10**12],
    ["x"], {"a": 1},
)  # fmt: skip
_FOLDERS = [path for path in checkpoint_folders().values() if (path / "config.json").is_file()]


def _fields(content: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a JSON document something stands; of a long list the first three."""
    is_list = isinstance(content, list)
    inner = enumerate(content[:3]) if is_list else content.items() if isinstance(content, dict) else ()
    for name, value in inner:
        yield (*before, name)
        yield from _fields(value, (*before, name))


@settings(max_examples=5000 if _FULL else 150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_config_breaks_what_is_said_about_it(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(_FOLDERS))
    name = data.draw(st.sampled_from([each for each in _CONFIGS if (source / each).is_file()]))
    content = json.loads((source / name).read_text(encoding="utf-8"))
    for _ in range(data.draw(st.integers(1, 2))):
        *way, last = data.draw(st.sampled_from([*_fields(content)]))
        place = content
        for part in way:
            place = place[part]
        place[last] = copy.deepcopy(data.draw(st.sampled_from(_ODD)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for file in source.iterdir():
            (root / file.name).symlink_to(file.resolve())
        (root / name).unlink()
        (root / name).write_text(json.dumps(content), encoding="utf-8")
        _say_everything(root)


def _say_everything(root: Path) -> None:
    """Only errors that are meant for users may come."""
    try:
        found = inspect(root)
        assert json.dumps(report(found))
        assert text_report(found)
        assert len(matrix(found)) > 1
        plan_export(found)
    except KVScopeError as error:
        assert str(error)  # noqa: PT017 - which one it is depends on what was drawn
