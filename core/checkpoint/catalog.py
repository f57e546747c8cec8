"""The tensors of a whole checkpoint, as columns: a million of them cost no object each but their name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from core.checkpoint.columns import DTYPE_NAMES, Codes, HeaderColumns, Int64s

T = TypeVar("T")

_NO_CODES = np.empty(0, dtype=np.int32)
_NO_SIZES = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """One row of the catalog. ``shard`` is the shard's name, ``begin`` and ``end`` are bytes of its file."""

    key: str
    shard: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Catalog:
    """All tensors of all readable shards, one row each.

    Rows stand file by file, files in natural order of their names ("...2" before "...10"), inside a file by name: the
    order in which safetensors lists them and engines load them. A key that two shards hold has two rows.

    ``names``, ``shard_numbers``, ``dtype_codes``, ``shape_codes``, ``begins`` and ``ends`` are the columns; the codes
    index ``shard_names``, ``dtype_names`` and ``shape_table``. ``begins`` and ``ends`` are bytes from the start of the
    file; a pickled tensor, whose place in its file is PyTorch's business, begins at 0. ``duplicates`` lists the keys
    with more than one row and the shards that hold them; in a TensorRT-LLM checkpoint it is empty, because there every
    rank's file rightly holds its own part of the same key.
    """

    names: list[str]
    shard_numbers: Codes
    dtype_codes: Codes
    shape_codes: Codes
    begins: Int64s
    ends: Int64s
    shard_names: tuple[str, ...]
    dtype_names: tuple[str, ...]
    shape_table: tuple[tuple[int, ...], ...]
    duplicates: tuple[tuple[str, tuple[str, ...]], ...]
    _first: dict[str, int] = field(repr=False)
    _repeated: dict[str, tuple[int, ...]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._first

    def index_of(self, name: str) -> int | None:
        """The row of a key, the first one where several shards hold it; None where none does."""
        return self._first.get(name)

    def rows_of(self, name: str) -> tuple[int, ...]:
        """All rows of a key, in order."""
        if name in self._repeated:
            return self._repeated[name]
        row = self._first.get(name)
        return () if row is None else (row,)

    def entry(self, row: int) -> TensorEntry:
        return TensorEntry(
            key=self.names[row],
            shard=self.shard(row),
            dtype=self.dtype(row),
            shape=self.shape(row),
            begin=int(self.begins[row]),
            end=int(self.ends[row]),
        )

    def shard(self, row: int) -> str:
        return self.shard_names[int(self.shard_numbers[row])]

    def dtype(self, row: int) -> str:
        return self.dtype_names[int(self.dtype_codes[row])]

    def shape(self, row: int) -> tuple[int, ...]:
        return self.shape_table[int(self.shape_codes[row])]


def build_catalog(
    shard_names: Sequence[str], columns: Sequence[HeaderColumns | None], *, ranks: bool = False
) -> Catalog:
    """Join the columns of all shards; a shard that could not be read has None.

    ``ranks`` says that each shard is one rank's part of the model, so that a repeated key is no duplicate.
    """
    names: list[str] = []
    dtype_code_of = {name: code for code, name in enumerate(DTYPE_NAMES)}
    shape_code_of: dict[tuple[int, ...], int] = {}
    numbers, dtypes, shapes = [_NO_CODES], [_NO_CODES], [_NO_CODES]
    begins, ends = [_NO_SIZES], [_NO_SIZES]
    for number, part in enumerate(columns):
        if part is None:
            continue
        names += part.names
        numbers.append(np.full(len(part.names), number, dtype=np.int32))
        dtypes.append(_renumbered(part.dtype_codes, part.dtype_names, dtype_code_of))
        shapes.append(_renumbered(part.shape_codes, part.shape_table, shape_code_of))
        begins.append(part.begins)
        ends.append(part.ends)
    shard_numbers = np.concatenate(numbers)
    first, repeated = _rows_by_name(names)
    return Catalog(
        names=names,
        shard_numbers=shard_numbers,
        dtype_codes=np.concatenate(dtypes),
        shape_codes=np.concatenate(shapes),
        begins=np.concatenate(begins),
        ends=np.concatenate(ends),
        shard_names=tuple(shard_names),
        dtype_names=tuple(dtype_code_of),
        shape_table=tuple(shape_code_of),
        duplicates=()
        if ranks
        else tuple((name, tuple(shard_names[shard_numbers[row]] for row in rows)) for name, rows in repeated.items()),
        _first=first,
        _repeated=repeated,
    )


def _renumbered(codes: Codes, table: Sequence[T], code_of: dict[T, int]) -> Codes:
    """``codes`` into ``table`` as codes of the whole checkpoint, which take in what is new."""
    renumbering = np.array([code_of.setdefault(item, len(code_of)) for item in table], dtype=np.int32)
    return renumbering[codes] if len(table) else codes


def _rows_by_name(names: list[str]) -> tuple[dict[str, int], dict[str, tuple[int, ...]]]:
    """The first row of each name, and all rows of those that have several."""
    first = dict(zip(names, range(len(names)), strict=True))
    if len(first) == len(names):
        return first, {}
    first = dict(zip(reversed(names), range(len(names) - 1, -1, -1), strict=True))
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        if first[name] != row:
            rows.setdefault(name, [first[name]]).append(row)
    return first, {name: tuple(found) for name, found in rows.items()}
