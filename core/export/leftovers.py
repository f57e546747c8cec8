"""What quantizers leave behind in a checkpoint beside the scales: no part of the model, and engines stop at it."""

from __future__ import annotations

from core.checkpoint import Checkpoint
from core.engines import Fed
from core.export.rows import Row
from core.naming.conventions import leftover_rows


def leftovers(checkpoint: Checkpoint) -> list[Row]:
    """The tensors that are left over, as they are; KV-cache amaxes are none of them."""
    catalog = checkpoint.catalog
    rows = leftover_rows(checkpoint)
    found = ((Fed(catalog.names[row], catalog.shape(row), ()), catalog.shard(row)) for row in rows)
    return [Row(source=fed, fed=fed, file=file) for fed, file in found]
