"""``write_export``: a planned export becomes a folder, or nothing.

Everything is written to ``<name>.kvscope-unfinished`` beside the target (see :mod:`core.export.remainder`), flushed,
compared with the source, judged anew, and only then renamed. An error, a full disk or a cancelled job removes that
folder, or leaves what is finished where ``resume`` was asked for; a killed process leaves it under its telling name,
and never a target. The source is only ever read.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.errors import ExportError
from core.export.copying import Copier
from core.export.files import RECORD
from core.export.judging import judge_beside, judge_result
from core.export.options import WriteOptions
from core.export.overlay import refuse_other_end
from core.export.placement import FilePlacement, can_clone
from core.export.plan import ExportPlan
from core.export.prepare import Prepared, prepare_export
from core.export.record import export_record
from core.export.refusals import finished, refuse_changed_source
from core.export.remainder import Finished, Remainder, remainder_of
from core.export.result import ExportResult
from core.export.system import System
from core.export.verify import Checked, Verifier
from core.inspection import Inspection
from core.progress import Progress
from core.wording import say

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_export(
    plan: ExportPlan,
    out: Path,
    *,
    options: WriteOptions | None = None,
    progress: Progress | None = None,
    system: System | None = None,
) -> ExportResult:
    """Write a planned export to the new folder ``out``, verify it and judge it anew.

    Raises:
        ExportError: refused before anything was written, or failed; what it had written is removed, or with
            ``options.resume`` kept to be taken up.
        CancelledError: the user asked to stop; likewise.
    """
    started = time.monotonic()
    progress, system = progress or Progress(), system or System()
    prepared = prepare_export(plan, out, options, system=system)
    target = out.resolve()
    remainder = remainder_of(target, system)
    if prepared.options.resume and finished(target, prepared.digest):
        _refuse_damaged(prepared, Verifier(system=system, progress=progress))
        return _found_finished(prepared, remainder, progress, started)
    work = _Work(prepared, remainder, system, progress)
    with work.settled_on_failure():
        remainder.begin(digest=prepared.digest, resume=prepared.options.resume)
        work.check_resumed()
        work.write()
        work.verify()
        refuse_changed_source(plan)
        after = _judged(prepared, remainder.files, progress)
        if prepared.overlay is not None:
            refuse_other_end(plan, out, after.deliveries)
        record = export_record(prepared, remainder.files, after, remainder.finished)
        remainder.forget(RECORD)
        work.copier.write_file(remainder.files / RECORD, record)
        work.flush_folders()
        progress.check()
        remainder.publish(target)
    notes = _settle_success(remainder, target)
    done = remainder.finished.values()
    return ExportResult(
        out=out,
        bytes_written=prepared.placement.size + len(record),
        linked=sum(file.size for file in prepared.placement.files if file.how == "link"),
        cloned=sum(each.cloned for each in done),
        copied=sum(each.copied for each in done) + len(record),
        seconds=time.monotonic() - started,
        verified=sum(each.checked or 0 for each in done),
        after=_at(after, out),
        placement=prepared.placement,
        resumed=tuple(work.resumed),
        notes=notes,
    )


@dataclass(slots=True)
class _Work:
    """One export while it is written."""

    prepared: Prepared
    remainder: Remainder
    system: System
    progress: Progress
    resumed: list[str] = field(default_factory=list)
    copier: Copier = field(init=False)
    verifier: Verifier = field(init=False)

    def __post_init__(self) -> None:
        placement, plan = self.prepared.placement, self.prepared.plan
        clone = placement.mode != "copy"
        # where the kernel's copy would share blocks, only a buffer makes the copy that was asked for
        by_kernel = clone or not can_clone(plan, self.remainder.folder.parent, self.system)
        self.copier = Copier(system=self.system, progress=self.progress, clone=clone, by_kernel=by_kernel)
        self.verifier = Verifier(level=placement.verify, system=self.system, progress=self.progress)

    def check_resumed(self) -> None:
        """Look at what an interrupted export left: what is not as it was finished is written again."""
        if not self.remainder.finished:
            return
        files = {file.name: file for file in self.prepared.placement.files}
        left = list(self.remainder.finished.values())
        self.progress.start(say("Checking what is there"), total=sum(each.size for each in left), unit="bytes")
        for each in left:
            with self.names_file(each.name):
                if each.name in files and self._still(files[each.name], each):
                    self.resumed.append(each.name)
                else:
                    self.remainder.forget(each.name)

    def _still(self, file: FilePlacement, was: Finished) -> bool:
        path = self.remainder.files / file.name
        try:
            found = self.system.status(path)
        except FileNotFoundError:
            return False
        if found.st_size != file.size or found.st_mtime_ns != was.mtime_ns:
            return False
        if was.sha256 is not None and file.how != "link" and self.verifier.level == "all":
            return self.verifier.digest(path) == was.sha256
        try:
            checked = self._checked(file)
        except ExportError:
            return False
        self.remainder.checked(file.name, tensors=checked.tensors, sha256=checked.sha256)
        return True

    def write(self) -> None:
        """Write every file that is not finished: first under another name, then flushed, renamed and noted."""
        files = [file for file in self.prepared.placement.files if file.name not in self.remainder.finished]
        self.progress.start(say("Copying"), total=sum(file.size for file in files), unit="bytes")
        for file in files:
            with self.names_file(file.name):
                self.remainder.forget(file.name)
                self._write(file)

    def _write(self, file: FilePlacement) -> None:
        prepared, copier = self.prepared, self.copier
        source, target = prepared.plan.root / file.name, self.remainder.files / file.name
        part = self.remainder.part
        before = copier.cloned, copier.copied
        self._make_folders(target.parent)
        if file.how == "rewrite":
            copier.write_shard(source, part, prepared.jobs[file.name].layout)
        elif file.how == "text":
            copier.write_file(part, prepared.texts[file.name])
        elif file.how == "link":
            self._link(source, part)
            self.progress.advance(file.size)
        else:
            copier.copy_file(source, part, size=file.size)
        self.system.rename(part, target)
        found = self.system.status(target)
        cloned, copied = copier.cloned - before[0], copier.copied - before[1]
        self.remainder.add(
            Finished(name=file.name, size=found.st_size, mtime_ns=found.st_mtime_ns, cloned=cloned, copied=copied)
        )

    def _link(self, source: Path, target: Path) -> None:
        try:
            self.system.link(source, target)
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
                raise
            raise ExportError(
                say("the shard could not be linked ({reason})", reason=error.strerror or type(error).__name__),
                path=source,
                remedy=say("Leave --link away or use --copy."),
            ) from error

    def _make_folders(self, folder: Path) -> None:
        if folder != self.remainder.files and not folder.is_dir():
            self._make_folders(folder.parent)
            self.system.make_folder(folder)

    def verify(self) -> None:
        """Compare everything that comes from the source with it."""
        files = [f for f in self.prepared.placement.files if self.remainder.finished[f.name].checked is None]
        total = sum(file.size for file in files)
        self.progress.start(say("Verifying"), total=total, unit="bytes")
        for file in files:
            before = self.progress.done
            with self.names_file(file.name):
                checked = self._checked(file)
                self.remainder.checked(file.name, tensors=checked.tensors, sha256=checked.sha256)
            self.progress.advance(max(0, file.size - (self.progress.done - before)))  # headers, and what was skipped

    def _checked(self, file: FilePlacement) -> Checked:
        plan, verifier = self.prepared.plan, self.verifier
        source, written = plan.root / file.name, self.remainder.files / file.name
        shard = next((shard for shard in plan.source.shards if shard.name == file.name), None)
        tensors = shard.tensors if shard is not None else 0
        if file.how == "link":
            if not os.path.samestat(self.system.status(source), self.system.status(written)):
                raise ExportError(
                    say("the source's file was replaced while it was linked"),
                    path=source,
                    remedy=say("Wait until nothing writes to it, open the checkpoint again and repeat the export."),
                )
            return Checked(tensors)
        if file.how == "rewrite":
            return verifier.shard(source, written, job=self.prepared.jobs[file.name], name=file.name)
        if file.how == "text":
            return verifier.text(written, self.prepared.texts[file.name], name=file.name)
        return verifier.file(source, written, size=file.size, name=file.name, tensors=tensors)

    def flush_folders(self) -> None:
        for folder, _, _ in os.walk(self.remainder.files):
            self.system.flush_folder(Path(folder))

    @property
    def _consequence(self) -> str:
        return (
            say("what is finished waits for --resume")
            if self.prepared.options.resume
            else say("the export was taken back")
        )

    @contextmanager
    def names_file(self, name: str) -> Iterator[None]:
        """Turn what the operating system refuses while a file is written into a sentence that names the file."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            if error.errno in _FULL:
                raise ExportError(
                    say(
                        "there was no room to write the file ({reason}), and {consequence}",
                        reason=reason,
                        consequence=self._consequence,
                    ),
                    path=name,
                    remedy=say("Free some space, raise the limit on file sizes, or export to another disk."),
                ) from error
            raise ExportError(
                say(
                    "the file could not be copied ({reason}), and {consequence}",
                    reason=reason,
                    consequence=self._consequence,
                ),
                path=name,
                remedy=say("Check the disks and their permissions, then export again."),
            ) from error

    @contextmanager
    def settled_on_failure(self) -> Iterator[None]:
        """Remove the remainder when the export fails, or leave it where it may be resumed."""
        try:
            yield
        except BaseException as error:
            kept = self.prepared.options.resume
            self._settle(error)
            if isinstance(error, OSError):
                reason = error.strerror or type(error).__name__
                left = say("what is finished waits for --resume") if kept else say("nothing was left behind")
                raise ExportError(
                    say("the folder could not be written ({reason}), and {left}", reason=reason, left=left),
                    path=self.prepared.out,
                    remedy=say("Choose a folder that you may write to."),
                ) from error
            raise

    def _settle(self, error: BaseException) -> None:
        if not self.remainder.ours:  # nothing was begun, or it belongs to another export
            return
        if self.prepared.options.resume:
            self.remainder.close()
            return
        try:
            self.remainder.remove()
        except OSError:
            self.remainder.close()
            error.add_note(f"The unfinished folder {self.remainder.folder} could not be removed; delete it.")


