"""The surveys are decoded line by line: what comes out is what the whole file says."""

from __future__ import annotations

import json

import pytest

from core.architectures.surveys import survey
from core.engines.vllm.releases import RELEASES
from resources import resource


@pytest.mark.parametrize("engine", [release.id for release in RELEASES])
def test_lines_and_the_whole_file_say_the_same(engine: str) -> None:
    whole = json.loads(resource("architectures", f"{engine}.json").read_text(encoding="utf-8"))
    found = dict(survey(engine))
    assert list(found) == list(whole)
    assert dict(found.pop("modules")) == whole.pop("modules")
    assert found == whole
