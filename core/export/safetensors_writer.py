"""A safetensors shard laid out anew: a new header in front of the source's bytes.

The format (safetensors 0.8): eight bytes with the header's length N (little-endian), N bytes of JSON padded with
spaces, then the tensors' data without gaps. A shard whose tensors only change names or shapes keeps its data area as
it is; tensors that come, go or change their bytes move the rest, and nothing is ever held in memory but one buffer.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.checkpoint.dtypes import DTYPES
from core.errors import ExportError
from core.wording import say

BLOCK = 4096
"""File systems that share extents between files do so in blocks of this size (XFS and btrfs defaults)."""
MAX_HEADER = 100_000_000
"""Readers refuse longer headers (safetensors, ``MAX_HEADER_SIZE``)."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as a header lists it; ``begin`` and ``end`` count bytes from the start of the data area."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class ShardHeader:
    """A shard's header: its tensors in the order of the JSON text, and the strings of ``__metadata__``.

    ``size`` is N, the length of the JSON text with its padding; ``metadata_at`` is how many tensors stand before
    ``__metadata__`` in the text.
    """

    size: int
    metadata: Mapping[str, Any] | None
    metadata_at: int
    tensors: tuple[StoredTensor, ...]

    @property
    def data_begin(self) -> int:
        return 8 + self.size

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.end - tensor.begin for tensor in self.tensors)


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to write: ``data`` None takes the bytes of the source tensor that it replaces."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class SourceRange:
    """Bytes of the source file, from ``begin`` up to ``end``."""

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """A shard ready to be written: ``head`` (length and JSON), then ``pieces`` one after the other."""

    head: bytes
    pieces: tuple[SourceRange | bytes, ...]
    tensors: tuple[StoredTensor, ...]

    @property
    def size(self) -> int:
        """The file's length in bytes."""
        return len(self.head) + sum(len(piece) for piece in self.pieces)

    @property
    def tensor_bytes(self) -> int:
        return sum(tensor.end - tensor.begin for tensor in self.tensors)


