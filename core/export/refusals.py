"""What an export refuses before it writes a byte: one sentence each, with what to do instead."""

from __future__ import annotations

import shutil
from pathlib import Path

from core.errors import ExportError
from core.export.files import changed_file
from core.export.plan import ExportPlan


def refuse(plan: ExportPlan, out: Path) -> None:
    """Check the target folder and the source.

    Raises:
        ExportError: the target lies within the source or around it, is not empty, has no parent folder or too little
            space; or the source changed since the plan was made.
    """
    _refuse_overlap(plan.root, out)
    if out.is_symlink() and not out.exists():
        raise ExportError("is a link to nothing", path=out, remedy="Choose another folder.")
    if out.exists() and not out.is_dir():
        raise ExportError("is a file", path=out, remedy="Choose a folder that does not exist yet.")
    try:
        if out.exists() and any(out.iterdir()):
            raise ExportError("is not empty", path=out, remedy="Choose a folder that does not exist yet, or empty it.")
        if not out.parent.is_dir():
            raise ExportError("does not exist", path=out.parent, remedy="Create this folder first, or choose another.")
        free = shutil.disk_usage(out.parent).free
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ExportError(
            f"cannot be looked at: {reason}", path=out, remedy="Choose a folder that you may write to."
        ) from error
    if free < plan.space_needed:
        raise ExportError(
            f"the disk has {_size(free)} free and the export needs {_size(plan.space_needed)}",
            path=out,
            remedy="Free some space, or export to another disk.",
        )
    refuse_changed_source(plan)


def refuse_changed_source(plan: ExportPlan) -> None:
    """Check that every file of the source is as it was when the plan was made.

    Raises:
        ExportError: one is not.
    """
    changed = changed_file(plan.root, plan.files)
    if changed is not None:
        raise ExportError(
            "the file changed since the checkpoint was opened",
            path=plan.root / changed,
            remedy="Wait until nothing writes to it, open the checkpoint again and repeat the export.",
        )


def _refuse_overlap(root: Path, out: Path) -> None:
    root, out = root.resolve(), out.resolve()
    if _same(root, out):
        raise ExportError("is the source itself", path=out, remedy="Choose a new folder: the source stays as it is.")
    if any(_same(root, parent) for parent in out.parents):
        raise ExportError("lies inside the source", path=out, remedy="Choose a folder outside the source.")
    if any(_same(out, parent) for parent in root.parents):
        raise ExportError("contains the source", path=out, remedy="Choose a folder that does not contain the source.")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one folder, also where a file system does not distinguish case."""
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
