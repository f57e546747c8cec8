"""The header of a safetensors file: eight bytes of length, then as many of JSON, every rule of the format checked.

Rules (the safetensors README, "Format", and its Rust reader 0.8): UTF-8 JSON, an object, its first byte ``{``, padded
with spaces at most; ``__metadata__`` maps strings to strings; no key stands twice; each tensor has ``dtype``, ``shape``
and ``data_offsets``; offsets are relative to the data, contiguous from 0, and cover it exactly; at most 100 MB.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from core.checkpoint.columns import HeaderColumns, collector_paused
from core.checkpoint.faults import BrokenFileError
from core.checkpoint.files import DOWNLOAD_AGAIN, is_pickle, is_zip, read_exactly, recognize
from core.checkpoint.scan import scan_header
from core.checkpoint.strict import WRITE_AGAIN, read_strictly
from core.wording import plural, say

LARGEST_HEADER = 100_000_000
"""Bytes; the Rust reader's cap: engines load no longer header."""

WORTH_SCANNING = 1 << 12
"""Bytes of headers from which the quick reader is quicker: it takes a fixed time, and then little for each tensor."""

_HEAD = 512


def parse_header(data: bytes | memoryview, file_size: int) -> HeaderColumns:
    """The columns of a header.

    Args:
        data: the header's bytes, without the eight that give its length.
        file_size: bytes of the whole file, against which the offsets are checked.

    Raises:
        BrokenFileError: a rule of the format is broken; its offset counts from the start of the file.
    """
    with collector_paused():
        columns = scan_header(data, file_size) if len(data) >= WORTH_SCANNING else None
        return columns if columns is not None else read_strictly(data, file_size)


def read_header(file: BinaryIO, size: int) -> tuple[int, HeaderColumns]:
    """The length of an open safetensors file's header, its own eight bytes included, and its columns.

    Raises:
        BrokenFileError: it is no safetensors file, or breaks a rule of the format.
    """
    data = read_header_bytes(file, size)
    return 8 + len(data), parse_header(data, size)


def read_header_quickly(path: str) -> tuple[int, bytes] | None:
    """Size and header of a file with nothing odd about it; None for every other: :func:`read_header_bytes` says why."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (AttributeError, OSError):  # no such flags on Windows
        return None
    try:
        status = os.fstat(descriptor)
        length = int.from_bytes(os.pread(descriptor, 8, 0), "little")
        if not stat.S_ISREG(status.st_mode) or not 2 <= length <= min(LARGEST_HEADER, status.st_size - 8):
            return None
        data = os.pread(descriptor, length, 8)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return (status.st_size, data) if len(data) == length and data.startswith(b"{") else None


def read_header_bytes(file: BinaryIO, size: int) -> bytes:
    """The header of an open safetensors file, without the eight bytes that give its length.

    Exactly these bytes are read, and none before the length is known to fit into the file.

    Raises:
        BrokenFileError: it is no safetensors file.
    """
    if size < 8:
        raise _no_header(
            file, size, say("is only {size} long, too short for a safetensors file", size=plural(size, "byte")), size
        )
    length = int.from_bytes(read_exactly(file, 0, 8), "little")
    if length > LARGEST_HEADER:
        raise _no_header(
            file,
            size,
            say(
                "claims a header of {length:,} bytes; the format allows {largest:,}",
                length=length,
                largest=LARGEST_HEADER,
            ),
            0,
        )
    if length > size - 8:
        problem = say(
            "was cut short: its header takes {length}, but only {rest:,} follow its length",
            length=plural(length, "byte"),
            rest=size - 8,
        )
        raise _no_header(file, size, problem, size, cut=True)
    if length < 2:
        raise _no_header(
            file, size, say("claims a header of {length}, too short to be one", length=plural(length, "byte")), 0
        )
    data = read_exactly(file, 8, length)
    if not data.startswith(b"{"):
        raise _no_header(file, size, say("has a header that does not begin with '{{'"), 8)
    return data


def _no_header(file: BinaryIO, size: int, problem: str, offset: int, *, cut: bool = False) -> BrokenFileError:
    """Why the file has no header: what it is instead, where that can be recognized."""
    head = read_exactly(file, 0, min(size, _HEAD))
    if is_zip(head) or is_pickle(head):
        return BrokenFileError(
            say("is a PyTorch file, not a safetensors file"),
            offset=0,
            remedy=say("Give it the ending .bin or .pt, with which KVScope reads it without running code."),
        )
    return recognize(head, size) or BrokenFileError(
        problem, offset=offset, remedy=DOWNLOAD_AGAIN if cut else WRITE_AGAIN
    )
