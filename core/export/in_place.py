"""An export that changes the checkpoint itself: headers that fit where the old ones stand, and small files.

Only for who asks for it: a copy can be thrown away, this cannot. No byte of a tensor is touched; a journal puts
everything back when the export does not come to its end, in the same run or by the next (:mod:`core.export.journal`).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from core.checkpoint.faults import BrokenFileError
from core.checkpoint.index import read_index
from core.checkpoint.layout import INDEX
from core.errors import ExportError
from core.export.files import RECORD
from core.export.journal import Journal, belongs, put_back, refuse_unended, replace_file, write_head
from core.export.judging import judge_result
from core.export.placement import FilePlacement, Placement
from core.export.plan import ExportPlan
from core.export.prepare import Prepared, digest_of, new_texts
from core.export.record import export_record
from core.export.refusals import refuse_changed_source, refuse_remote, told_when_unreadable
from core.export.remainder import Finished
from core.export.result import ExportResult
from core.export.safetensors_writer import ShardHeader, read_header
from core.export.shards import ShardJob, shard_jobs
from core.export.system import System
from core.progress import Progress
from core.wording import say

_COPY = say("Export to a new folder instead.")


@dataclass(frozen=True, slots=True)
class InPlace:
    """What would be written over: the shards' new heads, as long as the old ones, and the new small files."""

    prepared: Prepared
    heads: Mapping[str, bytes]


def prepare_in_place(plan: ExportPlan, *, system: System | None = None) -> InPlace:
    """Make an export in place ready, and refuse what cannot be: all that a dry run does.

    Raises:
        ExportError: a new header does not fit, data would change or move, a file is shared with another folder, the
            source changed since the plan was made, or another export in place runs or did not end.
    """
    system = system or System()
    refuse_remote(plan)
    refuse_unended(plan.root, system=system)
    refuse_changed_source(plan)
    heads = {}
    with told_when_unreadable(plan.root):
        jobs = shard_jobs(plan)
        for name, job in jobs.items():
            path = plan.root / name
            _refuse_link(plan.root, name)
            _refuse_shared(path, system)
            heads[name] = _fitting(path, read_header(path), job)
        texts = new_texts(plan, jobs)
    _refuse_index_beside(plan)
    for name in (*texts, RECORD):
        _refuse_link(plan.root, name)
    sizes = {file.name: file.size for file in plan.files}
    files = [
        FilePlacement(name=name, how="rewrite", size=sizes[name], room=len(head)) for name, head in heads.items()
    ] + [FilePlacement(name=name, how="text", size=len(text), room=len(text)) for name, text in texts.items()]
    placement = Placement(
        files=tuple(files),
        mode="in-place",
        mode_why=say("The checkpoint itself is changed: new headers where the old ones stand, and small files."),
        verify="none",
        verify_why=say("No byte of a tensor is written, and the changed checkpoint is opened and judged."),
    )
    prepared = Prepared(
        plan=plan, out=plan.root, jobs=jobs, texts=texts, placement=placement, digest=digest_of(plan, placement, texts)
    )
    return InPlace(prepared, heads)


def export_in_place(
    plan: ExportPlan, *, progress: Progress | None = None, system: System | None = None
) -> ExportResult:
    """Change the checkpoint itself.

    Raises:
        ExportError: refused before anything was changed; or failed, and everything was put back.
        CancelledError: the user asked to stop, and everything was put back.
    """
    started = time.monotonic()
    progress, system = progress or Progress(), system or System()
    work = prepare_in_place(plan, system=system)
    prepared, root = work.prepared, plan.root
    journal = _journal_of(plan, work)
    progress.start(say("Rewriting headers"), total=len(work.heads) + len(prepared.texts), unit=say("files"))
    with _put_back(journal, system) as held:
        held.append(journal.keep(system))
        for name, head in work.heads.items():
            write_head(root / name, head, system)
            progress.advance()
        for name, text in prepared.texts.items():
            replace_file(root / name, text, system)
            progress.advance()
        after = judge_result(plan, plan.source.path, progress)
        record = export_record(prepared, root, after, _finished(work))
        replace_file(root / RECORD, record, system)
        progress.check()
        journal.forget(system)
    copied = sum(map(len, [*work.heads.values(), *prepared.texts.values(), record]))
    return ExportResult(
        out=root,
        bytes_written=copied,
        copied=copied,
        seconds=time.monotonic() - started,
        verified=0,
        after=after,
        placement=prepared.placement,
    )


