"""Why scales do not arrive, in five lines: the renaming, its end, what nearly helped, what follows, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from core.diagnosis.consequence import of_layers
from core.diagnosis.facts import KV_ROLES, Facts
from core.diagnosis.thresholds import Thresholds
from core.engines import DEFAULT_ENGINE, get_engine
from core.engines.outcome import Delivery
from core.export.names import AS_IS
from core.headline import engine_names
from core.inspection import Inspection
from core.matrix import Column, matrix
from core.naming.near import NearMiss, told
from core.sample import sample
from core.trace import Trace, Tracer
from core.wording import capital, of, plural, sentence, short, small

_MANY = 1_000
"""Scales, one layer of each kind, beyond which nobody is asked what an export would do, or another engine."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The title says what is explained, and on which tensor it is shown; then at most five lines."""

    key: str
    title: str
    lines: tuple[str, ...]


def explain(inspection: Inspection) -> Explanation | None:
    """The explanation for the tensor at which the load ends, else for the first that does not arrive, k and v before
    others; None where all do. Asks every engine whether it does better.
    """
    delivery = _chosen(inspection)
    if delivery is None:
        return None
    facts = Facts(inspection.case, Thresholds())
    trace = Tracer(inspection).trace(delivery)
    lines = [_renaming(trace), _end(trace), *map(_nearly, trace.near[:1]), _follows(facts, trace)]
    lines.append(" ".join(_help(inspection, delivery)))
    return Explanation(delivery.key, _title(inspection, facts, delivery), tuple(line for line in lines if line))


def _chosen(inspection: Inspection) -> Delivery | None:
    found = [each for each in inspection.deliveries.deliveries if each.outcome in ("raises", "dropped", "ignored")]
    return min(found, key=lambda each: (each.outcome != "raises", not _is_kv(each)), default=None)


def _is_kv(delivery: Delivery) -> bool:
    scale = delivery.scale
    return scale is not None and scale.kind == "scale" and scale.role in (*KV_ROLES, "kv")


def _title(inspection: Inspection, facts: Facts, delivery: Delivery) -> str:
    if delivery.outcome == "raises":
        return f"Why {facts.engine} stops at {delivery.key}"
    does = "drops" if delivery.outcome == "dropped" else "ignores"
    if not _is_kv(delivery):
        return f"Why {facts.engine} {does} {delivery.key}"
    kv = [each for each in inspection.deliveries.deliveries if _is_kv(each)]
    same = [each for each in kv if each.outcome == delivery.outcome]
    what = "every k and v scale" if len(same) == len(kv) else f"{len(same):,} of {plural(len(kv), 'k and v scale')}"
    return f"Why {facts.engine} {does} {what}, as {delivery.key}"


def _renaming(trace: Trace) -> str:
    if not trace.steps:
        return "No rule renames it."
    lines, before = [], ""
    for cited in trace.steps:
        step = cited.step
        by = "then" if step.by == before else step.by or "the engine"
        does = f"makes it {_tail(step.after)}" if step.after is not None else "drops it"
        lines.append(f"{by} {does} by the {step.rule.kind} rule {step.rule.pattern}{_where(cited.source)}")
        before = step.by
    return f"{'; '.join(lines)}."


def _tail(text: str) -> str:
    """Names of tensors from the layer's inside on: "…self_attn.attn.k_scale"."""
    return re.sub(r"(?<![\w…])(?:[\w]+\.)*(?:layers|h|blocks|layer)\.\d+\.(?=\w)", "…", text)


def _where(source: str) -> str:
    """File and line, in parentheses."""
    found = re.search(r"[\w/]+\.py(?::\d+)?", source)
    return f" ({found[0]})" if found is not None else ""


def _end(trace: Trace) -> str:
    delivery = trace.delivery
    if delivery.outcome == "raises":
        return sentence(f"That ends the load: {_tail(short(delivery.error or delivery.reason))}")
    reason = _tail(delivery.reason.rstrip("."))
    layer = trace.layer
    if trace.parameter:
        return f"{capital(reason)}; the parameter is {_tail(trace.parameter)}."
    if layer is not None and not layer.parameters:
        return f"{capital(reason)}; {_tail(layer.path)} ({layer.cls}) has no scale parameters at all."
    return sentence(reason)


def _nearly(near: NearMiss) -> str:
    if near.kind == "shadowed":
        rule = f"the {near.rule.kind} rule {told(near.rule)} of {near.by}{_where(near.source)}"
        return capital(f"{rule} is {_tail(near.why)}.")
    return f"Nearly: {_tail(near.why)}{_where(near.source)}."


def _follows(facts: Facts, trace: Trace) -> str:
    layers = facts.receivers
    if trace.delivery.outcome == "raises" or not layers or trace.delivery.scale is None:
        return trace.then
    return f"The load goes on: {small(of_layers(facts, layers))}"


def _help(inspection: Inspection, delivery: Delivery) -> Iterator[str]:
    """What brings the scales home: an export, another option, another engine; the finding's own advice else."""
    here = str(inspection.settings.engine.value)
    asked = sample(inspection)
    few = len(asked.scales) <= _MANY
    own = matrix(asked, [here], mends=few)[0]
    columns = matrix(asked, mends=False) if few else ()
    others = [column for column in columns if column.engine != here and _serves_all(column)]
    finding = next((found for found in inspection.findings if delivery.key in found.keys and found.fix), None)
    if own.mend == "export":
        how = "" if own.names == AS_IS else f" with {own.names} names"
        option = "" if here == DEFAULT_ENGINE else f" --engine {here}"
        yield (
            f"What to do: an export{how} serves {of(own.mended, own.expecting, 'layer')} "
            f"(kvscope export PATH OUT{option})."
        )
    elif finding is not None:
        yield f"What to do: {small(finding.fix)}"
    elif others:
        yield f"What to do: choose another engine than {get_engine(here).title}."
    if others:
        releases = [column for column in reversed(columns) if column.engine.startswith("vllm-")]
        yield f"The checkpoint as it is loads in {engine_names(others, releases)}."


def _serves_all(column: Column) -> bool:
    return column.outcome == "ok" and column.served == column.expecting > 0
