"""Every system call that writing an export makes, in one place: what cannot fail here cannot fail there."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from io import FileIO
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_FICLONERANGE = 0x4020940D  # linux/fs.h, on x86 and ARM


class System:
    """The system calls, one method each. Any of them raises OSError; the tests' own kind does so on purpose."""

    def status(self, path: Path) -> os.stat_result:
        """What a file is; links are followed."""
        return path.stat()

    def free(self, folder: Path) -> int:
        """Bytes that may still be written below a folder."""
        return shutil.disk_usage(folder).free

    def entries(self, folder: Path) -> list[str]:
        """The names in a folder."""
        return sorted(path.name for path in folder.iterdir())

    def make_folder(self, path: Path) -> None:
        path.mkdir()

    def open(self, path: Path) -> FileIO:
        """Open a file for reading."""
        return FileIO(path, "r")

    def create(self, path: Path) -> FileIO:
        """Make a new file, for writing and reading."""
        return FileIO(path, "x+")

    def overwrite(self, path: Path) -> FileIO:
        """Open a file for reading and for writing over what it holds."""
        return FileIO(path, "r+")

    def append(self, path: Path) -> FileIO:
        """Open a file for reading, and for writing at its end; it is made when it is not there."""
        return FileIO(path, "a+")

    def nameless(self, folder: Path) -> FileIO:
        """A new file without a name, which is gone when it is closed.

        Raises:
            OSError: also where the system or the file system knows no such thing.
        """
        flag: int | None = getattr(os, "O_TMPFILE", None)
        if flag is None:
            raise OSError("files without a name are not known here")
        return FileIO(os.open(folder, flag | os.O_RDWR, 0o600), "r+")

    def close(self, file: FileIO) -> None:
        file.close()

    def read_at(self, file: FileIO, view: memoryview, at: int) -> int:
        """Fill ``view`` from position ``at``; how many bytes came, 0 at the file's end."""
        file.seek(at)
        return file.readinto(view) or 0

    def write_at(self, file: FileIO, data: memoryview, at: int) -> int:
        """Write at position ``at``; how many bytes went."""
        file.seek(at)
        return file.write(data) or 0

    def copy(self, source: FileIO, target: FileIO, *, begin: int, count: int, at: int) -> int:
        """Let the kernel copy (``copy_file_range``); how many bytes it did.

        Raises:
            OSError: also where the system has no such call.
        """
        if sys.platform != "linux":
            raise OSError("copy_file_range is not known here")
        return os.copy_file_range(source.fileno(), target.fileno(), count, begin, at)

    def clone(self, source: FileIO, target: FileIO, *, begin: int, count: int, at: int) -> None:
        """Share blocks between two files (``FICLONERANGE``); all three numbers count whole blocks, unless the range
        ends with the source.

        Raises:
            OSError: also where the system has no such call.
        """
        if sys.platform != "linux":
            raise OSError("FICLONERANGE is not known here")
        fcntl.ioctl(target.fileno(), _FICLONERANGE, struct.pack("=qQQQ", source.fileno(), begin, count, at))

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; links on the way to ``source`` are followed."""
        os.link(source.resolve(), target)

    def lock(self, file: FileIO) -> None:
        """Lock a file against other processes until it is closed.

        Raises:
            BlockingIOError: another process holds it.
        """
        if sys.platform != "win32":
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def flush(self, file: FileIO) -> None:
        """Wait until a file's bytes are on the disk."""
        os.fsync(file.fileno())

    def flush_folder(self, folder: Path) -> None:
        """Wait until a folder's names are on the disk."""
        if sys.platform == "win32":  # folders cannot be opened there
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file or folder another name, in one step."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def shorten(self, file: FileIO, size: int) -> None:
        """Cut a file off after ``size`` bytes."""
        file.truncate(size)
