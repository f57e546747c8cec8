"""Which files of a path make up a checkpoint: a file, a folder, a Hugging Face cache, with or without an index."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from core.checkpoint.faults import BrokenFileError, Fault, quoted
from core.checkpoint.files import is_pickle, is_zip, open_regular, os_problem, read_exactly, read_whole
from core.checkpoint.index import Index, read_index
from core.errors import UnreadableCheckpointError
from core.ordering import natural
from core.wording import joined, plural, say

SAFETENSORS = ".safetensors"
PICKLED = (".bin", ".pt", ".pth")
INDEX = ".index.json"
ACCEPTED = say("safetensors files, or PyTorch's .bin, .pt or .pth")

_RANK = re.compile(r"rank[0-9]+\.safetensors")
_NO_WEIGHTS = re.compile(  # what trainers and quantizers leave beside the weights
    r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|trainer_state|tokenizer|sentencepiece)[._0-9a-z-]*"
    r"|.*modelopt_state.*|.*optim_states.*"
)
_COMMIT = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,254}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The files to read. ``shards`` are relative to ``root``, in natural order; ``missing`` ones stand among them."""

    root: Path
    family: str
    sharded: bool
    shards: tuple[str, ...]
    missing: frozenset[str] = frozenset()
    unindexed: tuple[str, ...] = ()
    index: Index | None = None
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()


def find_layout(path: Path) -> Layout:
    """The files that ``path`` stands for.

    Raises:
        UnreadableCheckpointError: there is nothing at ``path``, or nothing that could be a checkpoint.
    """
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except ValueError as error:  # a zero byte, or half a character
        raise UnreadableCheckpointError(say("is no name that a file can have"), path=repr(path)) from error
    except OSError as error:
        raise os_problem(error, path).unreadable(path) from error
    try:
        if is_folder:
            return _folder(_snapshot(path))
        if path.name.endswith(INDEX):
            return _folder(path.parent, path.name)
    except OSError as error:
        raise os_problem(error, path).unreadable(path) from error
    return Layout(root=path.parent, family=_family(path), sharded=False, shards=(path.name,))


def holds_tensors(names: Iterable[str]) -> bool:
    """Whether a folder with files of these names could be a checkpoint."""
    lower = (name.lower() for name in names if not name.startswith("."))
    return any(name.endswith((SAFETENSORS, *PICKLED, INDEX)) and not _NO_WEIGHTS.fullmatch(name) for name in lower)


def _family(path: Path) -> str:
    """How to read a single file: by its ending, or by its first bytes where the ending says nothing."""
    if path.name.lower().endswith(SAFETENSORS):
        return "safetensors"
    if path.name.lower().endswith(PICKLED):
        return "pytorch"
    try:
        with open_regular(path) as (file, size):
            head = read_exactly(file, 0, min(size, 16))
    except BrokenFileError as error:
        raise error.unreadable(path) from error
    return "pytorch" if is_zip(head) or is_pickle(head) else "safetensors"


def _snapshot(folder: Path) -> Path:
    """The snapshot of a Hugging Face cache folder (``models--org--name``) that its refs/main names; others as given."""
    snapshots = folder / "snapshots"
    if not snapshots.is_dir() or not any((folder / name).is_dir() for name in ("refs", "blobs")):
        return folder
    try:
        commit = read_whole(folder / "refs" / "main", 4096).decode("ascii", "replace").strip()
    except BrokenFileError:
        commit = ""
    if _COMMIT.fullmatch(commit) and (snapshots / commit).is_dir():
        return snapshots / commit
    held = sorted(entry.name for entry in snapshots.iterdir() if entry.is_dir())
    if len(held) == 1:
        return snapshots / held[0]
    if not held:
        raise UnreadableCheckpointError(
            say("is a Hugging Face cache folder without a snapshot"),
            path=folder,
            remedy=say("Download the model again."),
        )
    raise UnreadableCheckpointError(
        say(
            "is a Hugging Face cache folder with {count} snapshots, and its refs/main names none of them",
            count=len(held),
        ),
        path=folder,
        remedy=say("Open one of them, for example snapshots/{snapshot}.", snapshot=held[0]),
    )


def _folder(root: Path, index_name: str | None = None) -> Layout:
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    return folder_layout(root, names, index_name)


def folder_layout(
    root: Path, all_names: Collection[str], index_name: str | None = None, *, listed: bool = True
) -> Layout:
    """The files to read of a folder that holds ``all_names``; only the index is read from ``root``.

    Where the folder could not be ``listed``, whatever an index names is taken to be there.

    Raises:
        UnreadableCheckpointError: nothing there could be a checkpoint.
    """
    names = sorted((name for name in all_names if "/" not in name and not name.startswith(".")), key=natural)
    indexes = [index_name] if index_name else [name for name in names if name.endswith(INDEX)]
    plain = [name for name in names if name.lower().endswith(SAFETENSORS)]
    index_of_plain = _preferred([name for name in indexes if ".bin" not in name and ".pt" not in name])
    index_of_pickled = _preferred([name for name in indexes if name != index_of_plain])
    pickled = [name for name in names if name.lower().endswith(PICKLED) and not _NO_WEIGHTS.fullmatch(name.lower())]
    if plain or (index_of_plain and not pickled):
        return _with_index(root, "safetensors", set(all_names) if listed else None, plain, index_of_plain)
    if pickled or index_of_pickled:
        return _with_index(root, "pytorch", set(all_names) if listed else None, pickled, index_of_pickled)
    raise _nothing_in(root, names)


