"""What was found so far, as JSON lines in a file: an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from core.errors import UsageError
from core.report.contract import json_text
from core.zoo.checking import Asked, Entry

SCHEMA = "kvscope.zoo/1"


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
    """A file of entries. Those that could be read and answer the same question are known; the others are asked anew.

    Raises:
        UsageError: the file cannot be read or written, or holds something else.
    """

    def __init__(self, path: Path, asked: Asked) -> None:
        self._path = path
        self._asked = asked
        self._file: TextIO | None = None
        self.known: dict[str, Entry] = self._read()

    def __enter__(self) -> Self:
        try:
            torn = self._path.exists() and not self._path.read_bytes().endswith(b"\n") and self._path.stat().st_size > 0
            self._file = self._path.open("a", encoding="utf-8")
            if torn:
                self._file.write("\n")
        except OSError as error:
            raise self._unusable(f"cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, entry: Entry) -> None:
        """Write an entry, at once."""
        if self._file is not None:
            try:
                self._file.write(json_text(entry_as_data(entry, self._asked), indent=None) + "\n")
                self._file.flush()
            except OSError as error:
                raise self._unusable(f"cannot be written: {error.strerror}") from error

    def _read(self) -> dict[str, Entry]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise self._unusable("is no record of an earlier run") from error
        found: dict[str, Entry] = {}
        asked = self._asked.as_data()
        for number, line in enumerate(lines, 1):
            try:
                data = json.loads(line)
            except ValueError:
                if number == len(lines) or not line:  # torn when the run was interrupted
                    continue
                raise self._unusable(f"is no record of an earlier run (line {number})") from None
            if not isinstance(data, dict) or data.get("schema") != SCHEMA:
                raise self._unusable(f"is no record of an earlier run (line {number})")
            if data["asked"] == asked and data["error"] is None:
                found[data["path"]] = Entry(path=data["path"], line=data["line"], reports=tuple(data["reports"]))
        return found

    def _unusable(self, problem: str) -> UsageError:
        return UsageError(problem, path=self._path, remedy="Name another file with --resume.")
