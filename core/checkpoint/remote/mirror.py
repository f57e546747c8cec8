"""What was fetched, kept on disk: small files whole, of tensor files the beginning, and the values asked for.

One folder a place, named by a digest. A file is used again only where its tag is the same; everything is written
beside and renamed, so that two processes cannot see half of anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from core.errors import KVScopeError
from core.wording import say

_FILES, _VALUES = "files.json", "values.json"
Spans = dict[tuple[int, int], bytes]


def cache_folder() -> Path:
    """Where fetched headers and values are kept: KVSCOPE_CACHE, or kvscope in the user's cache folder."""
    if own := os.environ.get("KVSCOPE_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "kvscope"


class Mirror:
    """The folder of one place: :attr:`root` looks like the checkpoint's own, with tensor files cut behind headers."""

    def __init__(self, identity: str, name: str) -> None:
        digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self.home = cache_folder() / "remote" / digest
        plain = re.sub(r"[^\w.-]", "_", name)[:100].strip(".") or "checkpoint"
        self.root = self.home / (f"{plain}_" if plain.lower() in (_FILES, _VALUES) else plain)
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unwritable(self.root, error) from error
        self._files: dict[str, Any] = _read(self.home / _FILES)
        self._values: dict[str, Any] = _read(self.home / _VALUES)

    def tag(self, name: str) -> str:
        """The tag of a file that is held; "" where none is, or not whole any more."""
        return str(self._files[name].get("tag", "")) if self.held(name) else ""

    def held(self, name: str) -> int:
        """Bytes held of a file, counted from its beginning."""
        entry = self._files.get(name)
        try:
            kept = (self.root / name).stat().st_size if isinstance(entry, dict) else 0
        except OSError:
            return 0
        return kept if entry and kept == entry.get("kept") and type(entry.get("size")) is int else 0

    def size(self, name: str) -> int:
        """Bytes of the whole file of which something is held."""
        return int(self._files[name]["size"])

    def beginning(self, name: str, length: int) -> bytes:
        """The first bytes of a file that is held."""
        with (self.root / name).open("rb") as file:
            return file.read(length)

    def keep(self, name: str, data: bytes, size: int, tag: str) -> None:
        """Hold the beginning of a file."""
        _write(self.root / name, data)
        self._files[name] = {"tag": tag, "size": size, "kept": len(data)}
        self._values.pop(name, None)

    def drop(self, name: str) -> None:
        """Hold nothing of a file."""
        (self.root / name).unlink(missing_ok=True)
        self._files.pop(name, None)

    def values(self, name: str) -> Spans:
        """The spans held of a file beyond its beginning."""
        try:
            return _spans(self._values.get(name, {}), self.tag(name))
        except (AttributeError, LookupError, TypeError, ValueError):  # not what was written
            del self._values[name]
            return {}

    def keep_values(self, found: dict[str, Spans]) -> None:
        """Hold these spans too."""
        for name, spans in found.items():
            if tag := self.tag(name):
                held = self.values(name) | spans
                texts = {f"{begin}-{end}": data.hex() for (begin, end), data in held.items()}
                self._values[name] = {"tag": tag, "spans": texts}
        _write(self.home / _VALUES, json.dumps(self._values, separators=(",", ":")).encode())

    def save(self) -> None:
        """Remember what is held, for the next time."""
        _write(self.home / _FILES, json.dumps(self._files, separators=(",", ":")).encode())


def _spans(found: Any, tag: str) -> Spans:
    if not tag or found.get("tag") != tag:
        return {}
    spans = {}
    for key, text in found["spans"].items():
        begin, _, end = key.partition("-")
        data = bytes.fromhex(text)
        if int(end) - int(begin) == len(data):
            spans[int(begin), int(end)] = data
    return spans


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".kvscope-", delete=False) as file:
            try:
                file.write(data)
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> KVScopeError:
    return KVScopeError(
        say("cannot be written: {reason}", reason=error.strerror),
        path=path,
        remedy=say("Name a folder that can be written to with KVSCOPE_CACHE"),
    )
