"""The one selection that every view sets and follows."""

from __future__ import annotations

from collections.abc import Iterable

from PySide6.QtCore import QObject, Signal


class Selection(QObject):
    """A set of row ids (see :class:`app.digest.Row`) and the current one among them.

    A view that calls :meth:`select` passes itself as ``origin`` and skips the signal that comes back with it.
    """

    changed = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._ids: frozenset[str] = frozenset()
        self._current: str | None = None

    @property
    def ids(self) -> frozenset[str]:
        return self._ids

    @property
    def current(self) -> str | None:
        """The row whose story is told; None when nothing is selected."""
        return self._current

    def select(self, ids: Iterable[str], *, current: str | None = None, origin: object = None) -> None:
        """Replace the selection; ``current`` defaults to the old one while it stays selected, else to the first id."""
        ordered = tuple(ids)
        chosen = frozenset(ordered)
        if current is None or current not in chosen:
            current = self._current if self._current in chosen else (ordered[0] if ordered else None)
        if chosen == self._ids and current == self._current:
            return
        self._ids, self._current = chosen, current
        self.changed.emit(origin)

    def clear(self) -> None:
        self.select(())
