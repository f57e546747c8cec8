"""The index of a sharded checkpoint (``*.index.json``), and how far it agrees with the shards it names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from core.checkpoint.catalog import Catalog
from core.checkpoint.configs import load_json_object
from core.checkpoint.faults import BrokenFileError, Fault, count, quoted

LARGEST_INDEX = 256 << 20
"""Bytes; an index of a million tensors has about 100 MB."""

_REMEDY = "Download the index again, or write the checkpoint again with `save_pretrained`."


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
    """An index as read: which shard it says holds each key."""

    file: str
    weight_map: Mapping[str, str]
    total_size: int | None
    faults: tuple[Fault, ...]

    def shard_names(self) -> list[str]:
        return list(dict.fromkeys(self.weight_map.values()))


def read_index(root: Path, file: str) -> Index:
    """Read ``root/file``.

    Raises:
        BrokenFileError: it cannot be read, has no ``weight_map`` from keys to files, or names a file outside ``root``.
    """
    repeated: list[str] = []

    def note_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            seen: set[str] = set()
            repeated.extend(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return found

    tree = load_json_object(root / file, LARGEST_INDEX, note_repeats)
    weight_map = tree.get("weight_map")
    if not isinstance(weight_map, dict):
        raise BrokenFileError("has no weight_map that says which shard holds each tensor", remedy=_REMEDY)
    for key, shard in weight_map.items():
        if type(shard) is not str:
            raise BrokenFileError(f"names no file for {quoted(key)}", remedy=_REMEDY)
    for shard in set(weight_map.values()):
        if not is_inside(shard):
            raise BrokenFileError(f"names {quoted(shard)}, which is no file of this folder", remedy=_REMEDY)
    faults = []
    if repeated:
        problem = f"names {count(len(repeated), 'key')} twice, {quoted(repeated[0])} first; the last entry counts"
        faults.append(Fault(file, None, problem, _REMEDY))
    return Index(file=file, weight_map=weight_map, total_size=_total_size(tree), faults=tuple(faults))


def is_inside(name: str) -> bool:
    """Whether a relative file name stays inside the folder and can be one at all."""
    parts = PurePosixPath(name).parts
    printable = name.isprintable() and len(name) <= 1024
    return printable and bool(parts) and ".." not in parts and not PurePosixPath(name).is_absolute()


def compare(
    index: Index, catalog: Catalog, missing_shards: Collection[str], unindexed_files: Collection[str]
) -> IndexReport:
    """Compare an index with the catalog of the shards that could be read."""
    weight_map = index.weight_map
    shard_of = map(catalog.shard_names.__getitem__, catalog.shard_numbers.tolist())
    found = dict(zip(catalog.names, shard_of, strict=True))
    missing: list[tuple[str, str]] = []
    moved: list[tuple[str, str, str]] = []
    unindexed: list[str] = []
    if found != weight_map or len(found) != len(catalog):
        for key, shard in weight_map.items():
            rows = catalog.rows_of(key)
            if not rows:
                missing.append((key, shard))
            elif all(catalog.shard(row) != shard for row in rows):
                moved.append((key, shard, catalog.shard(rows[0])))
        unindexed = [key for key in found if key not in weight_map]
    return IndexReport(
        file=index.file,
        missing_shards=tuple(missing_shards),
        missing_keys=tuple(missing),
        unindexed_keys=tuple(unindexed),
        moved_keys=tuple(moved),
        unindexed_files=tuple(unindexed_files),
        total_size=index.total_size,
    )


def _total_size(tree: Mapping[str, Any]) -> int | None:
    metadata = tree.get("metadata")
    declared = metadata.get("total_size") if isinstance(metadata, dict) else None
    if type(declared) is float and declared.is_integer():  # some writers divide bits by eight
        declared = int(declared)
    return declared if type(declared) is int and declared >= 0 else None
