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
from core.wording import are, capital, listed, of, plural, say, sentence, spread

_LEAVE_OUT = say("Nothing to mend; they can be left out on export.")


def v_without_k(facts: Facts) -> Iterator[Finding]:
    """Layers for which the checkpoint holds v alone."""
    layers = _with_roles(facts, has="v", lacks="k")
    if layers:
        scales = _scales_of(facts, layers, "v")
        yield make(
            "v-without-k",
            keys=keys_of(scales),
            layers=numbers_of(layers),
            evidence=say(
                "{layers} {_have} a v scale and no k scale.",
                layers=_share(facts, layers),
                _have=are(len(layers), "has"),
            ),
            consequence=of_layers(facts, layers),
            fix=say("Calibrate k as well, or leave these v scales out on export."),
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
            evidence=say(
                "{layers} {_have} a k scale and no v scale.",
                layers=_share(facts, layers),
                _have=are(len(layers), "has"),
            ),
            consequence=of_layers(facts, layers),
            fix=say("Calibrate v as well, or write it on export."),
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
            evidence=say("{scales} for k and v together, and none for v alone.", scales=plural(len(scales), "scale")),
            consequence=of_layers(facts, layers),
            fix=say("Write the scale for v as well on export."),
            remedy="duplicate",
        )


def missing_scale(facts: Facts) -> Iterator[Finding]:
    """Layers without any, where others have some."""
    if not facts.roles_at or facts.blind:
        return
    layers = [layer for layer in facts.receivers if not facts.roles_at.get(layer.path, frozenset()) & {"k", "v"}]
    if layers and len(layers) < len(facts.receivers):
        ignored = [layer for layer in layers if _is_ignored(facts, layer)]
        told = say(
            "{layers} {_have} no k and no v scale: {path}",
            layers=_share(facts, layers),
            _have=are(len(layers), "has"),
            path=layers[0].path,
        )
        if ignored:
            told = say("{lacking}; the ignore list names {layers}", lacking=told, layers=where(facts, ignored))
        yield make(
            "missing-scale",
            layers=numbers_of(layers),
            evidence=sentence(told),
            consequence=of_layers(facts, layers),
            fix=say("Calibrate these layers too, or set their scales on export."),
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
    kept = say(
        "{file} declares {scheme}; {engine} keeps the cache in {dtype} for --kv-cache-dtype {asked}",
        file=scheme.source.file,
        scheme=scheme.label,
        engine=facts.engine,
        dtype=facts.cache_dtype,
        asked=asked.value,
    )
    chosen = asked.origin == "chosen" and asked.value != "auto"
    yield make(
        "cache-not-quantized",
        keys=keys_of(facts.kv_scales),
        layers=layers_of(facts.kv_scales),
        evidence=sentence(kept if chosen else say("{kept} and method {method}", kept=kept, method=facts.method)),
        consequence=of_layers(facts, facts.receivers),
        fix=say("Start the engine with {option}.", option=facts.fp8_option),
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
            evidence=say(
                "{engine} does not pass --kv-cache-dtype on to {layers}: the cache stays in {dtype} there.",
                engine=facts.engine,
                layers=where(facts, layers),
                dtype=facts.model_dtype,
            ),
            consequence=of_layers(facts, layers),
            fix=say(
                "Nothing in the checkpoint can change this: {engine} has no quantized cache for these layers.",
                engine=facts.engine,
            ),
        )


def undeclared(facts: Facts) -> Iterator[Finding]:
    """Present, but nothing asks the engine to quantize the cache."""
    if facts.case.declaration.kv_scheme is not None or facts.unasked or not _unused(facts):
        return
    if facts.case.declaration.quantized:
        told = say("Method {method} declares no KV-cache scheme", method=facts.method)
    else:
        told = say("No quantization is declared where the engine looks")
    count = len(facts.kv_scales)
    yield make(
        "undeclared",
        keys=keys_of(facts.kv_scales),
        layers=layers_of(facts.kv_scales),
        evidence=say(
            "{declared}; {scales} {_are} stored.",
            declared=told,
            scales=plural(count, "k and v scale"),
            _are=are(count),
        ),
        consequence=of_layers(facts, facts.receivers),
        fix=say(
            "Start the engine with {option}, or write the scheme into config.json on export.", option=facts.fp8_option
        ),
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
            evidence=say("The KV cache is {dtype}.", dtype=facts.cache_dtype),
            consequence=say(
                "{engine} computes a scale for each token and head; those stored are not used.", engine=facts.engine
            ),
            fix=say("Start the engine with {option} to use the stored scales.", option=facts.fp8_option),
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
            evidence=say("{layers} {_have} a q scale.", layers=_share(facts, have), _have=are(len(have), "has"))
            if have
            else say("No attention layer has a q scale."),
            consequence=of_layers(facts, lacking, ("q",)),
            fix=say("Nothing to mend unless queries are meant to be quantized too."),
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
            evidence=say("The KV cache stays in {dtype}.", dtype=facts.cache_dtype),
            consequence=of_layers(facts, layers, ("q", "prob")),
            fix=say("Leave these scales out on export.")
            if facts.unasked
            else say("Start the engine with {option}, or leave these scales out on export.", option=facts.fp8_option),
            remedy="drop",
        )


def not_needed(facts: Facts) -> Iterator[Finding]:
    """Encoders, towers, layers without attention, layers that read another layer's cache."""
    scales = facts.at("no cache")
    if scales:
        kinds = Counter(re.sub(r"\d+", "N", scale.module) for scale in scales)
        garbage = [scale for scale in scales if _is_garbage(facts, scale)]
        told = say("{scales} on {modules}", scales=plural(len(scales), "scale"), modules=listed(list(kinds)))
        if garbage:
            count = len(garbage)
            told = say("{scales}; {count} of them {_are} uninitialised", scales=told, count=count, _are=are(count))
        yield make(
            "not-needed",
            keys=keys_of(scales),
            layers=layers_of(scales),
            evidence=sentence(told),
            consequence=say("{engine} has no KV cache there: they change nothing.", engine=facts.engine),
            fix=_LEAVE_OUT,
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
            evidence=say(
                "{scales} behind the model's {count} layers: {values}.",
                scales=plural(len(scales), "scale"),
                count=facts.hidden_layers,
                values=values,
            ),
            consequence=not_reached(facts)
            or say("{engine} does not read them into the main model.", engine=facts.engine),
            fix=_LEAVE_OUT,
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
            evidence=say("{tensors}, all zero.", tensors=plural(len(offsets), "tensor")),
            consequence=say("{engine} does not use them.", engine=facts.engine),
            fix=_LEAVE_OUT,
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
            evidence=say(
                "{tensors} with {values}.",
                tensors=plural(len(offsets), "tensor"),
                values=spread(value for scale in offsets for value in scale.values),
            ),
            consequence=say(
                "{engine} quantizes around zero: what was calibrated asymmetrically is clipped.", engine=facts.engine
            ),
            fix=say("Calibrate again with a symmetric scheme."),
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
