"""What a PyTorch file must be before PyTorch reads it: no more than it seems, and nothing that it could choke on.

An archive's records must be stored as they are and fit into the file, so that nothing unpacks to more than the file
holds. The opcodes of its pickle are walked, not run: PyTorch's refusals quote what they refuse and search the quotation
in a way that takes hours over a name of a megabyte (seen with PyTorch 2.13).
"""

from __future__ import annotations

import errno
import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO, BinaryIO

from core.checkpoint.faults import BrokenFileError
from core.checkpoint.files import DOWNLOAD_AGAIN, is_pickle, is_zip, open_regular, read_exactly, recognize
from core.wording import plural, say

CONVERT = say("Convert it to safetensors where you trust it, and open that.")
DAMAGED = say("Download or copy it again; if it loads elsewhere, convert it to safetensors there.")

_LONGEST_TEXT = 16 << 10
_LONGEST_LINE = 1 << 10
_PICKLES_BEFORE_1_6 = 5  # magic number, protocol, system, the object, the keys of its storages


def check_pickled(path: Path) -> bool:
    """Whether the file is an archive, which can be mapped (since PyTorch 1.6), and not a bare pickle.

    Raises:
        BrokenFileError: it is neither, or would take more than it holds.
    """
    with open_regular(path) as (file, size):
        head = read_exactly(file, 0, min(size, 512))
        file.seek(0)
        if is_zip(head):
            _check_archive(file, size)
            return True
        if not is_pickle(head):
            raise _foreign(head, size)
        buffered = io.BufferedReader(file)  # type: ignore[type-var]
        for _ in range(_PICKLES_BEFORE_1_6):
            _check_opcodes(buffered)
            if not is_pickle(buffered.peek(2)):
                break
        return False


def _check_archive(file: BinaryIO, size: int) -> None:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: its directory points before the file
            raise
        problem = say("was cut short: it is a PyTorch archive without its directory, which comes last")
        raise BrokenFileError(problem, offset=size, remedy=DOWNLOAD_AGAIN) from error
    with archive:
        records = archive.infolist()
        by_name = {record.filename.partition("/")[2]: record for record in records}
        if "constants.pkl" in by_name or any(name.startswith("code/") for name in by_name):
            raise BrokenFileError(say("is a TorchScript program, not a set of tensors"), remedy=CONVERT)
        if "data.pkl" not in by_name:
            raise BrokenFileError(say("is a zip archive, but none that PyTorch wrote"), offset=0, remedy=DAMAGED)
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise BrokenFileError(say("is a compressed archive, which PyTorch never writes"), remedy=CONVERT)
        if sum(record.file_size for record in records) > size:
            raise BrokenFileError(say("is an archive that claims to hold more than it does"), remedy=CONVERT)
    pickled = by_name["data.pkl"]
    at = pickled.header_offset
    local = read_exactly(file, at, 30) if 0 <= at <= size - 30 else b""
    begin = at + len(local) + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little")
    if not local or begin + pickled.file_size > size:
        raise BrokenFileError(say("is an archive with a damaged directory"), remedy=DAMAGED)
    # not by archive.open, which checks a checksum that torch.serialization.set_crc32_options(False) leaves out
    _check_opcodes(io.BytesIO(read_exactly(file, begin, pickled.file_size)))


class _Bounded:
    """A file for :func:`pickletools.genops` that hands out no longer text than a tensor's name or type has."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if size > _LONGEST_TEXT:
            raise BrokenFileError(
                say("holds a text of {size}, which names no tensor", size=plural(size, "byte")), remedy=CONVERT
            )
        return self._file.read(size)

    def readline(self) -> bytes:
        return self._file.readline(_LONGEST_LINE)


def _check_opcodes(file: IO[bytes]) -> None:
    try:
        for _ in pickletools.genops(_Bounded(file)):  # type: ignore[arg-type]
            pass
    except (ValueError, UnicodeDecodeError, OverflowError) as error:
        raise BrokenFileError(
            say("is damaged: its pickle is cut short or holds what no pickle can"), remedy=DAMAGED
        ) from error


def _foreign(head: bytes, size: int) -> BrokenFileError:
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= 100_000_000:
        return BrokenFileError(
            say("is a safetensors file, not a PyTorch file"), offset=0, remedy=say("Give it the ending .safetensors.")
        )
    return recognize(head, size) or BrokenFileError(say("is no PyTorch file"), offset=0, remedy=DAMAGED)
