"""An opened checkpoint: its shards, its tensors, and values read on demand, by offset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.checkpoint.catalog import Catalog
from core.checkpoint.configs import json_files, load_json_object
from core.checkpoint.dtypes import decode, is_raw
from core.checkpoint.faults import BrokenFileError, Fault, quoted
from core.checkpoint.files import open_regular, os_problem, read_spans
from core.checkpoint.header import read_header
from core.checkpoint.index import IndexReport, is_inside
from core.errors import KVScopeError
from core.wording import plural, say

Span = tuple[int, int]
"""Where a tensor's bytes begin and end in its file."""

if TYPE_CHECKING:
    from core.checkpoint.remote.bringing import Remote
    from core.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One file of tensors.

    ``name`` is relative to the checkpoint's root; ``size`` and ``header_size`` are bytes (the header with the eight
    that give its length; 0 for pickled files); ``metadata`` is the header's ``__metadata__``.
    """

    name: str
    path: Path
    size: int
    header_size: int
    tensors: int
    metadata: Mapping[str, str]
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorValues:
    """The values of one tensor, flat, in row-major order; () and the reason as ``fault`` where there are none.

    Float types are converted exactly; integers beyond 2**53 are rounded to the nearest float.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    values: tuple[float, ...]
    fault: str | None = None


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Checkpoint:
    """A checkpoint as its files describe it; nothing is kept open.

    Attributes:
        path: as given; of a remote checkpoint, where its configs and headers are kept on this disk.
        root: the folder in which the configs lie; a file's parent.
        format: "safetensors", "safetensors-sharded", "pytorch", "pytorch-sharded" or "tensorrt-llm".
        shards: in natural order of their names; those that could not be read carry a fault.
        catalog: the tensors of all shards that could be read.
        faults: everything wrong with files, the shards' faults among them.
        index: the index compared with the shards, None without one.
        total_bytes: of all shards together.
        notes: sentences about files that were passed over, and why.
        remote: where its files really are; None for those of this machine.
    """

    path: Path
    root: Path
    format: str
    shards: tuple[Shard, ...]
    catalog: Catalog
    faults: tuple[Fault, ...]
    index: IndexReport | None
    total_bytes: int
    notes: tuple[str, ...] = ()
    remote: Remote | None = None
    _configs: dict[str, dict[str, Any] | BrokenFileError | None] = field(default_factory=dict, repr=False)

    @property
    def tensor_count(self) -> int:
        return len(self.catalog)

    @property
    def place(self) -> str:
        """The path or the address, as text for people."""
        return self.remote.address if self.remote is not None else str(self.path)

    def place_of(self, name: str) -> str:
        """The same of one file in ``root``."""
        if self.remote is None:
            return str(self.root / name)
        address = self.remote.address
        return address if address.endswith(f"/{name}") else f"{address}: {name}"

    def config(self, name: str) -> Mapping[str, Any] | None:
        """The JSON object in ``root/name``, None when there is no such file. Parsed once.

        Raises:
            KVScopeError: the file is there, but cannot be read as a JSON object (see also :meth:`config_fault`).
        """
        found = self._config(name)
        if isinstance(found, BrokenFileError):
            raise KVScopeError(found.problem, path=self.place_of(name), remedy=found.remedy)
        return found

    def config_fault(self, name: str) -> Fault | None:
        """Why :meth:`config` would raise; None when it would not."""
        found = self._config(name)
        return found.fault(name) if isinstance(found, BrokenFileError) else None

    def config_names(self) -> tuple[str, ...]:
        """The JSON files in ``root``, sorted, at most 1000."""
        return self.remote.json_names() if self.remote is not None else json_files(self.root)

    def names_in(self, file: str) -> Sequence[str]:
        """The keys of a safetensors file in ``root`` that the catalog leaves out.

        Raises:
            BrokenFileError: it is none, or cannot be read; of a remote checkpoint, also where it was not fetched.
        """
        with open_regular(self.root / file) as (opened, size):
            return read_header(opened, self.remote.size(file) if self.remote is not None else size)[1].names

    def read(
        self, keys: Iterable[str], *, limit: int = 1 << 20, progress: Progress | None = None
    ) -> dict[str, TensorValues]:
        """The values of the tensors named; only their bytes are read.

        ``limit`` is the largest number of elements read of one tensor. A key that cannot be read (no readable shard
        holds it, its type is raw, it is too large, its file changed) comes back with a fault. Of a key in several
        shards the first is read; :meth:`read_rows` reads the others.
        """
        wanted = list(dict.fromkeys(keys))
        rows = dict(zip(wanted, self.catalog.lookup.first_of(wanted), strict=True))
        found = iter(self.read_rows([row for row in rows.values() if row is not None], limit=limit, progress=progress))
        absent = self._absent(key for key, row in rows.items() if row is None)
        return {key: absent[key] if row is None else next(found) for key, row in rows.items()}

    def read_rows(
        self, rows: Sequence[int], *, limit: int = 1 << 20, progress: Progress | None = None
    ) -> list[TensorValues]:
        """:meth:`read` by catalog rows, in their order."""
        found: dict[int, TensorValues] = {}
        wanted: dict[int, dict[int, Span]] = {}
        once = np.array(list(dict.fromkeys(rows)), dtype=np.int64)
        catalog = self.catalog
        columns = (catalog.shard_numbers, catalog.dtype_codes, catalog.shape_codes, catalog.begins, catalog.ends)
        reasons: dict[tuple[int, int], str | None] = {}  # most are of a few kinds
        for row, number, dtype, shape, begin, end in zip(
            once.tolist(), *(column[once].tolist() for column in columns), strict=True
        ):
            if (dtype, shape) not in reasons:
                reasons[dtype, shape] = self._unreadable(row, limit)
            reason = reasons[dtype, shape]
            if reason is None:
                wanted.setdefault(number, {})[row] = begin, end
            else:
                found[row] = self._values(row, (), reason)
        data: dict[int, bytes] = {}
        if self.remote is not None:
            spans = {self.shards[number].name: list(of_shard.values()) for number, of_shard in wanted.items()}
            self.remote.fetch_values(spans, progress)
        for number, of_shard in wanted.items():
            try:
                data.update(self._bytes_of(self.shards[number], of_shard))
            except BrokenFileError as error:
                reason = say(
                    "{file} {problem}. {remedy}",
                    file=self.shards[number].name,
                    problem=error.problem,
                    remedy=error.remedy,
                )
                found.update((row, self._values(row, (), reason)) for row in of_shard)
        found.update(self._decoded(data))
        return [found[row] for row in rows]

    def read_bytes(self, key: str) -> bytes:
        """All bytes of a tensor as its file stores them (a pickled one as safetensors would).

        Raises:
            KVScopeError: no readable shard holds the key, or its file cannot be read any more.
        """
        row = self.catalog.index_of(key)
        if row is None:
            raise KVScopeError(self._absent([key])[key].fault or "", path=self.path, key=key)
        shard = self.shards[int(self.catalog.shard_numbers[row])]
        try:
            span = int(self.catalog.begins[row]), int(self.catalog.ends[row])
            return dict(self._bytes_of(shard, {row: span}))[row]
        except BrokenFileError as error:
            raise KVScopeError(error.problem, path=shard.path, key=key, remedy=error.remedy) from error

    def _config(self, name: str) -> dict[str, Any] | BrokenFileError | None:
        if name not in self._configs:
            path = self.root / name
            try:
                if self.remote is not None:
                    self.remote.fetch_config(name)
                there = is_inside(name) and path.exists()
                self._configs[name] = load_json_object(path) if there else None
            except BrokenFileError as error:
                self._configs[name] = error.with_traceback(None)
            except OSError as error:
                self._configs[name] = os_problem(error, path)
        return self._configs[name]

    def _absent(self, keys: Iterable[str]) -> dict[str, TensorValues]:
        """Why no shard yields these keys, as far as the index knows."""
        expected = dict(self.index.missing_keys) if self.index else {}
        faults = {shard.name: shard.fault for shard in self.shards}
        found = {}
        for key in keys:
            reason, shard = say("no readable shard holds this key"), expected.get(key, "")
            if fault := faults.get(shard):
                reason = say(
                    "the index says it is in {shard}, which was not read: {problem}", shard=shard, problem=fault.problem
                )
            found[key] = TensorValues(key=key, dtype="", shape=(), values=(), fault=reason)
        return found

    def _unreadable(self, row: int, limit: int) -> str | None:
        dtype = self.catalog.dtype(row)
        if is_raw(dtype):
            return say("values of type {dtype} are not decoded", dtype=quoted(dtype))
        elements = prod(self.catalog.shape(row))
        return (
            say("holds {values}, more than the {limit:,} that are read", values=plural(elements, "value"), limit=limit)
            if elements > limit
            else None
        )

    def _values(self, row: int, values: tuple[float, ...], fault: str | None) -> TensorValues:
        catalog = self.catalog
        return TensorValues(
            key=catalog.names[row], dtype=catalog.dtype(row), shape=catalog.shape(row), values=values, fault=fault
        )

    def _bytes_of(self, shard: Shard, spans: Mapping[int, Span]) -> Iterable[tuple[int, bytes]]:
        """The bytes of some of a shard's rows, which lie at these ``spans``."""
        if self.format.startswith("pytorch"):
            from core.checkpoint.pytorch import read_pickled_bytes

            names = {row: self.catalog.names[row] for row in spans}
            data = read_pickled_bytes(shard.path, list(names.values()))
            return [(row, data[name]) for row, name in names.items()]
        if self.remote is not None:
            return zip(spans, self.remote.read_spans(shard.name, spans.values()), strict=True)
        return zip(spans, read_spans(shard.path, shard.size, list(spans.values())), strict=True)

    def _decoded(self, data: Mapping[int, bytes]) -> Iterable[tuple[int, TensorValues]]:
        """Decode tensors of one type together: most scales are single numbers."""
        catalog = self.catalog
        by_type: dict[int, list[int]] = {}
        for row, code in zip(data, catalog.dtype_codes[list(data)].tolist() if data else (), strict=True):
            by_type.setdefault(code, []).append(row)
        for code, rows in by_type.items():
            dtype, pieces = catalog.dtype_names[code], [data[row] for row in rows]
            flat = decode(b"".join(pieces), dtype).tolist()
            width = sum(map(len, pieces)) // len(flat) if flat else 1
            done = 0
            for row, shape, piece in zip(rows, catalog.shape_codes[rows].tolist(), pieces, strict=True):
                until = done + len(piece) // width
                yield (
                    row,
                    TensorValues(
                        key=catalog.names[row],
                        dtype=dtype,
                        shape=catalog.shape_table[shape],
                        values=tuple(flat[done:until]),
                    ),
                )
                done = until
