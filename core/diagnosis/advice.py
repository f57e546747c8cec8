"""What to do where a load stops or scales are lost: a sentence, and the remedy with which an export does it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

from core.diagnosis.facts import Facts
from core.engines import get_engine
from core.engines.outcome import Delivery
from core.engines.vllm.engine import Vllm
from core.engines.vllm.releases import UNIFIED
from core.errors import UsageError
from core.naming.conventions import is_leftover, is_nvfp4_global
from core.naming.mapper import WeightsMapper
from core.naming.scales import KVScale
from core.quantization.modelopt import quantizes_cache_alone
from core.wording import joined, listed, say

_NO_INTEGERS = say("Calibrate the KV cache for FP8: this engine takes no integer KV scheme.")
_NO_EXPORT = say("Serve this model with an engine that knows its architecture: no export helps here.")
_REFUSAL_FIXES = (
    (
        "quant_algo",
        say("Export again with quantized weights: this engine takes no ModelOpt config for the KV cache alone."),
    ),
    ("type=int", _NO_INTEGERS),
    ("int8", _NO_INTEGERS),
    ("symmetric", say("Calibrate again with a symmetric scheme.")),
    ("num_kv_heads", say("Give the model's num_attention_heads and num_key_value_heads in config.json.")),
    ("No model architectures", say("Name the model's class under architectures in config.json.")),
    ("fp8_e5m2", say("Choose --kv-cache-dtype fp8 (e4m3).")),
    ("model_type", say("Open the Hugging Face checkpoint from which this one was made.")),
    ("position_ids", _NO_EXPORT),
    ("packing_format", say("Export again in a format that this engine reads (AutoRound: llm_compressor).")),
)
_ODD_FIELD = ("TypeError", "AttributeError", "KeyError", "IndexError", "ZeroDivisionError", "error")
"""What Python raises where a field is missing or of another type, and ``regex`` for a pattern that is none."""
CONVERT_AGAIN = say(
    "Convert the checkpoint again: every layer of a quantized cache needs a factor, which is one number."
)
_NO_PLACE = say("Leave these tensors out on export: this engine has no place for them.")
_RENAMED = say("Export with names that this engine takes.")
_DIVIDED = say("Divide them by 448 (FP8) and give them the names of scales on export.")
_TIMES_SIX = say("Multiply by 6 on export: these are global scales of an NVFP4 cache, amax / 2688.")


def after_refusal(facts: Facts, error: str) -> tuple[str, str, Sequence[KVScale]]:
    """What to do, the remedy, and the tensors that it concerns."""
    declaration = facts.case.declaration
    scheme = declaration.kv_scheme
    if quantizes_cache_alone(declaration) and scheme is not None and scheme.algorithm == "FP8":
        fix = say("Declare the KV cache as compressed-tensors does on export: this engine takes that without weights.")
        return fix, "declare", ()
    offsets = [scale for scale in facts.case.scales if scale.kind == "zero_point"]
    zero = not any(value for scale in offsets for value in scale.values)
    stored = [scale for scale in facts.case.scales if scale.kind == "scale" and scale.role in ("k", "v", "kv")]
    if scheme is not None and (scheme.algorithm, scheme.dynamic) == ("INT8", False) and zero and stored:
        fix = say("Make FP8 scales of them on export (times 127 / 448), or calibrate the KV cache for FP8.")
        return fix, "to-fp8", stored
    if "symmetric" in error and offsets and zero:
        fix = say("Leave the zero points out on export, all of which are zero: the scheme then is symmetric.")
        return fix, "drop", offsets
    where = facts.case.deliveries.load.key
    known = next((advice for sign, advice in _REFUSAL_FIXES if sign in error), None)
    if known is None and where is not None and error.partition(":")[0] in _ODD_FIELD:
        known = say("Mend this field, which the engine reads and does not check: {where}.", where=where)
    return known or say("Export again with a scheme that this engine takes, or choose another engine."), "", ()


def after_failure(facts: Facts, scale: KVScale | None) -> tuple[str, str]:
    """What to do about the tensor at which the load ends, and the remedy; None is a tensor that is no KV scale."""
    load = facts.case.deliveries.load
    if facts.case.declaration.dialect == "tensorrt-llm":
        return CONVERT_AGAIN, ""
    at_end = load.key is None and facts.engine.startswith("vLLM")
    if at_end or facts.case.deliveries.closed:
        return _NO_EXPORT, ""
    if scale is None and is_leftover(load.key or ""):
        return say("Leave out on export what quantizers left behind: this engine has no place for it."), "drop"
    if scale is None:
        fix = say("Leave this tensor out on export: it is no KV scale, and this engine has no place for it.")
        return fix, "drop"
    if scale.quantity == "amax":
        return _DIVIDED, "amax-to-scale"
    if is_nvfp4_global(scale):
        return _TIMES_SIX, "rescale"
    if facts.place(scale) != "layer":
        return say("Leave these tensors out on export: this engine has no layer for them."), "drop"
    if not facts.case.declaration.quantized:
        return say("Declare the quantization of the KV cache in config.json; no name helps without it."), "declare"
    if not facts.parameters:
        fix = say("Leave these tensors out on export: with {method} no layer takes them.", method=facts.method)
    elif scale.kind == "scale" and not _has_place(facts, scale):
        fix = say("Leave these tensors out on export: no layer of {engine} has such a parameter.", engine=facts.engine)
    elif scale.kind == "scale":
        return _RENAMED, "rename"
    else:
        fix = _NO_PLACE
    return fix, "drop"


def loss(facts: Facts, scale: KVScale) -> tuple[str, str, str]:
    """Why a scale reaches nothing, what to do, and the export's remedy."""
    delivery = facts.delivery(scale)
    role = "k" if scale.role == "kv" else scale.role
    takers = [layer for layer in facts.owners(scale) if layer.parameter_for(role) is not None]
    if not takers:
        classes = sorted({layer.cls for layer in facts.owners(scale)})
        scales = f"{role}_scale" if facts.parameters else say("KV-cache scales")
        told = say(
            "{engine} with {method} creates no {scales}", engine=facts.engine, method=facts.method, scales=scales
        )
        if facts.parameters or classes not in ([], ["Attention"]):
            told = say("{lacking} on {classes} layers", lacking=told, classes=listed(classes))
        return told, say("No name helps here: choose an engine or a quantization method that has these scales."), ""
    if facts.case.declaration.dialect == "tensorrt-llm":  # beside the factor that its layer takes
        return way(scale.key, delivery), _NO_PLACE, "drop"
    wanted = f"{takers[0].path}.{takers[0].parameter_for(role)}"
    told = say("{way}; the parameter is {parameter}", way=way(scale.key, delivery), parameter=wanted)
    mapper = _mapper(facts)
    if mapper is not None and (delivery is None or not delivery.steps):
        rule = _nearest(scale.key, mapper)
        told = joined("; ", (told, say("no rule matches, the nearest is {rule}", rule=rule)))
    if mapper is not None and mapper.map_name(wanted) != wanted:
        fix = say(
            "No name reaches {cls} layers in {engine}: its rules rename even the parameter's own. "
            "Keep the cache unquantized (--kv-cache-dtype bfloat16), or choose an engine that has names for them.",
            cls=takers[0].cls,
            engine=facts.engine,
        )
        return told, fix, ""
    return told, *_renamed(scale)


