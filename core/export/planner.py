"""``plan_export``: what a normalized copy of an inspected checkpoint would change, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from core.checkpoint import Checkpoint
from core.checkpoint.dtypes import DTYPES
from core.diagnosis import Verdict, diagnose, judge
from core.engines import Fed, get_engine
from core.engines.outcome import Delivery
from core.errors import ExportError
from core.export.files import SourceFile, list_files
from core.export.names import AS_IS, Part
from core.export.naming import REDUNDANT, Naming, choose_names
from core.export.plan import Action, ExportPlan, TensorEdit
from core.inspection import Inspection, reinspect
from core.naming.scales import KVScale
from core.quantization import is_quantized

_ROOM_PER_FILE = 8192
"""Bytes that a file may grow by: a header's padding, and what the file system keeps about it."""


def plan_export(inspection: Inspection, *, engine: str | None = None, names: str | None = None) -> ExportPlan:
    """Plan a normalized export for ``engine`` (default: the one inspected under).

    ``names`` is the id of a naming convention ("portable", "modelopt", "vllm-runtime", "quark") or "as-is"; by default
    the engine's prediction chooses, and names that load stay.

    Raises:
        ExportError: the checkpoint is pickled or incomplete, cannot be read, or two scales would have one name.
        UsageError: there is no such engine or convention.
    """
    if engine is not None and engine != inspection.settings.engine.value:
        inspection = reinspect(inspection, engine=engine)
    checkpoint = inspection.checkpoint
    _refuse_source(checkpoint)
    files, notes = _files(checkpoint)
    naming = choose_names(inspection, names)
    edits = tuple(_edits(inspection, naming))
    title = get_engine(str(inspection.settings.engine.value)).title
    return ExportPlan(
        before=inspection,
        root=checkpoint.root,
        engine=str(inspection.settings.engine.value),
        names=naming.names,
        edits=edits,
        files=files,
        space_needed=_space(files, edits),
        unreachable=naming.unreachable,
        predicted=naming.after,
        verdict_predicted=_foresee(inspection, naming),
        notes=(*_notes(inspection, naming, edits, title), *notes),
    )


def _foresee(inspection: Inspection, naming: Naming) -> Verdict:
    """The verdict on the result, before it is written."""
    scales = (part.fed.scale for at in range(len(inspection.tensors)) for part in naming.parts.get(at, ()))
    case = replace(
        inspection.case,
        scales=tuple(scale for scale in scales if scale is not None),
        deliveries=naming.after,
    )
    return judge(case, diagnose(case))


def _refuse_source(checkpoint: Checkpoint) -> None:
    if checkpoint.format.startswith("pytorch"):
        raise ExportError(
            "tensors in PyTorch's pickled files are not renamed yet",
            path=checkpoint.path,
            remedy="Convert the checkpoint to safetensors first, for example with transformers' save_pretrained.",
        )
    for fault in checkpoint.faults:
        if any(shard.fault == fault for shard in checkpoint.shards):
            raise ExportError(
                f"{fault.problem}, and a copy would be incomplete",
                path=checkpoint.root / fault.file,
                remedy=fault.remedy,
            )


def _files(checkpoint: Checkpoint) -> tuple[tuple[SourceFile, ...], tuple[str, ...]]:
    shards = {shard.name: shard.size for shard in checkpoint.shards}
    index = checkpoint.index.file if checkpoint.index is not None else None
    alone = checkpoint.path.is_file() and index is None
    files, notes = list_files(checkpoint.root, shards=shards, index=index, alone=alone)
    for file in files:
        if file.role == "shard" and file.size != shards[file.name]:
            raise ExportError(
                "the file changed since the checkpoint was opened",
                path=checkpoint.root / file.name,
                remedy="Wait until nothing writes to it, open the checkpoint again and repeat the export.",
            )
    return files, notes


