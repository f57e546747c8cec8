"""Every real checkpoint exported for an engine and judged anew: ``python -m tests.core.export.every_checkpoint [OUT]``.

Prints a table of the verdicts before and after, without repairs and with those that the findings name. With OUT the
exports stay there, for the real engine to load.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.diagnosis import BY_ITSELF, Finding, options_of
from core.diagnosis.finding import Verdict
from core.errors import KVScopeError, UsageError
from core.export import ExportPlan, WriteOptions, plan_export, write_export
from core.export.fixes import Fix
from core.export.target import with_quantized_cache
from core.inspection import Inspection, inspect
from tests.places import checkpoint_folders

ENGINE = "vllm-0.33.0"
_NUMBER = "0.05"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """One export: the verdicts, the layers that can receive both k and v, and those that do before and after."""

    name: str
    before: Verdict
    after: Verdict | None
    can: int = 0
    do_before: int = 0
    do: int = 0
    fixes: tuple[Fix, ...] = ()
    refused: str = ""


def receiving(inspection: Inspection) -> tuple[int, int]:
    """How many attention layers have parameters for k and v, and how many end with both from the checkpoint."""
    layers = [
        layer
        for layer in inspection.deliveries.attention
        if layer.expects_scales and {"k_scale", "v_scale"} <= set(layer.parameters)
    ]
    filled = [layer for layer in layers if {layer.source.get("k"), layer.source.get("v")} == {"checkpoint"}]
    return len(layers), len(filled)


def usual_fix(finding: Finding) -> Iterator[Fix]:
    """The fixes of a finding from the most careful to the plainest: a number is typed in where nothing else helps."""
    for option in options_of(finding) if finding.remedy not in BY_ITSELF else ():
        if option.value == "NUMBER":
            yield Fix(finding.code, _NUMBER)
        elif not option.typed and option.value != "drop":
            yield Fix(finding.code, option.value)


def plan_with_repairs(inspection: Inspection) -> ExportPlan:
    """The plan under the usual repair of every error and warning, added one by one while they help."""
    plan = plan_export(inspection)
    fixes: list[Fix] = []
    for _ in range(8):
        for finding in plan.findings_predicted:
            if finding.severity == "info" or finding.code in {fix.code for fix in fixes}:
                continue
            better = next(_tried(inspection, fixes, finding), None)
            if better is not None:
                plan, fix = better
                fixes.append(fix)
                break
        else:
            break
    return plan


def _tried(inspection: Inspection, fixes: list[Fix], finding: Finding) -> Iterator[tuple[ExportPlan, Fix]]:
    for fix in usual_fix(finding):
        try:
            plan = plan_export(inspection, fixes=[*fixes, fix])
        except UsageError:
            continue
        if finding.code not in {left.code for left in plan.findings_predicted} or finding.code == "load-raises":
            yield plan, fix


def export_one(name: str, folder: Path, out: Path, *, repairs: bool) -> Exported:
    """Export one checkpoint to ``out`` and judge what was written."""
    inspection = with_quantized_cache(inspect(folder, engine=ENGINE))
    before = receiving(inspection)
    try:
        plan = plan_with_repairs(inspection) if repairs else plan_export(inspection)
        result = write_export(plan, out, options=WriteOptions(verify="all"))
    except KVScopeError as error:
        return Exported(name=name, before=inspection.verdict, after=None, refused=str(error))
    can, do = receiving(result.after)
    return Exported(
        name=name,
        before=inspection.verdict,
        after=result.verdict_after,
        can=can,
        do_before=before[1],
        do=do,
        fixes=tuple(Fix(fix.code, fix.value) for fix in plan.fixes),
    )


def export_all(out: Path, *, repairs: bool) -> list[Exported]:
    """Every checkpoint at hand, each to a folder of its own."""
    rows = []
    for name, folder in checkpoint_folders().items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        rows.append(export_one(name, folder, target, repairs=repairs))
    return rows


def table(rows: list[Exported]) -> str:
    """The checkpoints whose verdict or repairs are worth a line, then the counts."""
    lines = []
    for row in rows:
        after = row.after.outcome if row.after is not None else "refused"
        if (row.before.outcome, after) == ("ok", "ok"):
            continue
        fixes = " ".join(map(str, row.fixes))
        lines.append(
            f"{row.name:48} {row.before.outcome:9} -> {after:9} {row.do_before} -> {row.do} of {row.can} {fixes}"
        )
        if row.after is None or row.after.outcome != "ok":
            lines.append(f"    {row.refused or (row.after.text if row.after is not None else '')}")
    before: Counter[str] = Counter(row.before.outcome for row in rows)
    after_all = Counter(row.after.outcome if row.after is not None else "refused" for row in rows)
    lines.append(f"{len(rows)} checkpoints, before: {_counts(before)}")
    lines.append(f"{len(rows)} checkpoints, after:  {_counts(after_all)}")
    received = f"{sum(row.do_before for row in rows)} before, {sum(row.do for row in rows)} after"
    lines.append(f"layers with k and v from the checkpoint: {received}, of {sum(row.can for row in rows)} that can")
    return "\n".join(lines)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{counted.get(word, 0)} {word}" for word in ("ok", "degraded", "fails", "unknown", "refused"))


def main() -> None:
    """Print both tables."""
    with tempfile.TemporaryDirectory() as scratch:
        for repairs in (False, True):
            folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch)
            where = folder / ("repaired" if repairs else "plain")
            print(f"for {ENGINE}, {'with' if repairs else 'without'} repairs")
            print(table(export_all(where, repairs=repairs)), end="\n\n")


if __name__ == "__main__":
    main()
