"""The selected rows of the key table as text: with tabs for a mail, as CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Sequence
from typing import Any

from app import text
from app.digest import Digest
from app.models.keys import Column, KeyTable, header


def table_text(table: KeyTable, ids: Collection[str], separator: str, columns: Sequence[int]) -> str:
    """The rows of these ids that the table shows, in its order, below the heads of the columns.

    With "," as separator numbers carry every digit that tells them apart, several of them separated by spaces.
    """
    out = io.StringIO()
    exact = separator == ","
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow([header(column) for column in columns])
    for place in sorted(place for name in ids if (place := table.position_of(name)) is not None):
        row = table.row_at(place)
        cells = [str(table.index(place, column).data() or "") for column in columns]
        if exact and row is not None and Column.VALUE in columns:
            cells[columns.index(Column.VALUE)] = " ".join(text.exact(value) for value in row.values)
        writer.writerow(cells)
    return out.getvalue()


def tensor_as_dict(digest: Digest, name: str) -> dict[str, Any]:
    """A tensor that is no scale, with what its header says."""
    catalog = digest.inspection.checkpoint.catalog
    rows = catalog.rows_of(name)
    if not rows:
        return {"key": name}
    entry = catalog.entry(rows[0])
    return {"key": name, "file": entry.shard, "dtype": entry.dtype, "shape": list(entry.shape)}
