"""``diagnose``: every rule asked once, the findings in the order in which people should read them."""

from __future__ import annotations

from core.diagnosis import coverage, declared, delivery, files, sizes, values
from core.diagnosis.case import Case
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.thresholds import Thresholds

_THEMES = (delivery, declared, coverage, values, sizes, files)
_SEVERITIES = ("error", "warning", "info")
_DEFAULTS = Thresholds()


def diagnose(case: Case, thresholds: Thresholds = _DEFAULTS) -> tuple[Finding, ...]:
    """All findings, errors first, then by how many keys or layers they concern.

    Each is one rule with everything it concerns, never one key.
    """
    facts = Facts(case, thresholds)
    found = [finding for theme in _THEMES for rule in theme.RULES for finding in rule(facts)]
    return tuple(sorted(found, key=_rank))


def _rank(finding: Finding) -> tuple[int, bool, int]:
    ends_the_load = finding.code.startswith("load-")
    return _SEVERITIES.index(finding.severity), not ends_the_load, -finding.count
