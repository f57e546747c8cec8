"""What quantizers leave behind in a checkpoint beside the scales: no part of the model, and engines stop at it."""

from __future__ import annotations

from core.checkpoint import Checkpoint
from core.engines import Fed
from core.export.rows import Row
from core.naming.conventions import recognise

_ENDINGS = ("_quantizer._amax", "_quantizer._pre_quant_scale")
"""ModelOpt's quantizers as a plain ``save_pretrained`` writes them; its own export writes none."""


def leftovers(checkpoint: Checkpoint) -> list[Row]:
    """The tensors that are left over, as they are; KV-cache amaxes are none of them."""
    catalog = checkpoint.catalog
    rows = (row for row in catalog.rows_ending(_ENDINGS) if recognise(catalog.names[row]) is None)
    found = ((Fed(catalog.names[row], catalog.shape(row), ()), catalog.shard(row)) for row in rows)
    return [Row(source=fed, fed=fed, file=file) for fed, file in found]
