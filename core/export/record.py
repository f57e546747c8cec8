"""``kvscope-export.json``: what an export did, kept beside what it wrote."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core import __version__
from core.diagnosis.finding import Verdict
from core.export.files import RECORD
from core.export.placement import placement_as_data
from core.export.plan import TensorEdit
from core.export.prepare import Prepared
from core.export.remainder import Finished
from core.export.safetensors_writer import StoredTensor
from core.inspection import Inspection

SCHEMA = "kvscope.export-record/1"


def export_record(prepared: Prepared, folder: Path, after: Inspection, finished: Mapping[str, Finished]) -> bytes:
    """The record as JSON. ``folder`` is the written export, whose changed tensors and headers are digested (BLAKE2b);
    ``finished`` is what was noted about each file: its SHA-256 where every byte was compared.

    The source appears by the name of its folder alone: a record travels with the checkpoint, a path means nothing
    elsewhere. A record that the source already had is kept under ``previous``.
    """
    plan, jobs = prepared.plan, prepared.jobs
    shards = {name: {tensor.name: tensor for tensor in job.layout.tensors} for name, job in jobs.items()}
    record = {
        "schema": SCHEMA,
        "kvscope": __version__,
        "python": platform.python_version(),
        "source": plan.source.path.name or plan.root.resolve().name,
        "engine": plan.engine,
        "names": plan.names,
        "fixes": [
            {"code": fix.code, "value": fix.value, "reason": fix.reason, "keys": list(fix.keys)} for fix in plan.fixes
        ],
        "plan_digest": prepared.digest,
        "verdict_before": _verdict(plan.verdict_before),
        "verdict_after": _verdict(after.verdict),
        "tensors": [_edit(edit, shards.get(edit.file), folder, prepared) for edit in plan.changes],
        "fields": [
            {"file": edit.file, "field": change.field, "before": change.before, "after": change.after}
            for edit in plan.config_edits
            for change in edit.changes
        ],
        "headers": {file: _digest(job.layout.head) for file, job in jobs.items()},
        "files_copied": [file.name for file in prepared.placement.files if file.how not in {"rewrite", "text"}],
        "writing": placement_as_data(prepared.placement),
        "files": [_file(finished[file.name]) for file in prepared.placement.files],
        "unreachable": [{"keys": list(found.keys), "reason": found.reason} for found in plan.unreachable],
        "notes": list(plan.notes),
    }
    previous = _previous(plan.root / RECORD)
    if previous is not None:
        record["previous"] = previous
    try:
        return (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # a folder whose name is no UTF-8
        return (json.dumps(record, indent=2) + "\n").encode()


def _verdict(verdict: Verdict) -> dict[str, str]:
    return {"outcome": verdict.outcome, "text": verdict.text}


def _file(done: Finished) -> dict[str, Any]:
    """What was noted about a file; no digest where not every byte was read."""
    return {"file": done.name, "size": done.size, "cloned": done.cloned, "copied": done.copied, "sha256": done.sha256}


def _edit(
    edit: TensorEdit, tensors: Mapping[str, StoredTensor] | None, folder: Path, prepared: Prepared
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "file": edit.file, "key": edit.key or None, "action": edit.action, "new_key": edit.new_key,
        "reason": edit.reason,
    }  # fmt: skip
    if edit.fixes:
        row["fixes"] = list(edit.fixes)
    if edit.values:
        row["values"] = list(edit.values)
    if tensors is None:
        row["overlay"] = prepared.overlay
    elif edit.action != "dropped":
        tensor = tensors[edit.new_key or edit.key]
        data = _bytes_of(tensor, folder / edit.file, len(prepared.jobs[edit.file].layout.head))
        row |= {"dtype": tensor.dtype, "shape": list(tensor.shape), "blake2b": _digest(data)}
    return row


def _bytes_of(tensor: StoredTensor, path: Path, data_begin: int) -> bytes:
    with path.open("rb") as file:
        file.seek(data_begin + tensor.begin)
        return file.read(tensor.end - tensor.begin)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def _previous(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
