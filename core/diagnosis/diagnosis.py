"""``diagnose``: every rule asked once, the findings in the order in which people should read them."""

from __future__ import annotations

from core.diagnosis import coverage, declared, delivery, files, sizes, values
from core.diagnosis.case import Case
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.thresholds import Thresholds

_THEMES = (delivery, declared, coverage, values, sizes, files)
_SEVERITIES = ("error", "warning", "info")
_FATAL = ("load-refused", "load-raises", "shape", "head-count")
_DEFAULTS = Thresholds()


def diagnose(case: Case, thresholds: Thresholds = _DEFAULTS) -> tuple[Finding, ...]:
    """All findings, errors first, then what ends the load, then by how many keys or layers they concern.

    Each is one rule with everything it concerns, never one key.
    """
    facts = Facts(case, thresholds)
    found = [finding for theme in _THEMES for rule in theme.RULES for finding in rule(facts)]
    fatal = _FATAL if case.deliveries.load.outcome in ("raises", "refused") else ()
    return tuple(
        sorted(found, key=lambda each: (_SEVERITIES.index(each.severity), each.code not in fatal, -each.count))
    )
