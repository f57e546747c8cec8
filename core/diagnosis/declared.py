"""Where the declaration and the tensors disagree."""

from __future__ import annotations

from collections.abc import Iterator

from core.architectures.layers import not_believed
from core.diagnosis.consequence import of_layers
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.making import make
from core.diagnosis.selection import numbers_of
from core.quantization.declaration import KVScheme
from core.wording import joined, say, sentence


def declared_absent(facts: Facts) -> Iterator[Finding]:
    """Declared as static, and not one k or v scale anywhere."""
    scheme = facts.case.declaration.kv_scheme
    if scheme is None or scheme.dynamic or facts.kv_scales or facts.blind:
        return
    yield make(
        "declared-absent",
        layers=numbers_of(facts.receivers),
        evidence=_says(scheme),
        consequence=of_layers(facts, facts.receivers),
        fix=say("Calibrate the KV cache and export again, or set scales on export."),
        remedy="set-scale",
    )


def dynamic_scheme(facts: Facts) -> Iterator[Finding]:
    """Declared as dynamic, so nothing is stored."""
    scheme = facts.case.declaration.kv_scheme
    if scheme is not None and scheme.dynamic and not facts.kv_scales:
        yield make(
            "dynamic-scheme",
            layers=numbers_of(facts.receivers),
            evidence=_says(scheme),
            consequence=of_layers(facts, facts.receivers),
            fix=say("Calibrate the KV cache with a static scheme and export again, or set scales on export."),
            remedy="set-scale",
        )


def _says(scheme: KVScheme) -> str:
    source = scheme.source
    return say("{file}: {field} says {scheme}.", file=source.file, field=source.field, scheme=scheme.label)


def declaration_note(facts: Facts) -> Iterator[Finding]:
    """What the reader of the config files found contradictory."""
    refused = facts.case.deliveries.load.outcome == "refused"
    notes = [
        note
        for note in facts.case.declaration.notes
        if _concerns(facts.engine, note) and not (refused and _explains_refusal(note))
    ]
    if notes:
        declaration = facts.case.declaration
        silent = not declaration.declared and bool(facts.kv_scales)
        yield make(
            "declaration-note",
            evidence=joined(" ", (sentence(note) for note in notes)),
            consequence=say(
                "{engine} goes by what it reads: {method}, KV cache in {dtype}.",
                engine=facts.engine,
                method=facts.method,
                dtype=facts.cache_dtype,
            ),
            fix=say("Make the config files agree, or export again."),
            remedy="declare" if silent else "",
        )


def _concerns(engine: str, note: str) -> bool:
    """Whether a note speaks of this engine, or of none."""
    name = engine.partition(" ")[0]
    return name in note or not any(other in note for other in ("vLLM", "SGLang"))


def _explains_refusal(note: str) -> bool:
    return "refuses" in note or "do not open" in note


def not_to_be_believed(facts: Facts) -> Iterator[Finding]:
    """The config claims more layers or heads than any model has."""
    claims = [
        say("{field} {count:,}", field=field, count=count)
        for field, count in not_believed(facts.case.declaration.hf_config)
    ]
    if claims:
        yield make(
            "declaration-note",
            evidence=say("config.json says {claims}; no model has so many.", claims=joined(", ", claims)),
            consequence=say("The prediction goes by what else the checkpoint says of its layers and heads."),
            fix=say("Correct config.json, or download it again."),
        )


def method_chosen(facts: Facts) -> Iterator[Finding]:
    """The user's choice against the declaration."""
    chosen, declared = facts.case.settings.method, facts.case.declaration.method
    if chosen.origin == "chosen" and chosen.value != declared:
        yield make(
            "method-chosen",
            evidence=say(
                "{method} was chosen; the checkpoint declares {declared}.",
                method=chosen.value,
                declared=declared or say("no quantization"),
            ),
            consequence=say("The prediction is for {method}.", method=chosen.value),
            fix=say("Leave --method out to predict for {declared}.", declared=declared or say("the unquantized model")),
        )


RULES = (declared_absent, dynamic_scheme, declaration_note, not_to_be_believed, method_chosen)
