"""What a fault comes to in the chosen engine, read off the deliveries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from core.diagnosis.facts import Facts
from core.diagnosis.selection import numbers_of
from core.engines.outcome import AttentionLayer
from core.naming.scales import KVScale
from core.wording import are, numbered, of, plural, sentence, short, spread

_SOURCES = {
    "default": "the engine's default",
    "duplicated": "copied from the other role",
    "forced": "set by the engine",
}


def of_scales(facts: Facts, scales: Sequence[KVScale]) -> str:
    """What the layers that these scales belong to end with, for the scales' roles."""
    early = not_reached(facts)
    if early:
        return early
    owners = owners_of(facts, scales)
    roles = _roles(scales)
    loaded = [scale for scale in scales if facts.outcome(scale) == "loaded"]
    if not owners:
        return f"No attention layer of {facts.engine} takes {'it' if len(scales) == 1 else 'them'}."
    if not loaded and not any(role in ("k", "v", "kv") for role in roles):
        return f"No parameter of {facts.engine} takes {'it' if len(scales) == 1 else 'them'}: nothing changes."
    return of_layers(facts, owners, roles)


def of_layers(facts: Facts, layers: Sequence[AttentionLayer], roles: Sequence[str] = ("k", "v")) -> str:
    """What these attention layers end with."""
    early = not_reached(facts)
    if early:
        return early
    failing = [layer for layer in layers if layer.error is not None]
    if failing:
        return (
            f"{facts.engine} stops after loading with {short(failing[0].error)} in {where(facts, failing)}: "
            f"{_assertion(failing)}."
        )
    told = [text for role in roles if (text := _role(role, layers))]
    if not layers:
        return f"{facts.engine} has no attention layer that needs scales."
    if not told:
        return f"{facts.engine} keeps no value for {' and '.join(roles)}."
    return sentence(f"{where(facts, layers)} {are(len(layers), 'ends')} with {', '.join(told)}")


def where(facts: Facts, layers: Sequence[AttentionLayer]) -> str:
    """These layers by number: "layer 3", "all 36 layers"; by path where two share a number."""
    numbers = numbers_of(layers)
    if len(layers) == len(facts.receivers) and len(layers) > 1:
        return of(len(layers), len(layers), "attention layer")
    if len(numbers) == len(layers):
        return numbered(numbers)
    return layers[0].path if len(layers) == 1 else plural(len(layers), "attention layer")


def owners_of(facts: Facts, scales: Iterable[KVScale]) -> list[AttentionLayer]:
    """The attention layers of these scales, once each, in the engine's order."""
    paths = {layer.path for scale in scales for layer in facts.owners(scale)}
    return [layer for layer in facts.case.deliveries.attention if layer.path in paths]


def not_reached(facts: Facts) -> str:
    """Why these values do not matter yet; "" when the load gets that far."""
    load = facts.case.deliveries.load
    match load.outcome:
        case "refused":
            return f"{facts.engine} refuses the model before it reads them."
        case "raises":
            at = f", at {load.key}," if load.key else ""
            return f"{facts.engine} stops while loading{at} before these values matter."
        case "unknown":
            return f"What {facts.engine} does with them is not known."
        case "loads":
            return ""


def _assertion(failing: Sequence[AttentionLayer]) -> str:
    asserts = "AssertionError" in (failing[0].error or "")
    return "it asserts that k is above 0" if asserts else "the model does not start"


def _roles(scales: Iterable[KVScale]) -> tuple[str, ...]:
    """The parameters' roles: a kv scale means k and v."""
    roles = {role for scale in scales for role in (("k", "v") if scale.role == "kv" else (scale.role,))}
    return tuple(role for role in ("k", "v", "q", "prob") if role in roles)


def _role(role: str, layers: Sequence[AttentionLayer]) -> str:
    """One role in words: k = 1.0 (the engine's default)."""
    by_source: dict[str, list[float]] = defaultdict(list)
    for layer in layers:
        if role in layer.final:
            by_source[layer.source.get(role, "checkpoint")].append(layer.final[role])
    parts = []
    for source, values in sorted(by_source.items()):
        why = f" ({_SOURCES[source]})" if source in _SOURCES else ""
        among = f" in {plural(len(values), 'layer')}" if len(by_source) > 1 else ""
        parts.append(f"{spread(values)}{among}{why}")
    return f"{role} = {' and '.join(parts)}" if parts else ""


def role_ranges(facts: Facts, scales: Sequence[KVScale], *, total: Sequence[KVScale] = ()) -> str:
    """The stored values by role: "k: 1 of 2, NaN; q: 2 of 2, 3e-21 to 4.8e-17". ``total`` are those to count among."""
    told = []
    everything = total or facts.scales
    for role in ("k", "v", "kv", "q", "prob"):
        mine = [scale for scale in scales if scale.role == role]
        if mine:
            among = sum(scale.role == role for scale in everything)
            values = [value for scale in mine for value in scale.values]
            told.append(f"{role}: {len(mine)} of {among}, {spread(values)}")
    return "; ".join(told)
