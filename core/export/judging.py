"""A written export opened like any other checkpoint, and judged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.checkpoint import Checkpoint, open_checkpoint
from core.engines import Fed, get_engine
from core.errors import ExportError
from core.export.plan import ExportPlan
from core.inspection import Inspection, imagine, inspect_opened
from core.ordering import natural
from core.progress import Progress
from core.quantization import read_declaration
from core.wording import say

OVERLAY = "model-kvscales.safetensors"
_REPORT = say("This is a mistake of KVScope's; please report it with the plan of the export.")


def judge_beside(plan: ExportPlan, texts: Mapping[str, bytes]) -> Inspection:
    """What an overlay comes to beside shards that are not on this machine: their tensors and its own, under the configs
    that it brings.
    """
    source, name = plan.source, overlay_name(plan)
    old = {tensor.key for tensor in plan.before.tensors}
    new = [
        (name, Fed(found.key, found.scale.shape, found.scale.values, replace(found.scale, file=name)))
        for found in plan.predicted.deliveries
        if found.scale is not None and found.key not in old
    ]
    read = sorted([*_with_files(plan.before), *new], key=lambda each: (natural(each[0]), each[1].key))
    declaration = read_declaration(_Configs(source, texts), tensor_names=source.catalog.names)
    return imagine(plan.before, [fed for _, fed in read], declaration=declaration)


def overlay_name(plan: ExportPlan) -> str:
    """What the shard of an overlay is called."""
    taken = {file.name for file in plan.files}
    names = [OVERLAY, *(f"model-kvscales-{number}.safetensors" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)


def _with_files(inspection: Inspection) -> Iterator[tuple[str, Fed]]:
    """The tensors with the shards that hold them."""
    catalog = inspection.checkpoint.catalog
    for fed in inspection.tensors:
        row = catalog.index_of(fed.key) if fed.scale is None else None
        yield fed.scale.file if fed.scale is not None else catalog.shard(row) if row is not None else "", fed


def as_overlay(plan: ExportPlan) -> ExportPlan:
    """The plan with what is predicted for its overlay: the old names stay in their shards, beside the new ones."""
    beside = judge_beside(plan, {edit.file: edit.text.encode() for edit in plan.config_edits})
    notes = plan.notes
    engine = get_engine(plan.engine).title
    told = say(
        "Old names stay in their shards, where {engine} makes nothing of them: the verdict counts them as scales that "
        "end nowhere.",
        engine=engine,
    )
    if told not in notes and any(edit.action != "added" for edit in plan.changes):
        notes = (*notes, told)
    written_anew = {fix.code for fix in plan.fixes} & {"unindexed-scales", "index-disagrees"}
    return replace(
        plan,
        verdict_predicted=beside.verdict,
        findings_predicted=tuple(finding for finding in beside.findings if finding.code not in written_anew),
        notes=notes,
    )


class _Configs:
    """The configs of a checkpoint, some of them changed. A source for :func:`core.quantization.read_declaration`."""

    def __init__(self, checkpoint: Checkpoint, texts: Mapping[str, bytes]) -> None:
        self._checkpoint = checkpoint
        self._texts = texts

    def config(self, name: str, /) -> Mapping[str, Any] | None:
        if name not in self._texts:
            return self._checkpoint.config(name)
        changed: dict[str, Any] = json.loads(self._texts[name], strict=False)
        return changed

    def config_names(self) -> tuple[str, ...]:
        return tuple(sorted({*self._checkpoint.config_names(), *(n for n in self._texts if n.endswith(".json"))}))


def judge_result(plan: ExportPlan, folder: Path, progress: Progress) -> Inspection:
    """Open the written folder like any other checkpoint, and judge it under the settings that the plan was made for.

    Raises:
        ExportError: it has a fault that the source has not, or its index does not agree with its shards.
    """
    after = inspect_opened(
        open_checkpoint(folder, progress=progress),
        engine=plan.engine,
        wish=plan.before.wish,
        thresholds=plan.before.thresholds,
        progress=progress,
    )
    faults = {fault.message for fault in after.checkpoint.faults} - {fault.message for fault in plan.source.faults}
    if faults:
        raise ExportError(
            say("the written checkpoint has a fault: {fault}", fault=min(faults)), path=folder, remedy=_REPORT
        )
    index, old_index = after.checkpoint.index, plan.source.index
    if index is not None and not index.agrees and (old_index is None or old_index.agrees):
        raise ExportError(
            say("the written index does not agree with the shards"), path=folder / index.file, remedy=_REPORT
        )
    return after
