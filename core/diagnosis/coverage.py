"""Which layers have scales, which have not, and which scales nobody needs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from core.diagnosis.consequence import not_reached, of_layers, owners_of, where
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.making import make
from core.diagnosis.selection import keys_of, layers_of, numbers_of
from core.engines.outcome import AttentionLayer
from core.naming.scales import KVScale
from core.wording import are, capital, listed, of, plural, sentence, spread


def v_without_k(facts: Facts) -> Iterator[Finding]:
    """Layers for which the checkpoint holds v alone."""
    layers = _with_roles(facts, has="v", lacks="k")
    if layers:
        scales = _scales_of(facts, layers, "v")
        yield make(
            "v-without-k",
            keys=keys_of(scales),
            layers=numbers_of(layers),
            evidence=f"{_share(facts, layers)} {are(len(layers), 'has')} a v scale and no k scale.",
            consequence=of_layers(facts, layers),
            fix="Calibrate k as well, or leave these v scales out on export.",
            remedy="drop",
        )


def k_without_v(facts: Facts) -> Iterator[Finding]:
    """Layers for which the checkpoint holds k alone."""
    layers = _with_roles(facts, has="k", lacks="v")
    if layers:
        scales = _scales_of(facts, layers, "k")
        yield make(
            "k-without-v",
            keys=keys_of(scales),
            layers=numbers_of(layers),
            evidence=f"{_share(facts, layers)} {are(len(layers), 'has')} a k scale and no v scale.",
            consequence=of_layers(facts, layers),
            fix="Calibrate v as well, or write it on export.",
            remedy="duplicate",
        )


def kv_not_shared(facts: Facts) -> Iterator[Finding]:
    """A scale meant for both roles that fills one."""
    scales = [
        scale
        for scale in facts.kv_scales
        if scale.role == "kv"
        and facts.outcome(scale) == "loaded"
        and facts.cache_quantized
        and any(layer.source.get("v") == "default" for layer in facts.owners(scale))
    ]
    if scales:
        layers = owners_of(facts, scales)
        yield make(
            "kv-not-shared",
            keys=keys_of(scales),
            layers=numbers_of(layers),
            evidence=f"{plural(len(scales), 'scale')} for k and v together, and none for v alone.",
            consequence=of_layers(facts, layers),
            fix="Write the scale for v as well on export.",
            remedy="duplicate",
        )


def missing_scale(facts: Facts) -> Iterator[Finding]:
    """Layers without any, where others have some."""
    if not facts.roles_at or facts.blind:
        return
    layers = [layer for layer in facts.receivers if not facts.roles_at.get(layer.path, frozenset()) & {"k", "v"}]
    if layers and len(layers) < len(facts.receivers):
        ignored = [layer for layer in layers if _is_ignored(facts, layer)]
        why = f"; the ignore list names {where(facts, ignored)}" if ignored else ""
        share = f"{_share(facts, layers)} {are(len(layers), 'has')}"
        yield make(
            "missing-scale",
            layers=numbers_of(layers),
            evidence=sentence(f"{share} no k and no v scale: {layers[0].path}{why}"),
            consequence=of_layers(facts, layers),
            fix="Calibrate these layers too, or set their scales on export.",
            remedy="set-scale",
        )


def cache_not_quantized(facts: Facts) -> Iterator[Finding]:
    """Declared, loaded, and yet unused: quark and fp8 under "auto", a plain dtype chosen by hand, or layers that the
    model never tells the dtype.
    """
    if facts.unasked:
        yield from _unasked(facts)
        return
    scheme = facts.case.declaration.kv_scheme
    if scheme is None or not _unused(facts):
        return
    asked = facts.case.settings.kv_cache_dtype
    chosen = asked.origin == "chosen" and asked.value != "auto"
    yield make(
        "cache-not-quantized",
        keys=keys_of(facts.kv_scales),
        layers=layers_of(facts.kv_scales),
        evidence=f"{scheme.source.file} declares {scheme.label}; {facts.engine} keeps the cache in {facts.cache_dtype} "
        f"for --kv-cache-dtype {asked.value}{'' if chosen else f' and method {facts.method}'}.",
        consequence=of_layers(facts, facts.receivers),
        fix=f"Start the engine with {facts.fp8_option}.",
    )


def _unasked(facts: Facts) -> Iterator[Finding]:
    scales = [
        scale
        for scale in facts.kv_scales
        if facts.outcome(scale) == "loaded" and any(owner in facts.unasked for owner in facts.owners(scale))
    ]
    if scales and facts.loads:
        layers = owners_of(facts, scales)
        yield make(
            "cache-not-quantized",
            keys=keys_of(scales),
            layers=numbers_of(layers),
            evidence=f"{facts.engine} does not pass --kv-cache-dtype on to {where(facts, layers)}: the cache stays in "
            f"{facts.model_dtype} there.",
            consequence=of_layers(facts, layers),
            fix=f"Nothing in the checkpoint can change this: {facts.engine} has no quantized cache for these layers.",
        )


def undeclared(facts: Facts) -> Iterator[Finding]:
    """Present, but nothing asks the engine to quantize the cache."""
    if facts.case.declaration.kv_scheme is not None or facts.unasked or not _unused(facts):
        return
    if facts.case.declaration.quantized:
        told = f"Method {facts.method} declares no KV-cache scheme"
    else:
        told = "No quantization is declared where the engine looks"
    yield make(
        "undeclared",
        keys=keys_of(facts.kv_scales),
        layers=layers_of(facts.kv_scales),
        evidence=f"{told}; {plural(len(facts.kv_scales), 'k and v scale')} {are(len(facts.kv_scales))} stored.",
        consequence=of_layers(facts, facts.receivers),
        fix=f"Start the engine with {facts.fp8_option}, or write the scheme into config.json on export.",
        remedy="declare",
    )


def _unused(facts: Facts) -> bool:
    """Whether k and v scales stand ready and the cache does not use them; dropped ones have another finding."""
    lost = ("dropped", "ignored")
    ready = any(scale.quantity == "scale" and facts.outcome(scale) not in lost for scale in facts.kv_scales)
    return ready and not facts.cache_quantized and facts.case.deliveries.load.outcome in ("loads", "raises")


def run_time_scales(facts: Facts) -> Iterator[Finding]:
    """A cache type that computes scales while the engine runs."""
    if facts.run_time_scales and facts.loads and facts.kv_scales:
        yield make(
            "run-time-scales",
            keys=keys_of(facts.kv_scales),
            layers=layers_of(facts.kv_scales),
            evidence=f"The KV cache is {facts.cache_dtype}.",
            consequence=f"{facts.engine} computes a scale for each token and head; those stored are not used.",
            fix=f"Start the engine with {facts.fp8_option} to use the stored scales.",
        )


def q_missing(facts: Facts) -> Iterator[Finding]:
    """Usual; only where the engine has a place for them and keys or values are there."""
    layers = [layer for layer in facts.receivers if "q_scale" in layer.parameters]
    have = [layer for layer in layers if "q" in facts.roles_at.get(layer.path, ())]
    if facts.loads and facts.kv_scales and len(have) < len(layers):
        lacking = [layer for layer in layers if layer not in have]
        yield make(
            "q-missing",
            layers=numbers_of(lacking),
            evidence=f"{_share(facts, have) if have else 'No attention layer'} {are(len(have) or 1, 'has')} a q scale.",
            consequence=of_layers(facts, lacking, ("q",)),
            fix="Nothing to mend unless queries are meant to be quantized too.",
        )


def q_applied(facts: Facts) -> Iterator[Finding]:
    """Scales for q and prob take effect even where those for k and v do not."""
    layers = [
        layer
        for layer in facts.case.deliveries.attention
        if "checkpoint" in (layer.source.get("q"), layer.source.get("prob"))
    ]
    if layers and not facts.cache_quantized:
        scales = [scale for scale in facts.scales if scale.role in ("q", "prob") and facts.outcome(scale) == "loaded"]
        yield make(
            "q-applied",
            keys=keys_of(scales),
            layers=numbers_of(layers),
            evidence=f"The KV cache stays in {facts.cache_dtype}.",
            consequence=of_layers(facts, layers, ("q", "prob")),
            fix="Leave these scales out on export."
            if facts.unasked
            else f"Start the engine with {facts.fp8_option}, or leave these scales out on export.",
            remedy="drop",
        )


def not_needed(facts: Facts) -> Iterator[Finding]:
    """Encoders, towers, layers without attention, layers that read another layer's cache."""
    scales = facts.at("no cache")
    if scales:
        kinds = Counter(re.sub(r"\d+", "N", scale.module) for scale in scales)
        garbage = [scale for scale in scales if _is_garbage(facts, scale)]
        values = f"; {len(garbage)} of them {are(len(garbage))} uninitialised" if garbage else ""
        yield make(
            "not-needed",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=sentence(f"{plural(len(scales), 'scale')} on {listed(list(kinds))}{values}"),
            consequence=f"{facts.engine} has no KV cache there: they change nothing.",
            fix="Nothing to mend; they can be left out on export.",
            remedy="drop",
        )


