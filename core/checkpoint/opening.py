"""Opening a checkpoint: find its files, read their headers, join them, compare them with the index."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.checkpoint.catalog import Block, block_of, build_catalog
from core.checkpoint.checkpoint import Checkpoint, Shard
from core.checkpoint.columns import collector_paused
from core.checkpoint.faults import BrokenFileError, Fault, shown, with_offset
from core.checkpoint.files import open_regular
from core.checkpoint.header import WORTH_SCANNING, parse_header, read_header_bytes, read_header_quickly
from core.checkpoint.index import IndexReport, compare
from core.checkpoint.layout import Layout, find_layout
from core.checkpoint.remote.address import is_address
from core.checkpoint.scan import scan_headers
from core.errors import UnreadableCheckpointError
from core.progress import Progress
from core.wording import say

if TYPE_CHECKING:
    from core.checkpoint.remote.bringing import Brought


def open_checkpoint(path: Path | str, *, wanted: Collection[str] = (), progress: Progress | None = None) -> Checkpoint:
    """Open a safetensors or PyTorch file, a folder of them, an index, or a Hugging Face cache folder; as a string, also
    an address (hf://ORG/NAME@REV, https://, s3:// ...), of which configs, index and headers are fetched, and with them
    the values of tensors whose names end in one of ``wanted``, where they lie close by.

    Only headers are read (for a PyTorch file, its pickle, by ``torch.load(weights_only=True)``); no code in the
    checkpoint runs, and no length that it claims is believed before it was held against the file's size.

    A folder of which some shards are broken opens; ``faults`` says which and why.

    Raises:
        UnreadableCheckpointError: nothing there can be opened; the sentence says why and what to do.
        CancelledError: ``progress`` was told to stop.
    """
    progress = progress or Progress()
    if isinstance(path, str) and "://" in path and is_address(path):
        from core.checkpoint.remote.bringing import bring

        brought = bring(path, progress, wanted)
        return _opened(brought.path, brought.layout, progress, brought)
    path = Path(path)
    return _opened(path, find_layout(path), progress)


def _opened(path: Path, layout: Layout, progress: Progress, brought: Brought | None = None) -> Checkpoint:
    progress.start(say("reading headers"), total=len(layout.shards), unit=say("shards"))
    reading = _Reading(layout, brought)
    for name in layout.shards:
        reading.add(name)
        progress.advance()
    reading.parse()
    shards = reading.shards
    broken = [shard.fault for shard in shards if shard.fault is not None]
    if len(broken) == len(shards):
        raise _nothing_readable(path, layout, broken, brought.remote.address if brought is not None else None)
    with collector_paused():
        catalog = build_catalog([shard.name for shard in shards], reading.blocks, ranks=layout.family == "tensorrt-llm")
        report: IndexReport | None = None
        odd: tuple[Fault, ...] = ()
        if layout.index is not None:
            report, odd = compare(layout.index, catalog, sorted(layout.missing), layout.unindexed)
    return Checkpoint(
        path=path,
        root=layout.root,
        format=f"{layout.family}-sharded" if layout.sharded and layout.family != "tensorrt-llm" else layout.family,
        shards=tuple(shards),
        catalog=catalog,
        faults=(*layout.faults, *odd, *broken),
        index=report,
        total_bytes=sum(shard.size for shard in shards),
        notes=layout.notes,
        remote=brought.remote if brought is not None else None,
    )


_BATCH = 1 << 20


class _Reading:
    """Shard after shard, headers parsed about a mebibyte at a time: what the quick reader does best."""

    def __init__(self, layout: Layout, brought: Brought | None) -> None:
        self.layout = layout
        self._sizes: Mapping[str, int] = brought.sizes if brought is not None else {}
        absent = BrokenFileError(
            say("is named by the index, but is not there"), remedy=say("Download it into this folder.")
        )
        self._broken = {**(brought.faults if brought is not None else {}), **dict.fromkeys(layout.missing, absent)}
        self.shards: list[Shard] = []
        self.blocks: list[Block] = []
        self._waiting: list[tuple[int, bytes]] = []
        """Number and header of the shards that are read but not parsed yet."""
        self._bytes_waiting = 0

    def add(self, name: str) -> None:
        """Read the next shard."""
        number, path = len(self.shards), self.layout.root / name
        broken, columns, size, header = self._broken.get(name), None, 0, b""
        try:
            if self.layout.family == "pytorch" and broken is None:
                from core.checkpoint.pytorch import read_pickled

                with open_regular(path) as (_, size):
                    columns = read_pickled(path)
            elif broken is None:
                size, header = self._header(path, self._sizes.get(name))
        except BrokenFileError as error:
            broken = error
        shard = Shard(
            name=shown(name),
            path=path,
            size=size,
            header_size=8 + len(header) if header else 0,
            tensors=len(columns.names) if columns else 0,
            metadata={},
            fault=broken.fault(shown(name)) if broken is not None else None,
        )
        self.shards.append(shard)
        if columns is not None:
            self.blocks.append(block_of(columns, number))
        elif header:
            self._waiting.append((number, header))
            self._bytes_waiting += len(header)
            if self._bytes_waiting >= _BATCH:
                self.parse()

    def _header(self, path: Path, told: int | None) -> tuple[int, bytes]:
        """Size and header; ``told`` is the size at home of a file of which only the beginning lies here."""
        quick = read_header_quickly(str(path)) if told is None else None
        if quick is not None:
            return quick
        with open_regular(path) as (file, size):
            return (size, read_header_bytes(file, size)) if told is None else (told, read_header_bytes(file, told))

    def parse(self) -> None:
        """Parse the headers that wait."""
        waiting, worth_scanning = self._waiting, self._bytes_waiting >= WORTH_SCANNING
        self._waiting, self._bytes_waiting = [], 0
        numbers, headers = [number for number, _ in waiting], [header for _, header in waiting]
        scanned = None
        if worth_scanning:
            with collector_paused():
                scanned = scan_headers(headers, [self.shards[number].size for number in numbers])
        if scanned is not None:
            of_rows = np.repeat(np.array(numbers, dtype=np.int32), scanned.counts)
            self.blocks.append(Block(scanned.columns, of_rows, scanned.hashes, scanned.tails))
            for number, tensors, metadata in zip(numbers, scanned.counts.tolist(), scanned.metadata, strict=True):
                self.shards[number] = replace(self.shards[number], tensors=tensors, metadata=metadata)
            return
        for number, header in waiting:
            shard = self.shards[number]
            try:
                columns = parse_header(header, shard.size)
            except BrokenFileError as error:
                self.shards[number] = replace(shard, header_size=0, fault=error.fault(shard.name))
            else:
                self.shards[number] = replace(shard, tensors=len(columns.names), metadata=columns.metadata)
                self.blocks.append(block_of(columns, number))


def _nothing_readable(
    path: Path, layout: Layout, broken: list[Fault], address: str | None
) -> UnreadableCheckpointError:
    first = broken[0]
    if shown(path.name) == first.file:
        problem = with_offset(first.problem, first.offset)
        return UnreadableCheckpointError(problem, path=address or path, remedy=first.remedy)
    problem = say(
        "its only tensor file cannot be read: {file} {problem}"
        if len(broken) == 1
        else "none of its {count:,} tensor files can be read: {file} {problem}",
        count=len(broken),
        file=first.file,
        problem=with_offset(first.problem, first.offset),
    )
    return UnreadableCheckpointError(
        problem,
        path=address or layout.root,
        remedy=first.remedy,
    )
