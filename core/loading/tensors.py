"""Tensors of a checkpoint as PyTorch tensors, read shard by shard from the files' bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from core.checkpoint import BrokenFileError, Checkpoint, Shard
from core.checkpoint.files import open_regular, read_exactly
from core.errors import UnreadableCheckpointError
from core.wording import say

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
if hasattr(torch, "float8_e8m0fnu"):  # PyTorch 2.7
    TORCH_DTYPES["F8_E8M0"] = torch.float8_e8m0fnu


def read_tensors(checkpoint: Checkpoint, rows: Sequence[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and tensor of every catalog row, in the order of ``rows``, on the host; one tensor is read at a time.

    A type that PyTorch does not have (packed 4- and 6-bit floats) comes as its bytes.

    Raises:
        UnreadableCheckpointError: a file can no longer be read as it was when the checkpoint was opened.
    """
    numbers = checkpoint.catalog.shard_numbers
    for number, group in groupby(rows, key=lambda row: int(numbers[row])):
        shard = checkpoint.shards[number]
        try:
            if checkpoint.format.startswith("pytorch") or checkpoint.remote is not None:
                yield from _pickled(checkpoint, list(group))
                continue
            with open_regular(shard.path) as (file, size):
                check_size(size, shard)
                for row in group:
                    entry = checkpoint.catalog.entry(row)
                    yield entry.key, as_tensor(read_exactly(file, entry.begin, entry.nbytes), entry.dtype, entry.shape)
        except BrokenFileError as error:
            raise UnreadableCheckpointError(error.problem, path=shard.path, remedy=error.remedy) from error


def check_size(size: int, shard: Shard) -> None:
    """Raise BrokenFileError when a shard's file is no longer as long as it was."""
    if size != shard.size:
        raise BrokenFileError(say("changed since it was opened"), remedy=say("Open the checkpoint again."))


def _pickled(checkpoint: Checkpoint, rows: Sequence[int]) -> Iterator[tuple[str, torch.Tensor]]:
    for row in rows:
        entry = checkpoint.catalog.entry(row)
        yield entry.key, as_tensor(checkpoint.read_bytes(entry.key), entry.dtype, entry.shape)


def as_tensor(data: bytes, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A host tensor of its own memory from little-endian ``data``; ``dtype`` is safetensors' name of it."""
    known = TORCH_DTYPES.get(dtype)
    if known is None:
        known, shape = torch.uint8, (len(data),)
    if not data:
        return torch.empty(shape, dtype=known)
    return torch.frombuffer(bytearray(data), dtype=known).reshape(shape)


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors hold the same bytes in the same shape and type; NaNs are equal where their bits are."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if not left.numel():
        return True
    first, second = (side.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for side in (left, right))
    return torch.equal(first, second)
