"""``Finding`` and ``Verdict``: what the diagnosis says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
VerdictOutcome = Literal["ok", "degraded", "fails", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that fired, for all the keys it concerns.

    ``code`` is stable ("missing-scale"). ``consequence`` is what the chosen engine does with it. ``fix`` is a sentence
    for people; ``remedy`` is the export fix that applies it ("rename", "drop", ...), "" where the export cannot.
    ``source`` says where the knowledge comes from.
    """

    code: str
    severity: Severity
    title: str
    keys: tuple[str, ...]
    layers: tuple[int, ...]
    evidence: str
    consequence: str
    fix: str
    remedy: str = ""
    source: str = ""

    @property
    def count(self) -> int:
        return len(self.keys) or len(self.layers)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The sum: ``outcome`` and one sentence with the numbers."""

    outcome: VerdictOutcome
    text: str
