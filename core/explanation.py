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
from core.headline import engine_names
from core.inspection import Inspection
from core.matrix import Column, matrix
from core.naming.near import NearMiss, told
from core.sample import sample
from core.trace import Trace, Tracer
from core.wording import capital, edited, joined, of, plural, say, sentence, short, small, without_stop

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
    lines.append(joined(" ", _help(inspection, delivery)))
    return Explanation(delivery.key, _title(inspection, facts, delivery), tuple(line for line in lines if line))


def _chosen(inspection: Inspection) -> Delivery | None:
    found = [each for each in inspection.deliveries.deliveries if each.outcome in ("raises", "dropped", "ignored")]
    return min(found, key=lambda each: (each.outcome != "raises", not _is_kv(each)), default=None)


def _is_kv(delivery: Delivery) -> bool:
    scale = delivery.scale
    return scale is not None and scale.kind == "scale" and scale.role in (*KV_ROLES, "kv")


def _title(inspection: Inspection, facts: Facts, delivery: Delivery) -> str:
    if delivery.outcome == "raises":
        return say("Why {engine} stops at {key}", engine=facts.engine, key=delivery.key)
    dropped = delivery.outcome == "dropped"
    if not _is_kv(delivery):
        return say(
            "Why {engine} drops {key}" if dropped else "Why {engine} ignores {key}",
            engine=facts.engine,
            key=delivery.key,
        )
    kv = [each for each in inspection.deliveries.deliveries if _is_kv(each)]
    same = [each for each in kv if each.outcome == delivery.outcome]
    if len(same) == len(kv):
        what = say("every k and v scale")
    else:
        what = say("{count:,} of {scales}", count=len(same), scales=plural(len(kv), "k and v scale"))
    return say(
        "Why {engine} drops {scales}, as {key}" if dropped else "Why {engine} ignores {scales}, as {key}",
        engine=facts.engine,
        scales=what,
        key=delivery.key,
    )


def _renaming(trace: Trace) -> str:
    if not trace.steps:
        return say("No rule renames it.")
    lines, before = [], ""
    for cited in trace.steps:
        step = cited.step
        rule = _cited(say("the {kind} rule {rule}", kind=step.rule.kind, rule=step.rule.pattern), cited.source)
        by = step.by or say("the engine")
        again, before = step.by == before, step.by
        if step.after is None:
            does = say("then drops it by {rule}" if again else "{loader} drops it by {rule}", loader=by, rule=rule)
        else:
            does = say(
                "then makes it {name} by {rule}" if again else "{loader} makes it {name} by {rule}",
                loader=by,
                name=_tail(step.after),
                rule=rule,
            )
        lines.append(does)
    return say("{steps}.", steps=joined("; ", lines))


def _tail(text: str) -> str:
    """Names of tensors from the layer's inside on: "…self_attn.attn.k_scale"."""
    return edited(text, _without_stem)


def _without_stem(text: str) -> str:
    return re.sub(r"(?<![\w…])(?:[\w]+\.)*(?:layers|h|blocks|layer)\.\d+\.(?=\w)", "…", text)


def _cited(text: str, source: str) -> str:
    """With file and line in parentheses, where they are known."""
    found = re.search(r"[\w/]+\.py(?::\d+)?", source)
    return say("{text} ({place})", text=text, place=found[0]) if found is not None else text


def _end(trace: Trace) -> str:
    delivery = trace.delivery
    if delivery.outcome == "raises":
        return sentence(say("That ends the load: {error}", error=_tail(short(delivery.error or delivery.reason))))
    reason = _tail(without_stop(delivery.reason))
    layer = trace.layer
    if trace.parameter:
        return say("{reason}; the parameter is {parameter}.", reason=capital(reason), parameter=_tail(trace.parameter))
    if layer is not None and not layer.parameters:
        return say(
            "{reason}; {path} ({cls}) has no scale parameters at all.",
            reason=capital(reason),
            path=_tail(layer.path),
            cls=layer.cls,
        )
    return sentence(reason)


def _nearly(near: NearMiss) -> str:
    why = _tail(near.why)
    if near.kind == "shadowed":
        rule = say("the {kind} rule {rule} of {loader}", kind=near.rule.kind, rule=told(near.rule), loader=near.by)
        return capital(say("{rule} is {why}.", rule=_cited(rule, near.source), why=why))
    return say("Nearly: {why}.", why=_cited(why, near.source))


def _follows(facts: Facts, trace: Trace) -> str:
    layers = facts.receivers
    if trace.delivery.outcome == "raises" or not layers or trace.delivery.scale is None:
        return trace.then
    return say("The load goes on: {end}", end=small(of_layers(facts, layers)))


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
        from core.export.names import AS_IS

        option = "" if here == DEFAULT_ENGINE else f" --engine {here}"
        export = say("an export") if own.names == AS_IS else say("an export with {names} names", names=own.names)
        yield say(
            "What to do: {export} serves {layers} ({command}).",
            export=export,
            layers=of(own.mended, own.expecting, "layer"),
            command=f"kvscope export PATH OUT{option}",
        )
    elif finding is not None:
        yield say("What to do: {fix}", fix=small(finding.fix))
    elif others:
        yield say("What to do: choose another engine than {engine}.", engine=get_engine(here).title)
    if others:
        releases = [column for column in reversed(columns) if column.engine.startswith("vllm-")]
        yield say("The checkpoint as it is loads in {engines}.", engines=engine_names(others, releases))


def _serves_all(column: Column) -> bool:
    return column.outcome == "ok" and column.served == column.expecting > 0
