"""Findings and the verdict: one rule, one small function, one stable code.

:func:`diagnose` and :func:`judge` are the way in; :data:`RULES` lists every code.
"""

from core.diagnosis.case import Case
from core.diagnosis.catalog import DOUBTS, RULES, RuleInfo
from core.diagnosis.diagnosis import diagnose
from core.diagnosis.finding import Finding, Severity, Verdict, VerdictOutcome
from core.diagnosis.making import APPLIED_BY_EXPORT, BY_ITSELF, REMEDIES, mended_by_export
from core.diagnosis.options import WISHES, Option, fix_usage, options_of
from core.diagnosis.thresholds import Thresholds
from core.diagnosis.verdict import judge

__all__ = [
    "APPLIED_BY_EXPORT",
    "BY_ITSELF",
    "DOUBTS",
    "REMEDIES",
    "RULES",
    "WISHES",
    "Case",
    "Finding",
    "Option",
    "RuleInfo",
    "Severity",
    "Thresholds",
    "Verdict",
    "VerdictOutcome",
    "diagnose",
    "fix_usage",
    "judge",
    "mended_by_export",
    "options_of",
]