def read_header(path: Path) -> ShardHeader:
    """The header of a shard, in the order of its JSON text.

    Raises:
        ExportError: the file does not begin with a safetensors header.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        prefix = file.read(8)
        size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else MAX_HEADER + 1
        text = file.read(size) if size <= MAX_HEADER else b""
    try:
        entries = json.loads(text)
        tensors = tuple(
            StoredTensor(name, entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in entries.items()
            if name != "__metadata__"
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(
            say("the file does not begin with a safetensors header"),
            path=path,
            remedy=say("It changed since the checkpoint was opened, or is damaged; open the checkpoint again."),
        ) from error
    metadata_at = list(entries).index("__metadata__") if "__metadata__" in entries else 0
    return ShardHeader(size, entries.get("__metadata__"), metadata_at, tensors)


def lay_out(
    header: ShardHeader,
    *,
    file_size: int,
    replaced: Mapping[str, Sequence[NewTensor]],
    added: Sequence[NewTensor] = (),
) -> ShardLayout:
    """Where everything goes in the new shard.

    ``replaced`` maps a source tensor's name to the tensors that take its place: none drops it, the first stands where
    it stood, the others share its bytes or bring their own. Tensors that it does not name stay as they are.
    ``added`` tensors bring their data.

    Tensors keep the source's order of names and of offsets; what is new comes last. Only where that would leave a
    tensor off its natural alignment do the widest types go first, as safetensors itself writes them.

    Raises:
        ExportError: two tensors would have one name, or the header would be longer than readers accept.
    """
    rows: list[tuple[NewTensor, StoredTensor | None]] = []
    for tensor in header.tensors:
        same = NewTensor(tensor.name, tensor.dtype, tensor.shape)
        rows += [(new, tensor) for new in replaced.get(tensor.name, (same,))]
    rows += [(new, None) for new in added]

    if _data_area_stays(header, rows):
        tensors = tuple(
            StoredTensor(new.name, new.dtype, new.shape, old.begin, old.end) for new, old in rows if old is not None
        )
        pieces: tuple[SourceRange | bytes, ...] = (SourceRange(header.data_begin, file_size),)
    else:
        tensors, pieces = _repack(header, rows)
    return ShardLayout(_encode_head(header, tensors), pieces, tensors)


def _data_area_stays(header: ShardHeader, rows: Sequence[tuple[NewTensor, StoredTensor | None]]) -> bool:
    kept = {old.name for new, old in rows if old is not None and new.data is None}
    return len(kept) == len(rows) == len(header.tensors)


def _repack(
    header: ShardHeader, rows: Sequence[tuple[NewTensor, StoredTensor | None]]
) -> tuple[tuple[StoredTensor, ...], tuple[SourceRange | bytes, ...]]:
    seen: set[str] = set()
    placed: list[tuple[int, int]] = []  # (where its bytes stood, row); what is new comes after everything
    last = max((tensor.end for tensor in header.tensors), default=0) + 1
    for number, (_, old) in enumerate(rows):
        first = old is not None and old.name not in seen
        placed.append((old.begin if first and old is not None else last, number))
        if old is not None:
            seen.add(old.name)
    order = [number for _, number in sorted(placed)]
    tensors = _offsets(rows, order)
    if any(tensor.begin % _alignment(tensor.dtype) for tensor in tensors):
        order.sort(key=lambda number: -_alignment(rows[number][0].dtype))
        tensors = _offsets(rows, order)

    pieces: list[SourceRange | bytes] = []
    for number in order:
        new, old = rows[number]
        if new.data is not None or old is None:
            pieces.append(new.data or b"")
            continue
        begin, end = header.data_begin + old.begin, header.data_begin + old.end
        previous = pieces[-1] if pieces else None
        if isinstance(previous, SourceRange) and previous.end == begin:
            pieces[-1] = SourceRange(previous.begin, end)
        else:
            pieces.append(SourceRange(begin, end))
    return tensors, tuple(piece for piece in pieces if len(piece))


def _offsets(rows: Sequence[tuple[NewTensor, StoredTensor | None]], order: Sequence[int]) -> tuple[StoredTensor, ...]:
    at = 0
    begins: dict[int, tuple[int, int]] = {}
    for number in order:
        new, old = rows[number]
        length = len(new.data) if new.data is not None else old.end - old.begin if old is not None else 0
        begins[number] = (at, at + length)
        at += length
    return tuple(StoredTensor(new.name, new.dtype, new.shape, *begins[n]) for n, (new, _) in enumerate(rows))


def _alignment(dtype: str) -> int:
    known = DTYPES.get(dtype)
    return max(1, known.bits // 8) if known is not None else 1


def _encode_head(header: ShardHeader, tensors: Sequence[StoredTensor]) -> bytes:
    entries: dict[str, Any] = {}
    for number, tensor in enumerate(tensors):
        if number == header.metadata_at and header.metadata is not None:
            entries["__metadata__"] = header.metadata
        if tensor.name in entries:
            raise ExportError(
                say("two tensors of one shard would have this name"),
                key=tensor.name,
                remedy=say("Drop one of them, or choose another naming convention."),
            )
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [tensor.begin, tensor.end],
        }
    if header.metadata is not None:
        entries.setdefault("__metadata__", header.metadata)
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    # The data begins at the same place within a block as in the source, so that whole blocks can be cloned; where
    # the source begins off the format's eight bytes, the new file mends that instead.
    step, within = (BLOCK, header.data_begin % BLOCK) if header.data_begin % 8 == 0 else (8, 0)
    text += b" " * ((within - 8 - len(text)) % step)
    if len(text) > MAX_HEADER:
        raise ExportError(
            say(
                "the new header would be {length} bytes long and readers of safetensors accept {largest}",
                length=len(text),
                largest=MAX_HEADER,
            ),
            remedy=say("Split the checkpoint into more shards, or use shorter names."),
        )
    return struct.pack("<Q", len(text)) + text
