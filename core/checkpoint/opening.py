"""Opening a checkpoint: find its files, read their headers, join them, compare them with the index."""

from __future__ import annotations

from pathlib import Path

from core.checkpoint.catalog import build_catalog
from core.checkpoint.checkpoint import Checkpoint, Shard
from core.checkpoint.columns import HeaderColumns, collector_paused
from core.checkpoint.faults import BrokenFileError, Fault, with_offset
from core.checkpoint.files import open_regular
from core.checkpoint.header import read_header
from core.checkpoint.index import compare
from core.checkpoint.layout import Layout, find_layout
from core.checkpoint.pytorch import read_pickled
from core.errors import UnreadableCheckpointError
from core.progress import Progress


def open_checkpoint(path: Path | str, *, progress: Progress | None = None) -> Checkpoint:
    """Open a safetensors or PyTorch file, a folder of them, an index, or a Hugging Face cache folder.

    Only headers are read (for a PyTorch file, its pickle, by ``torch.load(weights_only=True)``); no code in the
    checkpoint runs, and no length that it claims is believed before it was held against the file's size.

    A folder of which some shards are broken opens; ``faults`` says which and why.

    Raises:
        UnreadableCheckpointError: nothing there can be opened; the sentence says why and what to do.
        CancelledError: ``progress`` was told to stop.
    """
    path = Path(path)
    layout = find_layout(path)
    progress = progress or Progress()
    progress.start("reading headers", total=len(layout.shards), unit="shards")
    shards: list[Shard] = []
    columns: list[HeaderColumns | None] = []
    for name in layout.shards:
        shard, part = _read_shard(layout, name)
        shards.append(shard)
        columns.append(part)
        progress.advance()
    broken = [shard.fault for shard in shards if shard.fault is not None]
    if len(broken) == len(shards):
        raise _nothing_readable(path, layout, broken)
    with collector_paused():
        catalog = build_catalog([shard.name for shard in shards], columns, ranks=layout.family == "tensorrt-llm")
        index = compare(layout.index, catalog, sorted(layout.missing), layout.unindexed) if layout.index else None
    return Checkpoint(
        path=path,
        root=layout.root,
        format=f"{layout.family}-sharded" if layout.sharded and layout.family != "tensorrt-llm" else layout.family,
        shards=tuple(shards),
        catalog=catalog,
        faults=(*layout.faults, *broken),
        index=index,
        total_bytes=sum(shard.size for shard in shards),
        notes=layout.notes,
    )


def _read_shard(layout: Layout, name: str) -> tuple[Shard, HeaderColumns | None]:
    path = layout.root / name
    if name in layout.missing:
        fault = Fault(name, None, "is named by the index, but is not there", "Download it into this folder.")
        return Shard(name=name, path=path, size=0, header_size=0, tensors=0, metadata={}, fault=fault), None
    size = 0
    try:
        with open_regular(path) as (file, size):
            header_size, columns = (0, read_pickled(path)) if layout.family == "pytorch" else read_header(file, size)
    except BrokenFileError as error:
        fault = error.fault(name)
        return Shard(name=name, path=path, size=size, header_size=0, tensors=0, metadata={}, fault=fault), None
    tensors, metadata = len(columns.names), columns.metadata
    return Shard(name=name, path=path, size=size, header_size=header_size, tensors=tensors, metadata=metadata), columns


def _nothing_readable(path: Path, layout: Layout, broken: list[Fault]) -> UnreadableCheckpointError:
    first = broken[0]
    if path.name == first.file:
        return UnreadableCheckpointError(with_offset(first.problem, first.offset), path=path, remedy=first.remedy)
    what = "its only tensor file cannot" if len(broken) == 1 else f"none of its {len(broken):,} tensor files can"
    return UnreadableCheckpointError(
        f"{what} be read: {first.file} {with_offset(first.problem, first.offset)}",
        path=layout.root,
        remedy=first.remedy,
    )
