"""An export's plan and result, as data (schema ``kvscope.export/1``) and as text."""

from __future__ import annotations

from collections import Counter
from typing import Any

from core.diagnosis.options import fix_usage
from core.export.names import AS_IS
from core.export.plan import ExportPlan, TensorEdit
from core.export.result import ExportResult
from core.output import as_lines
from core.wording import plural, spread

SCHEMA = "kvscope.export/1"
_SHOWN = 4


def plan_as_data(plan: ExportPlan) -> dict[str, Any]:
    """Everything the export would do; tensors without an edit stay byte for byte."""
    return {
        "schema": SCHEMA,
        "source": plan.source.place,
        "engine": plan.engine,
        "kv_cache_dtype": plan.before.settings.kv_cache_dtype.value,
        "names": plan.names,
        "names_asked": plan.asked,
        "fixes": [
            {"code": fix.code, "value": fix.value, "reason": fix.reason, "keys": list(fix.keys)} for fix in plan.fixes
        ],
        "edits": [
            {
                "key": edit.key,
                "file": edit.file,
                "action": edit.action,
                "new_key": edit.new_key,
                "new_shape": list(edit.new_shape) if edit.new_shape is not None else None,
                "new_dtype": edit.new_dtype,
                "values": list(edit.values),
                "fixes": list(edit.fixes),
                "reason": edit.reason,
            }
            for edit in plan.edits
        ],
        "config_edits": [
            {
                "file": edit.file,
                "changes": [
                    {"field": change.field, "before": change.before, "after": change.after} for change in edit.changes
                ],
                "diff": edit.diff,
                "reason": edit.reason,
            }
            for edit in plan.config_edits
        ],
        "files_copied": list(plan.files_copied),
        "space_needed": plan.space_needed,
        "unreachable": [{"keys": list(each.keys), "reason": each.reason} for each in plan.unreachable],
        "notes": list(plan.notes),
        "verdict_before": {"outcome": plan.verdict_before.outcome, "text": plan.verdict_before.text},
        "verdict_predicted": {"outcome": plan.verdict_predicted.outcome, "text": plan.verdict_predicted.text},
        "repairs_left": [told for finding in plan.findings_predicted if (told := fix_usage(finding))],
    }


def plan_text(plan: ExportPlan) -> str:
    """The plan for people: the sum, an example of each kind of change, what cannot be reached."""
    counts = Counter(edit.action for edit in plan.edits)
    told = ", ".join(f"{count} {action}" for action, count in counts.items()) or "no KV scales"
    lines = [
        f"judged with --kv-cache-dtype {plan.before.settings.kv_cache_dtype.value}",
        f"before: {plan.verdict_before.outcome.upper()}: {plan.verdict_before.text}",
        f"plan for {plan.engine}: {told}" + (f", named as {plan.names}" if plan.names != AS_IS else ""),
    ]
    for fix in plan.fixes:
        keys = f" ({plural(len(fix.keys), 'tensor')})" if fix.keys else ""
        lines.append(f"  repair {fix.code}{f'={fix.value}' if fix.value else ''}: {fix.reason}{keys}")
    for action in dict.fromkeys(edit.action for edit in plan.changes):
        edits = [edit for edit in plan.changes if edit.action == action]
        lines += [f"  {_edit(edit)}" for edit in edits[:_SHOWN]]
        if len(edits) > _SHOWN:
            lines.append(f"  ... and {len(edits) - _SHOWN} more {action}")
        lines.append(f"    why: {edits[0].reason}")
    for config in plan.config_edits:
        lines.append(f"  {config.file}: {config.reason}")
        lines += [f"    {line}" for line in config.diff.splitlines()]
    lines += [f"  not reachable: {len(each.keys)} scales: {each.reason}" for each in plan.unreachable]
    lines += [f"  note: {note}" for note in plan.notes]
    lines.append(f"predicted: {plan.verdict_predicted.outcome.upper()}: {plan.verdict_predicted.text}")
    left = [finding for finding in plan.findings_predicted if finding.severity != "info" and fix_usage(finding)]
    lines += [f"  can be mended: {finding.title}: {fix_usage(finding)}" for finding in left]
    return as_lines(lines)


def _edit(edit: TensorEdit) -> str:
    if edit.action == "dropped":
        return f"dropped    {edit.key}"
    moves = edit.key and edit.new_key not in (None, edit.key)
    name = f"{edit.key} -> {edit.new_key}" if moves else edit.key or str(edit.new_key)
    shape = f" as {list(edit.new_shape)}" if edit.new_shape is not None else ""
    values = f" = {spread(edit.values)}" if edit.values else ""
    return f"{edit.action:<10} {name}{shape}{values}"


def result_as_data(result: ExportResult) -> dict[str, Any]:
    """What was written and how it is judged."""
    return {
        "out": str(result.out),
        "bytes_written": result.bytes_written,
        "linked": result.linked,
        "cloned": result.cloned,
        "copied": result.copied,
        "resumed": list(result.resumed),
        "seconds": result.seconds,
        "verified": result.verified,
        "verify": result.placement.verify,
        "result_notes": list(result.notes),
        "verdict_after": {"outcome": result.verdict_after.outcome, "text": result.verdict_after.text},
    }


def result_text(result: ExportResult) -> str:
    """The result for people."""
    lines = [f"after:  {result.verdict_after.outcome.upper()}: {result.verdict_after.text}"]
    parts = [("linked", result.linked), ("cloned", result.cloned), ("copied", result.copied)]
    told = ", ".join(f"{count:,} {word}" for word, count in parts if count)
    lines.append(
        f"wrote {result.out}: {result.bytes_written:,} bytes in {result.seconds:.1f} s ({told or 'none anew'})"
    )
    if result.resumed:
        lines.append(f"  {len(result.resumed)} files were there from an interrupted export")
    if result.verified:
        level = (
            "compared with the source" if result.placement.verify == "all" else "compared with the source in samples"
        )
        lines.append(f"  {result.verified} tensors {level}: equal")
    elif not result.resumed:
        lines.append("  nothing was compared with the source")
    lines += [f"  note: {note}" for note in result.notes]
    return as_lines(lines)
