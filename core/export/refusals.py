"""What an export refuses before it writes a byte: one sentence each, with what to do instead."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.errors import ExportError
from core.export.files import JOURNAL, RECORD, changed_file
from core.export.plan import ExportPlan
from core.export.remainder import remainder_of
from core.export.system import System
from core.wording import say, size


def refuse_remote(plan: ExportPlan) -> None:
    """Check that the checkpoint is on this machine.

    Raises:
        ExportError: it is not, and a copy would be a download.
    """
    checkpoint = plan.before.checkpoint
    if checkpoint.remote is not None:
        raise ExportError(
            say(
                "is not on this machine, and a copy of it would download all of its {size}",
                size=size(checkpoint.total_bytes),
            ),
            path=checkpoint.place,
            remedy=say(
                "Download it first and export that folder; --dry-run says what would change without a download, and "
                "--overlay writes only what goes beside its shards."
            ),
        )


def refuse(plan: ExportPlan, out: Path, *, resume: bool = False, overlay: bool = False) -> None:
    """Check the target folder. ``resume`` lets pass a target that an export finished, ``overlay`` a source that is not
    on this machine.

    Raises:
        ExportError: the source is not on this machine; the target lies within the source or around it, is not empty,
            or has no parent folder.
    """
    if not overlay:
        refuse_remote(plan)
    if (plan.root / JOURNAL).exists():
        raise ExportError(
            say("an export in place did not end here"),
            path=plan.root / JOURNAL,
            remedy=say("Run kvscope export --in-place again, which puts everything back first."),
        )
    _refuse_overlap(plan.root, out)
    try:
        if out.is_symlink() and not out.exists():
            raise ExportError(say("is a link to nothing"), path=out, remedy=say("Choose another folder."))
        if out.exists() and not out.is_dir():
            raise ExportError(say("is a file"), path=out, remedy=say("Choose a folder that does not exist yet."))
        if out.exists() and any(out.iterdir()) and not (resume and (out / RECORD).exists()):
            raise ExportError(
                say("is not empty"), path=out, remedy=say("Choose a folder that does not exist yet, or empty it.")
            )
        if not out.parent.is_dir():
            raise ExportError(
                say("does not exist"), path=out.parent, remedy=say("Create this folder first, or choose another.")
            )
        if out.is_mount():
            raise ExportError(
                say("is the top of a file system, which cannot be replaced"),
                path=out,
                remedy=say("Choose a folder below it."),
            )
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ExportError(
            say("cannot be looked at: {reason}", reason=reason),
            path=out,
            remedy=say("Choose a folder that you may write to."),
        ) from error


@contextmanager
def told_when_unreadable(root: Path) -> Iterator[None]:
    """Turn what the operating system refuses while a source is read into one sentence.

    Raises:
        ExportError: a file cannot be read; it is named.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ExportError(
            say("cannot be read: {reason}", reason=reason),
            path=error.filename or root,
            remedy=say("Check the disk and its permissions."),
        ) from error


def refuse_full_disk(out: Path, room: int, *, digest: str, resume: bool, system: System) -> None:
    """Check that ``room`` bytes are free where the target will be; what an interrupted export left counts.

    Raises:
        ExportError: there is too little room.
    """
    target = out.resolve()
    if resume and finished(target, digest):
        return
    try:
        free = system.free(target.parent) + remainder_of(target, system).room()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ExportError(
            say("cannot be looked at: {reason}", reason=reason),
            path=out,
            remedy=say("Choose a folder that you may write to."),
        ) from error
    if free < room:
        raise ExportError(
            say("the disk has {free} free and the export needs {needed}", free=size(free), needed=size(room)),
            path=out,
            remedy=say("Free some space, or export to another disk."),
        )


def finished(target: Path, digest: str) -> bool:
    """Whether ``target`` is the finished export of this digest, by its record."""
    try:
        record = json.loads((target / RECORD).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("plan_digest") == digest


def refuse_changed_source(plan: ExportPlan) -> None:
    """Check that every file of the source is as it was when the plan was made. Of one that is not on this machine
    nothing is copied.

    Raises:
        ExportError: one is not.
    """
    changed = changed_file(plan.root, plan.files) if plan.source.remote is None else None
    if changed is not None:
        raise ExportError(
            say("the file changed since the checkpoint was opened"),
            path=plan.root / changed,
            remedy=say("Wait until nothing writes to it, open the checkpoint again and repeat the export."),
        )


def _refuse_overlap(root: Path, out: Path) -> None:
    root, out = root.resolve(), out.resolve()
    if _same(root, out):
        raise ExportError(
            say("is the source itself"), path=out, remedy=say("Choose a new folder: the source stays as it is.")
        )
    if any(_same(root, parent) for parent in out.parents):
        raise ExportError(say("lies inside the source"), path=out, remedy=say("Choose a folder outside the source."))
    if any(_same(out, parent) for parent in root.parents):
        raise ExportError(
            say("contains the source"), path=out, remedy=say("Choose a folder that does not contain the source.")
        )


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one folder, also where a file system does not distinguish case."""
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False