def _fitting(path: Path, header: ShardHeader, job: ShardJob) -> bytes:
    """The new head, padded to the old one's length."""
    (piece,) = job.layout.pieces if len(job.layout.pieces) == 1 else (b"",)
    begin, end = header.data_begin, header.data_begin + max((tensor.end for tensor in header.tensors), default=0)
    stays = not isinstance(piece, bytes) and piece.begin == begin and piece.end >= end  # readers want no byte left over
    if not stays:
        raise ExportError(say("tensors' bytes would change or move, which in place cannot be"), path=path, remedy=_COPY)
    text = job.layout.head[8:].rstrip(b" ")
    if len(text) > header.size:
        raise ExportError(
            say("the new header is {count} bytes longer than the room of the old one", count=len(text) - header.size),
            path=path,
            remedy=_COPY,
        )
    return struct.pack("<Q", header.size) + text.ljust(header.size, b" ")


def _refuse_index_beside(plan: ExportPlan) -> None:
    """A single shard was opened: an index that names it would go on listing the old keys."""
    opened = plan.source.path
    if opened.is_dir() or plan.source.index is not None or all(edit.new_key == edit.key for edit in plan.changes):
        return
    for path in sorted(plan.root.glob(f"*{INDEX}")):
        with suppress(BrokenFileError):
            if opened.name in read_index(plan.root, path.name).shard_names:
                raise ExportError(
                    say("{index} names this shard, and would go on listing the old keys", index=path.name),
                    path=opened,
                    remedy=say("Open the folder that holds it."),
                )


def _refuse_link(root: Path, name: str) -> None:
    """What the journal would not put back: a file that is not the folder's own."""
    if not belongs(root, name):
        raise ExportError(
            say("is a link, and what it leads to may be shared with others"), path=root / name, remedy=_COPY
        )


def _refuse_shared(path: Path, system: System) -> None:
    if system.status(path).st_nlink > 1:
        raise ExportError(say("is shared with another folder by a hard link"), path=path, remedy=_COPY)


def _journal_of(plan: ExportPlan, work: InPlace) -> Journal:
    heads = {}
    for name, head in work.heads.items():
        with (plan.root / name).open("rb") as file:
            heads[name] = file.read(len(head))
    paths = {name: plan.root / name for name in (*work.prepared.texts, RECORD)}
    texts = {name: path.read_bytes() if path.exists() else None for name, path in paths.items()}
    sizes = {file.name: file.size for file in plan.files if file.name in heads}
    return Journal(root=plan.root, heads=heads, texts=texts, sizes=sizes)


@contextmanager
def _put_back(journal: Journal, system: System) -> Iterator[list[FileIO]]:
    """Put everything back when the export fails; the list is for the journal's file, closed in the end.

    Raises:
        ExportError: the disk refused; also where it refuses to take anything back, and the journal stays.
    """
    held: list[FileIO] = []
    try:
        yield held
    except Exception as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        if not put_back(journal.root, system) and held:
            raise ExportError(
                say(
                    "the checkpoint could not be changed ({reason}), and the journal of how it was is gone",
                    reason=reason,
                ),
                path=journal.root,
                remedy=say("Look whether another program changed the folder; it may be as it was, or not."),
            ) from error
        if isinstance(error, OSError):
            raise ExportError(
                say("the checkpoint could not be changed ({reason}), and is as it was", reason=reason),
                path=journal.root,
                remedy=say("Check the disk and its permissions, or export to a new folder."),
            ) from error
        raise
    except BaseException:
        put_back(journal.root, system)
        raise
    finally:
        for file in held:
            file.close()


def _finished(work: InPlace) -> dict[str, Finished]:
    return {
        file.name: Finished(name=file.name, size=file.size, mtime_ns=0, copied=file.room)
        for file in work.prepared.placement.files
    }