def draft_scale(facts: Facts) -> Iterator[Finding]:
    """Scales behind the model's own layers."""
    scales = facts.at("draft")
    if scales:
        values = spread(value for scale in scales for value in scale.values)
        yield make(
            "draft-scale",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=f"{plural(len(scales), 'scale')} behind the model's {facts.hidden_layers} layers: {values}.",
            consequence=not_reached(facts) or f"{facts.engine} does not read them into the main model.",
            fix="Nothing to mend; they can be left out on export.",
            remedy="drop",
        )


def zero_points(facts: Facts) -> Iterator[Finding]:
    """Zero points and biases that change nothing."""
    offsets = [scale for scale in _offsets(facts) if not any(scale.values)]
    if offsets:
        yield make(
            "zero-points",
            keys=keys_of(offsets),
            layers=layers_of(offsets),
            evidence=f"{plural(len(offsets), 'tensor')}, all zero.",
            consequence=f"{facts.engine} does not use them.",
            fix="Nothing to mend; they can be left out on export.",
            remedy="drop",
        )


def offsets_lost(facts: Facts) -> Iterator[Finding]:
    """Zero points and biases that would change something."""
    offsets = [scale for scale in _offsets(facts) if any(scale.values)]
    if offsets and facts.loads:
        yield make(
            "offsets-lost",
            keys=keys_of(offsets),
            layers=layers_of(offsets),
            evidence=f"{plural(len(offsets), 'tensor')} with {spread(v for scale in offsets for v in scale.values)}.",
            consequence=f"{facts.engine} quantizes around zero: what was calibrated asymmetrically is clipped.",
            fix="Calibrate again with a symmetric scheme.",
        )


