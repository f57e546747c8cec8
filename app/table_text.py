"""The selected rows of the key table as text: with tabs for a mail, as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from typing import Any

from app import text
from app.digest import Digest
from app.models.keys import Column, KeyTable, header
from app.models.tensors import rows_of_ids


def table_text(table: KeyTable, ids: Collection[str], separator: str, columns: Sequence[int]) -> str:
    """The rows of these ids that the table shows, in its order, below the heads of the columns.

    With "," as separator numbers carry every digit that tells them apart, several of them separated by spaces.
    """
    out = io.StringIO()
    exact = separator == ","
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow([header(column) for column in columns])
    places = table.positions_of(ids)
    lines = table.lines_at(places)
    if exact:
        for number, place in enumerate(places.tolist()):
            if lines[number][Column.VALUE] and (row := table.row_at(place)) is not None:
                cells = list(lines[number])
                cells[Column.VALUE] = " ".join(text.exact(value) for value in row.values)
                lines[number] = tuple(cells)
    writer.writerows(zip(*([line[column] for line in lines] for column in columns), strict=True))
    return out.getvalue()


def tensors_as_dicts(digest: Digest, ids: Collection[str]) -> list[dict[str, Any]]:
    """Tensors that are no scales, with what their headers say."""
    catalog = digest.inspection.checkpoint.catalog
    entries = map(catalog.entry, rows_of_ids(catalog, ids))
    return [
        {"key": entry.key, "file": entry.shard, "dtype": entry.dtype, "shape": list(entry.shape)} for entry in entries
    ]
