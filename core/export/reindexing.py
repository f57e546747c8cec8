"""The index of a sharded checkpoint, mended where it disagrees with the files."""

from __future__ import annotations

from core.checkpoint import Checkpoint, open_checkpoint
from core.engines import Fed
from core.errors import KVScopeError
from core.export.config_files import ConfigDraft
from core.export.rows import Row
from core.naming.conventions import companion_rows, find_scales

_MAP = "weight_map"


def agree(configs: ConfigDraft, checkpoint: Checkpoint, reason: str) -> None:
    """Make the index say where each tensor is: keys in another shard, in none, or left out of it."""
    index = checkpoint.index
    if index is None:
        return
    gone = set(index.missing_shards)
    for key, shard in index.missing_keys:
        if shard not in gone:
            configs.remove(index.file, (_MAP, key), reason)
    for key, _, shard in index.moved_keys:
        configs.set(index.file, (_MAP, key), shard, reason)
    for key in index.unindexed_keys:
        rows = checkpoint.catalog.rows_of(key)
        configs.set(index.file, (_MAP, key), checkpoint.catalog.shard(rows[-1]), reason)


def take_in(configs: ConfigDraft, checkpoint: Checkpoint, code: str, reason: str) -> list[Row]:
    """Enter files of KV scales that the index leaves out; the scales in them, which engines then read.

    Files that hold what the index knows elsewhere, or no KV scale, stay out: a second copy of the weights is none of
    the index's business.
    """
    index = checkpoint.index
    rows: list[Row] = []
    for name in index.unindexed_files if index is not None else ():
        if index is None or not name.endswith(".safetensors"):
            continue
        try:
            found = open_checkpoint(checkpoint.root / name)
        except KVScopeError:
            continue
        scales = find_scales(found)
        if not scales or any(checkpoint.catalog.rows_of(key) for key in found.catalog.names):
            continue
        others = ((found.catalog.names[row], found.catalog.shape(row)) for row in companion_rows(found))
        entered = (
            *(Fed(scale.key, scale.shape, scale.values, scale) for scale in scales),
            *(Fed(key, shape, ()) for key, shape in others),
        )
        rows += [Row(source=fed, fed=fed, file=name, fixes=(code,), reasons=(reason,)) for fed in entered]
        for key in found.catalog.names:
            configs.set(index.file, (_MAP, key), name, reason)
    return rows
