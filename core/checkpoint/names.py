"""The names of many tensors, left in the text that spells them until somebody asks: a million strings take longer to
make than a million headers' entries to check.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

import numpy as np

from core.checkpoint.columns import Int64s


@dataclass(frozen=True, slots=True, eq=False)
class Spelled:
    """Names as pieces of one ASCII text, in the order of their rows."""

    text: bytes
    begins: Int64s
    ends: Int64s

    def __len__(self) -> int:
        return len(self.begins)

    def __getitem__(self, row: int) -> str:
        return self.text[int(self.begins[row]) : int(self.ends[row])].decode("ascii")

    def ending(self, rows: Int64s, suffix: str) -> Int64s:
        """Those of the rows whose name ends in ``suffix``; no name is made for it."""
        wanted = suffix.encode("utf-8", "surrogatepass")
        length = len(wanted)
        rows = rows[self.ends[rows] - self.begins[rows] >= length]
        for width in (min(8, length), length):  # eight characters tell most of them, and are quickly compared
            if width and len(rows):
                pieces = np.ndarray((len(self.text) - width + 1,), f"S{width}", self.text, 0, (1,))
                rows = rows[pieces[self.ends[rows] - length] == wanted[:width]]
        return rows

    def strings(self) -> list[str]:
        """All of them."""
        string = self.text.decode("ascii")
        return [string[begin:end] for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True)]


class Names(Sequence[str]):
    """The names of one or several headers, one behind the other. Single ones are made when asked for; whoever goes
    through all of them gets a list, which then replaces the text.
    """

    __slots__ = ("_all", "_parts", "_starts")

    def __init__(self, parts: Sequence[Spelled | Sequence[str]]) -> None:
        flat = [inner for part in parts for inner in (part.parts if isinstance(part, Names) else (part,))]
        self._parts: list[Spelled | Sequence[str]] = flat
        self._starts = [0, *accumulate(map(len, flat))]
        self._all: list[str] | None = None

    @property
    def parts(self) -> Sequence[Spelled | Sequence[str]]:
        """What they are spelled in."""
        return self._parts

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if self._all is not None or isinstance(row, slice):
            return self.strings()[row]
        if row < 0:
            row += len(self)
        if not 0 <= row < len(self):
            raise IndexError(row)
        part = bisect_right(self._starts, row) - 1
        return self._parts[part][row - self._starts[part]]

    def __iter__(self) -> Iterator[str]:
        return iter(self.strings())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names | list) and self.strings() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} names>"

    def ending(self, rows: Int64s, suffix: str) -> Int64s:
        """Those of the ``rows``, which are in order, whose name ends in ``suffix``."""
        found: list[Int64s] = []
        bounds = np.searchsorted(rows, self._starts).tolist()
        for part, start, first, last in zip(self._parts, self._starts, bounds, bounds[1:], strict=False):
            inside = rows[first:last] - start
            if isinstance(part, Spelled):
                found.append(part.ending(inside, suffix) + start)
            else:
                named = [row for row in inside.tolist() if part[row].endswith(suffix)]
                found.append(np.array(named, dtype=np.int64) + start)
        return np.concatenate(found) if found else rows

    def strings(self) -> list[str]:
        """All of them, as one list that must not be changed."""
        if self._all is None:
            found: list[str] = []
            for part in self._parts:
                found += part.strings() if isinstance(part, Spelled) else part
            self._all = found
            self._parts, self._starts = [found], [0, len(found)]
        return self._all