def _settle_success(remainder: Remainder, target: Path) -> tuple[str, ...]:
    """Flush the new name and remove what is left of the remainder; the export stands, whatever happens now."""
    notes = []
    try:
        remainder.system.flush_folder(target.parent)
    except OSError as error:
        notes.append(
            say(
                "The folder that holds {folder} could not be flushed to the disk ({reason}).",
                folder=target,
                reason=_reason(error),
            )
        )
    try:
        if remainder.folder.exists():
            remainder.remove()
    except OSError as error:
        remainder.close()
        notes.append(
            say(
                "{folder} is empty and could not be removed ({reason}); delete it.",
                folder=remainder.folder,
                reason=_reason(error),
            )
        )
    return tuple(notes)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _judged(prepared: Prepared, folder: Path, progress: Progress) -> Inspection:
    """The verdict on what was written."""
    if prepared.plan.source.remote is not None:
        return judge_beside(prepared.plan, prepared.texts)
    return judge_result(prepared.plan, folder, progress)


def _found_finished(prepared: Prepared, remainder: Remainder, progress: Progress, started: float) -> ExportResult:
    """The export that is asked for is there: an earlier run died after its last rename, if at all."""
    after = _judged(prepared, prepared.out, progress)
    notes = [
        say("The export was finished already; nothing was written."),
        *_settle_success(remainder, prepared.out.resolve()),
    ]
    return ExportResult(
        out=prepared.out,
        bytes_written=0,
        seconds=time.monotonic() - started,
        verified=0,
        after=after,
        placement=prepared.placement,
        notes=tuple(notes),
    )


