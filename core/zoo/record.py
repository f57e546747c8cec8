"""What was found so far, as JSON lines in a file: an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from core import __version__
from core.checkpoint.faults import BrokenFileError
from core.checkpoint.files import read_whole
from core.checkpoint.layout import PICKLED, SAFETENSORS, find_layout
from core.checkpoint.remote.address import is_address
from core.errors import CancelledError, KVScopeError, UsageError
from core.progress import Progress
from core.report.contract import json_text
from core.zoo.checking import Asked, Entry
from core.zoo.table import markdown_table, summary

SCHEMA = "kvscope.zoo/1"
_LARGEST = 1 << 32  # bytes of a record: some thousand checkpoints under every engine
_ENDINGS = (SAFETENSORS, *PICKLED, ".json")
_PARALLEL = 8  # servers asked at a time


def entry_as_data(entry: Entry, asked: Asked) -> dict[str, Any]:
    """One line: the schema, the path, what was asked, the verdict in one line, and the reports or the error."""
    return {
        "schema": SCHEMA,
        "path": entry.path,
        "asked": asked.as_data(),
        "line": entry.line,
        "error": entry.error,
        "reports": list(entry.reports),
    }


class Record:
    """A file of entries. Those that answer the same question about the same files are known; the others are asked anew.

    Raises:
        UsageError: the file cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path, asked: Asked) -> None:
        self._path = path
        self._asked = asked
        self._file: TextIO | None = None
        self._torn = False
        self._rules = _digest(asked.rules)
        self._states: dict[str, dict[str, Any] | None] = {}
        self._known: dict[str, tuple[Entry, object]] = self._read()

    def __enter__(self) -> Self:
        try:
            self._file = self._path.open("a", encoding="utf-8")
            if self._torn:
                self._file.write("\n")
        except OSError as error:
            raise self._unusable(f"cannot be written: {error.strerror}") from error
        return self

    def entries(self, paths: Sequence[str], progress: Progress | None = None) -> dict[str, Entry]:
        """What is known of the checkpoints at ``paths`` as they are now. Servers are asked, several at a time, whether
        theirs changed.

        Raises:
            CancelledError: ``progress`` was told to stop.
        """
        progress = progress or Progress()
        far = [path for path in paths if is_address(path) and path in self._known]
        progress.start("asking what changed", total=len(far), unit="checkpoints")
        with ThreadPoolExecutor(_PARALLEL) as pool:
            waiting = {path: pool.submit(self.entry, path, progress) for path in far}
            try:
                known = {path: entry for path in paths if path not in waiting and (entry := self.entry(path))}
                for future in waiting.values():
                    future.result()
                    progress.advance()
            except BaseException:
                progress.cancel()
                raise
        known |= {path: entry for path, future in waiting.items() if (entry := future.result())}
        return {path: known[path] for path in paths if path in known}

    def entry(self, path: str, progress: Progress | None = None) -> Entry | None:
        """What is known of the checkpoint at ``path`` as it is now; None where it must be read, also where nobody can
        say whether it changed.
        """
        place = _place(path)
        known, then = self._known.get(place, (None, None))
        if is_address(path):
            state = self._state_far(path, then, progress or Progress()) if known is not None else None
        else:
            state = self._states[place] = self._state(_files(Path(path)))
        return replace(known, path=path) if known is not None and state is not None and state == then else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, entry: Entry) -> None:
        """Write an entry, at once."""
        if self._file is not None:
            place = _place(entry.path)
            # The state from before the checkpoint was read: what changed meanwhile is read again the next time.
            if is_address(entry.path):
                state = self._state(entry.state)
            else:
                state = self._states[place] if place in self._states else self._state(_files(Path(entry.path)))
            data = {**entry_as_data(entry, self._asked), "place": place, "state": state}
            try:
                self._file.write(json_text(data, indent=None) + "\n")
                self._file.flush()
            except OSError as error:
                raise self._unusable(f"cannot be written: {error.strerror}") from error

    def _state(self, files: Iterable[Sequence[Any]] | None) -> dict[str, Any] | None:
        """All that the answer depends on, but the question; None where there is no checkpoint, or no telling."""
        if files is None:
            return None
        return {"version": __version__, "rules": self._rules, "files": [list(file) for file in files]}

    def _state_far(self, path: str, then: object, progress: Progress) -> dict[str, Any] | None:
        """The state of a checkpoint on a server, which is asked only where the rest is as it was ``then``."""
        from core.checkpoint.remote.bringing import state_of

        state, files = self._state([]), then.get("files") if isinstance(then, dict) else None
        if not isinstance(files, list) or not files or then != {**(state or {}), "files": files}:
            return None
        names = [file[0] for file in files if isinstance(file, list) and file and isinstance(file[0], str)]
        try:
            return self._state(state_of(path, names, progress.beside()))
        except CancelledError:
            raise
        except KVScopeError:
            return None  # reading it says why

    def _read(self) -> dict[str, tuple[Entry, object]]:
        try:
            lines = read_whole(self._path, _LARGEST).decode("utf-8").split("\n") if os.path.lexists(self._path) else []
        except BrokenFileError as error:
            raise self._unusable(error.problem) from error
        except UnicodeDecodeError as error:
            raise self._unusable("is no record of an earlier run") from error
        self._torn = bool(lines and lines[-1])
        found: dict[str, tuple[Entry, object]] = {}
        for number, line in enumerate(lines, 1):
            try:
                data = json.loads(line)
            except (ValueError, RecursionError):
                if number == len(lines) or not line:  # torn when the run was interrupted
                    continue
                raise self._unusable(f"is no record of an earlier run (line {number})") from None
            try:
                entry = _entry(data, self._asked)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise self._unusable(f"is no record of an earlier run (line {number})") from None
            if entry is not None and "place" in data:  # an earlier KVScope did not say it
                found[data["place"]] = entry, data.get("state")
        return found

    def _unusable(self, problem: str) -> UsageError:
        return UsageError(problem, path=self._path, remedy="Name another file with --resume.")


