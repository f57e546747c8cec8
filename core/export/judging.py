"""A written export opened like any other checkpoint, and judged."""

from __future__ import annotations

from pathlib import Path

from core.checkpoint import open_checkpoint
from core.errors import ExportError
from core.export.plan import ExportPlan
from core.inspection import Inspection, inspect_opened
from core.progress import Progress
from core.wording import say

_REPORT = say("This is a mistake of KVScope's; please report it with the plan of the export.")


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
