"""The selected rows as text for the clipboard: keys, columns with tabs for a mail, CSV for a spreadsheet, JSON.

Each gives the text and the number of rows in it, and may run in a job: what it reads never changes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from app import text
from app.digest import Digest
from app.models.keys import Column, ShownRows, header
from app.models.tensors import rows_of_ids
from app.story import row_as_dict
from core.progress import Progress
from core.trace import Tracer

_STEP = 2_000


def keys_text(digest: Digest, ids: Collection[str], progress: Progress) -> tuple[str, int]:
    """The keys, one a line; of a missing scale the parameter's name."""
    ordered = [row.key or row.target for row in digest.rows if row.id in ids]
    progress.check()
    catalog = digest.inspection.checkpoint.catalog
    ordered += [catalog.names[row] for row in rows_of_ids(catalog, set(ids) - digest.by_id.keys())]
    return "\n".join(ordered), len(ordered)


def table_text(
    rows: ShownRows, ids: Collection[str], separator: str, columns: Sequence[int], progress: Progress
) -> tuple[str, int]:
    """The rows of these ids that the table shows, in its order, below the heads of the columns.

    With "," as separator numbers carry every digit that tells them apart, several of them separated by spaces.
    """
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow([header(column) for column in columns])
    numbers = rows.chosen(ids)
    progress.start(progress.what, total=len(numbers))
    for start in range(0, len(numbers), _STEP):
        part = numbers[start : start + _STEP]
        lines = rows.source.lines(part) if rows.source is not None else []
        if separator == ",":
            lines = [_exact(rows, number, line) for number, line in zip(part.tolist(), lines, strict=True)]
        writer.writerows(zip(*([line[column] for line in lines] for column in columns), strict=True))
        progress.advance(len(part))
    return out.getvalue(), len(numbers)


def _exact(rows: ShownRows, number: int, line: tuple[str, ...]) -> tuple[str, ...]:
    row = rows.source.row_at(number) if rows.source is not None and line[Column.VALUE] else None
    if row is None:
        return line
    cells = list(line)
    cells[Column.VALUE] = " ".join(text.exact(value) for value in row.values)
    return tuple(cells)


def rows_json(digest: Digest, ids: Collection[str], progress: Progress) -> tuple[str, int]:
    """The rows as the report writes scales, tensors that are none as their headers have them: one object, or a list."""
    tracer = Tracer(digest.inspection)
    scales = [row for row in digest.rows if row.id in ids]
    catalog = digest.inspection.checkpoint.catalog
    others = rows_of_ids(catalog, set(ids) - digest.by_id.keys())
    total = len(scales) + len(others)
    progress.start(progress.what, total=total)

    def objects() -> Iterator[dict[str, Any]]:
        for row in scales:
            yield row_as_dict(row, tracer.trace(row.delivery) if row.delivery is not None else None)
        for entry in map(catalog.entry, others):
            yield {"key": entry.key, "file": entry.shard, "dtype": entry.dtype, "shape": list(entry.shape)}

    if total == 1:
        return json.dumps(next(objects()), indent=2, ensure_ascii=False), 1
    parts, found = [], objects()
    while part := list(islice(found, _STEP // 20)):
        parts.append(json.dumps(part, indent=2, ensure_ascii=False)[2:-2])  # without the list's own brackets
        progress.advance(len(part))
    return "[\n" + ",\n".join(parts) + "\n]" if parts else "[]", total