def _entry(data: dict[str, Any], asked: Asked) -> Entry | None:
    """The entry that a line holds; None where it answers another question, or nothing. Raises KeyError, TypeError,
    ValueError or AttributeError where the line is none of a record.
    """
    if data["schema"] != SCHEMA:
        raise ValueError(data["schema"])
    place = data.get("place", "")
    entry = Entry(path=data["path"], line=data["line"], error=data["error"], reports=tuple(data["reports"]))
    texts = (place, entry.path, entry.line, entry.error or "")
    if not all(isinstance(text, str) for text in texts) or not isinstance(data["asked"], dict):
        raise TypeError(place)
    if data["asked"] != asked.as_data() or entry.error is not None:
        return None
    if len(entry.reports) != len(asked.engines):
        raise ValueError(len(entry.reports))
    summary([entry], asked), markdown_table([entry], asked), entry.sound  # all that is asked of a report
    return entry


def _place(path: str) -> str:
    """What a checkpoint is known by, in whichever folder KVScope runs."""
    return path if is_address(path) else os.path.abspath(path)  # noqa: PTH100 - text, not a file


def _files(path: Path) -> list[list[Any]] | None:
    """Name, size and time of change of every file that is or could be read for the checkpoint, and of ``path`` itself
    where it is a file; None where none is found.
    """
    try:
        layout = find_layout(path)
        with os.scandir(layout.root) as entries:
            names = {entry.name for entry in entries if entry.name.lower().endswith(_ENDINGS)}
        states = [(name, _stat(layout.root / name)) for name in sorted({*names, *layout.shards})]
    except (KVScopeError, OSError):
        return None
    return [[str(layout.root.absolute()), 0, 0], *([name, *state] for name, state in states)]


def _stat(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1  # a shard that is missing, which is told
    return status.st_size, status.st_mtime_ns


def _digest(rules: str | None) -> str | None:
    """What a file of rules holds, in short."""
    if rules is None:
        return None
    try:
        return hashlib.sha256(read_whole(Path(rules), _LARGEST)).hexdigest()
    except BrokenFileError as error:
        raise UsageError(error.problem, path=rules, remedy=error.remedy) from error
