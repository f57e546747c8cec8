"""Which checkpoints there are: in a folder tree, or on a list."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from core.checkpoint.faults import BrokenFileError
from core.checkpoint.files import read_given
from core.checkpoint.layout import holds_tensors
from core.checkpoint.remote.address import is_address
from core.errors import UsageError
from core.ordering import natural
from core.progress import Progress

_LARGEST = 1 << 28  # bytes of a list: a million paths


def find_checkpoints(root: str, progress: Progress | None = None) -> list[str]:
    """Every folder below ``root``, itself among them, that holds tensor files; in natural order. A file or an address
    stands for itself. Hidden folders are not entered, links to folders not followed.

    Raises:
        UsageError: there is nothing at ``root``, or no checkpoint below it.
    """
    if is_address(root) or Path(root).is_file():
        return [root]
    if not Path(root).is_dir():
        raise UsageError("does not exist", path=root, remedy="Check the path.")
    found = sorted(_below(root, progress or Progress()), key=natural)
    if not found:
        raise UsageError("holds no checkpoint, nor does any folder below it", path=root, remedy="Check the path.")
    return found


def _below(root: str, progress: Progress) -> Iterator[str]:
    for folder, folders, files in os.walk(root):
        progress.check()
        folders[:] = [name for name in folders if not name.startswith(".")]
        if holds_tensors(files):
            yield folder


def read_list(file: str) -> list[str]:
    """The paths and addresses that a file (``-`` for stdin) names, one a line; ``#`` begins a comment line.

    Raises:
        UsageError: it cannot be read, or names nothing.
    """
    try:
        text = _stdin() if file == "-" else read_given(Path(file), _LARGEST).decode("utf-8")
    except BrokenFileError as error:
        remedy = "Give a file with one path a line, or - for stdin."
        raise UsageError(error.problem, path=file, remedy=remedy) from error
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", path=file, remedy="Check the path.") from error
    except UnicodeDecodeError as error:
        raise UsageError("is not UTF-8 text", path=file, remedy="Give a text file with one path a line.") from error
    # Nothing but a line feed ends a line, and nothing but white space that people type surrounds a path.
    lines = (line.strip(" \t\r") for line in text.removeprefix("\ufeff").split("\n"))
    found = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not found:
        raise UsageError("names no checkpoint", path=file, remedy="Write one path or address a line.")
    return found


def _stdin() -> str:
    if sys.stdin is None:
        raise UsageError("there is no list: stdin is closed", remedy="Give --list FILE.")
    return sys.stdin.read()
