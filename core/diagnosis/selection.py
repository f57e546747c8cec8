"""Scales and layers picked, counted and named: what the rules of every theme need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from core.engines.outcome import AttentionLayer
from core.naming.scales import KVScale

Id = tuple[str, str]
"""A scale's identity: key and file, because two shards may hold one key."""


def identity(scale: KVScale) -> Id:
    """What tells a scale from every other of its checkpoint."""
    return scale.key, scale.file


def layers_of(scales: Iterable[KVScale]) -> tuple[int, ...]:
    """The layer numbers of these scales, once each, in order."""
    return tuple(sorted({scale.layer for scale in scales if scale.layer is not None}))


def numbers_of(layers: Iterable[AttentionLayer]) -> tuple[int, ...]:
    """The numbers of these attention layers, once each, in order."""
    return tuple(sorted({layer.layer for layer in layers if layer.layer is not None}))


def keys_of(scales: Iterable[KVScale]) -> tuple[str, ...]:
    """The keys of these scales, once each, in their order."""
    return tuple(dict.fromkeys(scale.key for scale in scales))


def by_role(scales: Iterable[KVScale]) -> Mapping[str, tuple[KVScale, ...]]:
    """The scales by role, in the order k, v, kv, q, prob; roles without a scale are absent."""
    found = tuple(scales)
    return {
        role: of
        for role in ("k", "v", "kv", "q", "prob")
        if (of := tuple(scale for scale in found if scale.role == role))
    }
