"""Two engines on one key: where their ways part, and what each makes of it from there."""

from __future__ import annotations

from core.engines.outcome import Delivery
from core.inspection import Inspection
from core.naming.mapper import Step
from core.wording import joined, say, sentence, short, without_stop


def ends_alike(left: Delivery, right: Delivery) -> bool:
    """Whether a tensor arrives in both engines, or in neither by the same outcome; parameters may have other names."""
    return left.outcome == right.outcome


def keys_apart(left: Inspection, right: Inspection) -> tuple[str, ...]:
    """The keys of one checkpoint that end differently under two engines."""
    others = {delivery.key: delivery for delivery in right.deliveries.deliveries}
    return tuple(
        mine.key
        for mine in left.deliveries.deliveries
        if (other := others.get(mine.key)) is None or not ends_alike(mine, other)
    )


def why_they_differ(left: Delivery, right: Delivery, *, left_engine: str, right_engine: str) -> str:
    """A line for each engine from the step at which they part; "" where both end alike."""
    if ends_alike(left, right):
        return ""
    common = 0
    for mine, other in zip(left.steps, right.steps, strict=False):
        if mine.after != other.after:
            break
        common += 1
    first, second = (
        sentence(say("{engine}: {way}", engine=engine, way=_told(delivery, delivery.steps[common:])))
        for engine, delivery in ((left_engine, left), (right_engine, right))
    )
    return say("{first}\n{second}", first=first, second=second)


def _told(delivery: Delivery, steps: tuple[Step, ...]) -> str:
    parts = [_step(step) for step in steps]
    match delivery.outcome:
        case "loaded":
            told = (
                say("{parameter} takes it", parameter=delivery.target) if not parts else say("that parameter takes it")
            )
            parts.append(told)
        case "raises":
            parts.append(short(delivery.error or delivery.reason))
        case _:
            parts.append(without_stop(delivery.reason))
    return joined(", then ", parts)


def _step(step: Step) -> str:
    rule = say("{kind} rule {pattern}", kind=step.rule.kind, pattern=step.rule.pattern)
    if step.by:
        rule = say("{loader}'s {rule}", loader=step.by, rule=rule)
    if step.after is None:
        return say("{rule} drops it", rule=rule)
    return say("{rule} gives {name}", rule=rule, name=step.after)
