"""Rows by name: by hash for a few names, which needs no dictionary of a million entries, and by dictionary for many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from core.checkpoint.columns import Int64s
from core.checkpoint.spans import Words, hashes_of

_FEW = 256


class Lookup:
    """Finds the rows of names in a list that never changes.

    ``hashes`` are those of the names (:meth:`core.checkpoint.spans.Text.hashes`).
    """

    __slots__ = ("_asked", "_first", "_names", "_order", "_repeated", "_sorted", "hashes")

    def __init__(self, names: Sequence[str], hashes: Words) -> None:
        self._names = names
        self.hashes = hashes
        self._sorted = np.sort(hashes)
        self._order: Int64s | None = None
        self._repeated = self._find_repeated()
        self._first: dict[str, int] | None = None
        self._asked = 0

    @property
    def repeated(self) -> dict[str, tuple[int, ...]]:
        """All rows of each name that has several."""
        return self._repeated

    def first(self, name: str) -> int | None:
        """The first row of a name."""
        self._asked += 1
        if self._first is None and self._asked <= _FEW < len(self._names):
            return self.first_of([name])[0]
        return self._dictionary().get(name)

    def first_of(self, names: Sequence[str]) -> list[int | None]:
        """The first row of each name."""
        if self._first is not None or len(names) > len(self._names) // 8:
            return list(map(self._dictionary().get, names))
        wanted = hashes_of(names)
        found: list[int | None] = []
        starts = np.searchsorted(self._sorted, wanted)
        for name, start, hashed in zip(names, starts.tolist(), wanted.tolist(), strict=True):
            rows = [row for row in self._rows_of_hash(start, hashed) if self._names[row] == name]
            found.append(min(rows, default=None))
        return found

    def _rows_of_hash(self, start: int, hashed: int) -> Iterable[int]:
        """The rows whose names have a hash; ``start`` is where they begin in that order."""
        order = self._by_hash()
        while start < len(order) and int(self._sorted[start]) == hashed:
            yield int(order[start])
            start += 1

    def _by_hash(self) -> Int64s:
        """The rows in the order of their hashes: found when a name is first looked for, which few need."""
        if self._order is None:
            self._order = np.argsort(self.hashes)
        return self._order

    def _dictionary(self) -> dict[str, int]:
        if self._first is None:
            self._first = dict(zip(self._names, range(len(self._names)), strict=True))
            self._first.update((name, rows[0]) for name, rows in self._repeated.items())
        return self._first

    def _find_repeated(self) -> dict[str, tuple[int, ...]]:
        again = np.flatnonzero(self._sorted[1:] == self._sorted[:-1])
        if not len(again):
            return {}
        order = self._by_hash()
        rows = np.unique(np.concatenate((order[again], order[again + 1]))).tolist()
        found: dict[str, list[int]] = {}
        for row in rows:
            found.setdefault(self._names[row], []).append(row)
        return {name: tuple(same) for name, same in found.items() if len(same) > 1}