def _renamed(scale: KVScale) -> tuple[str, str]:
    """What to do for a scale that another name would bring home, and the remedy: some are no scales under any name."""
    if scale.quantity == "amax":
        return _DIVIDED, "amax-to-scale"
    if is_nvfp4_global(scale):
        return _TIMES_SIX, "rescale"
    if ".kv_b_proj." in scale.key:
        fix = say(
            "Calibrate the KV cache itself: these belong to the up-projection of multi-head latent attention, not to "
            "what its cache stores, and an export gives them no other name."
        )
        return fix, ""
    return _RENAMED, "rename"


def way(key: str, delivery: Delivery | None) -> str:
    """The tensor and the renaming that led it there: key -> name (rule)."""
    names: list[str] = [key]
    for step in delivery.steps if delivery is not None else ():
        rule = say("{kind} rule {pattern}", kind=step.rule.kind, pattern=step.rule.pattern)
        if step.by:
            rule = say("{rule} of {loader}", rule=rule, loader=step.by)
        names.append(say("{name} ({rule})", name=step.after or say("dropped"), rule=rule))
    return joined(" -> ", names)


def _has_place(facts: Facts, scale: KVScale) -> bool:
    """Whether any layer has a parameter for this role."""
    wanted = f".{'k' if scale.role == 'kv' else scale.role}_scale"
    return any(name.endswith(wanted) for name in facts.parameters)


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
