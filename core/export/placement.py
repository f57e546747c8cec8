"""How each file of an export will be written, and how much of it compared: decided before the first byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import ExportError
from core.export.files import SourceFile
from core.export.options import Level, Mode, WriteOptions
from core.export.plan import ExportPlan
from core.export.safetensors_writer import BLOCK, ShardLayout
from core.export.shards import ShardJob
from core.export.system import System
from core.output import as_lines
from core.wording import say

How = Literal["rewrite", "text", "link", "clone", "copy"]

VERIFY_ALL_UP_TO = 16 << 30
"""Bytes; where more would have to be compared, samples of each shard are, unless every byte is asked for."""
_WORTH_LINKING = 64 << 20
_ROOM_PER_FILE = 2 * BLOCK
_CLONES = say(
    "Source and target share blocks, as the file system can: "
    "unchanged bytes cost no room, and neither side can change the other."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlacement:
    """What becomes of one file: "rewrite" is a shard with a new header, "text" a small file written anew.

    ``size`` is that of the written file, ``room`` what it takes on the disk, both in bytes.
    """

    name: str
    how: How
    size: int
    room: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """How all files are written, in this order, and what is compared afterwards; ``room`` in bytes of disk.

    The ``why`` of both choices is a sentence for people.
    """

    files: tuple[FilePlacement, ...]
    mode: Mode | Literal["in-place"]
    mode_why: str
    verify: Level
    verify_why: str

    @property
    def room(self) -> int:
        return sum(file.room for file in self.files)

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


_BESIDE = say("Only what an overlay adds or changes: put it beside the shards where they are, or upload it there.")
_NOTHING = say("No shard is fetched, so none is compared.")


def place(
    plan: ExportPlan,
    out: Path,
    options: WriteOptions,
    *,
    jobs: Mapping[str, ShardJob],
    texts: Mapping[str, bytes],
    system: System,
) -> Placement:
    """Decide. ``texts`` are the small files that are written anew, ``jobs`` the shards that change.

    Raises:
        ExportError: links or clones were asked for, and cannot be had between these folders.
        OSError: a file of the source cannot be looked at.
    """
    if plan.source.remote is not None:
        files = tuple(sorted((_text(name, len(text)) for name, text in texts.items()), key=_last))
        return Placement(files=files, mode="copy", mode_why=_BESIDE, verify="none", verify_why=_NOTHING)
    parent = out.resolve().parent
    clones = can_clone(plan, parent, system)
    mode, mode_why = _mode(plan, parent, options, system, clones=clones)
    shared = clones and mode != "copy"
    placed = [_place_file(file, mode, jobs.get(file.name), texts.get(file.name), shared=shared) for file in plan.files]
    placed += [_text(name, len(texts[name])) for name in set(texts) - {file.name for file in plan.files}]
    files = tuple(sorted(placed, key=_last))
    verify, verify_why = _verify(files, options.verify)
    return Placement(files=files, mode=mode, mode_why=mode_why, verify=verify, verify_why=verify_why)


def _last(file: FilePlacement) -> tuple[bool, bool, str]:
    """The index after all others and config.json at the very end: what lacks something opens nowhere."""
    return file.name == "config.json", file.name.endswith(".index.json"), file.name


def _place_file(
    file: SourceFile, mode: Mode, job: ShardJob | None, text: bytes | None, *, shared: bool
) -> FilePlacement:
    if job is not None:
        size = job.layout.size
        room = size - _shareable(job.layout) if shared else size
        return FilePlacement(name=file.name, how="rewrite", size=size, room=room + _ROOM_PER_FILE)
    if text is not None:
        return _text(file.name, len(text))
    how: How = mode
    if mode == "link" and file.role != "shard" and file.size < _WORTH_LINKING:
        how = "copy"  # people edit configs
    room = _ROOM_PER_FILE + (file.size if how == "copy" else 0)
    return FilePlacement(name=file.name, how=how, size=file.size, room=room)


def _text(name: str, size: int) -> FilePlacement:
    return FilePlacement(name=name, how="text", size=size, room=size + _ROOM_PER_FILE)


def _shareable(layout: ShardLayout) -> int:
    """How many of a rewritten shard's bytes are whole blocks at the place within a block where they were."""
    at, shared = len(layout.head), 0
    for piece in layout.pieces:
        if not isinstance(piece, bytes) and piece.begin % BLOCK == at % BLOCK:
            shared += max(0, len(piece) - 2 * BLOCK)
        at += len(piece)
    return shared


