"""Values that are no scale at all, or scales of another quantity: one rule for each mark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from core.diagnosis.consequence import of_scales, role_ranges
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.making import make
from core.diagnosis.marks import SENTINEL
from core.diagnosis.selection import keys_of, layers_of
from core.naming.scales import KVScale
from core.wording import joined, listed, numbered, plural, say, sentence

_RECALIBRATE = say("Calibrate these layers again, or set a scale on export.")
_NAMED = say("the name says so")


def uninitialised(facts: Facts) -> Iterator[Finding]:
    """Garbage; q scales of llm-compressor are the usual case, layers on the ignore list the next."""
    scales = facts.marked("uninitialised")
    if not scales:
        return
    only_q = all(scale.role in ("q", "prob") for scale in scales)
    evidence = (sentence(role_ranges(facts, scales)), _ignored(facts, scales), _habit(facts, only_q=only_q))
    yield make(
        "uninitialised",
        keys=keys_of(scales),
        layers=layers_of(scales),
        evidence=joined(" ", evidence),
        consequence=of_scales(facts, scales),
        fix=say("Leave the q scales out on export: q then runs at 1.0.") if only_q else _RECALIBRATE,
        remedy="drop" if only_q else "set-scale",
    )


def not_finite(facts: Facts) -> Iterator[Finding]:
    """NaN or infinite."""
    fix = say("Calibrate these layers again, or set a scale on export; look for NaN in the activations first.")
    yield from _impossible(facts, "not-finite", fix)


def negative(facts: Facts) -> Iterator[Finding]:
    """Below zero: garbage, or an engine's empty parameters (-1.0) written back."""
    scales = facts.marked("negative")
    if not scales:
        return
    sentinel = all(value == SENTINEL for scale in scales for value in scale.values)
    empty = say("These are an engine's empty parameters written back: leave them out on export.")
    fix, remedy = (empty, "drop") if sentinel else (_RECALIBRATE, "set-scale")
    yield from _impossible(facts, "negative", fix, remedy=remedy)


def zero(facts: Facts) -> Iterator[Finding]:
    """Exactly 0.0: the observer saw nothing but zeros, or nothing at all."""
    yield from _impossible(facts, "zero", _RECALIBRATE)


def _impossible(facts: Facts, code: str, fix: str, *, remedy: str = "set-scale") -> Iterator[Finding]:
    scales = facts.marked(code)
    if scales:
        yield make(
            code,
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=joined(" ", (sentence(role_ranges(facts, scales)), _ignored(facts, scales))),
            consequence=of_scales(facts, scales),
            fix=fix,
            remedy=remedy,
        )


def amax_stored(facts: Facts) -> Iterator[Finding]:
    """By name (ModelOpt's _amax), or because all values are far too large and K is above V."""
    scales = facts.marked("amax-stored")
    if not scales:
        return
    named = [scale for scale in scales if scale.quantity == "amax"]
    why = _NAMED if named else say("k is not below v, as in real amaxes")
    yield make(
        "amax-stored",
        keys=keys_of(scales),
        layers=layers_of(scales),
        evidence=sentence(joined("; ", (role_ranges(facts, scales), why))),
        consequence=of_scales(facts, scales),
        fix=say("Divide by 448 (FP8) on export, or export again with the tool's own exporter."),
        remedy="amax-to-scale",
    )


def reciprocal_stored(facts: Facts) -> Iterator[Finding]:
    """By name (TensorRT-LLM's rcp), or because all values are far too large and V is above K."""
    scales = facts.marked("reciprocal-stored")
    if not scales:
        return
    named = any(scale.quantity == "reciprocal" for scale in scales)
    why = _NAMED if named else say("v is above k, the opposite of real scales")
    yield make(
        "reciprocal-stored",
        keys=keys_of(scales),
        layers=layers_of(scales),
        evidence=sentence(joined("; ", (role_ranges(facts, scales), why))),
        consequence=of_scales(facts, scales),
        fix=say("Store 1 / value on export."),
        remedy="reciprocal",
    )


def odd_dtype(facts: Facts) -> Iterator[Finding]:
    """Integers and 8-bit floats."""
    scales = [scale for scale in facts.sound if scale.dtype not in ("F64", "F32", "F16", "BF16")]
    if scales:
        dtypes = Counter(scale.dtype for scale in scales)
        told = [say("{scales} in {dtype}", scales=plural(count, "scale"), dtype=name) for name, count in dtypes.items()]
        yield make(
            "odd-dtype",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=sentence(listed(told)),
            consequence=of_scales(facts, scales),
            fix=say("Calibrate again with scales in float32 or the model's dtype."),
        )


def _ignored(facts: Facts, scales: Sequence[KVScale]) -> str:
    """Whether the declaration's ignore list names these layers."""
    named = [scale for scale in scales if any(scale.module in entry for entry in facts.case.declaration.ignore)]
    return say("The ignore list names {layers}.", layers=numbered(layers_of(named))) if named else ""


def _habit(facts: Facts, *, only_q: bool) -> str:
    producer = facts.case.declaration.producer
    if only_q and producer is not None and "llm-compressor" in producer.label:
        return say("{tool} registers q_scale and never calibrates it.", tool=producer.tool)
    return ""


RULES = (uninitialised, not_finite, negative, zero, amax_stored, reciprocal_stored, odd_dtype)
