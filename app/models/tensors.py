"""Every tensor of a checkpoint as a source for the key table: columns in, columns out, no object per tensor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import repeat
from operator import contains

import numpy as np
import numpy.typing as npt

from app import text
from app.digest import Digest, Row
from app.models.keys import Column, Indices, cells_of
from app.models.query import Query, Term, shape_of
from core.checkpoint import Catalog

_CHUNK = 20_000
Mask = npt.NDArray[np.bool_]


class TensorSource:
    """The catalog's rows; those that are KV scales carry their status, target and value as in the scale table.

    Filtering a million names takes about a tenth of a second: names are compared in one C loop, dtype, shape and file
    by their codes. Terms about scales (layer, role, status, value, problem ...) accept scales only.
    """

    def __init__(self, catalog: Catalog, digest: Digest) -> None:
        self._catalog = catalog
        self._names = catalog.names
        self._digest = digest
        repeated = _repeated(catalog)
        self._ids = {row: name for name, row in repeated.items()}
        scales = list(digest.by_id)
        found = zip(scales, catalog.lookup.first_of(scales), strict=True)
        self._numbers = {name: row for name, row in found if row is not None} | repeated
        self._rows = {row: digest.by_id[name] for name, row in self._numbers.items() if name in digest.by_id}
        # Here, in the job that makes this, and not in the first filter or sort, which the window waits for.
        self._lowered = [name.lower() for name in self._names]
        self._name_ranks = _ranks_of_names(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def id_at(self, number: int) -> str:
        return self._ids.get(number) or self._names[number]

    def ids_at(self, numbers: Indices) -> list[str]:
        names, others = self._names.strings(), self._ids
        return [others.get(number) or names[number] for number in numbers.tolist()]

    def number_of(self, name: str) -> int | None:
        number = self._numbers.get(name)
        # By hash: the catalog's dictionary of a million names would take half a second when it is first asked.
        return self._catalog.lookup.first_of([name])[0] if number is None else number

    def numbers_of(self, names: Collection[str]) -> list[int]:
        known = self._numbers
        others = self._catalog.lookup.first_of([name for name in names if name not in known])
        return [known[name] for name in names if name in known] + [row for row in others if row is not None]

    def row_at(self, number: int) -> Row | None:
        return self._rows.get(number)

    def cell(self, number: int, column: int) -> str:
        row = self.row_at(number)
        if row is not None and row.scale is not None:
            return cells_of(row)[column]
        match column:
            case Column.KEY:
                return self._names[number]
            case Column.DTYPE:
                return self._catalog.dtype(number)
            case Column.SHAPE:
                return text.shape(self._catalog.shape(number))
            case Column.TARGET | Column.STATUS | Column.ROLE | Column.LAYER if row is not None:
                return cells_of(row)[column]
            case _:
                return ""

    def lines(self, numbers: Indices) -> list[tuple[str, ...]]:
        catalog, names = self._catalog, self._names.strings()
        dtypes = [catalog.dtype_names[code] for code in catalog.dtype_codes[numbers].tolist()]
        sizes = [text.shape(size) for size in catalog.shape_table]
        shapes = [sizes[code] for code in catalog.shape_codes[numbers].tolist()]
        return [
            tuple(self.cell(number, column) for column in Column)
            if number in self._rows
            else ("", "", "", "", names[number], "", dtype, shape, "")
            for number, dtype, shape in zip(numbers.tolist(), dtypes, shapes, strict=True)
        ]

    def accepted(self, query: Query) -> Indices:
        if not query.terms:
            return np.arange(len(self._names), dtype=np.intp)
        mask = np.ones(len(self._names), dtype=np.bool_)
        for term in query.terms:
            accepted = self._mask(term)
            mask &= ~accepted if term.negated else accepted
        return np.flatnonzero(mask)

    def order(self, visible: Indices, column: int, *, descending: bool) -> Indices:
        catalog = self._catalog
        match column:
            case Column.DTYPE:
                keys = _ranks(catalog.dtype_names)[catalog.dtype_codes[visible]]
            case Column.SHAPE:
                keys = _ranks([(len(shape), shape) for shape in catalog.shape_table])[catalog.shape_codes[visible]]
            case Column.KEY:
                keys = self._name_ranks[visible]
            case _:
                keys = self._scale_ranks(column)[visible]
        return visible[np.argsort(-keys if descending else keys, kind="stable")]

    def _mask(self, term: Term) -> Mask:
        catalog = self._catalog
        wanted = tuple(part.lower() for part in term.text.split(",") if part)
        match term.field:
            case "":
                return self._containing(term.text.lower())
            case "dtype":
                return _coded(catalog.dtype_codes, catalog.dtype_names, lambda name: name.lower().startswith(wanted))
            case "file":
                return _coded(
                    catalog.shard_numbers,
                    catalog.shard_names,
                    lambda name: any(part in name.lower() for part in wanted),
                )
            case "shape":
                wanted_shape = shape_of(term.text)
                return _coded(catalog.shape_codes, catalog.shape_table, lambda shape: shape == wanted_shape)
            case _:
                mask = np.zeros(len(self._names), dtype=np.bool_)
                codes = self._digest.findings_by_id
                for name, row in self._digest.by_id.items():
                    number = self.number_of(name)
                    if number is not None:
                        mask[number] = term.test(row, {finding.code for finding in codes.get(name, ())})
                return mask

    def _containing(self, needle: str) -> Mask:
        found = map(contains, self._lowered, repeat(needle))
        mask: Mask = np.fromiter(found, dtype=np.bool_, count=len(self._names))
        return mask

    def _scale_ranks(self, column: int) -> npt.NDArray[np.int64]:
        """Ranks of the scales in this column; every other tensor comes after them."""
        ranks = np.full(len(self._names), np.iinfo(np.int64).max // 2, dtype=np.int64)
        texts = {name: cells_of(row)[column] for name, row in self._digest.by_id.items()}
        if column == Column.STATUS:
            order = {name: row.status.rank for name, row in self._digest.by_id.items()}
        elif column == Column.LAYER:
            order = {name: -1 if row.layer is None else row.layer for name, row in self._digest.by_id.items()}
        else:
            known = {shown: rank for rank, shown in enumerate(sorted(set(texts.values())))}
            order = {name: known[shown] for name, shown in texts.items()}
        for name, rank in order.items():
            number = self.number_of(name)
            if number is not None:
                ranks[number] = rank
        return ranks


def rows_of_ids(catalog: Catalog, ids: Collection[str]) -> list[int]:
    """The catalog's rows, in order, of the ids that a :class:`TensorSource` gives them; what is none is left out."""
    repeated = _repeated(catalog)
    others = [name for name in ids if name not in repeated]
    rows = [row for row in catalog.lookup.first_of(others) if row is not None]
    return sorted(rows + [row for name, row in repeated.items() if name in ids])


