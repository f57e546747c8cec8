"""The tensors of a whole checkpoint, as columns: a million of them cost no object each, not even for their name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from core.checkpoint.columns import DTYPE_NAMES, Codes, HeaderColumns, Int64s
from core.checkpoint.lookup import Lookup
from core.checkpoint.names import Names
from core.checkpoint.spans import Words, ending_in, pieces_of

T = TypeVar("T")

N = TypeVar("N", bound=np.generic)


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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True, repr=False)
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

    names: Names
    shard_numbers: Codes
    dtype_codes: Codes
    shape_codes: Codes
    begins: Int64s
    ends: Int64s
    shard_names: tuple[str, ...]
    dtype_names: tuple[str, ...]
    shape_table: tuple[tuple[int, ...], ...]
    duplicates: tuple[tuple[str, tuple[str, ...]], ...]
    lookup: Lookup
    tails: Words

    def __repr__(self) -> str:
        return f"<Catalog of {len(self.names)} tensors in {len(self.shard_names)} shards>"

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.lookup.first(name) is not None

    def index_of(self, name: str) -> int | None:
        """The row of a key, the first one where several shards hold it; None where none does."""
        return self.lookup.first(name)

    def rows_of(self, name: str) -> tuple[int, ...]:
        """All rows of a key, in order."""
        if name in self.lookup.repeated:
            return self.lookup.repeated[name]
        row = self.lookup.first(name)
        return () if row is None else (row,)

    def rows_ending(self, suffixes: Iterable[str]) -> list[int]:
        """The rows, in order, whose key ends in one of the suffixes: milliseconds among a million of keys.

        The last eight bytes of a suffix do most of the work: they should be as telling as ``".k_scale"``.
        """
        found = np.zeros(len(self.names), dtype=np.bool_)
        alike: dict[str, Int64s] = {}
        for suffix in suffixes:
            last = suffix[-8:]
            if last not in alike:
                alike[last] = ending_in(self.tails, last)
            if len(alike[last]):
                found[self.names.ending(alike[last], suffix)] = True
        return [int(row) for row in np.flatnonzero(found)]

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


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Rows of one or several shards: ``numbers`` says of which shard each is; hashes and tails are of the names."""

    columns: HeaderColumns
    numbers: Codes
    hashes: Words
    tails: Words


def block_of(columns: HeaderColumns, number: int) -> Block:
    """The rows of one shard."""
    numbers = np.full(len(columns.names), number, dtype=np.int32)
    text, begins, ends = pieces_of(columns.names)
    return Block(columns, numbers, text.hashes(begins, ends), text.tails(begins, ends))


def build_catalog(shard_names: Sequence[str], blocks: Sequence[Block], *, ranks: bool = False) -> Catalog:
    """Join the rows of all shards, given in the order of the shards.

    ``ranks`` says that each shard is one rank's part of the model, so that a repeated key is no duplicate.
    """
    names = Names([block.columns.names for block in blocks])
    dtype_code_of = {name: code for code, name in enumerate(DTYPE_NAMES)}
    shape_code_of: dict[tuple[int, ...], int] = {}
    dtypes, shapes = [], []
    for block in blocks:
        dtypes.append(_renumbered(block.columns.dtype_codes, block.columns.dtype_names, dtype_code_of))
        shapes.append(_renumbered(block.columns.shape_codes, block.columns.shape_table, shape_code_of))
    numbers = _joined([block.numbers for block in blocks], np.int32)
    lookup = Lookup(names, _joined([block.hashes for block in blocks], np.uint64))
    return Catalog(
        names=names,
        shard_numbers=numbers,
        dtype_codes=_joined(dtypes, np.int32),
        shape_codes=_joined(shapes, np.int32),
        begins=_joined([block.columns.begins for block in blocks], np.int64),
        ends=_joined([block.columns.ends for block in blocks], np.int64),
        shard_names=tuple(shard_names),
        dtype_names=tuple(dtype_code_of),
        shape_table=tuple(shape_code_of),
        duplicates=() if ranks else _duplicates(lookup, numbers, shard_names),
        lookup=lookup,
        tails=_joined([block.tails for block in blocks], np.uint64),
    )


def _duplicates(lookup: Lookup, numbers: Codes, shard_names: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple(
        (name, tuple(shard_names[int(numbers[row])] for row in rows)) for name, rows in lookup.repeated.items()
    )


def _joined(parts: list[npt.NDArray[N]], dtype: type[N]) -> npt.NDArray[N]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)


def _renumbered(codes: Codes, table: Sequence[T], code_of: dict[T, int]) -> Codes:
    """``codes`` into ``table`` as codes of the whole checkpoint, which take in what is new."""
    renumbering = np.array([code_of.setdefault(item, len(code_of)) for item in table], dtype=np.int32)
    return renumbering[codes] if len(table) else codes
