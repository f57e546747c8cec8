"""What stops a load, and what never arrives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from core.diagnosis.advice import after_failure, after_refusal, loss, way
from core.diagnosis.consequence import of_layers, of_scales, where
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.making import make
from core.diagnosis.selection import keys_of, layers_of, numbers_of
from core.engines.outcome import Delivery
from core.naming.scales import KVScale
from core.wording import joined, listed, number, of, plural, say, sentence, short

_MARKED_AS_CAUSE = ("uninitialised", "not-finite", "negative", "zero")
_LARGEST = say("Store one value for each layer on export: the largest, which clips nothing.")


def load_refused(facts: Facts) -> Iterator[Finding]:
    """The engine does not build the model."""
    load = facts.case.deliveries.load
    if load.outcome == "refused":
        message = (load.error or "").partition(": ")[2]
        reason = sentence(load.reason) if message not in load.reason else ""
        fix, remedy, offsets = after_refusal(facts, load.error or "")
        yield make(
            "load-refused",
            keys=keys_of(offsets),
            layers=layers_of(offsets),
            evidence=sentence(joined(". ", (short(load.error), reason))),
            consequence=say("{engine} does not build the model; no tensor is read.", engine=facts.engine),
            fix=fix,
            remedy=remedy,
        )


def load_raises(facts: Facts) -> Iterator[Finding]:
    """By a name that leads to the wrong place; wrong shapes have rules of their own."""
    delivery = failure(facts)
    if facts.case.deliveries.load.outcome != "raises" or (delivery is not None and _misfits(facts, delivery)):
        return
    load = facts.case.deliveries.load
    left = sum(facts.outcome(other) == "not_reached" for other in facts.case.scales)
    scale = delivery.scale if delivery is not None else None
    fix, remedy = after_failure(facts, scale)
    alike = tuple(
        other
        for other in facts.case.scales
        if scale is not None
        and (other.convention, other.kind) == (scale.convention, scale.kind)
        and (other.role == scale.role or {other.role, scale.role} <= {"k", "v", "kv", "q"})
        and facts.outcome(other) in ("raises", "not_reached")
    )
    yield make(
        "load-raises",
        keys=keys_of(alike) or ((load.key,) if load.key else ()),
        layers=layers_of(alike),
        evidence=sentence(
            say("{way}: {error}", way=way(load.key, delivery), error=short(load.error))
            if load.key
            else short(load.error)
        ),
        consequence=say(
            "{engine} stops there and does not reach {scales}.", engine=facts.engine, scales=plural(left, "more scale")
        )
        if left
        else say("{engine} stops there.", engine=facts.engine),
        fix=fix,
        remedy=remedy,
    )


def shape(facts: Facts) -> Iterator[Finding]:
    """A tensor that its parameter refuses, or of which it keeps one value only."""
    delivery = failure(facts)
    refused = delivery.scale if delivery is not None and _misfits(facts, delivery) else None
    if refused is not None and refused.numel > 1 and not _per_head(facts, delivery):
        alike = [scale for scale in facts.case.scales if scale.kind == refused.kind and scale.numel == refused.numel]
        yield make(
            "shape",
            keys=keys_of(alike),
            layers=layers_of(alike),
            evidence=sentence(
                say(
                    "{key} has shape {shape}: {error}",
                    key=refused.key,
                    shape=list(refused.shape),
                    error=short(load_error(facts)),
                )
            ),
            consequence=say("{engine} stops while loading.", engine=facts.engine),
            fix=_LARGEST,
            remedy="reshape",
        )
    cut = [scale for scale in facts.scales if scale.numel > 1 and _room(facts, scale) == 1]
    if cut:
        yield make(
            "shape",
            keys=keys_of(cut),
            layers=layers_of(cut),
            evidence=say(
                "{key} has shape {shape}; the parameter holds one value.", key=cut[0].key, shape=list(cut[0].shape)
            ),
            consequence=of_scales(facts, cut),
            fix=_LARGEST,
            remedy="reshape",
        )


def head_count(facts: Facts) -> Iterator[Finding]:
    """Per-head parameters that get another number of values; too many are cut off without a word."""
    delivery = failure(facts)
    if delivery is not None and _per_head(facts, delivery) and (own := _own_heads(facts, delivery)) is not None:
        wide = [scale for scale in facts.scales if scale.numel > 1]
        yield make(
            "head-count",
            keys=keys_of(wide) or (delivery.key,),
            layers=layers_of(wide),
            evidence=say(
                "{key}: its layer has {heads}, and the model as a whole counts as having {all}.",
                key=delivery.key,
                heads=plural(own, "KV head"),
                all=facts.kv_heads,
            ),
            consequence=say("{engine} stops: {error}.", engine=facts.engine, error=short(load_error(facts))),
            fix=say(
                "Store one value for each layer on export: this engine takes one for each head only where every layer "
                "has as many KV heads as the model."
            ),
            remedy="reshape" if wide else "",
        )
        return
    wrong = [
        scale
        for scale in facts.scales
        if (room := _room(facts, scale)) is not None and room > 1 and _heads_differ(scale, room)
    ]
    if delivery is not None and delivery.scale is not None and _misfits(facts, delivery) and _per_head(facts, delivery):
        refused = delivery.scale
        wrong += [scale for scale in facts.scales if scale.role == refused.role and scale.numel == refused.numel]
    if wrong:
        first = wrong[0]
        heads = say("{count} KV heads", count=facts.kv_heads) if facts.kv_heads else say("one value for each KV head")
        yield make(
            "head-count",
            keys=keys_of(wrong),
            layers=layers_of(wrong),
            evidence=say(
                "{key} holds {values}; the layer has {heads}.",
                key=first.key,
                values=plural(first.numel, "value"),
                heads=heads,
            ),
            consequence=of_scales(facts, wrong)
            if facts.loads
            else say("{engine} stops: {error}.", engine=facts.engine, error=short(load_error(facts))),
            fix=say("Calibrate again for this model's heads, or store one value for each layer."),
            remedy="reshape",
        )


def layer_assertion(facts: Facts) -> Iterator[Finding]:
    """Layers that fail although no value and no missing role explains it."""
    explained = {layer.path for scale in facts.marked(*_MARKED_AS_CAUSE) for layer in facts.owners(scale)}
    explained |= {layer.path for layer in facts.receivers if "k" not in facts.roles_at.get(layer.path, ())}
    failing = [layer for layer in facts.case.deliveries.attention if layer.error and layer.path not in explained]
    if failing:
        paths = {layer.path for layer in failing}
        held = [
            scale
            for scale in facts.kv_scales
            if scale.role in ("k", "kv")
            and facts.outcome(scale) == "loaded"
            and any(layer.path in paths for layer in facts.owners(scale))
        ]
        yield make(
            "layer-assertion",
            keys=keys_of(held),
            layers=numbers_of(failing),
            evidence=sentence(
                say(
                    "{error} in {layers} ({path})",
                    error=short(failing[0].error),
                    layers=where(facts, failing),
                    path=failing[0].path,
                )
            ),
            consequence=of_layers(facts, failing),
            fix=say("Make sure that these layers receive a k scale above 0."),
            remedy="set-scale" if held else "rename",
        )


def dropped_scale(facts: Facts) -> Iterator[Finding]:
    """Scales for k and v that end nowhere."""
    lost = [scale for scale in facts.kv_scales if facts.outcome(scale) in ("dropped", "ignored")]
    if lost:
        told, fix, remedy = loss(facts, lost[0])
        yield make(
            "dropped-scale",
            keys=keys_of(lost),
            layers=layers_of(lost),
            evidence=sentence(joined("; ", (of(len(lost), len(facts.kv_scales), "k and v scale"), told))),
            consequence=of_scales(facts, lost),
            fix=fix,
            remedy=remedy,
        )


def q_dropped(facts: Facts) -> Iterator[Finding]:
    """Scales for q and prob that end nowhere."""
    lost = [
        scale
        for scale in facts.scales
        if scale.role in ("q", "prob") and facts.outcome(scale) in ("dropped", "ignored")
    ]
    if lost:
        told, fix, remedy = loss(facts, lost[0])
        yield make(
            "q-dropped",
            keys=keys_of(lost),
            layers=layers_of(lost),
            evidence=sentence(joined("; ", (plural(len(lost), "scale"), told))),
            consequence=of_scales(facts, lost),
            fix=fix,
            remedy=remedy,
        )


def conflict(facts: Facts) -> Iterator[Finding]:
    """Two tensors on one parameter are harmless where they hold the same."""
    by_target: dict[str, list[KVScale]] = defaultdict(list)
    for delivery in facts.case.deliveries.deliveries:
        taken = delivery.outcome == "loaded" and not delivery.joined
        if taken and delivery.target is not None and delivery.scale is not None:
            by_target[delivery.target].append(delivery.scale)
    clashes = {target: found for target, found in by_target.items() if len({scale.values for scale in found}) > 1}
    if clashes:
        target, found = next(iter(clashes.items()))
        scales = [scale for of_one in clashes.values() for scale in of_one]
        values = listed([f"{scale.key} = {number(scale.values[0]) if scale.values else '?'}" for scale in found])
        yield make(
            "conflict",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=sentence(
                say(
                    "{parameters}; {target} gets {values}",
                    parameters=plural(len(clashes), "parameter"),
                    target=target,
                    values=values,
                )
            ),
            consequence=of_scales(facts, [found[-1] for found in clashes.values()]),
            fix=say("Leave out the tensors that do not belong there on export."),
            remedy="drop",
        )


# --------------------------------------------------------------------------------------------------------- explanations


def failure(facts: Facts) -> Delivery | None:
    """The tensor at which the load ends."""
    return next((delivery for delivery in facts.case.deliveries.deliveries if delivery.outcome == "raises"), None)


def load_error(facts: Facts) -> str:
    """The engine's exception of the whole load."""
    return facts.case.deliveries.load.error or ""


