"""How much of each shard to ask for: its header, and the values behind it that will be read next, in one request."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from core.checkpoint.header import LARGEST_HEADER
from core.checkpoint.index import Index

_MARGIN = 1.0015
_USUAL = 76
"""Bytes that an entry takes beside its name, where no header has been seen."""
_SHARE, _LITTLE = 0.007, 4096
"""Of the bytes of all headers, and in any case: so much may come along for the sake of the values behind them."""
_FAR = 1 << 16
"""Bytes of data behind a header from which values are asked for apart."""

_SHARD = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*"([^"\\]+)"')
_ENTRY = re.compile(rb':\{[^{}]*"data_offsets":\[[0-9]+,([0-9]{1,18})\]')


@dataclass(frozen=True, slots=True)
class Contents:
    """What the index says of a shard: tensors, and bytes of their names."""

    tensors: int
    names: int


class Guess:
    """Learns from the headers that arrive what a tensor costs beside its name, and how far behind a header the values
    lie that are wanted: the shards of a checkpoint are alike, and safetensors writes small tensors first.

    ``wanted``: how the names of the tensors end whose values will be read; ``carriers``: the shards that hold such.
    """

    def __init__(self, contents: Mapping[str, Contents], carriers: Collection[str], wanted: Collection[str]) -> None:
        self._contents = contents
        every = contents.values()
        self._all = Contents(sum(each.tensors for each in every), sum(each.names for each in every))
        self._wanted = wanted
        self.carriers = frozenset(carriers)
        self._tensors = self._beside = 0
        self._behind = 0.0
        """The most bytes of data up to the last value that is wanted, by the number of tensors in the shard."""
        self._spent = 0

    def teacher(self, shards: Collection[str]) -> str | None:
        """The shard to ask for first: the others are like it."""
        held = {shard: self._contents[shard].tensors for shard in shards if shard in self._contents}
        return max(self.carriers & held.keys() or held, key=lambda shard: (held[shard], shard), default=None)

    def header(self, shard: str) -> int:
        """Bytes to ask for, with the eight of the length; only those eight where the index knows nothing."""
        found = self._contents.get(shard)
        if found is None:
            return 8
        return 8 + min(int(self._length(found) * _MARGIN), LARGEST_HEADER)

    def behind(self, shard: str) -> int:
        """Bytes behind the header to ask for with it, as long as all shards together do not ask for too many."""
        found = self._contents.get(shard)
        if found is None or shard not in self.carriers:
            return 0
        asked = ceil(found.tensors * self._behind)
        if self._spent + asked > max(_SHARE * self._length(self._all), _LITTLE):
            return 0
        self._spent += asked
        return asked

    def _length(self, contents: Contents) -> float:
        return contents.names + contents.tensors * (self._beside / self._tensors if self._tensors else _USUAL)

    def learn(self, shard: str, data: bytes) -> None:
        """The beginning of a shard has been seen."""
        found, length = self._contents.get(shard), int.from_bytes(data[:8], "little")
        if found is None or length <= found.names:
            return
        self._tensors += found.tensors
        self._beside += length - found.names
        if shard in self.carriers:
            ends = (int(entry[1]) for entry in _following(data[8 : 8 + length], self._wanted, _ENTRY))
            last = max(ends, default=0)
            if last <= _FAR:
                self._behind = max(self._behind, last / found.tensors)


def guess(index: Index | None, wanted: Collection[str]) -> Guess:
    """From what the index says about the shards."""
    if index is None:
        return Guess({}, (), ())
    return Guess(_contents(index), _carriers(index, wanted), wanted)


def _carriers(index: Index, wanted: Collection[str]) -> set[str]:
    data = (index.root / index.file).read_bytes() if wanted else b""
    return {shard[1].decode("utf-8", "replace") for shard in _following(data, wanted, _SHARD)}


def _following(data: bytes, wanted: Collection[str], form: re.Pattern[bytes]) -> Iterator[re.Match[bytes]]:
    """What stands behind each JSON string that ends in one of those, where it has a certain form."""
    for ending in wanted:
        needle = ending.encode() + b'"'
        at = data.find(needle)
        while at >= 0:
            found = form.match(data, at + len(needle))
            if found is not None:
                yield found
            at = data.find(needle, at + 1)


def _contents(index: Index) -> Mapping[str, Contents]:
    if index.scanned is not None:
        scanned = index.scanned
        tensors = np.bincount(scanned.shards, minlength=len(scanned.shard_names)).tolist()
        names = np.bincount(scanned.shards, weights=scanned.lengths, minlength=len(scanned.shard_names)).tolist()
        return dict(zip(scanned.shard_names, map(Contents, tensors, map(int, names)), strict=True))
    found: dict[str, Contents] = {}
    for key, shard in (index.weight_map or {}).items():
        before = found.get(shard, Contents(0, 0))
        found[shard] = Contents(before.tensors + 1, before.names + len(key))
    return found
