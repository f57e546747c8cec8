"""How long a header will be, from what the index says about its shard: one request then brings the whole header."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from core.checkpoint.index import Index

_MARGIN = 1.003


@dataclass(slots=True)
class HeaderGuess:
    """Learns from the headers that arrive what a tensor costs beside its name: the shards of a checkpoint are alike.

    ``_contents``: tensors, and bytes of their names, of each shard that the index names.
    """

    _contents: Mapping[str, tuple[int, int]]
    _tensors: int = field(default=0)
    _beside: int = field(default=0)

    def guess(self, shard: str) -> int:
        """Bytes to ask for, with the eight of the length; only those eight while nothing is known."""
        tensors, names = self._contents.get(shard, (0, 0))
        if not tensors or not self._tensors:
            return 8
        return 8 + int((names + tensors * self._beside / self._tensors) * _MARGIN)

    def learn(self, shard: str, header: int) -> None:
        """A header of ``header`` bytes has been seen."""
        tensors, names = self._contents.get(shard, (0, 0))
        if tensors and header > names:
            self._tensors += tensors
            self._beside += header - names


def header_guess(index: Index | None) -> HeaderGuess:
    """What the index says about the shards."""
    if index is None:
        return HeaderGuess({})
    if index.scanned is not None:
        scanned = index.scanned
        tensors = np.bincount(scanned.shards, minlength=len(scanned.shard_names)).tolist()
        names = np.bincount(scanned.shards, weights=scanned.lengths, minlength=len(scanned.shard_names)).tolist()
        pairs = zip(tensors, map(int, names), strict=True)
        return HeaderGuess(dict(zip(scanned.shard_names, pairs, strict=True)))
    contents: dict[str, tuple[int, int]] = {}
    for key, shard in (index.weight_map or {}).items():
        held, names_of = contents.get(shard, (0, 0))
        contents[shard] = held + 1, names_of + len(key)
    return HeaderGuess(contents)
