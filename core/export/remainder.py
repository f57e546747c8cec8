"""The folder in which an export grows: ``<name>.kvscope-unfinished`` beside the target.

It holds ``files``, which becomes the target by one rename, and ``state.jsonl``, which says what is finished: a first
line about the export, then one for each file that is whole and on the disk. A file that is being written is ``part``,
beside both, whatever the files of the source are named. Whatever moment a process dies at, what has a shard's name is
a whole shard.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any

from core import __version__
from core.errors import ExportError
from core.export.files import UNFINISHED
from core.export.system import System
from core.wording import say

STATE = "state.jsonl"
_SCHEMA = "kvscope.export-state/2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A file that is whole and flushed: bytes, nanoseconds, how many bytes share blocks or were copied.

    ``sha256`` is the digest of the whole file once every byte was compared with the source; ``checked`` how many
    tensors were compared, None before.
    """

    name: str
    size: int
    mtime_ns: int
    cloned: int = 0
    copied: int = 0
    sha256: str | None = None
    checked: int | None = None


@dataclass(slots=True)
class Remainder:
    """An export's unfinished folder, locked against other exports while it is open."""

    folder: Path
    system: System
    finished: dict[str, Finished] = field(default_factory=dict)
    _state: FileIO | None = None
    _end: int = 0
    _made: bool = False

    @property
    def ours(self) -> bool:
        """Whether this export made the folder or took it up."""
        return self._made or self._state is not None

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def part(self) -> Path:
        """The file that is being written."""
        return self.folder / "part"

    def room(self) -> int:
        """Bytes of disk that an earlier export's finished files hold; links and clones count nothing."""
        try:
            lines = (self.folder / STATE).read_bytes().splitlines()
            sizes = {line["name"]: line["copied"] for line in map(json.loads, lines[1:-1])}
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        return sum(size for size in sizes.values() if isinstance(size, int))

    def begin(self, *, digest: str, resume: bool) -> None:
        """Make the folder, or take up what is there (``resume``); otherwise an earlier remainder is removed.

        ``digest`` is that of the plan: only the same export can be resumed.

        Raises:
            ExportError: something else has this name, another export runs, or another one was begun here.
            OSError: the disk refused.
        """
        if self.folder.exists() and not (resume and self._take_up(digest)):
            self._refuse_strangers()
            self.remove()
        if self._state is None:
            self.system.make_folder(self.folder)
            self._made = True
            self._open()
            self._append({"schema": _SCHEMA, "kvscope": __version__, "plan": digest, "begun": time.time()})
            self.system.make_folder(self.files)

    def add(self, done: Finished) -> None:
        """Note a file as finished, or something new about it."""
        self.finished[done.name] = done
        self._append(asdict(done))

    def forget(self, name: str) -> None:
        """Remove a file that turned out not to be finished, and what was being written."""
        self.finished.pop(name, None)
        for path in (self.files / name, self.part):
            if path.exists() or path.is_symlink():
                self.system.remove(path)

    def checked(self, name: str, *, tensors: int, sha256: str | None) -> None:
        """Note that a file was compared with the source."""
        self.add(replace(self.finished[name], checked=tensors, sha256=sha256))

    def publish(self, target: Path) -> None:
        """Let the files become the target, in one step.

        Raises:
            OSError: the target is there and not empty, or the disk refused; nothing was renamed then.
        """
        self.system.rename(self.files, target)

    def remove(self) -> None:
        """Remove the folder and what is in it: files first, its state last. Raises OSError where the disk refuses."""
        if self.files.exists():
            self._remove_below(self.files)
        if self.part.exists() or self.part.is_symlink():
            self.system.remove(self.part)
        self.close()
        if (self.folder / STATE).exists():
            self.system.remove(self.folder / STATE)
        self.system.remove_folder(self.folder)

    def close(self) -> None:
        """Let go of the lock."""
        if self._state is not None:
            self._state.close()
            self._state = None

    def _take_up(self, digest: str) -> bool:
        """Open the state of an interrupted export; False where it did not get so far as to have one."""
        if not (self.folder / STATE).exists():
            return False
        self._open()
        lines = self._lines()
        if not lines:
            self.close()
            return False
        if lines[0].get("plan") != digest or lines[0].get("schema") != _SCHEMA:
            self.close()
            raise ExportError(
                say("holds the remainder of another export"),
                path=self.folder,
                remedy=say(
                    "Leave --resume away to remove it and write anew, or repeat the options that it was begun with."
                ),
            )
        for line in lines[1:]:
            try:
                done = Finished(**line)
                path = (self.files / done.name).resolve()
            except TypeError:  # no line of ours
                continue
            if path.is_relative_to(self.files.resolve()):
                self.finished[done.name] = done
        if not self.files.exists():
            self.system.make_folder(self.files)
        return True

    def _open(self) -> None:
        file = self.system.append(self.folder / STATE)
        try:
            self.system.lock(file)
        except BlockingIOError as error:
            file.close()
            raise ExportError(
                say("another export to this folder is running"),
                path=self.folder,
                remedy=say("Wait until it has ended."),
            ) from error
        except OSError:  # a file system without locks
            pass
        self._state = file

    def _opened(self) -> FileIO:
        if self._state is None:
            raise ValueError("the remainder is not open")
        return self._state

    def _lines(self) -> list[dict[str, Any]]:
        """The state's whole lines; what a dying process left of the last one is cut off."""
        file = self._opened()
        size = self.system.status(self.folder / STATE).st_size
        buffer = bytearray(size)
        at = 0
        while at < size and (count := self.system.read_at(file, memoryview(buffer)[at:], at)):
            at += count
        lines = []
        self._end = 0
        for line in bytes(buffer[:at]).splitlines(keepends=True):
            try:
                value = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n") or not isinstance(value, dict):
                break
            lines.append(value)
            self._end += len(line)
        self.system.shorten(file, self._end)
        return lines

    def _append(self, value: dict[str, Any]) -> None:
        """Add a line. It is not flushed: a line that is lost costs the file's writing, and none says too much, since
        a file is flushed before it is noted.
        """
        file = self._opened()
        view = memoryview(json.dumps(value).encode() + b"\n")
        while view:
            count = self.system.write_at(file, view, self._end)
            view, self._end = view[count:], self._end + count

    def _refuse_strangers(self) -> None:
        """Only what an export left is removed.

        Raises:
            ExportError: the folder holds something else, or an export that runs.
        """
        if self.folder.is_symlink() or not self.folder.is_dir():
            strangers = True
        else:
            entries = set(self.system.entries(self.folder))
            strangers = not entries <= {STATE, "files", "part"} or (bool(entries) and STATE not in entries)
        if strangers:
            raise ExportError(
                say("is in the way, and no export left it there"),
                path=self.folder,
                remedy=say("Move it, or choose another folder."),
            )
        if (self.folder / STATE).exists():
            self._open()

    def _remove_below(self, folder: Path) -> None:
        for name in self.system.entries(folder):
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                self._remove_below(path)
            else:
                self.system.remove(path)
        self.system.remove_folder(folder)


def remainder_of(target: Path, system: System) -> Remainder:
    """The remainder beside a target folder (an absolute path); nothing is touched yet."""
    return Remainder(target.parent / f"{target.name}{UNFINISHED}", system)
