"""The journal of an export in place: what to put back when it does not come to its end.

``kvscope-in-place.journal`` lies in the checkpoint's folder from before the first byte is changed until after the last
one. It holds the old headers of the shards and the old small files; whoever finds it puts those back.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from core.errors import ExportError
from core.export.copying import Copier
from core.export.files import JOURNAL
from core.export.system import System
from core.wording import say

NEW = ".kvscope-new"
_SCHEMA = "kvscope.in-place-journal/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What was there: ``heads`` are the first bytes of shards, ``texts`` small files, None where there was none."""

    root: Path
    heads: Mapping[str, bytes]
    texts: Mapping[str, bytes | None]
    sizes: Mapping[str, int]

    def keep(self, system: System) -> FileIO:
        """Write the journal and wait until it is on the disk; the file, locked until it is closed. Raises OSError."""
        data = {
            "schema": _SCHEMA,
            "heads": {name: base64.b85encode(head).decode() for name, head in self.heads.items()},
            "texts": {
                name: None if text is None else base64.b85encode(text).decode() for name, text in self.texts.items()
            },
            "sizes": dict(self.sizes),
        }
        new = self.root / f"{JOURNAL}{NEW}"
        remove_if_there(new, system)
        Copier(system=system).write_file(new, json.dumps(data).encode())
        file = system.overwrite(new)
        try:
            with suppress(OSError):  # a file system without locks
                system.lock(file)
            system.rename(new, self.root / JOURNAL)
            system.flush_folder(self.root)
        except BaseException:
            file.close()
            raise
        return file

    def undo(self, system: System) -> None:
        """Put everything back, and remove the journal. Raises OSError; the journal is still there then."""
        for name, head in self.heads.items():
            write_head(self.root / name, head, system)
        for name, text in self.texts.items():
            remove_if_there(self.root / f"{name}{NEW}", system)
            if text is None:
                remove_if_there(self.root / name, system)
            elif (self.root / name).read_bytes() != text:
                replace_file(self.root / name, text, system)
        system.flush_folder(self.root)
        self.forget(system)

    def forget(self, system: System) -> None:
        """Remove the journal: what is there stands."""
        system.remove(self.root / JOURNAL)
        with suppress(OSError):  # nothing hangs on it: a journal that comes back is put back and gone again
            system.flush_folder(self.root)


def write_head(path: Path, head: bytes, system: System) -> None:
    """Write over a file's first bytes, and wait until they are on the disk."""
    file = system.overwrite(path)
    try:
        Copier(system=system).write(file, head, 0)
        system.flush(file)
    finally:
        file.close()


def replace_file(path: Path, data: bytes, system: System) -> None:
    """Put a new file in the place of an old one, in one step."""
    new = path.with_name(path.name + NEW)
    remove_if_there(new, system)
    Copier(system=system).write_file(new, data)
    system.rename(new, path)
    system.flush_folder(path.parent)


def remove_if_there(path: Path, system: System) -> None:
    """Remove a file that may not be there."""
    if path.exists():
        system.remove(path)


def recover(path: Path, *, system: System | None = None) -> bool:
    """Put back what an export in place that did not end has changed; whether there was one.

    Raises:
        ExportError: the export still runs, the journal cannot be read, a shard is not the one that it speaks of, or the
            disk refuses.
    """
    root, system = path if path.is_dir() else path.parent, system or System()
    with _locked(root, system) as there:
        if there:
            return put_back(root, system)
        try:
            remove_if_there(root / f"{JOURNAL}{NEW}", system)
        except OSError as error:
            raise _stuck(root, error.strerror or type(error).__name__) from error
        return False


def refuse_unended(path: Path, *, system: System | None = None) -> None:
    """Check that no export in place runs in a checkpoint's folder or has left its journal there.

    Raises:
        ExportError: one does, or has.
    """
    root, system = path if path.is_dir() else path.parent, system or System()
    with _locked(root, system) as there:
        if there:
            raise ExportError(
                say("an export in place did not end here"),
                path=root / JOURNAL,
                remedy=say("Run kvscope export --in-place again, which puts everything back first."),
            )


@contextmanager
def _locked(root: Path, system: System) -> Iterator[bool]:
    """Hold the journal's lock; whether there is a journal.

    Raises:
        ExportError: a running export holds it, or it cannot be opened.
    """
    try:
        file = system.overwrite(root / JOURNAL) if (root / JOURNAL).exists() else None
    except FileNotFoundError:  # the export has just ended
        file = None
    except OSError as error:
        raise _stuck(root, error.strerror or type(error).__name__) from error
    if file is None:
        yield False
        return
    try:
        try:
            system.lock(file)
        except BlockingIOError as error:
            raise ExportError(
                say("another export to this folder is running"),
                path=root / JOURNAL,
                remedy=say("Wait until it has ended."),
            ) from error
        except OSError:  # a file system without locks
            pass
        yield True
    finally:
        file.close()


def put_back(root: Path, system: System) -> bool:
    """:func:`recover` for who holds the lock."""
    try:
        remove_if_there(root / f"{JOURNAL}{NEW}", system)
        text = (root / JOURNAL).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _stuck(root, error.strerror or type(error).__name__) from error
    try:
        journal = _journal(root, json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _stuck(root, say("it is no journal")) from error
    for name in (*journal.heads, *journal.texts):
        if not belongs(root, name):
            raise _stuck(root, say("{file} is no file of this folder's own", file=name))
    for name, size in journal.sizes.items():
        try:
            found = system.status(root / name).st_size
        except OSError as error:
            raise _stuck(
                root, say("{file}: {reason}", file=name, reason=error.strerror or type(error).__name__)
            ) from error
        if found != size:
            raise _stuck(root, say("{file} has {found} bytes and not {size}", file=name, found=found, size=size))
    try:
        journal.undo(system)
    except OSError as error:
        raise _stuck(root, error.strerror or type(error).__name__) from error
    return True


def belongs(root: Path, name: str) -> bool:
    """Whether a name leads to a file in the folder and nowhere else; a journal may come with a download."""
    path = root / name
    return not path.is_symlink() and path.resolve().is_relative_to(root.resolve()) and ".." not in path.parts


def _journal(root: Path, data: Any) -> Journal:
    if data["schema"] != _SCHEMA:
        raise ValueError("another schema")
    if not data["heads"].keys() <= data["sizes"].keys():
        raise ValueError("a shard without its size")
    return Journal(
        root=root,
        heads={str(name): base64.b85decode(head) for name, head in data["heads"].items()},
        texts={str(name): None if text is None else base64.b85decode(text) for name, text in data["texts"].items()},
        sizes={str(name): int(size) for name, size in data["sizes"].items()},
    )


def _stuck(root: Path, why: str) -> ExportError:
    return ExportError(
        say("what an interrupted export in place changed could not be put back: {why}", why=why),
        path=root / JOURNAL,
        remedy=say(
            "Check the disk and its permissions, repeat kvscope export --in-place, and keep the journal until then."
        ),
    )
