"""The index of a sharded checkpoint (``*.index.json``), and how far it agrees with the shards it names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.checkpoint.catalog import Catalog
from core.checkpoint.configs import parse_json_object
from core.checkpoint.faults import BrokenFileError, Fault, quoted
from core.checkpoint.files import read_whole
from core.checkpoint.index_scan import ScannedIndex, scan_index
from core.wording import plural, say

LARGEST_INDEX = 256 << 20
"""Bytes; an index of a million tensors has about 100 MB."""

_ROOM = 31 << 20
_REMEDY = say("Download the index again, or write the checkpoint again with `save_pretrained`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexReport:
    """The index compared with the shards, both ways.

    Attributes:
        file: the index, relative to the checkpoint's root.
        missing_shards: files that the index names and that are not there.
        missing_keys: (key, shard that the index names) for keys that no readable shard holds, those of missing and of
            broken shards among them.
        unindexed_keys: keys that a shard holds and the index does not name.
        moved_keys: (key, shard that the index names, shard that holds it).
        unindexed_files: tensor files in the folder that the index does not name; engines skip them.
        total_size: bytes of all tensors as declared, None where the index does not say.
    """

    file: str
    missing_shards: tuple[str, ...]
    missing_keys: tuple[tuple[str, str], ...]
    unindexed_keys: tuple[str, ...]
    moved_keys: tuple[tuple[str, str, str], ...]
    unindexed_files: tuple[str, ...]
    total_size: int | None

    @property
    def agrees(self) -> bool:
        """Whether every key is where the index says, and the index names every key."""
        return not (self.missing_shards or self.missing_keys or self.unindexed_keys or self.moved_keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An index as read. ``scanned`` is None where it is not in the usual form; then ``weight_map`` is there.

    Attributes:
        file: its name.
        root: the folder it lies in, where it is read again if it disagrees with the shards.
        shard_names: the files that it names, each once.
        total_size: bytes of all tensors as declared.
        weight_map: the file of each key.
        faults: what is odd about it.
    """

    file: str
    root: Path
    shard_names: tuple[str, ...]
    total_size: int | None
    scanned: ScannedIndex | None = None
    weight_map: Mapping[str, str] | None = None
    faults: tuple[Fault, ...] = ()


def read_index(root: Path, file: str) -> Index:
    """Read ``root/file``.

    Raises:
        BrokenFileError: it cannot be read, has no ``weight_map`` from keys to files, or names a file outside ``root``.
    """
    bytes(_ROOM)  # never touched: once a block so large was freed, glibc keeps smaller ones for what comes next
    data = read_whole(root / file, LARGEST_INDEX)
    scanned = scan_index(data)
    if scanned is None or not all(map(is_inside, scanned.shard_names)):
        return _read_strictly(root, file, data)
    total_size = _total_size(scanned.rest)
    return Index(file=file, root=root, shard_names=scanned.shard_names, total_size=total_size, scanned=scanned)


def _read_strictly(root: Path, file: str, data: bytes) -> Index:
    repeated: list[str] = []

    def note_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            repeated.extend(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return found

    tree = parse_json_object(data, note_repeats)
    weight_map = tree.get("weight_map")
    if not isinstance(weight_map, dict):
        raise BrokenFileError(say("has no weight_map that says which shard holds each tensor"), remedy=_REMEDY)
    for key, shard in weight_map.items():
        if type(shard) is not str:
            raise BrokenFileError(say("names no file for {key}", key=quoted(key)), remedy=_REMEDY)
    shard_names = tuple(dict.fromkeys(weight_map.values()))
    for shard in shard_names:
        if not is_inside(shard):
            raise BrokenFileError(
                say("names {shard}, which is no file of this folder", shard=quoted(shard)), remedy=_REMEDY
            )
    faults = []
    if repeated:
        problem = say(
            "names {keys} twice, {first} first; the last entry counts",
            keys=plural(len(repeated), "key"),
            first=quoted(repeated[0]),
        )
        faults.append(Fault(file, None, problem, _REMEDY))
    return Index(
        file=file,
        root=root,
        shard_names=shard_names,
        total_size=_total_size(tree),
        weight_map=weight_map,
        faults=tuple(faults),
    )


def is_inside(name: str) -> bool:
    """Whether a relative file name stays inside the folder and can be one at all."""
    parts = name.split("/")  # an absolute name begins with an empty part
    return name.isprintable() and len(name) <= 1024 and bool(parts[0]) and not {".", ".."}.intersection(parts)


def compare(
    index: Index, catalog: Catalog, missing_shards: Collection[str], unindexed_files: Collection[str]
) -> tuple[IndexReport, tuple[Fault, ...]]:
    """Compare an index with the catalog of the shards that could be read; also what is odd about the index itself."""
    missing: list[tuple[str, str]] = []
    moved: list[tuple[str, str, str]] = []
    unindexed: list[str] = []
    if index.scanned is None or not index.scanned.agrees_with(catalog):
        if index.weight_map is None:
            path = index.root / index.file
            try:
                index = _read_strictly(index.root, index.file, read_whole(path, LARGEST_INDEX))
            except BrokenFileError as error:  # it was whole a moment ago
                raise error.unreadable(path) from error
        weight_map = index.weight_map or {}
        for key, shard, row in zip(
            weight_map, weight_map.values(), catalog.lookup.first_of(list(weight_map)), strict=True
        ):
            if row is None:
                missing.append((key, shard))
            elif catalog.shard(row) != shard and all(catalog.shard(other) != shard for other in catalog.rows_of(key)):
                moved.append((key, shard, catalog.shard(row)))
        unindexed = [key for key in dict.fromkeys(catalog.names) if key not in weight_map]
    report = IndexReport(
        file=index.file,
        missing_shards=tuple(missing_shards),
        missing_keys=tuple(missing),
        unindexed_keys=tuple(unindexed),
        moved_keys=tuple(moved),
        unindexed_files=tuple(unindexed_files),
        total_size=index.total_size,
    )
    return report, index.faults


def _total_size(tree: Mapping[str, Any]) -> int | None:
    metadata = tree.get("metadata")
    declared = metadata.get("total_size") if isinstance(metadata, dict) else None
    if type(declared) is float and declared.is_integer():  # some writers divide bits by eight
        declared = int(declared)
    return declared if type(declared) is int and declared >= 0 else None