def _edits(inspection: Inspection, naming: Naming) -> Iterable[TensorEdit]:
    title = get_engine(str(inspection.settings.engine.value)).title
    for position, fed in enumerate(inspection.tensors):
        scale = fed.scale
        if position in naming.dropped:
            reason = _why_dropped(naming.dropped[position], title)
            for file in [scale.file] if scale is not None else _shards_of(inspection.checkpoint, fed):
                yield TensorEdit(key=fed.key, file=file, action="dropped", reason=reason)
        elif scale is not None:
            was = _fate(fed.key, naming.alone.get(position), title)
            for number, part in enumerate(naming.parts[position]):
                yield _edit(
                    scale, part, copy=number > 0, was=was, becomes=_fate(part.key, naming.becomes.get(part.key), title)
                )


def _edit(scale: KVScale, part: Part, *, copy: bool, was: str, becomes: str) -> TensorEdit:
    shape = part.fed.shape if part.fed.shape != scale.shape else None
    action: Action
    if copy:
        action, reason = "duplicated", f"{scale.key} stands for k and v alike; {becomes}."
    elif part.key != scale.key:
        action, reason = "renamed", f"{was}; {becomes}."
    elif shape is not None:
        action, reason = "reshaped", f"One number takes the parameter's shape {list(shape)}; {becomes}."
    else:
        action, reason = "kept", f"{was}."
    return TensorEdit(key=scale.key, file=scale.file, action=action, reason=reason, new_key=part.key, new_shape=shape)


def _fate(key: str, delivery: Delivery | None, title: str) -> str:
    if delivery is None or delivery.outcome == "not_reached":
        return f"{title} is not known to take {key}"
    if delivery.outcome == "raises":
        return f"{title} raises {_first_sentence(delivery.error or delivery.reason)} at {key}"
    if delivery.outcome == "loaded":
        return f"{title} loads {key} into {delivery.target}"
    return f"{title} {'ignores' if delivery.outcome == 'ignored' else 'drops'} {key}"


def _why_dropped(why: str, title: str) -> str:
    if why == REDUNDANT:
        return f"Left out: {why}."
    return f"Left out: {title} has no parameter for it and raises {_first_sentence(why)}."


def _first_sentence(text: str) -> str:
    return text.split(". ", maxsplit=1)[0].rstrip(".")


def _shards_of(checkpoint: Checkpoint, fed: Fed) -> list[str]:
    return [checkpoint.catalog.shard(row) for row in checkpoint.catalog.rows_of(fed.key)]


def _notes(inspection: Inspection, naming: Naming, edits: tuple[TensorEdit, ...], title: str) -> Iterable[str]:
    load = inspection.deliveries.load
    if not naming.proven:
        what = f"{title} refuses this checkpoint" if load.outcome == "refused" else f"{title} cannot be predicted here"
        yield f"{what}, so that no name could be tried: {(load.reason or load.error or '').rstrip('.')}."
    elif naming.after.load.outcome == "raises":
        error = _first_sentence(naming.after.load.error or naming.after.load.reason)
        yield f"{title} raises {error} at {naming.after.load.key} whatever its name."
    changes = [edit for edit in edits if edit.action != "kept"]
    if not changes:
        yield "No tensor has to change; the export is a copy."
    elif naming.names != AS_IS:
        yield f"Names follow the convention {naming.names!r}."
    if any(inspection.tensors[at].key.endswith(("_bias", "_zero_point")) for at in naming.dropped):
        yield "The scales were calibrated together with the offsets left out: large values may be clipped."
    resolved = inspection.settings.kv_cache_dtype_resolved
    loaded = any(found.outcome == "loaded" and found.scale is not None for found in naming.after.deliveries)
    if loaded and not is_quantized(resolved):
        yield (
            f"With the KV-cache dtype {resolved!r} {title} does not quantize its cache and runs at 1.0; start it with "
            "--kv-cache-dtype fp8 to use the scales. No config file has to change for that."
        )


def _space(files: tuple[SourceFile, ...], edits: tuple[TensorEdit, ...]) -> int:
    names = sum(200 + len(edit.new_key or "") for edit in edits if edit.action in {"duplicated", "renamed"})
    added = sum(
        math.prod(edit.new_shape or (1,)) * (DTYPES[edit.new_dtype].bits // 8 if edit.new_dtype in DTYPES else 8)
        for edit in edits
        if edit.action in {"duplicated", "added"}
    )
    return sum(file.size + _ROOM_PER_FILE for file in files) + names + added + (1 << 20)
