"""Scales of an unusual size, alone or compared with the other layers and the other role."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from core.diagnosis.consequence import of_scales, role_ranges
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.making import make
from core.diagnosis.selection import by_role, identity, keys_of, layers_of
from core.naming.scales import KVScale
from core.wording import are, joined, listed, number, numbered, of, plural, say, sentence

_AGAIN = say("Calibrate again with representative samples, or set a scale on export.")


def exactly_one(facts: Facts) -> Iterator[Finding]:
    """Exactly 1.0, in all layers or in some."""
    scales = facts.marked("exactly-one")
    if scales:
        told = [
            say("{part} of {all} {role} scales", part=len(mine), all=_count(facts, role), role=role)
            for role, mine in by_role(scales).items()
        ]
        evidence = say("{scales} {_are} exactly 1.0.", scales=listed(told), _are=are(len(scales)))
        yield make(
            "exactly-one",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=joined(" ", (evidence, _tool(facts))),
            consequence=_harm(facts, scales),
            fix=say(
                "Calibrate again with a tool that does not clamp (ModelOpt 0.43 or later), or set a scale on export."
            ),
            remedy="set-scale",
        )


def outlier(facts: Facts) -> Iterator[Finding]:
    """Far above the median of the role."""
    scales = facts.marked("outlier")
    if not scales:
        return
    told = []
    for role, mine in by_role(scales).items():
        median = statistics.median_low(
            max(scale.values) for scale in facts.scales if scale.role == role and scale.values
        )
        worst = max(mine, key=lambda scale: max(scale.values))
        told.append(
            say(
                "{role} {value} in {layers} is {ratio:.0f} times the median {median}",
                role=role,
                value=number(max(worst.values)),
                layers=numbered(layers_of([worst])),
                ratio=max(worst.values) / median,
                median=number(median),
            )
        )
    yield _sized(facts, "outlier", scales, _limited(joined("; ", told), f"{facts.thresholds.outlier_ratio:g}"))


def dtype_epsilon(facts: Facts) -> Iterator[Finding]:
    """The machine epsilon of the stored type."""
    scales = facts.marked("dtype-epsilon")
    if scales:
        told = say(
            "{epsilons} in {layers}: what an observer stores that saw only zeros",
            epsilons=joined(", ", sorted({f"{scale.dtype} {scale.values[0]:g}" for scale in scales})),
            layers=numbered(layers_of(scales)),
        )
        yield _sized(facts, "dtype-epsilon", scales, told)


def tiny(facts: Facts) -> Iterator[Finding]:
    """Below anything real."""
    scales = facts.marked("tiny")
    if scales:
        limit = _limit(facts, facts.thresholds.tiny)
        yield _sized(facts, "tiny", scales, _limited(role_ranges(facts, scales), limit))


def large(facts: Facts) -> Iterator[Finding]:
    """Above 1.0."""
    scales = facts.marked("large")
    if scales:
        limit = _limit(facts, facts.thresholds.large)
        yield _sized(facts, "large", scales, _limited(role_ranges(facts, scales), limit))


def above_half(facts: Facts) -> Iterator[Finding]:
    """Between 0.5 and 1.0."""
    scales = facts.marked("above-half")
    if scales:
        limit = _limit(facts, facts.thresholds.notable)
        yield _sized(facts, "above-half", scales, _limited(role_ranges(facts, scales), limit))


def _limited(told: str, limit: str) -> str:
    return say("{values} (limit {limit})", values=told, limit=limit)


def _sized(facts: Facts, code: str, scales: Sequence[KVScale], evidence: str) -> Finding:
    return make(
        code,
        keys=keys_of(scales),
        layers=layers_of(scales),
        evidence=sentence(evidence),
        consequence=of_scales(facts, scales),
        fix=_AGAIN,
        remedy="set-scale",
    )


def k_equals_v(facts: Facts) -> Iterator[Finding]:
    """In every layer; one layer proves nothing, and neither do values that are no scales."""
    shared = [scale for scale in facts.kv_scales if scale.role == "kv"]
    pairs = facts.pairs
    equal = [pair for pair in pairs if pair[0].values == pair[1].values and pair[0].values]
    marked = all(facts.marks.get(identity(k)) == "exactly-one" for k, _ in equal)
    if shared and not pairs:
        scales = tuple(shared)
        evidence = say("{scales} for k and v together", scales=plural(len(shared), "scale"))
    elif len(equal) >= 2 and len(equal) == len(pairs) and not marked:
        scales = tuple(scale for pair in pairs for scale in pair)
        evidence = say("k equals v in {layers}", layers=of(len(pairs), len(pairs), "layer"))
    else:
        return
    yield make(
        "k-equals-v",
        keys=keys_of(scales),
        layers=layers_of(scales),
        evidence=sentence(evidence),
        consequence=say("k and v share the larger of the two scales: the smaller one loses some precision."),
        fix=say("Nothing to mend; a tool that calibrates k and v apart is slightly more precise."),
    )


def swapped(facts: Facts) -> Iterator[Finding]:
    """K is above V in nearly every layer of real models."""
    limits, pairs = facts.thresholds, _sound_pairs(facts)
    if len(pairs) < limits.swapped_layers:
        return
    below = [pair for pair in pairs if max(pair[0].values) < max(pair[1].values)]
    ratio = statistics.median(max(v.values) / max(k.values) for k, v in pairs)
    if len(below) >= limits.swapped_share * len(pairs) and ratio >= limits.swapped_ratio:
        scales = [scale for pair in below for scale in pair]
        yield make(
            "swapped",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=say(
                "v is above k in {part} of {all} layers; the median of v / k is {ratio}.",
                part=len(below),
                all=len(pairs),
                ratio=number(ratio),
            ),
            consequence=of_scales(facts, scales),
            fix=say("Compare with another calibration of this model; if they are swapped, exchange k and v on export."),
            remedy="swap",
        )


def pair_ratio(facts: Facts) -> Iterator[Finding]:
    """A layer whose k / v is far from the other layers'."""
    limits, pairs = facts.thresholds, _sound_pairs(facts)
    if len(pairs) < 3:
        return
    logs = [math.log(max(k.values) / max(v.values)) for k, v in pairs]
    middle = statistics.median(logs)
    far = [pair for pair, log in zip(pairs, logs, strict=True) if abs(log - middle) > math.log(limits.pair_ratio)]
    if far:
        k, v = far[0]
        scales = [scale for pair in far for scale in pair]
        yield make(
            "pair-ratio",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=sentence(
                say(
                    "k / v is {ratio} in {layers}, and {median} in the median of {count} layers",
                    ratio=number(max(k.values) / max(v.values)),
                    layers=numbered(layers_of(far[0])),
                    median=number(math.exp(middle)),
                    count=len(pairs),
                )
            ),
            consequence=of_scales(facts, scales),
            fix=_AGAIN,
            remedy="set-scale",
        )


