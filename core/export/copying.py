"""Bytes from one file into another: blocks shared where the file system can, copied by the kernel, or by a buffer."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from core.errors import ExportError
from core.export.safetensors_writer import BLOCK, ShardLayout
from core.export.system import System
from core.progress import Progress
from core.wording import say

_CLONE_CHUNK = 1 << 30
_KERNEL_CHUNK = 64 << 20
_BUFFER = 1 << 20
_FLUSH_EVERY = 256 << 20
"""Bytes that may wait for the disk: more, and the last flush of a shard would be long, and could not be cancelled."""
_CANNOT = {None, errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.ENOTTY, errno.ETXTBSY}
"""What a kernel answers that does not copy or clone between these two files; None where there is no such call."""


@dataclass(slots=True, kw_only=True)
class Copier:
    """Writes files from a source's bytes; ``cloned`` and ``copied`` count bytes.

    ``clone`` says whether to share blocks; where a file system refuses, bytes are copied. ``by_kernel`` says whether
    the kernel may copy, which on some file systems shares blocks as well.
    """

    system: System = field(default_factory=System)
    progress: Progress = field(default_factory=Progress)
    clone: bool = True
    by_kernel: bool = True
    cloned: int = 0
    copied: int = 0
    _waiting: int = 0

    def write_shard(self, source: Path, target: Path, layout: ShardLayout) -> None:
        """Write a laid-out shard to a new file and flush it to the disk.

        Raises:
            ExportError: the source ended early.
            CancelledError: the user asked to stop.
            OSError: the disk refused.
        """
        with self._open(source) as read, self._create(target) as write:
            self.write(write, layout.head, 0)
            at = len(layout.head)
            for piece in layout.pieces:
                if isinstance(piece, bytes):
                    self.write(write, piece, at)
                else:
                    self.copy_range(read, write, begin=piece.begin, end=piece.end, at=at)
                at += len(piece)
            self.system.flush(write)

    def copy_file(self, source: Path, target: Path, *, size: int) -> None:
        """Copy a file's first ``size`` bytes to a new file and flush it; links are followed. Raises as write_shard."""
        with self._open(source) as read, self._create(target) as write:
            self.copy_range(read, write, begin=0, end=size, at=0)
            self.system.flush(write)

    def write_file(self, target: Path, data: bytes) -> None:
        """Write a new file and flush it to the disk."""
        with self._create(target) as write:
            self.write(write, data, 0)
            self.system.flush(write)

    def write(self, target: FileIO, data: bytes, at: int) -> None:
        """Write all of ``data`` at a position."""
        self._write(target, memoryview(data), at)
        self.copied += len(data)
        self.progress.advance(len(data))

    def copy_range(self, source: FileIO, target: FileIO, *, begin: int, end: int, at: int) -> None:
        """Copy bytes ``begin`` to ``end`` of one open file to position ``at`` of another."""
        if self.clone and begin % BLOCK == at % BLOCK:
            edge = min(end, begin + -begin % BLOCK)
            self._copy(source, target, begin=begin, end=edge, at=at)
            done = self._clone(source, target, begin=edge, end=end, at=at + edge - begin)
            begin, at = done, at + done - begin
        self._copy(source, target, begin=begin, end=end, at=at)

    def _clone(self, source: FileIO, target: FileIO, *, begin: int, end: int, at: int) -> int:
        """Share as many whole blocks as can be; where the rest begins."""
        whole = end if end == os.fstat(source.fileno()).st_size else end - end % BLOCK
        while begin < whole:
            count = min(_CLONE_CHUNK, whole - begin)
            try:
                self.system.clone(source, target, begin=begin, count=count, at=at)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
                return begin
            begin, at = begin + count, at + count
            self.cloned += count
            self.progress.advance(count)
        return begin

    def _copy(self, source: FileIO, target: FileIO, *, begin: int, end: int, at: int) -> None:
        by_kernel = self.by_kernel
        view = memoryview(b"")
        while begin < end:
            if by_kernel:
                try:
                    count = min(_KERNEL_CHUNK, end - begin)
                    done = self.system.copy(source, target, begin=begin, count=count, at=at)
                except OSError as error:
                    if error.errno not in _CANNOT:
                        raise
                    done = 0
                if done == 0:  # refused, or a file system that answers 0 without an error: read, which knows the end
                    by_kernel = False
                    continue
            else:
                view = view or memoryview(bytearray(_BUFFER))
                done = self.system.read_at(source, view[: min(_BUFFER, end - begin)], begin)
                if done == 0:
                    raise ExportError(
                        say("the file ended {missing} bytes early while it was copied", missing=end - begin),
                        path=str(source.name),
                        remedy=say(
                            "It changed since the checkpoint was opened; wait until nothing writes to it, open it"
                            " again and repeat the export."
                        ),
                    )
                self._write(target, view[:done], at)
            begin, at = begin + done, at + done
            self.copied += done
            self._waiting += done
            if self._waiting >= _FLUSH_EVERY:
                self.system.flush(target)
                self._waiting = 0
            self.progress.advance(done)

    def _write(self, target: FileIO, view: memoryview, at: int) -> None:
        while view:
            done = self.system.write_at(target, view, at)
            if done == 0:
                raise OSError(errno.EIO, "the disk took no byte")
            view, at = view[done:], at + done

    @contextmanager
    def _open(self, path: Path) -> Iterator[FileIO]:
        file = self.system.open(path)
        try:
            yield file
        finally:
            file.close()

    @contextmanager
    def _create(self, path: Path) -> Iterator[FileIO]:
        file = self.system.create(path)
        try:
            yield file
            self.system.close(file)  # some file systems tell only now what they could not write
        finally:
            file.close()