def _preferred(indexes: list[str]) -> str | None:
    """The index that loaders take: ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json``."""
    usual = [name for name in indexes if name.startswith(("model.", "pytorch_model."))]
    return next(iter(usual or indexes), None)


def _with_index(root: Path, family: str, at_hand: set[str] | None, files: list[str], index_name: str | None) -> Layout:
    if index_name is None:
        return _without_index(root, family, files)
    try:
        index = read_index(root, index_name)
    except BrokenFileError as error:
        if not files:
            raise UnreadableCheckpointError(
                say("holds an index without shards, and the index {problem}", problem=error.problem),
                path=root,
                remedy=error.remedy,
            ) from error
        return _without_index(root, family, files, error.fault(index_name))
    named = sorted(index.shard_names, key=natural)
    absent = [name for name in named if name not in at_hand] if at_hand is not None else []
    missing = [name for name in absent if "/" not in name or not _exists(root / name)]
    others = tuple(name for name in files if name not in set(named))
    if len(missing) == len(named):
        if not files:
            raise UnreadableCheckpointError(
                say(
                    "holds only an index, {index}, and none of the {shards} that it names"
                    if named
                    else "holds only an index, {index}, and it names no shard",
                    index=index_name,
                    shards=plural(len(named), "shard"),
                ),
                path=root,
                remedy=say("Download the shards into this folder."),
            )
        problem = say(
            "names {shards}, none of which is there; the folder's tensor files were read without it"
            if named
            else "names no shard; the folder's tensor files were read without it",
            shards=plural(len(named), "shard"),
        )
        fault = Fault(index_name, None, problem, say("Remove the index, or download the shards that it names."))
        return _without_index(root, family, files, fault, index=index, missing=missing)
    return Layout(
        root=root,
        family=family,
        sharded=True,
        shards=tuple(named),
        missing=frozenset(missing),
        unindexed=others,
        index=index,
    )


def _without_index(
    root: Path,
    family: str,
    files: list[str],
    *faults: Fault,
    index: Index | None = None,
    missing: list[str] | None = None,
) -> Layout:
    notes: list[str] = []
    if family == "pytorch":
        files = _one_kind(files, notes)
    elif all(_RANK.fullmatch(name) for name in files):
        family = "tensorrt-llm"
    else:
        files = _one_copy(files, notes)
    return Layout(
        root=root,
        family=family,
        sharded=len(files) > 1 or index is not None,
        shards=tuple(sorted([*files, *(missing or ())], key=natural)),
        missing=frozenset(missing or ()),
        unindexed=tuple(files) if index else (),
        index=index,
        faults=faults,
        notes=tuple(notes),
    )


def _one_copy(files: list[str], notes: list[str]) -> list[str]:
    """Without ``consolidated*`` where ``model*`` files are: Mistral ships the same weights under both names."""
    copies = [name for name in files if name.startswith("consolidated")]
    if not copies or not any(name.startswith("model") for name in files):
        return files
    files_left = joined(", ", copies[:3])
    notes.append(say("{files} not read: the model* files beside hold the same weights.", files=files_left))
    return [name for name in files if name not in set(copies)]


def _one_kind(files: list[str], notes: list[str]) -> list[str]:
    """The first kind that there is: pytorch_model*.bin, *.bin, *.pt, *.pth."""
    kinds = [[name for name in files if name.startswith("pytorch_model") and name.endswith(".bin")]]
    kinds += [[name for name in files if name.lower().endswith(ending)] for ending in PICKLED]
    chosen = next(kind for kind in kinds if kind)
    left = [name for name in files if name not in set(chosen)]
    if left:
        notes.append(
            say(
                "{files} and others not read: {first} comes first."
                if left[3:]
                else "{files} not read: {first} comes first.",
                files=joined(", ", left[:3]),
                first=chosen[0],
            )
        )
    return chosen


def _exists(path: Path) -> bool:
    try:
        return path.exists() or path.is_symlink()
    except OSError:
        return False


def _nothing_in(root: Path, names: list[str]) -> UnreadableCheckpointError:
    endings = {Path(name).suffix.lower() for name in names}
    if ".gguf" in endings:
        problem, remedy = (
            say("holds GGUF files, which KVScope does not support"),
            say("Open the checkpoint they were made from."),
        )
    elif ".engine" in endings:
        problem = say("holds built TensorRT engines, whose tensors have no names any more")
        remedy = say("Open the checkpoint folder from which they were built (rank0.safetensors and config.json).")
    elif not names and not _subfolders(root):
        problem, remedy = say("is an empty folder"), say("Open a folder with {accepted}.", accepted=ACCEPTED)
    else:
        problem, remedy = say("holds no tensors"), say("Open a folder with {accepted}.", accepted=ACCEPTED)
    below = _subfolders(root)
    if below:
        remedy = say("Its folder {folder} holds some: open that.", folder=quoted(below[0]))
    return UnreadableCheckpointError(problem, path=root, remedy=remedy)


def _subfolders(root: Path) -> list[str]:
    """The folders directly below that hold tensor files."""
    found = []
    with os.scandir(root) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    for name in folders[:100]:
        try:
            with os.scandir(root / name) as entries:
                if any(entry.name.lower().endswith((SAFETENSORS, *PICKLED)) for entry in entries):
                    found.append(name)
        except OSError:
            continue
    return found
