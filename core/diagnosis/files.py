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
from core.wording import are, joined, listed, plural, say, sentence

_MOST_KEYS = 200
_AGAIN = say("Download these files again.")


def broken_file(facts: Facts) -> Iterator[Finding]:
    """Files that cannot be read, and what may be in them."""
    checkpoint = facts.case.checkpoint
    missing = set(missing_shards(checkpoint))
    faults = [fault for fault in checkpoint.faults if fault.file not in missing]
    if faults:
        shards = {shard.name for shard in checkpoint.shards if shard.fault is not None}
        lost = [fault for fault in faults if fault.file in shards]
        stops = say(
            "{engine} stops when it opens {_them}; what is inside is not known.",
            engine=facts.engine,
            _them="it" if len(lost) == 1 else "them",
        )
        told = [sentence(say("{file} {problem}", file=fault.file, problem=fault.problem)) for fault in faults[:3]]
        if len(faults) > 3:
            told.append(say("And {count} more.", count=len(faults) - 3))
        keys = hidden_keys(checkpoint, [fault.file for fault in lost])
        yield make(
            "broken-file",
            keys=_kv_first(keys, kv_keys(keys)),
            evidence=joined(" ", told),
            consequence=stops if lost else say("The rest was read as far as it goes."),
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
            evidence=say(
                "{files} {_are} not there: {keys}, {scales} among them.",
                files=listed(list(missing)),
                _are=are(len(missing)),
                keys=plural(len(keys), "key"),
                scales=plural(len(scales), "KV scale"),
            ),
            consequence=say(
                "{engine} finds {tensors} too few.", engine=facts.engine, tensors=plural(len(keys), "tensor")
            ),
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
    unnamed = list(index.unindexed_keys)
    told = [
        say("{keys} in no shard", keys=plural(len(absent), "key")) if absent else "",
        say("{keys} in another shard", keys=plural(len(moved), "key")) if moved else "",
        say("{keys} not in the index", keys=plural(len(unnamed), "key")) if unnamed else "",
    ]
    if any(told):
        keys = [*absent, *moved, *unnamed]
        scales = kv_keys(keys)
        yield make(
            "index-disagrees",
            keys=_kv_first(keys, scales),
            evidence=say(
                "{file}: {keys}; {scales} among them.",
                file=index.file,
                keys=joined(", ", told),
                scales=plural(len(scales), "KV scale"),
            ),
            consequence=say(
                "{engine} opens the files that the index names, and takes every tensor in them.", engine=facts.engine
            ),
            fix=say("Write the index anew on export."),
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
            evidence=say(
                "{keys}; {key} is in {files}.",
                keys=plural(len(duplicates), "key"),
                key=key,
                files=listed(list(shards)),
            ),
            consequence=say("{engine} reads each, and the last one wins.", engine=facts.engine),
            fix=say("Keep one of them on export, or download the checkpoint again into an empty folder."),
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
            evidence=say(
                "{pairs}: {k} is in {k_file}, {v} in {v_file}.",
                pairs=plural(len(split), "pair"),
                k=k.key,
                k_file=k.file,
                v=v.key,
                v_file=v.file,
            ),
            consequence=say("{engine} reads both; only a mixed-up download would be wrong.", engine=facts.engine),
            fix=say("Check that all shards come from one export."),
        )


def unreadable_scale(facts: Facts) -> Iterator[Finding]:
    """Scales whose numbers could not be read."""
    scales = facts.marked("unreadable-scale")
    if scales:
        yield make(
            "unreadable-scale",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=sentence(
                say("{key}: {problem}", key=scales[0].key, problem=scales[0].fault or say("the tensor is empty"))
            ),
            consequence=not_reached(facts) or say("What the layers end with is not known."),
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
                evidence=say(
                    "{file} holds {scales}, and {index} does not name it.",
                    file=name,
                    scales=plural(len(keys), "KV scale"),
                    index=index.file,
                ),
                consequence=say("{engine} does not open this file.", engine=facts.engine),
                fix=say("Write the index anew on export, so that it names the file."),
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
