"""``plan_export``: what a normalized copy of an inspected checkpoint would change, and why."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from core.checkpoint import Checkpoint
from core.checkpoint.dtypes import DTYPES
from core.diagnosis.facts import is_quantized_cache
from core.diagnosis.thresholds import LARGEST_NUMBER
from core.engines import get_engine
from core.errors import ExportError
from core.export.declaring import follow_convention
from core.export.edits import edits_of, first_sentence
from core.export.files import SourceFile, list_files
from core.export.fixes import Fix
from core.export.leftovers import leftovers
from core.export.names import AS_IS, spelling_of
from core.export.naming import Naming, choose_names
from core.export.plan import ExportPlan, TensorEdit
from core.export.repairs import Repaired, repair
from core.export.target import with_quantized_cache
from core.inspection import Inspection, imagine, reinspect
from core.naming.conventions import is_leftover
from core.wording import say, without_stop

_ROOM_PER_FILE = 8192
"""Bytes that a file may grow by: a header's padding, and what the file system keeps about it."""


def plan_export(
    inspection: Inspection,
    *,
    engine: str | None = None,
    names: str | None = None,
    fixes: Sequence[Fix] = (),
    scales_from: str | None = None,
) -> ExportPlan:
    """Plan a normalized export for ``engine`` (default: the one inspected under).

    By default the engine's prediction chooses names, shapes and types, and what loads stays. ``names`` asks for a
    convention instead ("portable", "modelopt", "compressed-tensors", "quark", "vllm-runtime", or "as-is"), which is
    followed whatever the engine makes of it. ``fixes`` are repairs; ``scales_from`` is a checkpoint, overlay or side
    file whose k and v scales replace those stored.

    Raises:
        ExportError: the checkpoint is pickled or incomplete, cannot be read, or two scales would have one name.
        UsageError: there is no such engine, convention or repair, or a repair does not apply.
        UnreadableCheckpointError: the file that scales are to come from cannot be read.
    """
    if engine is not None and engine != inspection.settings.engine.value:
        inspection = reinspect(inspection, engine=engine, thresholds=inspection.thresholds)
    if names not in {None, AS_IS}:
        spelling_of(str(names))
    checkpoint = inspection.checkpoint
    _refuse_source(checkpoint)
    files, notes = _files(checkpoint)
    work = repair(inspection, fixes, scales_from)
    if not inspection.scales and (judged := with_quantized_cache(work.inspection)) is not work.inspection:
        # Scales stand where none stood: they are judged under a cache that uses them, and so is what was there before.
        inspection = reinspect(inspection, wish=judged.wish, thresholds=inspection.thresholds)
        work = repair(inspection, fixes, scales_from)
    naming = choose_names(work.inspection, names)
    after = imagine(work.inspection, naming.tensors)
    if names is not None and follow_convention(work.configs, work.inspection.declaration, after.scales, names):
        after = imagine(after, naming.tensors, declaration=work.configs.declaration())
    edits = tuple(edits_of(work.inspection, work.rows, naming))
    title = get_engine(str(inspection.settings.engine.value)).title
    return ExportPlan(
        before=inspection,
        root=checkpoint.root,
        engine=str(inspection.settings.engine.value),
        names=naming.names,
        asked=names is not None,
        edits=edits,
        config_edits=work.configs.edits(),
        files=files,
        space_needed=_space(files, edits),
        unreachable=naming.unreachable,
        predicted=after.deliveries,
        verdict_predicted=after.verdict,
        findings_predicted=tuple(found for found in after.findings if found.code not in work.settled),
        fixes=tuple(work.applied),
        notes=(
            *_notes(work.inspection, naming, edits, after, title),
            *work.notes,
            *_warnings(work, after, title),
            *notes,
        ),
    )


def _refuse_source(checkpoint: Checkpoint) -> None:
    if checkpoint.format.startswith("pytorch"):
        raise ExportError(
            say("tensors in PyTorch's pickled files are not renamed yet"),
            path=checkpoint.place,
            remedy=say("Convert the checkpoint to safetensors first, for example with transformers' save_pretrained."),
        )
    for fault in checkpoint.faults:
        if any(shard.fault == fault for shard in checkpoint.shards):
            raise ExportError(
                say("{problem}, and a copy would be incomplete", problem=fault.problem),
                path=checkpoint.place_of(fault.file),
                remedy=fault.remedy,
            )


def _files(checkpoint: Checkpoint) -> tuple[tuple[SourceFile, ...], tuple[str, ...]]:
    shards = {shard.name: shard.size for shard in checkpoint.shards}
    index = checkpoint.index.file if checkpoint.index is not None else None
    alone = checkpoint.path.is_file() and index is None
    files, notes = list_files(checkpoint.root, shards=shards, index=index, alone=alone)
    if checkpoint.remote is not None:  # of shards only their headers lie here
        return tuple(replace(file, size=shards.get(file.name, file.size)) for file in files), notes
    for file in files:
        if file.role == "shard" and file.size != shards[file.name]:
            raise ExportError(
                say("the file changed since the checkpoint was opened"),
                path=checkpoint.root / file.name,
                remedy=say("Wait until nothing writes to it, open the checkpoint again and repeat the export."),
            )
    return files, notes


