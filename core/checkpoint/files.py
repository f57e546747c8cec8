"""Opening and reading a checkpoint's files: exact reads, sizes checked first, nothing but regular files."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from core.checkpoint.faults import BrokenFileError
from core.wording import plural, say

_NEAR = 4096  # bytes: spans no further apart are read at once
DOWNLOAD_AGAIN = say("Download or copy the file again.")


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open ``path`` unbuffered for reading; yields the file and its size in bytes.

    Raises:
        BrokenFileError: it is missing, no regular file (a pipe could block for ever), or may not be read; also for an
            I/O error inside the ``with`` block.
    """
    try:
        with open(path, "rb", buffering=0, opener=_opener) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BrokenFileError(
                    say("is not a regular file"), remedy=say("Point KVScope at a file or a checkpoint folder.")
                )
            yield file, status.st_size
    except OSError as error:
        raise os_problem(error, path) from error


def _opener(path: str, flags: int) -> int:
    """Does not wait at a pipe until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def read_exactly(file: BinaryIO, offset: int, length: int) -> bytes:
    """The ``length`` bytes at ``offset``. The caller has checked both against the file's size.

    Raises:
        BrokenFileError: the file ends before (it shrank since its size was taken).
    """
    file.seek(offset)
    data = file.read(length)
    if len(data) == length:
        return data
    parts = [data]
    missing = length - len(data)
    while missing:  # one read returns at most 2 GiB on Linux, and less on some network file systems
        data = file.read(missing)
        if not data:
            at = offset + length - missing
            raise BrokenFileError(
                say("ended while it was being read"), offset=at, remedy=say("Wait until it is fully written.")
            )
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


def read_spans(path: Path, size: int, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """The bytes from each begin to its end, of one span or more, of a file that had ``size`` bytes when it was opened.

    Raises:
        BrokenFileError: it cannot be read, or has another size now.
    """
    try:
        descriptor = _opener(str(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise BrokenFileError(say("changed since it was opened"), remedy=say("Open the checkpoint again."))
            first, last = min(begin for begin, _ in spans), max(end for _, end in spans)
            if last - first > _NEAR:
                return [_read_span(descriptor, begin, end) for begin, end in spans]
            data = _read_span(descriptor, first, last)
            return [data[begin - first : end - first] for begin, end in spans]
        finally:
            os.close(descriptor)
    except OSError as error:
        raise os_problem(error, path) from error


def _read_span(descriptor: int, begin: int, end: int) -> bytes:
    data = os.pread(descriptor, end - begin, begin)
    while begin + len(data) < end:  # as in read_exactly
        more = os.pread(descriptor, end - begin - len(data), begin + len(data))
        if not more:
            raise BrokenFileError(say("changed since it was opened"), remedy=say("Open the checkpoint again."))
        data += more
    return data


def read_whole(path: Path, largest: int) -> bytes:
    """A whole file of at most ``largest`` bytes.

    Raises:
        BrokenFileError: it cannot be read, or is larger.
    """
    with open_regular(path) as (file, size):
        if size > largest:
            raise BrokenFileError(
                say(
                    "is {size} long, more than the {largest:,} that KVScope reads of such a file",
                    size=plural(size, "byte"),
                    largest=largest,
                ),
                remedy=say("Check that it is the file it claims to be."),
            )
        return read_exactly(file, 0, size)


def read_given(path: Path, largest: int) -> bytes:
    """:func:`read_whole` of a file that the user names, in whose place a shell may put a pipe: ``<(command)``. It is
    waited for.
    """
    if not path.is_fifo():
        return read_whole(path, largest)
    try:
        with path.open("rb") as pipe:
            return pipe.read(largest)
    except OSError as error:
        raise os_problem(error, path) from error


def os_problem(error: OSError, path: Path) -> BrokenFileError:
    """What the operating system's refusal means for the user."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return BrokenFileError(
            say("is a link to a file that is not there"), remedy=say("Download the checkpoint again.")
        )
    for number, problem, remedy in _OS_PROBLEMS:
        if error.errno == number:
            return BrokenFileError(problem, remedy=remedy)
    reason = error.strerror or type(error).__name__
    return BrokenFileError(
        say("could not be read: {reason}", reason=reason),
        remedy=say("Check the disk or network share, then try again."),
    )


_OS_PROBLEMS = (
    (errno.ENOENT, say("does not exist"), say("Check the path.")),
    (errno.EACCES, say("may not be read by this user"), say("Change its permissions, or copy it.")),
    (errno.EPERM, say("may not be read by this user"), say("Change its permissions, or copy it.")),
    (errno.EISDIR, say("is a folder, not a file"), say("Check the path.")),
    (errno.ENOTDIR, say("lies below a file, not a folder"), say("Check the path.")),
    (errno.ELOOP, say("is a link that leads back to itself"), DOWNLOAD_AGAIN),
    (errno.ENAMETOOLONG, say("has too long a name"), say("Check the path.")),
)


def recognize(head: bytes, size: int) -> BrokenFileError | None:
    """What a file that is no checkpoint is instead, judged by its first bytes; None when nothing is recognized."""
    if size == 0:
        return BrokenFileError(say("is empty"), offset=0, remedy=DOWNLOAD_AGAIN)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for starts, problem, remedy in _KNOWN:
        if head.startswith(starts) or text.startswith(starts):
            return BrokenFileError(problem, offset=0, remedy=remedy)
    if not head.strip(b"\0"):
        problem = say("begins with nothing but zero bytes, as a download that never finished does")
        return BrokenFileError(problem, offset=0, remedy=DOWNLOAD_AGAIN)
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        start = head.decode("ascii").strip()[:40]
        return BrokenFileError(
            say("is a text file that begins with {start!r}", start=start), offset=0, remedy=DOWNLOAD_AGAIN
        )
    return None


_KNOWN: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    (
        (b"version https://git-lfs",),
        say("is a Git LFS pointer; the tensors themselves were not downloaded"),
        say("Run `git lfs pull` in its repository, or download it with `hf download`."),
    ),
    (
        (b"<!doctype", b"<html", b"<head", b"<?xml", b"<script"),
        say("is a web page, saved in place of the file"),
        say("Download it again; a gated model needs a token, and a link must point at the raw file."),
    ),
    (
        (b"GGUF",),
        say("is a GGUF file, which KVScope does not support"),
        say("Open the safetensors checkpoint from which it was converted."),
    ),
    ((b"{",), say("is a JSON file"), say("Open the folder that holds it.")),
    ((b"\x1f\x8b", b"(\xb5/\xfd", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ"), say("is compressed"), say("Unpack it first.")),
)


def is_zip(head: bytes) -> bool:
    """Whether the first bytes are those of a zip archive, which PyTorch writes since 1.6."""
    return head.startswith(b"PK\x03\x04")


def is_pickle(head: bytes) -> bool:
    """Whether the first bytes are those of a pickle of protocol 2 or later, which is what PyTorch writes."""
    return len(head) >= 2 and head[0] == 0x80 and 2 <= head[1] <= 5
