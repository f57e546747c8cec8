"""Broken sets of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from core.checkpoint import BrokenFileError, Checkpoint
from core.diagnosis.consequence import not_reached
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.making import make
from core.diagnosis.selection import keys_of, layers_of
from core.naming.conventions import recognise
from core.wording import are, listed, plural, sentence

_MOST_KEYS = 200
_AGAIN = "Download these files again."


def broken_file(facts: Facts) -> Iterator[Finding]:
    """Files that cannot be read, and what may be in them."""
    checkpoint = facts.case.checkpoint
    missing = set(missing_shards(checkpoint))
    faults = [fault for fault in checkpoint.faults if fault.file not in missing]
    if faults:
        shards = {shard.name for shard in checkpoint.shards if shard.fault is not None}
        lost = [fault for fault in faults if fault.file in shards]
        stops = f"{facts.engine} stops when it opens {'it' if len(lost) == 1 else 'them'}; what is inside is not known."
        keys = hidden_keys(checkpoint, [fault.file for fault in lost])
        yield make(
            "broken-file",
            keys=_kv_first(keys, kv_keys(keys)),
            evidence=" ".join(sentence(f"{fault.file} {fault.problem}") for fault in faults[:3])
            + (f" And {len(faults) - 3} more." if len(faults) > 3 else ""),
            consequence=stops if lost else "The rest was read as far as it goes.",
            fix=faults[0].remedy,
        )


def shard_missing(facts: Facts) -> Iterator[Finding]:
    """Files that the index names and that are not there."""
    checkpoint = facts.case.checkpoint
    missing = missing_shards(checkpoint)
    if missing:
        keys = hidden_keys(checkpoint, missing)
        scales = kv_keys(keys)
        yield make(
            "shard-missing",
            keys=_kv_first(keys, scales),
            evidence=f"{listed(list(missing))} {are(len(missing))} not there: {plural(len(keys), 'key')}, "
            f"{plural(len(scales), 'KV scale')} among them.",
            consequence=f"{facts.engine} finds {plural(len(keys), 'tensor')} too few.",
            fix=_AGAIN,
        )


def index_disagrees(facts: Facts) -> Iterator[Finding]:
    """Keys that are not where the index says; those of missing and broken shards have findings of their own."""
    index = facts.case.checkpoint.index
    if index is None:
        return
    unread = {shard.name for shard in facts.case.checkpoint.shards if shard.fault is not None}
    absent = [key for key, shard in index.missing_keys if shard not in unread and shard not in index.missing_shards]
    moved = [key for key, _, _ in index.moved_keys]
    parts = [(absent, "in no shard"), (moved, "in another shard"), (list(index.unindexed_keys), "not in the index")]
    told = [f"{plural(len(keys), 'key')} {why}" for keys, why in parts if keys]
    if told:
        keys = [key for found, _ in parts for key in found]
        scales = kv_keys(keys)
        yield make(
            "index-disagrees",
            keys=_kv_first(keys, scales),
            evidence=f"{index.file}: {', '.join(told)}; {plural(len(scales), 'KV scale')} among them.",
            consequence=f"{facts.engine} opens the files that the index names, and takes every tensor in them.",
            fix="Write the index anew on export.",
            remedy="repair-index",
        )


def duplicate_key(facts: Facts) -> Iterator[Finding]:
    """Keys in more than one shard."""
    duplicates = facts.case.checkpoint.catalog.duplicates
    if duplicates:
        key, shards = duplicates[0]
        keys = [name for name, _ in duplicates]
        yield make(
            "duplicate-key",
            keys=_kv_first(keys, kv_keys(keys)),
            evidence=f"{plural(len(duplicates), 'key')}; {key} is in {listed(list(shards))}.",
            consequence=f"{facts.engine} reads each, and the last one wins.",
            fix="Keep one of them on export, or download the checkpoint again into an empty folder.",
            remedy="drop",
        )


def split_pair(facts: Facts) -> Iterator[Finding]:
    """The two scales of a layer in two shards."""
    split = [pair for pair in facts.pairs if pair[0].file != pair[1].file]
    if split:
        k, v = split[0]
        scales = [scale for pair in split for scale in pair]
        yield make(
            "split-pair",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=f"{plural(len(split), 'pair')}: {k.key} is in {k.file}, {v.key} in {v.file}.",
            consequence=f"{facts.engine} reads both; only a mixed-up download would be wrong.",
            fix="Check that all shards come from one export.",
        )


def unreadable_scale(facts: Facts) -> Iterator[Finding]:
    """Scales whose numbers could not be read."""
    scales = facts.marked("unreadable-scale")
    if scales:
        yield make(
            "unreadable-scale",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=sentence(f"{scales[0].key}: {scales[0].fault or 'the tensor is empty'}"),
            consequence=not_reached(facts) or "What the layers end with is not known.",
            fix=_AGAIN,
            remedy="set-scale",
        )


def unindexed_scales(facts: Facts) -> Iterator[Finding]:
    """An overlay of scales beside the shards that nobody entered into the index."""
    index = facts.case.checkpoint.index
    if index is None:
        return
    for name in index.unindexed_files:
        keys = kv_keys(_names_in(facts.case.checkpoint, name))
        if keys:
            yield make(
                "unindexed-scales",
                keys=tuple(keys[:_MOST_KEYS]),
                evidence=f"{name} holds {plural(len(keys), 'KV scale')}, and {index.file} does not name it.",
                consequence=f"{facts.engine} does not open this file.",
                fix="Write the index anew on export, so that it names the file.",
                remedy="repair-index",
            )


def missing_shards(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Files that the index names and that are not there."""
    return checkpoint.index.missing_shards if checkpoint.index is not None else ()


def hidden_keys(checkpoint: Checkpoint, files: Iterable[str]) -> list[str]:
    """The keys that the index places in these files."""
    wanted = set(files)
    return [key for key, shard in checkpoint.index.missing_keys if shard in wanted] if checkpoint.index else []


def _names_in(checkpoint: Checkpoint, name: str) -> Sequence[str]:
    """The keys of a file that the catalog leaves out; () where it cannot be read or holds the weights once more."""
    if not name.endswith(".safetensors") or name.startswith("consolidated"):
        return ()
    try:
        return checkpoint.names_in(name)
    except BrokenFileError:
        return ()


def kv_keys(keys: Iterable[str]) -> list[str]:
    """The keys of KV scales among these."""
    return [key for key in keys if recognise(key) is not None]


def _kv_first(keys: Sequence[str], scales: Sequence[str]) -> tuple[str, ...]:
    """All keys of KV scales, then some of the others: a finding is read by people."""
    known = set(scales)
    room = max(0, _MOST_KEYS - len(scales))
    others = (key for key in keys if key not in known)
    return (*scales, *islice(others, room))


RULES = (
    broken_file,
    shard_missing,
    index_disagrees,
    duplicate_key,
    split_pair,
    unreadable_scale,
    unindexed_scales,
)
