"""``write_export``: a planned export becomes a folder, or nothing.

Everything is written to a hidden sibling of the target, ``.<name>.kvscope-<random>.partial``, flushed, verified, judged
anew, and only then renamed. An error, a full disk or a cancelled job removes that folder; a killed process leaves it
behind under its telling name, and never a target. The source is only ever read.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from core.checkpoint import open_checkpoint
from core.diagnosis.finding import Verdict
from core.errors import ExportError
from core.export.files import PARTIAL_END, PARTIAL_MARK, RECORD, SourceFile
from core.export.index import rebuild_index
from core.export.plan import ExportPlan
from core.export.record import export_record
from core.export.refusals import refuse, refuse_changed_source
from core.export.safetensors_writer import copy_file, read_header, write_file, write_shard
from core.export.shards import ShardJob, index_changes, shard_jobs
from core.export.verify import verify_file, verify_shard
from core.inspection import Inspection, inspect_opened
from core.progress import Progress

_REPORT = "This is a mistake of KVScope's; please report it with the plan of the export."
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A finished export: ``bytes_written`` in all files, ``verified`` tensors, ``seconds`` of wall time.

    ``after`` is the inspection of the written folder under the engine that the plan was made for.
    """

    out: Path
    bytes_written: int
    seconds: float
    verified: int
    after: Inspection

    @property
    def verdict_after(self) -> Verdict:
        return self.after.verdict


def write_export(plan: ExportPlan, out: Path, *, progress: Progress | None = None) -> ExportResult:
    """Write a planned export to the new folder ``out``, verify it and judge it anew.

    Raises:
        ExportError: refused before anything was written, or failed and removed what it had written.
        CancelledError: the user asked to stop; nothing is left.
    """
    started = time.monotonic()
    progress = progress or Progress()
    refuse(plan, out)
    jobs = shard_jobs(plan)
    target = out.resolve()
    partial = target.parent / f".{target.name}{PARTIAL_MARK}{secrets.token_hex(4)}{PARTIAL_END}"
    with _removed_on_failure(partial, out):
        written = _write_all(plan, jobs, partial, progress)
        verified = _verify_all(plan, jobs, partial, progress)
        refuse_changed_source(plan)
        after = _judge(plan, partial, progress)
        record = export_record(plan, jobs, partial, after)
        write_file(partial / RECORD, record)
        _flush_folders(partial)
        progress.check()
        partial.rename(target)  # onto nothing or an empty folder, in one step; anything else the system refuses
    _flush_folder(target.parent)
    return ExportResult(
        out=out,
        bytes_written=written + len(record),
        seconds=time.monotonic() - started,
        verified=verified,
        after=_at(after, out),
    )


def _write_all(plan: ExportPlan, jobs: dict[str, ShardJob], partial: Path, progress: Progress) -> int:
    texts = _new_texts(plan, jobs)
    progress.start("Copying", total=sum(_size(file, jobs, texts) for file in plan.files), unit="bytes")
    partial.mkdir()
    for file in plan.files:
        source, target = plan.root / file.name, partial / file.name
        with _names_file(file.name):
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.name in jobs:
                write_shard(source, target, jobs[file.name].layout, progress)
            elif file.name in texts:
                write_file(target, texts[file.name], progress)
            else:
                copy_file(source, target, size=file.size, progress=progress)
    return progress.done


def _new_texts(plan: ExportPlan, jobs: dict[str, ShardJob]) -> dict[str, bytes]:
    """The small files that are written anew: changed configs, and the index where a tensor changed."""
    texts = {edit.file: edit.text.encode() for edit in plan.config_edits}
    for file in plan.files:
        if file.role == "index" and jobs:
            text = (plan.root / file.name).read_text(encoding="utf-8")
            texts[file.name] = rebuild_index(text, index_changes(plan, jobs), name=file.name).encode()
    return texts


def _size(file: SourceFile, jobs: dict[str, ShardJob], texts: dict[str, bytes]) -> int:
    if file.name in jobs:
        return jobs[file.name].layout.size
    return len(texts[file.name]) if file.name in texts else file.size


def _verify_all(plan: ExportPlan, jobs: dict[str, ShardJob], partial: Path, progress: Progress) -> int:
    """Compare everything written with the source; the number of tensors compared."""
    texts = {edit.file for edit in plan.config_edits}
    files = [file for file in plan.files if file.name not in texts and not (file.role == "index" and jobs)]
    progress.start("Verifying", total=sum(file.size for file in files), unit="bytes")
    tensors = 0
    for file in files:
        source, written, job = plan.root / file.name, partial / file.name, jobs.get(file.name)
        with _names_file(file.name):
            if job is not None:
                before = progress.done
                tensors += verify_shard(
                    source, written, replaced=job.replaced, added=job.added, name=file.name, progress=progress
                )
                progress.advance(max(0, file.size - (progress.done - before)))  # the header, and what was dropped
                continue
            verify_file(source, written, size=file.size, name=file.name, progress=progress)
            if file.role == "shard":
                tensors += len(read_header(written).tensors)
    return tensors


@contextmanager
def _names_file(name: str) -> Iterator[None]:
    """Turn what the operating system refuses while a file is written into a sentence that names the file."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL:
            raise ExportError(
                f"there was no room to write the file ({reason}), and the export was taken back",
                path=name,
                remedy="Free some space, raise the limit on file sizes, or export to another disk.",
            ) from error
        raise ExportError(
            f"the file could not be copied ({reason}), and the export was taken back",
            path=name,
            remedy="Check the disks and their permissions, then export again.",
        ) from error


@contextmanager
def _removed_on_failure(partial: Path, out: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if partial.exists():
            error.add_note(f"The unfinished folder {partial} could not be removed; delete it.")
        if isinstance(error, OSError):
            reason = error.strerror or type(error).__name__
            raise ExportError(
                f"the folder could not be written ({reason}), and nothing was left behind",
                path=out,
                remedy="Choose a folder that you may write to.",
            ) from error
        raise


def _flush_folders(top: Path) -> None:
    for folder, _, _ in os.walk(top):
        _flush_folder(Path(folder))


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":  # folders cannot be opened elsewhere
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _judge(plan: ExportPlan, folder: Path, progress: Progress) -> Inspection:
    """Open the written folder like any other checkpoint, and judge it under the settings that the plan was made for.

    Raises:
        ExportError: it has a fault that the source has not, or its index does not agree with its shards.
    """
    after = inspect_opened(
        open_checkpoint(folder, progress=progress), engine=plan.engine, wish=plan.before.wish, progress=progress
    )
    faults = {str(fault) for fault in after.checkpoint.faults} - {str(fault) for fault in plan.source.faults}
    if faults:
        raise ExportError(f"the written checkpoint has a fault: {min(faults)}", path=folder, remedy=_REPORT)
    index, old_index = after.checkpoint.index, plan.source.index
    if index is not None and not index.agrees and (old_index is None or old_index.agrees):
        raise ExportError("the written index does not agree with the shards", path=folder / index.file, remedy=_REPORT)
    return after


def _at(after: Inspection, out: Path) -> Inspection:
    """The inspection of the folder under its final name; only the name changed."""
    checkpoint = after.checkpoint
    shards = tuple(replace(shard, path=out / shard.name) for shard in checkpoint.shards)
    return replace(after, checkpoint=replace(checkpoint, path=out, root=out, shards=shards))
