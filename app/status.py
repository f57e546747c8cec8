"""What became of a scale: the names that all views share."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """What became of one scale, or of one layer's role; the worst first."""

    RAISES = "raises"
    UNREADABLE = "unreadable"
    DROPPED = "dropped"
    IGNORED = "ignored"
    MISSING = "missing"
    SUSPICIOUS = "suspicious"
    OVERRIDDEN = "overridden"
    NOT_REACHED = "not_reached"
    COPIED = "copied"
    LOADED = "loaded"
    NONE = "none"

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return _RANKS[self]


_RANKS = {status: rank for rank, status in enumerate(Status)}
