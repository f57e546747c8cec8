from __future__ import annotations

import re
from pathlib import Path

import pytest

from core.diagnosis import REMEDIES, RULES
from core.diagnosis.catalog import BY_CODE
from core.diagnosis.finding import Finding
from tests.core.diagnosis.build import codes, finding
from tests.core.diagnosis.examples import EXAMPLES


def test_every_rule_has_an_example_and_every_example_a_rule() -> None:
    assert sorted(EXAMPLES) == sorted(rule.code for rule in RULES)


def test_codes_are_unique_and_speak_for_themselves() -> None:
    assert len(BY_CODE) == len(RULES)
    for rule in RULES:
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.code)
        assert rule.meaning.endswith(".")
        assert not rule.title.endswith(".")
        assert rule.source


def check_form(found: Finding) -> None:
    """What every finding must hold, whatever it says."""
    rule = BY_CODE[found.code]
    assert (found.severity, found.title, found.source) == (rule.severity, rule.title, rule.source)
    assert found.remedy in ("", *REMEDIES)
    for text in (found.evidence, found.consequence, found.fix):
        assert text.endswith("."), (found.code, text)
        assert "  " not in text
        assert "None" not in text.replace("NoneType", "")
    assert len(found.keys) == len(set(found.keys))
    assert found.layers == tuple(sorted(set(found.layers)))


@pytest.mark.parametrize("code", EXAMPLES)
def test_the_example_is_found(code: str, tmp_path: Path) -> None:
    inspection = EXAMPLES[code](tmp_path)
    finding(inspection, code)
    for found in inspection.findings:
        check_form(found)
    order = ["error", "warning", "info"]
    severities = [order.index(found.severity) for found in inspection.findings]
    assert severities == sorted(severities)
    assert len(codes(inspection)) == len(set(codes(inspection)))
