"""What a checkpoint calls its attention modules, by their weights."""

from __future__ import annotations

from core.checkpoint import Checkpoint

_PROJECTIONS = (
    ".k_proj.weight", ".qkv_proj.weight", ".query_key_value.weight", ".kv_b_proj.weight", ".kv_proj.weight",
    ".c_attn.weight", ".Wqkv.weight", ".o_proj.weight", ".out_proj.weight",
)  # fmt: skip
"""Weights of attention modules: where no scale tells, they say how the checkpoint calls the modules."""


def modules_with_weights(checkpoint: Checkpoint) -> dict[str, int]:
    """What the checkpoint calls the attention modules that have weights, and the catalog row of the last weight."""
    names = checkpoint.catalog.names
    return {names[row].rsplit(".", 2)[0]: row for row in checkpoint.catalog.rows_ending(_PROJECTIONS)}