def rounding(facts: Facts) -> Iterator[Finding]:
    """Stored values against what the layers hold."""
    losses = {identity(scale): loss for scale in facts.sound if (loss := _loss(facts, scale)) > 0.0}
    chosen = [scale for scale in facts.sound if identity(scale) in losses]
    if chosen:
        worst = max(chosen, key=lambda scale: losses[identity(scale)])

        yield make(
            "rounding",
            keys=keys_of(chosen),
            layers=layers_of(chosen),
            evidence=say(
                "{scales}, by up to {lost:.2g} % in {dtype} ({key}).",
                scales=plural(len(chosen), "scale"),
                lost=100 * losses[identity(worst)],
                dtype=facts.model_dtype,
                key=worst.key,
            ),
            consequence=of_scales(facts, chosen),
            fix=say("Nothing to mend."),
        )


def _loss(facts: Facts, scale: KVScale) -> float:
    """The relative difference between a stored scale and what its layer holds; FNUZ doubles it, which is no loss."""
    owners = facts.owners(scale)
    if not facts.stays(scale) or not owners or owners[0].source.get(scale.role) != "checkpoint":
        return 0.0
    stored, held = max(scale.values), owners[0].final.get(scale.role, math.nan)
    return min(abs(held / factor - stored) / stored for factor in (1.0, 2.0)) if math.isfinite(held) else 0.0


def _sound_pairs(facts: Facts) -> list[tuple[KVScale, KVScale]]:
    sound = {identity(scale) for scale in facts.sound if scale.quantity == "scale"}
    return [pair for pair in facts.pairs if identity(pair[0]) in sound and identity(pair[1]) in sound]


def _count(facts: Facts, role: str) -> int:
    return sum(scale.role == role for scale in facts.scales)


def _limit(facts: Facts, value: float) -> str:
    """A limit as it applies to this checkpoint's number format."""
    return number(value / facts.unit)


def _tool(facts: Facts) -> str:
    producer = facts.case.declaration.producer
    return say("Written by {tool}.", tool=producer.label) if producer is not None else ""


def _harm(facts: Facts, scales: Sequence[KVScale]) -> str:
    if not facts.loads:
        return of_scales(facts, scales)
    harm = say("At 1.0 FP8 keeps its range but not its precision for small keys and values.")
    return joined(" ", (of_scales(facts, scales), harm))


RULES = (
    exactly_one,
    outlier,
    dtype_epsilon,
    tiny,
    large,
    above_half,
    k_equals_v,
    swapped,
    pair_ratio,
    rounding,
)
