"""The report as plain text, for terminals and for a machine without a display."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

from core.diagnosis.finding import Finding
from core.diagnosis.options import fix_usage
from core.engines import EngineProfile, get_engine
from core.explanation import explain
from core.inspection import Inspection
from core.naming.mapper import Renaming
from core.output import as_lines
from core.settings import Choice
from core.trace import cite_in, near_renaming

_MARKS = {"ok": "OK", "degraded": "DEGRADED", "fails": "FAILS", "unknown": "UNKNOWN"}
_SEVERITIES = {"error": "ERROR  ", "warning": "WARNING", "info": "info   "}
_SHOWN_KEYS = 3
_STRIP_WIDTH = 100
_WRAP_WIDTH = 118


def text_report(inspection: Inspection) -> str:
    """Verdict first, then where, then why; about a screen for any checkpoint."""
    engine = get_engine(str(inspection.settings.engine.value))
    lines = [
        f"{_MARKS[inspection.verdict.outcome]}: {inspection.verdict.text}",
        "PREDICTED" + (" (run 'kvscope verify' to let the loader confirm it)" if engine.verifiable else ""),
        "",
        *_facts(inspection),
        "",
        *_coverage(inspection),
    ]
    if inspection.findings:
        lines.append("")
        for finding in inspection.findings:
            lines += _finding(finding)
    story = explain(inspection)
    if story is not None:
        lines += ["", f"{story.title}:"]
        for number, line in enumerate(story.lines, 1):
            lines += _wrapped(f"{number}. {line}")
    return as_lines(lines)


def _wrapped(text: str) -> list[str]:
    """A numbered line, broken at spaces where it is longer than a terminal is wide; names and rules stay whole."""
    return textwrap.wrap(
        text,
        _WRAP_WIDTH,
        initial_indent="  ",
        subsequent_indent="     ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def one_line(inspection: Inspection, *others: Inspection) -> str:
    """The verdict on one line, for many checkpoints; ``others`` are the same checkpoint under other engines, which are
    told by their outcome.
    """
    told = f"{_MARKS[inspection.verdict.outcome]:8} {inspection.checkpoint.place}: {inspection.verdict.text}"
    for other in others:
        engine = get_engine(str(other.settings.engine.value)).title
        told += f" {engine}: {_MARKS[other.verdict.outcome]}."
    return told


def _facts(inspection: Inspection) -> list[str]:
    checkpoint, declaration, settings = inspection.checkpoint, inspection.declaration, inspection.settings
    scheme = declaration.kv_scheme
    size = ", ".join(
        (
            checkpoint.format,
            plural(len(checkpoint.shards), "file"),
            plural(len(checkpoint.catalog), "tensor"),
            plural(len(inspection.scales), "KV-scale tensor"),
        )
    )
    declared = f"{scheme.label} ({scheme.source.file}: {scheme.source.field})" if scheme is not None else "no KV scheme"
    cache = f"{settings.kv_cache_dtype.value} -> {settings.kv_cache_dtype_resolved} ({settings.kv_cache_dtype.detail})"
    rows = [
        ("checkpoint", f"{checkpoint.place} ({size})"),
        ("written by", declaration.producer.label if declaration.producer is not None else "not said"),
        ("declared", declared),
        ("engine", get_engine(str(settings.engine.value)).title),
        ("backend", with_origin(settings.method, none="none")),
        ("architecture", with_origin(settings.architecture, none="not known")),
        ("KV cache", cache),
        ("model dtype", with_origin(settings.dtype, none="not known")),
        *(("note", note) for note in inspection.deliveries.notes),
    ]
    return [f"  {name:<13}{value}" for name, value in rows]


def with_origin(choice: Choice, *, none: str) -> str:
    """A setting with where it came from, in parentheses."""
    return f"{choice.value or none} ({choice.detail or choice.origin})"


def coverage_marks(inspection: Inspection) -> dict[str, str]:
    """For k, v and q one character a layer: ``#`` from the checkpoint, ``=`` copied from the other, ``-`` not there and
    not needed, ``.`` at the default although expected, ``!`` the layer fails, ``?`` not known.
    """
    marks: dict[str, str] = {}
    for role in ("k", "v", "q"):
        row = ""
        for layer in inspection.deliveries.attention:
            source = layer.source.get(role)
            if layer.error is not None:
                row += "!"
            elif source is None:
                row += "?"
            elif source == "checkpoint":
                row += "#"
            elif source == "duplicated":
                row += "="
            else:
                row += "." if layer.expects_scales and role != "q" else "-"
        marks[role] = row
    return marks


def _coverage(inspection: Inspection) -> list[str]:
    layers = inspection.deliveries.attention
    counts = Counter(delivery.outcome for delivery in inspection.deliveries.deliveries if delivery.scale is not None)
    lines = []
    if layers:
        lines.append(f"  {plural(len(layers), 'attention layer')} with a KV cache")
        for role, row in coverage_marks(inspection).items():
            shown = row if len(row) <= _STRIP_WIDTH else row[: _STRIP_WIDTH - 3] + "..."
            lines.append(f"    {role} {shown}")
        lines.append("      # from the checkpoint  = copied  . at 1.0  - none needed  ! fails  ? not reached")
    if counts:
        told = (f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts.items())
        lines.append(f"  scales: {', '.join(told)}")
    return lines


def _finding(finding: Finding) -> list[str]:
    lines = [f"{_SEVERITIES[finding.severity]} {finding.title} [{finding.code}]"]
    for name, text in (("", finding.evidence), ("then", finding.consequence), ("fix", finding.fix)):
        if text:
            lines.append(f"          {name + ': ' if name else ''}{text}")
    asked = fix_usage(finding)
    if asked:
        lines.append(f"          on export: {asked}")
    if finding.keys:
        more = f" and {len(finding.keys) - _SHOWN_KEYS} more" if len(finding.keys) > _SHOWN_KEYS else ""
        lines.append(f"          {', '.join(finding.keys[:_SHOWN_KEYS])}{more}")
    return lines


def mapping_text(renamings: Sequence[Renaming], engine: EngineProfile, method: str | None = None) -> Iterable[str]:
    """``kvscope map`` as text: every name with its rules, and where each stands in the engine's sources; the rule that
    came nearest where a name would need one part changed.
    """
    for renaming in renamings:
        yield f"{renaming.name} -> {renaming.result if renaming.result is not None else '(dropped)'}"
        for step in renaming.steps:
            source = cite_in(engine, step.rule, by=step.by)
            by = f"{step.by}: " if step.by else ""
            yield f"    {by}{step.rule}" + (f"  ({source})" if source else "")
        if not renaming.steps:
            yield "    no rule matches"
        if (near := near_renaming(engine, renaming, method)) is not None:
            yield f"    nearly: {near.why}  ({near.source})"


def plural(count: int, noun: str) -> str:
    """A count with its noun: 1 layer, 2 layers."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
