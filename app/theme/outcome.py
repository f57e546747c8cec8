"""A verdict's outcome as icon, tone and word."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from app.theme.palettes import Tone
from core.diagnosis.finding import VerdictOutcome

_LOOKS: dict[VerdictOutcome, tuple[str, Tone]] = {
    "ok": ("ok", "ok"),
    "degraded": ("warning", "warning"),
    "fails": ("error", "error"),
    "unknown": ("unknown", "info"),
}


def outcome_word(outcome: VerdictOutcome) -> str:
    """The verdict's outcome as the banner prints it, translated."""
    words = {
        "ok": QCoreApplication.translate("Banner", "OK"),
        "degraded": QCoreApplication.translate("Banner", "Degraded"),
        "fails": QCoreApplication.translate("Banner", "Fails"),
        "unknown": QCoreApplication.translate("Banner", "Unknown"),
    }
    return words[outcome]


def outcome_look(outcome: VerdictOutcome) -> tuple[str, Tone]:
    """The icon and tone of a verdict's outcome."""
    return _LOOKS[outcome]
