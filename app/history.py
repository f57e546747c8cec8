"""Back and forward through what was selected, as in a browser."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from PySide6.QtCore import QObject, Signal

from app.selection import Selection

MOST = 100
MERGED_S = 0.6
"""Selections of one view that follow one another faster than this are one step: a held arrow key passes many rows."""


@dataclass(frozen=True, slots=True)
class Place:
    """A selection as it was."""

    ids: frozenset[str]
    current: str | None


class History(QObject):
    """Listens to a selection and can bring earlier ones back. Empty selections are no places to go back to."""

    changed = Signal()

    def __init__(
        self, selection: Selection, parent: QObject | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(parent)
        self._selection = selection
        self._clock = clock
        self._places: list[Place] = []
        self._here = -1
        self._last: tuple[float, object] = (float("-inf"), None)
        self._going = False
        selection.changed.connect(self._on_selection_changed)

    @property
    def can_go_back(self) -> bool:
        return self._here > 0

    @property
    def can_go_forward(self) -> bool:
        return self._here < len(self._places) - 1

    def go(self, step: int) -> None:
        """Back (-1) or forward (1); nothing where there is nowhere to go."""
        there = self._here + step
        if not 0 <= there < len(self._places):
            return
        self._here = there
        self._going = True
        try:
            place = self._places[there]
            self._selection.select(place.ids, current=place.current, origin=self)
        finally:
            self._going = False
        self.changed.emit()

    def clear(self) -> None:
        """Forget everything: another checkpoint's keys mean nothing."""
        self._places, self._here = [], -1
        self.changed.emit()

    def _on_selection_changed(self, origin: object) -> None:
        now = self._clock()
        since, who = self._last
        self._last = now, origin
        if self._going or not self._selection.ids:
            return
        place = Place(self._selection.ids, self._selection.current)
        if origin is not None and origin is who and now - since < MERGED_S and self._here >= 0:
            self._places[self._here :] = [place]
        else:
            self._places[self._here + 1 :] = [place]
            del self._places[:-MOST]
        self._here = len(self._places) - 1
        self.changed.emit()
