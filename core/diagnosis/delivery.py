"""What stops a load, and what never arrives."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

from core.diagnosis.consequence import of_layers, of_scales, where
from core.diagnosis.facts import Facts
from core.diagnosis.finding import Finding
from core.diagnosis.making import make
from core.diagnosis.selection import keys_of, layers_of, numbers_of
from core.engines import get_engine
from core.engines.outcome import Delivery
from core.engines.vllm.engine import Vllm
from core.engines.vllm.releases import UNIFIED
from core.errors import UsageError
from core.naming.conventions import is_nvfp4_global
from core.naming.mapper import WeightsMapper
from core.naming.scales import KVScale
from core.quantization.modelopt import quantizes_cache_alone
from core.wording import listed, number, of, plural, sentence, short

_MARKED_AS_CAUSE = ("uninitialised", "not-finite", "negative", "zero")

_REFUSAL_FIXES = (
    ("quant_algo", "Export again with quantized weights: this engine takes no ModelOpt config for the KV cache alone."),
    ("type=int", "Calibrate the KV cache for FP8: this engine takes no integer KV scheme."),
    ("int8", "Calibrate the KV cache for FP8: this engine takes no integer KV scheme."),
    ("symmetric", "Calibrate again with a symmetric scheme."),
    ("fp8_e5m2", "Choose --kv-cache-dtype fp8 (e4m3)."),
    ("model_type", "Open the Hugging Face checkpoint from which this one was made."),
    ("packing_format", "Export again in a format that this engine reads (AutoRound: llm_compressor)."),
)


def load_refused(facts: Facts) -> Iterator[Finding]:
    """The engine does not build the model."""
    load = facts.case.deliveries.load
    if load.outcome == "refused":
        message = (load.error or "").partition(": ")[2]
        reason = f". {sentence(load.reason)}" if load.reason and message not in load.reason else ""
        fix, remedy, offsets = _after_refusal(facts, load.error or "")
        yield make(
            "load-refused",
            keys=keys_of(offsets),
            layers=layers_of(offsets),
            evidence=sentence(f"{short(load.error)}{reason}"),
            consequence=f"{facts.engine} does not build the model; no tensor is read.",
            fix=fix,
            remedy=remedy,
        )


def _after_refusal(facts: Facts, error: str) -> tuple[str, str, Sequence[KVScale]]:
    """What to do, the remedy, and the tensors that it concerns."""
    declaration = facts.case.declaration
    scheme = declaration.kv_scheme
    if quantizes_cache_alone(declaration) and scheme is not None and scheme.algorithm == "FP8":
        fix = "Declare the KV cache as compressed-tensors does on export: this engine takes that without weights."
        return fix, "declare", ()
    offsets = [scale for scale in facts.case.scales if scale.kind == "zero_point"]
    zero = not any(value for scale in offsets for value in scale.values)
    stored = [scale for scale in facts.case.scales if scale.kind == "scale" and scale.role in ("k", "v", "kv")]
    if scheme is not None and (scheme.algorithm, scheme.dynamic) == ("INT8", False) and zero and stored:
        fix = "Make FP8 scales of them on export (times 127 / 448), or calibrate the KV cache for FP8."
        return fix, "to-fp8", stored
    if "symmetric" in error and offsets and zero:
        return (
            "Leave the zero points out on export, all of which are zero: the scheme then is symmetric.",
            "drop",
            offsets,
        )
    fixes = (fix for sign, fix in _REFUSAL_FIXES if sign in error)
    return next(fixes, "Export again with a scheme that this engine takes, or choose another engine."), "", ()


def load_raises(facts: Facts) -> Iterator[Finding]:
    """By a name that leads to the wrong place; wrong shapes have rules of their own."""
    delivery = failure(facts)
    if facts.case.deliveries.load.outcome != "raises" or (delivery is not None and _misfits(facts, delivery)):
        return
    load = facts.case.deliveries.load
    left = sum(facts.outcome(other) == "not_reached" for other in facts.case.scales)
    beyond = f" and does not reach {plural(left, 'more scale')}" if left else ""
    scale = delivery.scale if delivery is not None else None
    if scale is None:
        fix, remedy = "Leave this tensor out on export: it is no KV scale, and this engine has no place for it.", "drop"
    elif scale.quantity == "amax":
        fix, remedy = "Divide them by 448 (FP8) and give them the names of scales on export.", "amax-to-scale"
    elif is_nvfp4_global(scale):
        fix, remedy = "Multiply by 6 on export: these are global scales of an NVFP4 cache, amax / 2688.", "rescale"
    elif facts.place(scale) != "layer":
        fix, remedy = "Leave these tensors out on export: this engine has no layer for them.", "drop"
    elif not facts.case.declaration.quantized:
        fix, remedy = "Declare the quantization of the KV cache in config.json; no name helps without it.", "declare"
    elif not facts.parameters:
        fix, remedy = f"Leave these tensors out on export: with {facts.method} no layer takes them.", "drop"
    elif scale.kind == "scale" and not _has_place(facts, scale):
        fix, remedy = f"Leave these tensors out on export: no layer of {facts.engine} has such a parameter.", "drop"
    elif scale.kind == "scale":
        fix, remedy = "Export with names that this engine takes.", "rename"
    else:
        fix, remedy = "Leave these tensors out on export: this engine has no place for them.", "drop"
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
        evidence=sentence((f"{load.key}{_road(delivery)}: " if load.key else "") + short(load.error)),
        consequence=f"{facts.engine} stops there{beyond}.",
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
            evidence=sentence(f"{refused.key} has shape {list(refused.shape)}: {short(load_error(facts))}"),
            consequence=f"{facts.engine} stops while loading.",
            fix="Store one value for each layer on export: the largest, which clips nothing.",
            remedy="reshape",
        )
    cut = [scale for scale in facts.scales if scale.numel > 1 and _room(facts, scale) == 1]
    if cut:
        yield make(
            "shape",
            keys=keys_of(cut),
            layers=layers_of(cut),
            evidence=f"{cut[0].key} has shape {list(cut[0].shape)}; the parameter holds one value.",
            consequence=of_scales(facts, cut),
            fix="Store one value for each layer on export: the largest, which clips nothing.",
            remedy="reshape",
        )


def head_count(facts: Facts) -> Iterator[Finding]:
    """Per-head parameters that get another number of values; too many are cut off without a word."""
    delivery = failure(facts)
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
        heads = f"{facts.kv_heads} KV heads" if facts.kv_heads else "one value for each KV head"
        yield make(
            "head-count",
            keys=keys_of(wrong),
            layers=layers_of(wrong),
            evidence=f"{first.key} holds {plural(first.numel, 'value')}; the layer has {heads}.",
            consequence=of_scales(facts, wrong)
            if facts.loads
            else f"{facts.engine} stops: {short(load_error(facts))}.",
            fix="Calibrate again for this model's heads, or store one value for each layer.",
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
            evidence=sentence(f"{short(failing[0].error)} in {where(facts, failing)} ({failing[0].path})"),
            consequence=of_layers(facts, failing),
            fix="Make sure that these layers receive a k scale above 0.",
            remedy="set-scale" if held else "rename",
        )


def dropped_scale(facts: Facts) -> Iterator[Finding]:
    """Scales for k and v that end nowhere."""
    lost = [scale for scale in facts.kv_scales if facts.outcome(scale) in ("dropped", "ignored")]
    if lost:
        told, fix, remedy = _loss(facts, lost[0])
        yield make(
            "dropped-scale",
            keys=keys_of(lost),
            layers=layers_of(lost),
            evidence=sentence(f"{of(len(lost), len(facts.kv_scales), 'k and v scale')}; {told}"),
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
        told, fix, remedy = _loss(facts, lost[0])
        yield make(
            "q-dropped",
            keys=keys_of(lost),
            layers=layers_of(lost),
            evidence=sentence(f"{plural(len(lost), 'scale')}; {told}"),
            consequence=of_scales(facts, lost),
            fix=fix,
            remedy=remedy,
        )


def conflict(facts: Facts) -> Iterator[Finding]:
    """Two tensors on one parameter are harmless where they hold the same."""
    by_target: dict[str, list[KVScale]] = defaultdict(list)
    for delivery in facts.case.deliveries.deliveries:
        if delivery.outcome == "loaded" and delivery.target is not None and delivery.scale is not None:
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
            evidence=sentence(f"{plural(len(clashes), 'parameter')}; {target} gets {values}"),
            consequence=of_scales(facts, [found[-1] for found in clashes.values()]),
            fix="Leave out the tensors that do not belong there on export.",
            remedy="drop",
        )


# --------------------------------------------------------------------------------------------------------- explanations


def failure(facts: Facts) -> Delivery | None:
    """The tensor at which the load ends."""
    return next((delivery for delivery in facts.case.deliveries.deliveries if delivery.outcome == "raises"), None)


def load_error(facts: Facts) -> str:
    """The engine's exception of the whole load."""
    return facts.case.deliveries.load.error or ""


