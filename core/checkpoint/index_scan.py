"""The quick reader of an index: whether it names the keys of a catalog, each with its shard, by hash.

Only entries of the form ``"key": "shard"`` without escapes are read, with any white space; every other, and every
disagreement, is left to :mod:`core.checkpoint.index`, which reads the JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.checkpoint.catalog import Catalog
from core.checkpoint.columns import Codes, Int64s
from core.checkpoint.configs import parse_json_object
from core.checkpoint.faults import BrokenFileError
from core.checkpoint.spans import FRONT, Text, Words, group, hashes_of, summed

_AT_A_TIME = 1 << 20  # bytes: what is computed of them stays in the processor's cache
_WHITE = b" \t\r\n"
_OPENING = re.compile(rb'"weight_map"[ \t\r\n]*:[ \t\r\n]*\{')
_SHARD = re.compile(rb'"[ \t\r\n]*:[ \t\r\n]*"([^"]*)"(?:[ \t\r\n]*,[ \t\r\n]*")?')


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ScannedIndex:
    """``hashes`` and ``lengths`` of the keys; ``shards``, the number of each key's shard in ``shard_names``; ``rest``,
    other fields.
    """

    hashes: Words
    lengths: Int64s
    shards: Codes
    shard_names: tuple[str, ...]
    rest: Mapping[str, Any]

    def agrees_with(self, catalog: Catalog) -> bool:
        """Whether each key of the catalog is named once, with its shard, and no other key is."""
        if len(self.hashes) != len(catalog) or catalog.lookup.repeated:
            return False
        number_of = {name: number for number, name in enumerate(catalog.shard_names)}
        numbers = np.array([number_of.get(name, -1) for name in self.shard_names], dtype=np.int32)
        # As many pairs of key and shard, and the same sum of their hashes: the same pairs, in whatever order.
        salts = np.append(hashes_of(catalog.shard_names), np.uint64(0))  # the last for a shard that is not there
        return summed(self.hashes ^ salts[numbers[self.shards]]) == summed(
            catalog.lookup.hashes ^ salts[catalog.shard_numbers]
        )


def scan_index(data: bytes) -> ScannedIndex | None:
    """What an index in the usual form names; None for every other."""
    opening = _OPENING.search(data)
    if opening is None or not data.isascii():
        return None
    begin, end = opening.end(), data.find(b"}", opening.end())
    if data.find(b"\\", begin, end) >= 0:
        return None
    rest = _rest(data[:begin] + data[end:]) if end > begin else None
    if rest is None:
        return None
    shard_numbers: dict[bytes, int] = {}
    parts: list[_Part] = []
    while begin < end:
        cut = data.find(b'",', min(begin + _AT_A_TIME, end), end)  # no string holds a quotation mark here
        until = cut + 1 if cut >= 0 else end
        part = _part(memoryview(data)[begin:until], shard_numbers)
        if part is None:
            return None
        parts.append(part)
        begin = until
    return ScannedIndex(
        hashes=np.concatenate([part.hashes for part in parts]),
        lengths=np.concatenate([part.lengths for part in parts]),
        shards=np.concatenate([part.shards for part in parts]),
        shard_names=tuple(name.decode("ascii") for name in shard_numbers),
        rest=rest,
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Part:
    """Some of the entries."""

    hashes: Words
    lengths: Int64s
    shards: Codes


def _part(data: memoryview, shard_numbers: dict[bytes, int]) -> _Part | None:
    """Entries that lie one behind the other; all but the first part begin with the comma behind the one before."""
    text = Text([data])
    quotes = text.positions('"')
    if len(quotes) < 4 or len(quotes) % 4:
        return None
    marks = np.ascontiguousarray(quotes.reshape(-1, 4).T)
    before = bytes(data[: int(marks[0][0]) - FRONT])
    behind = bytes(data[int(marks[3][-1]) + 1 - FRONT :])
    if behind.strip(_WHITE) or before.strip(_WHITE) != (b"," if shard_numbers else b""):
        return None
    # From behind a key to the begin of the next: a colon, the shard's name, a comma.
    stops = np.append(marks[0][1:], marks[3][-1]) + 1
    group_of, examples = group(text.hashes(marks[1], stops))
    numbers = np.empty(len(examples), dtype=np.int32)
    for number in np.argsort(examples).tolist():  # in the order of the file
        spelled = _SHARD.fullmatch(text.joined, int(marks[1][examples[number]]), int(stops[examples[number]]))
        if spelled is None:
            return None
        numbers[number] = shard_numbers.setdefault(spelled[1], len(shard_numbers))
    return _Part(
        hashes=text.hashes(marks[0] + 1, marks[1]),
        lengths=marks[1] - marks[0] - 1,
        shards=numbers[group_of],
    )


def _rest(data: bytes) -> Mapping[str, Any] | None:
    """The index without the entries of its weight_map."""
    if data.count(b'"weight_map"') != 1:
        return None
    try:
        found = parse_json_object(data)
    except BrokenFileError:
        return None
    return found if found.get("weight_map") == {} else None
