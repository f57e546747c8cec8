"""``diagnose``: every rule asked once, the findings in the order in which people should read them."""

from __future__ import annotations

from dataclasses import replace

from core.diagnosis import coverage, declared, delivery, files, sizes, values
from core.diagnosis.advice import CONVERT_AGAIN
from core.diagnosis.case import Case
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.thresholds import Thresholds

_THEMES = (delivery, declared, coverage, values, sizes, files)
_SEVERITIES = ("error", "warning", "info")
_FATAL = ("load-refused", "load-raises", "shape", "head-count")
_ADDING = ("missing-scale", "declared-absent", "dynamic-scheme", "k-without-v", "v-without-k")
"""What is mended by tensors that are not there: in TensorRT-LLM's own layout its converter alone writes them."""
_DEFAULTS = Thresholds()


def diagnose(case: Case, thresholds: Thresholds = _DEFAULTS) -> tuple[Finding, ...]:
    """All findings, errors first, then what ends the load, then by how many keys or layers they concern.

    Each is one rule with everything it concerns, never one key.
    """
    facts = Facts(case, thresholds)
    found = [finding for theme in _THEMES for rule in theme.RULES for finding in rule(facts)]
    if case.declaration.dialect == "tensorrt-llm":
        found = [replace(each, fix=CONVERT_AGAIN, remedy="") if each.code in _ADDING else each for each in found]
    fatal = _FATAL if case.deliveries.load.outcome in ("raises", "refused") else ()
    return tuple(
        sorted(found, key=lambda each: (_SEVERITIES.index(each.severity), each.code not in fatal, -each.count))
    )