def _misfits(facts: Facts, delivery: Delivery) -> bool:
    """Whether the load ends at a parameter that exists: then the shape is to blame, not the name."""
    return delivery.name in facts.parameters


def _per_head(facts: Facts, delivery: Delivery | None) -> bool:
    size = facts.parameters.get(delivery.name or "") if delivery is not None else None
    scheme = facts.case.declaration.kv_scheme
    per_head = scheme is not None and scheme.strategy == "attn_head"
    return size is not None and (per_head or _numel(size) > 1)


def _own_heads(facts: Facts, delivery: Delivery) -> int | None:
    """The KV heads of the layer at whose per-head parameter the load ends, where the model has another number."""
    size = facts.parameters.get(delivery.name or "")
    own = _numel(size) if size is not None else None
    return own if facts.kv_heads not in (None, own) else None


def _room(facts: Facts, scale: KVScale) -> int | None:
    """How many values the parameter holds that took this scale; None when none did."""
    delivery = facts.delivery(scale)
    size = facts.parameters.get(delivery.target or "") if delivery is not None else None
    return _numel(size) if size is not None else None


def _heads_differ(scale: KVScale, room: int) -> bool:
    """Whether a scale that was taken is for other heads; one value serves all, q has one for each query head."""
    return scale.numel not in (1, room) and (scale.role != "q" or scale.numel % room != 0)


def _numel(size: Sequence[int]) -> int:
    count = 1
    for part in size:
        count *= part
    return count


RULES = (
    load_refused,
    load_raises,
    shape,
    head_count,
    layer_assertion,
    dropped_scale,
    q_dropped,
    conflict,
)
