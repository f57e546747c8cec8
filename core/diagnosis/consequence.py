"""What a fault comes to in the chosen engine, read off the deliveries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from core.diagnosis.facts import Facts
from core.diagnosis.selection import numbers_of
from core.engines.outcome import AttentionLayer
from core.naming.scales import KVScale
from core.wording import are, joined, numbered, of, plural, say, sentence, short, spread

_SOURCES = {
    "default": say("the engine's default"),
    "duplicated": say("copied from the other role"),
    "forced": say("set by the engine"),
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
        return say("No attention layer of {engine} takes {_them}.", engine=facts.engine, _them=_them(scales))
    if not loaded and not any(role in ("k", "v", "kv") for role in roles):
        return say("No parameter of {engine} takes {_them}: nothing changes.", engine=facts.engine, _them=_them(scales))
    return of_layers(facts, owners, roles)


def of_layers(facts: Facts, layers: Sequence[AttentionLayer], roles: Sequence[str] = ("k", "v")) -> str:
    """What these attention layers end with."""
    early = not_reached(facts)
    if early:
        return early
    failing = [layer for layer in layers if layer.error is not None]
    if failing:
        return say(
            "{engine} stops after loading with {error} in {layers}: {why}.",
            engine=facts.engine,
            error=short(failing[0].error),
            layers=where(facts, failing),
            why=_assertion(failing),
        )
    told = [text for role in roles if (text := _role(role, layers))]
    if not layers:
        return say("{engine} has no attention layer that needs scales.", engine=facts.engine)
    if not told:
        return say("{engine} keeps no value for {roles}.", engine=facts.engine, roles=joined(" and ", roles))
    ends = are(len(layers), "ends")
    return sentence(
        say("{layers} {_end} with {values}", layers=where(facts, layers), _end=ends, values=joined(", ", told))
    )


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
            return say("{engine} refuses the model before it reads them.", engine=facts.engine)
        case "raises" if load.key:
            return say(
                "{engine} stops while loading, at {key}, before these values matter.", engine=facts.engine, key=load.key
            )
        case "raises":
            return say("{engine} stops while loading before these values matter.", engine=facts.engine)
        case "unknown":
            return say("What {engine} does with them is not known.", engine=facts.engine)
        case "loads":
            return ""


def _them(scales: Sequence[KVScale]) -> str:
    return "it" if len(scales) == 1 else "them"


def _assertion(failing: Sequence[AttentionLayer]) -> str:
    asserts = "AssertionError" in (failing[0].error or "")
    return say("it asserts that k is above 0" if asserts else "the model does not start")


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
        told = spread(values)
        if len(by_source) > 1:
            told = say("{values} in {layers}", values=told, layers=plural(len(values), "layer"))
        if source in _SOURCES:
            told = say("{values} ({source})", values=told, source=_SOURCES[source])
        parts.append(told)
    return say("{role} = {values}", role=role, values=joined(" and ", parts)) if parts else ""


def role_ranges(facts: Facts, scales: Sequence[KVScale], *, total: Sequence[KVScale] = ()) -> str:
    """The stored values by role: "k: 1 of 2, NaN; q: 2 of 2, 3e-21 to 4.8e-17". ``total`` are those to count among."""
    told = []
    everything = total or facts.scales
    for role in ("k", "v", "kv", "q", "prob"):
        mine = [scale for scale in scales if scale.role == role]
        if mine:
            among = sum(scale.role == role for scale in everything)
            values = [value for scale in mine for value in scale.values]
            told.append(
                say("{role}: {part} of {all}, {values}", role=role, part=len(mine), all=among, values=spread(values))
            )
    return joined("; ", told)
