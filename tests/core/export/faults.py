"""A system that fails on purpose, and what must hold whatever failed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from core.checkpoint import open_checkpoint
from core.errors import UnreadableCheckpointError
from core.export.system import System
from tests.core.export.exporting import bytes_of

RECORD = "kvscope-export.json"
KINDS = ("ENOSPC", "EIO", "EACCES", "EXDEV", "short")
MOVES_BYTES = ("read_at", "write_at", "copy")


@dataclass
class Faulty(System):
    """Fails at its call number ``at`` (from 0); ``kind`` is the name of an error, "short" or "kill".

    "short" does a third of what is asked for, where that is a number of bytes; "kill" ends the process with SIGKILL,
    before or (``after``) after the call. ``stays`` keeps failing the same calls from then on, as a full disk does.
    """

    at: int = -1
    kind: str = "EIO"
    after: bool = False
    stays: bool = False
    calls: list[str] = field(default_factory=list)

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        number = len(self.calls)
        self.calls.append(name)
        real: Callable[..., Any] = getattr(System, name)
        now = number == self.at or (self.stays and number > self.at >= 0 and name in {"write_at", "copy", "create"})
        if now and self.kind == "kill":
            if self.after:
                real(self, *arguments, **keywords)
            os.kill(os.getpid(), signal.SIGKILL)
        if now and self.kind != "short":
            code = getattr(errno, self.kind)
            raise OSError(code, os.strerror(code))
        if now and name in {"read_at", "write_at"}:
            file, view, place = arguments
            return real(self, file, view[: max(1, len(view) // 3)], place)
        if now and name == "copy":
            keywords["count"] = max(1, keywords["count"] // 3)
        return real(self, *arguments, **keywords)


def _through_call(name: str) -> Callable[..., Any]:
    def method(self: Faulty, *arguments: Any, **keywords: Any) -> Any:
        return self.call(name, *arguments, **keywords)

    return method


for _name in vars(System):
    if not _name.startswith("_"):
        setattr(Faulty, _name, _through_call(_name))


class Cloning(Faulty):
    """Its clones are true to the letter on a file system that cannot: the bytes are written."""

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        if name != "clone":
            return super().call(name, *arguments, **keywords)
        number = len(self.calls)
        self.calls.append(name)
        if number == self.at and self.kind not in {"short", "kill"}:
            code = getattr(errno, self.kind)
            raise OSError(code, os.strerror(code))
        source: FileIO = arguments[0]
        target: FileIO = arguments[1]
        target.seek(keywords["at"])
        target.write(os.pread(source.fileno(), keywords["count"], keywords["begin"]))
        return None


def whole(folder: Path) -> dict[str, bytes]:
    """A finished export's files but for its record."""
    found = bytes_of(folder)
    assert RECORD in found
    del found[RECORD]
    return found


def nothing_half_done(out: Path, wanted: dict[str, bytes]) -> str:
    """What an export left when it was ended is whole or does not open; says which it is."""
    remainder = out.with_name(f"{out.name}.kvscope-unfinished")
    if out.exists():
        assert whole(out) == wanted
        return "finished"
    if not remainder.exists():
        return "nothing"
    with pytest.raises(UnreadableCheckpointError):
        open_checkpoint(remainder)
    left = bytes_of(remainder / "files") if (remainder / "files").exists() else {}
    left.pop(RECORD, None)
    for name, data in left.items():
        assert data == wanted[name], name
    if "config.json" in left:
        assert left == wanted
        return "unfinished, all written"
    return "unfinished"


def removed(folder: Path) -> None:
    """Remove what a test left."""
    if folder.exists():
        shutil.rmtree(folder)
