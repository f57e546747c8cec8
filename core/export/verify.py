"""The proof that a written export holds what was planned: every tensor found again, every kept byte compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import FileIO
from pathlib import Path

from core.errors import ExportError
from core.export.safetensors_writer import NewTensor, StoredTensor, read_header
from core.progress import Progress

_BUFFER = 1 << 20
_REMEDY = "Nothing was left behind; check the disk and the memory of this machine, then export again."


def verify_file(source: Path, written: Path, *, size: int, name: str, progress: Progress | None = None) -> None:
    """Check that a file was copied byte for byte.

    Raises:
        ExportError: it was not.
    """
    with FileIO(source) as old, FileIO(written) as new:
        if new.seek(0, 2) != size:
            raise ExportError(f"the copy has {new.tell()} bytes and not {size}", path=name, remedy=_REMEDY)
        _compare(old, new, ((0, 0, size),), lambda _: name, progress)


def verify_shard(
    source: Path,
    written: Path,
    *,
    replaced: Mapping[str, Sequence[NewTensor]],
    added: Sequence[NewTensor],
    name: str,
    progress: Progress | None = None,
) -> int:
    """Compare a rewritten shard with its source, tensor by tensor; the number of tensors compared.

    Both headers are read from the files anew. Bytes that come from the source are compared with the source itself,
    which proves more than equal digests would and reads as much.

    Raises:
        ExportError: a tensor is missing, there is one too many, or one differs; the key is named.
    """
    old_header, new_header = read_header(source), read_header(written)
    found = {tensor.name: tensor for tensor in new_header.tensors}
    same: list[tuple[StoredTensor, StoredTensor]] = []
    with FileIO(source) as old, FileIO(written) as new:
        for tensor in old_header.tensors:
            for wanted in replaced.get(tensor.name, (NewTensor(tensor.name, tensor.dtype, tensor.shape),)):
                got = _take(found, wanted, name)
                if wanted.data is None:
                    same.append((tensor, got))
                else:
                    _check_data(new, new_header.data_begin + got.begin, wanted, name)
        for wanted in added:
            _check_data(new, new_header.data_begin + _take(found, wanted, name).begin, wanted, name)
        if found:
            raise ExportError("the written shard holds a tensor too many", path=name, key=min(found), remedy=_REMEDY)

        same.sort(key=lambda pair: pair[1].begin)
        runs: list[tuple[int, int, int]] = []
        for tensor, got in same:
            begin, at, length = (
                old_header.data_begin + tensor.begin,
                new_header.data_begin + got.begin,
                got.end - got.begin,
            )
            if length != tensor.end - tensor.begin:
                raise ExportError("a written tensor has another length", path=name, key=got.name, remedy=_REMEDY)
            if runs and runs[-1][0] + runs[-1][2] == begin and runs[-1][1] + runs[-1][2] == at:
                runs[-1] = (*runs[-1][:2], runs[-1][2] + length)
            else:
                runs.append((begin, at, length))

        def key_at(position: int) -> str:
            at = position - new_header.data_begin
            return next((got.name for _, got in same if got.begin <= at < got.end), "")

        _compare(old, new, runs, lambda position: f"{name}, key {key_at(position)!r}", progress)
    return len(new_header.tensors)


def _take(found: dict[str, StoredTensor], wanted: NewTensor, name: str) -> StoredTensor:
    got = found.pop(wanted.name, None)
    if got is None:
        raise ExportError("the written shard lacks a tensor", path=name, key=wanted.name, remedy=_REMEDY)
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        raise ExportError(
            f"the written tensor is {got.dtype} {list(got.shape)} and not {wanted.dtype} {list(wanted.shape)}",
            path=name,
            key=wanted.name,
            remedy=_REMEDY,
        )
    return got


def _check_data(new: FileIO, at: int, wanted: NewTensor, name: str) -> None:
    new.seek(at)
    if wanted.data is None or new.read(len(wanted.data)) != wanted.data:
        raise ExportError("the written values are not those planned", path=name, key=wanted.name, remedy=_REMEDY)


def _compare(
    old: FileIO,
    new: FileIO,
    runs: Iterable[tuple[int, int, int]],
    where: Callable[[int], str],
    progress: Progress | None,
) -> None:
    ours, theirs = bytearray(_BUFFER), bytearray(_BUFFER)
    for begin, at, length in runs:
        old.seek(begin)
        new.seek(at)
        left = length
        while left:
            count = min(left, _BUFFER)
            _fill(old, memoryview(ours)[:count])
            _fill(new, memoryview(theirs)[:count])
            if ours != theirs and (differs := _first_difference(ours, theirs, count)) is not None:
                position = at + length - left + differs
                raise ExportError(
                    f"the written bytes differ from the source's at byte {position}",
                    path=where(position),
                    remedy=_REMEDY,
                )
            left -= count
            if progress is not None:
                progress.advance(count)


def _first_difference(ours: bytearray, theirs: bytearray, count: int) -> int | None:
    return next((at for at in range(count) if ours[at] != theirs[at]), None)


def _fill(file: FileIO, view: memoryview) -> None:
    while view:
        count = file.readinto(view) or 0
        if count == 0:
            raise ExportError("the file ended early while it was compared", path=str(file.name), remedy=_REMEDY)
        view = view[count:]
