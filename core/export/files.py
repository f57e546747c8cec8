"""The files of a checkpoint folder, as an export finds them."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import ExportError
from core.wording import say

FileRole = Literal["shard", "index", "other"]

_DOWNLOAD_STATE = {".git", ".cache"}
RECORD = "kvscope-export.json"
"""What an export says about itself; a new one takes up the source's."""
JOURNAL = "kvscope-in-place.journal"
"""What lies in a folder while an export changes it in place."""
UNFINISHED = ".kvscope-unfinished"
"""How the name of a folder ends in which an export grows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of the source: its name relative to the folder (with ``/``), and what tells that it changed.

    ``size`` in bytes and ``mtime_ns`` are those of the file itself, behind any symbolic link.
    """

    name: str
    role: FileRole
    size: int
    mtime_ns: int


def is_unfinished(name: str) -> bool:
    """Whether a folder is an export's unfinished work, by its name."""
    return name.endswith(UNFINISHED)


def list_files(
    root: Path, *, shards: Collection[str], index: str | None, alone: bool = False
) -> tuple[tuple[SourceFile, ...], tuple[str, ...]]:
    """Every file below ``root`` that belongs in a copy, sorted by name, and notes on what does not.

    Links are followed: a Hugging Face snapshot consists of links to blobs, and a copy must stand alone. Left out:
    sockets, pipes and devices, links to nothing, the state of git and of downloads, unfinished exports. ``alone`` says
    that a single file was opened: of what lies beside it only a model's side files come along.

    Raises:
        ExportError: a file or folder cannot be read.
    """
    files: list[SourceFile] = []
    notes: list[str] = []
    for path, found in _walk(root, notes, alone=alone):
        name = path.relative_to(root).as_posix()
        if name == RECORD or (alone and name not in shards and not _is_side_file(name)):
            continue
        role: FileRole = "shard" if name in shards else "index" if name == index else "other"
        files.append(SourceFile(name=name, role=role, size=found.st_size, mtime_ns=found.st_mtime_ns))
    return tuple(sorted(files, key=lambda file: file.name)), tuple(notes)


def changed_file(root: Path, files: Collection[SourceFile]) -> str | None:
    """The first file that is not as it was, None when all are."""
    for file in files:
        try:
            found = (root / file.name).stat()
        except OSError:
            return file.name
        if (found.st_size, found.st_mtime_ns) != (file.size, file.mtime_ns):
            return file.name
    return None


def _is_side_file(name: str) -> bool:
    """Whether a file beside the one opened belongs to a model by its name."""
    return name.endswith("config.json") or name.startswith(("tokenizer", "special_tokens", "vocab.", "merges."))


def _walk(root: Path, notes: list[str], *, alone: bool) -> Iterator[tuple[Path, os.stat_result]]:
    try:
        waiting = [(root, frozenset({_identity(root.stat())}))]
    except OSError as error:
        raise _unreadable(error, root) from error
    while waiting:
        folder, above = waiting.pop()
        for path in _entries(folder):
            name = path.relative_to(root).as_posix()
            try:
                found = path.stat()
            except FileNotFoundError:
                notes.append(say("{file} is a link to a file that is not there, and is left out.", file=name))
                continue
            except OSError as error:
                raise _unreadable(error, path) from error
            if stat.S_ISREG(found.st_mode):
                yield path, found
            elif alone:
                continue
            elif not stat.S_ISDIR(found.st_mode):
                notes.append(say("{file} is no regular file, and is left out.", file=name))
            elif path.name in _DOWNLOAD_STATE or is_unfinished(path.name):
                notes.append(say("{file} is no part of the checkpoint, and is left out.", file=name))
            elif _identity(found) in above:
                notes.append(say("{file} is a link to a folder above it, and is left out.", file=name))
            else:
                waiting.append((path, above | {_identity(found)}))


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(error, folder) from error


def _unreadable(error: OSError, path: Path) -> ExportError:
    reason = error.strerror or type(error).__name__
    return ExportError(
        say("cannot be read for copying: {reason}", reason=reason),
        path=path,
        remedy=say("Change its permissions, or move it away."),
    )
