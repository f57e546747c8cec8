"""WHY: the ordered story of one scale, from its key in the checkpoint to the number its layer ends with.

Everything told here was decided by the core; this module puts it into order and words, for the panel, the clipboard
and JSON alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app import text
from app.digest import Digest, Row
from app.status import Status
from app.text import translate
from app.theme.palettes import Tone
from app.theme.status import meaning, tone, word
from core.diagnosis.finding import Finding, Severity
from core.engines import get_engine
from core.engines.outcome import AttentionLayer
from core.naming.near import NearMiss, told
from core.report.contract import trace_as_data
from core.trace import CitedStep, Trace, Tracer
from core.wording import sentence

_TONES: Mapping[Severity, Tone] = {"error": "error", "warning": "warning", "info": "info"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One step of the story.

    ``name`` is the name the step begins with, ``becomes`` what it turns it into (None: it stays). ``facts`` are
    (label, value) pairs, ``text`` a sentence, ``source`` where the knowledge comes from.
    """

    title: str
    tone: Tone = "neutral"
    chip: str = ""
    name: str = ""
    becomes: str | None = None
    facts: tuple[tuple[str, str], ...] = ()
    text: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One scale's story and its outcome."""

    row: Row
    engine: str
    beats: tuple[Beat, ...]
    trace: Trace | None = None

    def as_text(self, *, sources: bool = True) -> str:
        """For the clipboard or an issue; without ``sources`` to be read aloud."""
        lines = [f"{self.row.key or self.row.target}: {word(self.row.status)} ({self.engine})", ""]
        for number, beat in enumerate(self.beats, 1):
            chip = f" [{beat.chip}]" if beat.chip else ""
            lines.append(f"{number}. {beat.title}{chip}")
            if beat.name:
                lines.append(f"   {beat.name}")
            if beat.becomes is not None:
                lines.append(f"   -> {beat.becomes}")
            lines += [f"   {label}: {value}" for label, value in beat.facts]
            if beat.text:
                lines.append(f"   {beat.text}")
            if beat.source and sources:
                lines.append(f"   ({beat.source})")
        return "\n".join(lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """For scripts; numbers that JSON has no word for are written as strings."""
        return row_as_dict(self.row, self.trace) | {"engine": self.engine}


def tell(digest: Digest, row: Row, tracer: Tracer | None = None) -> Story:
    """The story of ``row``; ``tracer`` is that of the digest's inspection, for those who tell several."""
    engine = get_engine(str(digest.inspection.settings.engine.value)).title
    trace = (tracer or Tracer(digest.inspection)).trace(row.delivery) if row.delivery is not None else None
    unread = tuple(shard.name for shard in digest.inspection.checkpoint.shards if shard.fault is not None)
    beats = [_beginning(row, unread)]
    if trace is not None:
        beats += [_rule(cited) for cited in trace.steps]
    if trace is not None and not trace.steps:
        beats.append(
            Beat(
                title=translate("Story", "No rule matches"),
                text=translate("Story", "The engine looks for the name as it stands."),
            )
        )
    if trace is not None:
        beats += [*map(_near, trace.near), _target(row, trace), _outcome(row, trace, engine)]
    if row.attention is not None:
        beats.append(_end(row, row.attention, unread=bool(unread)))
    beats += [_finding(finding) for finding in digest.findings_by_id.get(row.id, ())]
    return Story(row=row, engine=engine, beats=tuple(beats), trace=trace)


def _beginning(row: Row, unread: Sequence[str]) -> Beat:
    if row.missing and unread:
        return Beat(
            title=translate("Story", "In the checkpoint"),
            tone="info",
            chip=translate("Story", "not known"),
            text=translate(
                "Story", "No tensor that could be read reaches {parameter}. {files}: cannot be read, and may hold it."
            ).format(parameter=row.target, files=", ".join(unread)),
        )
    if row.missing:
        return Beat(
            title=translate("Story", "In the checkpoint"),
            tone=tone(row.status),
            chip=translate("Story", "no tensor"),
            text=translate("Story", "No tensor of the checkpoint reaches {parameter}.").format(parameter=row.target),
        )
    facts = [(translate("Story", "file"), row.file)] if row.file else []
    if row.dtype:
        facts.append((translate("Story", "stored as"), f"{row.dtype}, {text.shape(row.shape)}"))
    if row.values:
        facts.append((translate("Story", "value"), _all_values(row.values)))
    if row.scale is not None and row.scale.quantity != "scale":
        facts.append((translate("Story", "quantity"), row.scale.quantity))
    if row.convention:
        facts.append((translate("Story", "convention"), row.convention))
    fault = row.scale.fault if row.scale is not None else None
    return Beat(
        title=translate("Story", "In the checkpoint"),
        tone="error" if fault else "neutral",
        name=row.key,
        facts=tuple(facts),
        text=text.spoken(fault or ""),
    )


def _all_values(values: Sequence[float]) -> str:
    if len(values) == 1:
        return text.exact(values[0])
    shown = ", ".join(text.number(value) for value in values[:8])
    return (
        shown
        if len(values) <= 8
        else translate("Story", "{shown}, … ({count} values)").format(shown=shown, count=len(values))
    )


def _rule(cited: CitedStep) -> Beat:
    step = cited.step
    facts = [(translate("Story", "pattern"), step.rule.pattern)]
    if step.rule.replacement is not None:
        facts.append((translate("Story", "replaced by"), step.rule.replacement or translate("Story", "nothing")))
    if step.by:
        facts.append((translate("Story", "applied by"), step.by))
    return Beat(
        title=translate("Story", "Rule drops the tensor") if step.after is None else translate("Story", "Rule renames"),
        tone="error" if step.after is None else "info",
        chip=str(step.rule.kind),
        name=step.before,
        becomes=step.after,
        facts=tuple(facts),
        source=cited.source,
    )


def _near(near: NearMiss) -> Beat:
    chips = {
        "shadowed": translate("Story", "shadowed"),
        "guarded": translate("Story", "excluded"),
        "anchored": translate("Story", "one part off"),
        "elsewhere": translate("Story", "other backend"),
        "unasked": translate("Story", "not asked"),
    }
    return Beat(
        title=translate("Story", "Nearly matched"),
        tone="warning",
        chip=chips[near.kind],
        facts=(
            (translate("Story", "rule"), f"{near.rule.kind}: {told(near.rule)}"),
            (translate("Story", "held by"), text.spoken(near.by)),
        ),
        text=text.spoken(sentence(near.why)),
        source=near.source,
    )


def _target(row: Row, trace: Trace) -> Beat:
    if row.reached:
        facts = []
        leaf = row.target.rpartition(".")[2]
        if row.attention is not None:
            facts.append((translate("Story", "layer"), row.attention.cls))
            if row.attention.kv_method:
                facts.append((translate("Story", "created by"), row.attention.kv_method))
            if leaf in row.attention.parameters:
                facts.append((translate("Story", "parameter shape"), text.shape(row.attention.parameters[leaf])))
        return Beat(title=translate("Story", "Parameter found"), tone="ok", name=row.target, facts=tuple(facts))
    if row.delivery is not None and row.delivery.outcome == "not_reached":
        return Beat(title=translate("Story", "Parameter not looked for"), name=row.target)
    known: list[tuple[str, str]] = []
    if row.attention is not None:
        held = ", ".join(sorted(row.attention.parameters)) or translate("Story", "none")
        known.append((translate("Story", "the layer has"), f"{row.attention.path}: {held}"))
    if trace.parameter:
        known.append((translate("Story", "it waits for"), trace.parameter))
    if trace.verbatim:
        known.append((translate("Story", "named so"), text.spoken(trace.verbatim)))
    return Beat(title=translate("Story", "No such parameter"), tone="error", name=row.target, facts=tuple(known))


def _outcome(row: Row, trace: Trace, engine: str) -> Beat:
    facts = []
    if row.delivery is not None and row.delivery.error and row.delivery.error not in row.reason:
        facts.append((translate("Story", "exception"), text.spoken(row.delivery.error)))
    if not row.reached and trace.then and sentence(row.reason) != trace.then:
        facts.append((translate("Story", "next"), text.spoken(trace.then)))
    return Beat(
        title=translate("Story", "What {engine} does").format(engine=engine),
        tone=tone(row.status) if row.status is not Status.SUSPICIOUS else "ok",
        chip=word(Status(row.delivery.outcome)) if row.delivery is not None else "",
        text=text.spoken(row.reason) or meaning(row.status),
        facts=tuple(facts),
    )


def _end(row: Row, layer: AttentionLayer, *, unread: bool) -> Beat:
    if layer.error is not None:
        return Beat(
            title=translate("Story", "After loading"),
            tone="error",
            name=layer.path,
            facts=((translate("Story", "exception"), text.spoken(layer.error)),),
        )
    facts = []
    sources = {
        "checkpoint": translate("Story", "from the checkpoint"),
        "duplicated": translate("Story", "copied from the other role"),
        "default": translate("Story", "the engine's default: nothing arrived"),
        "forced": translate("Story", "set by the engine"),
    }
    roles = ("k", "v") if row.role in ("kv", "") else (row.role,)
    for role in roles:
        if role not in layer.final:
            continue
        facts.append((f"{role}_scale", f"{text.number(layer.final[role])}  ({sources[layer.source[role]]})"))
        heads = layer.per_head.get(role, ())
        if heads:
            facts.append((translate("Story", "per head"), _all_values(heads)))
    if not facts:
        return Beat(
            title=translate("Story", "The layer ends with nothing"),
            name=layer.path,
            text=translate("Story", "The load is over before it gets a value."),
        )
    if row.missing and unread:
        return Beat(
            title=translate("Story", "The layer would end with"),
            tone="info",
            name=layer.path,
            facts=tuple(facts),
            text=translate("Story", "That is, if the unreadable files hold nothing for it."),
        )
    own = all(layer.source.get(role) in ("checkpoint", None) for role in roles)
    return Beat(
        title=translate("Story", "The layer ends with"),
        tone="ok" if own else tone(row.status),
        name=layer.path,
        facts=tuple(facts),
    )


def _finding(finding: Finding) -> Beat:
    facts = (
        (translate("Story", "consequence"), text.spoken(finding.consequence)),
        (translate("Story", "fix"), text.spoken(finding.fix)),
    )
    return Beat(
        title=text.spoken(finding.title),
        tone=_TONES[finding.severity],
        chip=finding.code,
        text=text.spoken(finding.evidence),
        facts=tuple(fact for fact in facts if fact[1]),
        source=finding.source,
    )


def row_as_dict(row: Row, trace: Trace | None = None) -> dict[str, Any]:
    """A row as the report's JSON writes a scale; with its ``trace`` also where the rules stand and what came near."""
    delivery = row.delivery
    final: dict[str, Any] = {}
    if row.attention is not None:
        final = {role: _plain(value) for role, value in row.attention.final.items()}
    return {
        "key": row.key or None,
        "file": row.file or None,
        "role": row.role,
        "kind": row.kind,
        "layer": row.layer,
        "module": row.module,
        "convention": row.convention or None,
        "dtype": row.dtype or None,
        "shape": list(row.shape),
        "values": [_plain(value) for value in row.values],
        "target": row.target if row.reached or row.missing else None,
        "outcome": delivery.outcome if delivery is not None else str(row.status),
        "steps": [
            {
                "rule": str(step.rule),
                "before": step.before,
                "after": step.after,
                "by": step.by,
                "source": step.rule.source,
            }
            for step in (delivery.steps if delivery is not None else ())
        ],
        "reason": row.reason,
        "error": delivery.error if delivery is not None else None,
        "layer_ends_with": final,
        **(trace_as_data(trace) if trace is not None else {}),
    }


def _plain(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