def _refuse_damaged(prepared: Prepared, verifier: Verifier) -> None:
    """Compare a finished export with its record: sizes, and SHA-256 where the record has them and all is to be proven.

    Raises:
        ExportError: a file is gone or not what it was; it is named.
    """
    try:
        rows = json.loads((prepared.out / RECORD).read_bytes())["files"]
        digests = {row["file"]: row["sha256"] for row in rows} if prepared.placement.verify == "all" else {}
    except (OSError, ValueError, KeyError, TypeError):  # a record that someone wrote on
        digests = {}
    verifier.progress.start(say("Checking what is there"), total=prepared.placement.size, unit="bytes")
    for file in prepared.placement.files:
        path, digest = prepared.out / file.name, digests.get(file.name)
        try:
            same = verifier.system.status(path).st_size == file.size and (
                digest is None or verifier.digest(path) == digest
            )
        except OSError:
            same = False
        if not same:
            raise ExportError(
                say("is not what the export wrote"),
                path=path,
                remedy=say("Choose a folder that does not exist yet, or empty it."),
            )


def _at(after: Inspection, out: Path) -> Inspection:
    """The inspection of the folder under its final name; only the name changed. What stays elsewhere stays so."""
    if after.checkpoint.remote is not None:
        return after
    checkpoint = after.checkpoint
    shards = tuple(replace(shard, path=out / shard.name) for shard in checkpoint.shards)
    return replace(after, checkpoint=replace(checkpoint, path=out, root=out, shards=shards))