def _mode(plan: ExportPlan, parent: Path, options: WriteOptions, system: System, *, clones: bool) -> tuple[Mode, str]:
    wanted = options.mode or ("link" if options.overlay else None)
    if wanted == "copy":
        return "copy", say("Every byte is copied, as asked.")
    if wanted == "link":
        _refuse_other_device(plan, parent, system)
        return "link", say(
            "Shards that do not change are hard links, as asked: they are one file in both folders, and what changes "
            "one in place changes the other."
            if options.mode
            else "Shards that do not change are hard links, as an overlay leaves them alone: they are one file in both "
            "folders, and what changes one in place changes the other."
        )
    if clones:
        return "clone", _CLONES
    if wanted == "clone":
        raise ExportError(
            say("this file system cannot share blocks with the source"),
            path=parent,
            remedy=say("Use --copy or --link, or choose a folder on the source's own XFS or btrfs file system."),
        )
    return "copy", say("Every byte is copied: the file system cannot share blocks between source and target.")


def can_clone(plan: ExportPlan, folder: Path, system: System) -> bool:
    """Whether ``folder`` can share blocks with the largest file of the source, tried on a file without a name."""
    largest = max(plan.files, key=lambda file: file.size, default=None)
    if largest is None or largest.size < BLOCK:
        return False
    try:
        with system.nameless(folder) as target, system.open(plan.root / largest.name) as source:
            system.clone(source, target, begin=0, count=BLOCK, at=0)
    except OSError:
        return False
    return True


def _refuse_other_device(plan: ExportPlan, parent: Path, system: System) -> None:
    device = system.status(parent).st_dev
    for file in plan.files:
        if file.role == "shard" and system.status(plan.root / file.name).st_dev != device:
            raise ExportError(
                say("lies on another file system than the target, and hard links cannot cross"),
                path=plan.root / file.name,
                remedy=say("Leave --link away or use --copy, or choose a folder on the source's file system."),
            )


def _verify(files: tuple[FilePlacement, ...], wanted: Level | None) -> tuple[Level, str]:
    if wanted is not None:
        words = {
            "all": say("Every byte that comes from the source is compared with it, as asked."),
            "sample": say("Samples of every shard are compared with the source, as asked."),
            "none": say("Nothing is compared with the source, as asked."),
        }
        return wanted, words[wanted]
    count = sum(file.size for file in files if file.how not in {"link", "text"})
    if count <= VERIFY_ALL_UP_TO:
        return "all", say("Every byte that comes from the source is compared with it.")
    return "sample", say(
        "Samples of every shard are compared with the source: {size:.0f} GiB are more than the {most} GiB that are "
        "compared in full unless --verify all asks for it.",
        size=count / 2**30,
        most=VERIFY_ALL_UP_TO >> 30,
    )


def placement_as_data(placement: Placement) -> dict[str, object]:
    """The placement as JSON has it, in a plan and in a record."""
    return {
        "mode": placement.mode,
        "mode_why": placement.mode_why,
        "verify": placement.verify,
        "verify_why": placement.verify_why,
        "files": [{"file": file.name, "how": file.how, "size": file.size} for file in placement.files],
    }


def placement_text(placement: Placement) -> str:
    """The placement for people."""
    counts = Counter(file.how for file in placement.files)
    words: dict[How, str] = {
        "rewrite": "with a new header", "text": "written anew", "link": "linked", "clone": "cloned", "copy": "copied",
    }  # fmt: skip
    told = ", ".join(f"{counts[how]} {word}" for how, word in words.items() if counts[how])
    lines = (
        f"  files: {told}; about {placement.room:,} bytes of disk are needed",
        f"  writing: {placement.mode_why}",
        f"  proof: {placement.verify_why}",
    )
    return as_lines(lines)