def _notes(
    inspection: Inspection, naming: Naming, edits: tuple[TensorEdit, ...], after: Inspection, title: str
) -> Iterable[str]:
    load = after.deliveries.load
    if not naming.proven:
        if load.outcome in {"refused", "unknown"}:
            yield say(
                "{engine} refuses this checkpoint, so that no name could be tried: {reason}."
                if load.outcome == "refused"
                else "{engine} cannot be predicted here, so that no name could be tried: {reason}.",
                engine=title,
                reason=without_stop(load.reason or load.error or ""),
            )
    elif load.outcome == "raises" and load.key is None:
        error = first_sentence(load.error or load.reason)
        yield say("{engine} raises {error} whatever the names.", engine=title, error=error)
    elif load.outcome == "raises" and not is_leftover(load.key or ""):
        yield say(
            "{engine} raises {error} at {key}."
            if naming.asked
            else "{engine} raises {error} at {key} whatever its name.",
            engine=title,
            error=first_sentence(load.error or load.reason),
            key=load.key,
        )
    changes = [edit for edit in edits if edit.action != "kept"]
    if not changes:
        yield say("No tensor has to change; the export is a copy.")
    elif naming.names != AS_IS:
        yield say("Names follow the convention {names!r}.", names=naming.names)
    if naming.asked and naming.names != AS_IS and not spelling_of(naming.names).several:
        wide = sum(fed.scale is not None and fed.scale.numel > 1 for fed in naming.tensors)
        if wide:
            yield (
                say(
                    "{names} stores one number for each layer; {count} scales keep more. --fix per-head stores the "
                    "largest instead.",
                    names=naming.names,
                    count=wide,
                )
            )
    yield from _nameless(naming, after)
    if any(inspection.tensors[at].key.endswith(("_bias", "_zero_point")) for at in naming.dropped):
        yield say("The scales were calibrated together with the offsets left out: large values may be clipped.")
    resolved = after.settings.kv_cache_dtype_resolved
    loaded = any(found.outcome == "loaded" and found.scale is not None for found in after.deliveries.deliveries)
    if loaded and not is_quantized_cache(resolved):
        yield (
            say(
                "With the KV-cache dtype {dtype!r} {engine} does not quantize its cache and runs at 1.0; start it with "
                "--kv-cache-dtype fp8 to use the scales. No config file has to change for that.",
                dtype=resolved,
                engine=title,
            )
        )


def _nameless(naming: Naming, after: Inspection) -> Iterable[str]:
    """What becomes of zero points under a convention that has no name for them."""
    if not naming.asked or naming.names == AS_IS or spelling_of(naming.names).zero_point:
        return
    scales = [fed.scale for fed in naming.tensors if fed.scale is not None]
    kept = [scale for scale in scales if scale.kind == "zero_point" and scale.values]
    if not kept:
        return
    if any(any(scale.values) for scale in kept):
        what = say("Not all of them are zero, and without them the scales do not fit.")
    elif any(finding.code == "zero-points" for finding in after.findings):
        what = say("They are all zero; --fix zero-points leaves them out.")
    else:
        what = say("They are all zero.")
    yield say(
        "The convention {names!r} has no name for zero points: {count} keep the names that they have ({key}). {what}",
        names=naming.names,
        count=len(kept),
        key=kept[0].key,
        what=what,
    )


def _warnings(work: Repaired, after: Inspection, title: str) -> Iterable[str]:
    """What names and repairs cannot mend, or bring about."""
    before = work.inspection.deliveries
    failing = [layer.path for layer in after.deliveries.attention if layer.error is not None]
    if failing and before.load.outcome == "loads" and not any(layer.error for layer in before.attention):
        yield (
            say(
                "{engine} passes these scales over as they are; under names that it takes, it stops at {layer}: mend "
                "their values as well, or keep the names (--names as-is).",
                engine=title,
                layer=failing[0],
            )
        )
    if not work.cleared and (left := leftovers(work.inspection.checkpoint)):
        yield (
            say(
                "{count} tensors that quantizers left behind ({key}) are no part of the model: {engine} "
                "may stop at them. --fix leftovers leaves them out.",
                count=len(left),
                key=left[0].fed.key,
                engine=title,
            )
        )
    dropped = [row.source.scale for row in work.rows if row.dropped and row.source is not None]
    if any(scale is not None and scale.kind != "scale" and any(scale.values) for scale in dropped):
        yield say("The scales were calibrated together with the offsets left out: large values may be clipped.")
    scheme = work.inspection.declaration.kv_scheme
    largest = LARGEST_NUMBER.get(scheme.algorithm or "FP8") if scheme is not None else None
    if scheme is None or (scheme.algorithm or "").lower() == after.settings.kv_cache_dtype_resolved:
        return  # the cache is kept as it is declared
    if largest is not None and largest != LARGEST_NUMBER["FP8"] and work.inspection.scales:
        ratio = largest / LARGEST_NUMBER["FP8"]
        yield (
            say(
                "The scales are those of {scheme}, amax / {largest:g}; an FP8 cache wants amax / 448: "
                "--fix factor={factor:.4g} makes them so.",
                scheme=scheme.label,
                largest=largest,
                factor=ratio,
            )
        )


def _space(files: tuple[SourceFile, ...], edits: tuple[TensorEdit, ...]) -> int:
    names = sum(200 + len(edit.new_key or "") for edit in edits if edit.new_key not in {None, edit.key})
    added = sum(
        math.prod(edit.new_shape or (1,)) * (DTYPES[edit.new_dtype].bits // 8 if edit.new_dtype in DTYPES else 8)
        for edit in edits
        if edit.action in {"duplicated", "added"} or edit.values
    )
    return sum(file.size + _ROOM_PER_FILE for file in files) + names + added + (1 << 20)