def _has_place(facts: Facts, scale: KVScale) -> bool:
    """Whether any layer has a parameter for this role."""
    wanted = f".{'k' if scale.role == 'kv' else scale.role}_scale"
    return any(name.endswith(wanted) for name in facts.parameters)


def _misfits(facts: Facts, delivery: Delivery) -> bool:
    """Whether the load ends at a parameter that exists: then the shape is to blame, not the name."""
    return delivery.name in facts.parameters


def _per_head(facts: Facts, delivery: Delivery | None) -> bool:
    size = facts.parameters.get(delivery.name or "") if delivery is not None else None
    scheme = facts.case.declaration.kv_scheme
    per_head = scheme is not None and scheme.strategy == "attn_head"
    return size is not None and (per_head or _numel(size) > 1)


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


def _road(delivery: Delivery | None) -> str:
    """The renaming that led there: -> name (rule)."""
    steps = delivery.steps if delivery is not None else ()
    told = ""
    for step in steps:
        told += f" -> {step.after or 'dropped'} ({step.rule.kind} rule {step.rule.pattern}"
        told += f" of {step.by})" if step.by else ")"
    return told


def _loss(facts: Facts, scale: KVScale) -> tuple[str, str, str]:
    """Why a scale reaches nothing, what to do, and the export's remedy."""
    delivery = facts.delivery(scale)
    role = "k" if scale.role == "kv" else scale.role
    takers = [layer for layer in facts.owners(scale) if f"{role}_scale" in layer.parameters]
    if not takers:
        classes = sorted({layer.cls for layer in facts.owners(scale)})
        what = "KV-cache scales" if not facts.parameters else f"{role}_scale"
        where_ = f" on {listed(classes)} layers" if facts.parameters or classes not in ([], ["Attention"]) else ""
        told = f"{facts.engine} with {facts.method} creates no {what}{where_}"
        return told, "No name helps here: choose an engine or a quantization method that has these scales.", ""
    wanted = f"{takers[0].path}.{role}_scale"
    told = f"{scale.key}{_road(delivery)}; the parameter is {wanted}"
    mapper = _mapper(facts)
    if mapper is not None and (delivery is None or not delivery.steps):
        told += f"; no rule matches, the nearest is {_nearest(scale.key, mapper)}"
    if mapper is not None and mapper.map_name(wanted) != wanted:
        fix = (
            f"No name reaches {takers[0].cls} layers in {facts.engine}: its rules rename even the parameter's own. "
            "Keep the cache unquantized (--kv-cache-dtype bfloat16), or choose an engine that has names for them."
        )
        return told, fix, ""
    return told, "Export with names that this engine takes.", "rename"


def _mapper(facts: Facts) -> WeightsMapper | None:
    """The backend's cache-scale mapper where the engine is one that uses it as it is."""
    try:
        engine = get_engine(facts.case.settings.engine.value or "")
    except UsageError:
        return None
    if not isinstance(engine, Vllm) or engine.release.first < UNIFIED:
        return None
    backend = engine.release.backends.get(facts.case.settings.method.value or "")
    return backend.get_cache_scale_mapper() if backend is not None else None


def _nearest(key: str, mapper: WeightsMapper) -> str:
    """The rule whose pattern reads most like the end of the key."""
    end = ".".join(key.split(".")[-3:])

    def likeness(pattern: str) -> float:
        return SequenceMatcher(None, end, re.sub(r"\\|\(\?[^)]*\)|\$", "", pattern)).ratio()

    best = max(mapper.rules, key=lambda rule: likeness(rule.pattern))
    return best.pattern


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
