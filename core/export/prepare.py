"""An export made ready: what each file will hold and how it will be written, with nothing written yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import __version__
from core.export.index import rebuild_index
from core.export.judging import as_overlay
from core.export.options import WriteOptions
from core.export.overlay import overlay_texts
from core.export.placement import Placement, place, placement_as_data, placement_text
from core.export.plan import ExportPlan, TensorEdit
from core.export.refusals import finished, refuse, refuse_changed_source, refuse_full_disk, told_when_unreadable
from core.export.shards import ShardJob, index_changes, shard_jobs
from core.export.system import System


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An export that can be written: ``plan`` with what is predicted for this way of writing, ``jobs`` the shards that
    get a new header, ``texts`` the small files written anew, ``digest`` tells this export from any other.
    """

    plan: ExportPlan
    out: Path
    options: WriteOptions = field(default_factory=WriteOptions)
    jobs: Mapping[str, ShardJob]
    texts: Mapping[str, bytes]
    placement: Placement
    digest: str
    overlay: str | None = None
    """The name of the shard that an overlay adds."""


def prepare_export(
    plan: ExportPlan, out: Path, options: WriteOptions | None = None, *, system: System | None = None
) -> Prepared:
    """Make an export ready, and refuse what would fail: what :func:`core.export.write.write_export` does first, and
    all that a dry run does.

    Raises:
        ExportError: the target cannot be, the disk is too full, the source changed since the plan was made, an edit
            does not fit its tensor, or the way of writing that was asked for cannot be had here.
    """
    options, system = options or WriteOptions(), system or System()
    refuse(plan, out, resume=options.resume, overlay=options.overlay)
    overlay = None
    with told_when_unreadable(plan.root):
        jobs = shard_jobs(plan)
        if options.overlay:
            overlay, texts = overlay_texts(plan, jobs)
            jobs, plan = {}, as_overlay(plan)
        else:
            texts = new_texts(plan, jobs)
        placement = place(plan, out, options, jobs=jobs, texts=texts, system=system)
    digest = digest_of(plan, placement, texts)
    if options.resume and not finished(out.resolve(), digest):
        refuse(plan, out, overlay=options.overlay)
    refuse_full_disk(out, placement.room, digest=digest, resume=options.resume, system=system)
    refuse_changed_source(plan)
    return Prepared(
        plan=plan,
        out=out,
        options=options,
        jobs=jobs,
        texts=texts,
        placement=placement,
        digest=digest,
        overlay=overlay,
    )


def new_texts(plan: ExportPlan, jobs: Mapping[str, ShardJob]) -> dict[str, bytes]:
    """The small files that are written anew: changed configs, and the index where it or a tensor changed.

    Raises:
        ExportError: the index is none.
    """
    texts = {edit.file: edit.text.encode() for edit in plan.config_edits}
    for file in plan.files:
        if file.role == "index" and jobs:
            mended = texts.get(file.name)  # a repair of the index itself comes first
            text = mended.decode() if mended else (plan.root / file.name).read_bytes().decode("utf-8-sig")
            texts[file.name] = rebuild_index(text, index_changes(plan, jobs), name=file.name).encode()
    return texts


def digest_of(plan: ExportPlan, placement: Placement, texts: Mapping[str, bytes]) -> str:
    """What tells an export from any other: source, edits, texts and the way of writing."""
    value = {
        "kvscope": __version__,
        "engine": plan.engine,
        "edits": [_edit(edit) for edit in plan.changes],
        "texts": {name: hashlib.sha256(text).hexdigest() for name, text in sorted(texts.items())},
        "source": [(file.name, file.size, file.mtime_ns) for file in plan.files],
        "placement": [(file.name, file.how, file.size) for file in placement.files],
    }
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _edit(edit: TensorEdit) -> list[Any]:
    values = [repr(value) for value in edit.values]
    return [edit.key, edit.file, edit.action, edit.new_key, edit.new_shape, edit.new_dtype, values]


def prepared_as_data(prepared: Prepared) -> dict[str, Any]:
    """How the export is written, as JSON has it; ``plan_digest`` stands in the record of the run, too."""
    return {
        "plan_digest": prepared.digest,
        "room_needed": prepared.placement.room,
        "writing": placement_as_data(prepared.placement),
    }


def prepared_text(prepared: Prepared) -> str:
    """How the export is written, for people."""
    return placement_text(prepared.placement)