def ids_held(catalog: Catalog, ids: Collection[str]) -> list[str]:
    """Those of the ids that stand for a tensor."""
    repeated = _repeated(catalog)
    others = [name for name in ids if name not in repeated]
    rows = zip(others, catalog.lookup.first_of(others), strict=True)
    return [name for name in repeated if name in ids] + [name for name, row in rows if row is not None]


def _repeated(catalog: Catalog) -> dict[str, int]:
    """Ids, and rows, of the tensors whose key an earlier shard holds too."""
    return {
        f"{name} ({catalog.shard(row)})": row for name, _ in catalog.duplicates for row in catalog.rows_of(name)[1:]
    }


def _ranks_of_names(names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Each name's rank among all; sorted as bytes, which numpy does without the interpreter's lock."""
    try:
        parts = [np.array(names[start : start + _CHUNK], dtype=np.bytes_) for start in range(0, len(names), _CHUNK)]
        ordered = np.argsort(np.concatenate(parts), kind="stable") if parts else np.empty(0, dtype=np.intp)
    except UnicodeEncodeError:
        ordered = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.intp)
    ranks = np.empty(len(names), dtype=np.int64)
    ranks[ordered] = np.arange(len(names))
    return ranks


def _ranks(items: object) -> npt.NDArray[np.int64]:
    """The rank of each item among its kin, in the items' order."""
    listed = list(items)  # type: ignore[call-overload]
    ranks = np.empty(len(listed), dtype=np.int64)
    for rank, number in enumerate(sorted(range(len(listed)), key=listed.__getitem__)):
        ranks[number] = rank
    return ranks


def _coded(codes: npt.NDArray[np.int32], table: tuple[object, ...], accepts: Callable[..., bool]) -> Mask:
    """Rows whose code stands for an accepted entry of the table."""
    good = np.array([accepts(entry) for entry in table], dtype=np.bool_)
    mask: Mask = good[codes] if len(table) else np.zeros(len(codes), dtype=np.bool_)
    return mask