def _offsets(facts: Facts) -> tuple[KVScale, ...]:
    return facts.at("layer", kinds=("zero_point", "bias"))


def _with_roles(facts: Facts, *, has: str, lacks: str) -> list[AttentionLayer]:
    return [
        layer
        for layer in (facts.receivers if not facts.blind else ())
        if has in (roles := facts.roles_at.get(layer.path, frozenset())) and lacks not in roles
    ]


def _scales_of(facts: Facts, layers: Sequence[AttentionLayer], role: str) -> list[KVScale]:
    paths = {layer.path for layer in layers}
    return [
        scale
        for scale in facts.kv_scales
        if scale.role == role and any(owner.path in paths for owner in facts.owners(scale))
    ]


def _share(facts: Facts, layers: Sequence[AttentionLayer]) -> str:
    return capital(of(len(layers), len(facts.receivers), "attention layer"))


def _is_ignored(facts: Facts, layer: AttentionLayer) -> bool:
    """Whether the declaration's ignore list names a module of this layer's attention."""
    module = layer.path.rpartition(".")[0]
    return any(entry.startswith(module) for entry in facts.case.declaration.ignore)


def _is_garbage(facts: Facts, scale: KVScale) -> bool:
    limits = facts.thresholds
    return any(not limits.vanishing <= abs(value) <= limits.absurd for value in scale.values)


RULES = (
    v_without_k,
    k_without_v,
    kv_not_shared,
    missing_scale,
    cache_not_quantized,
    undeclared,
    run_time_scales,
    q_missing,
    q_applied,
    not_needed,
    draft_scale,
    zero_points,
    offsets_lost,
)
