"""What hand-written loaders ask: ``maybe_remap_kv_scale_name``, and ``get_cache_scale`` before vLLM 0.23."""

from __future__ import annotations

import re
from collections.abc import Container

from core.naming.mapper import Rule, RuleKind, Step

SOURCE = "vLLM 0.33.0, model_loader/weight_utils.py, maybe_remap_kv_scale_name"

_SUFFIXES = (
    ".k_scale",
    ".v_scale",
    ".q_scale",
    ".k_zero_point",
    ".v_zero_point",
    ".q_zero_point",
    ".q.scale",
    ".k_cache.scale",
    ".v_cache.scale",
)


def remap_rules(*, mla: bool) -> tuple[Rule, ...]:
    """The helper's patterns in their order; in a model with MLA layers the first one knows where they are."""
    attention = "mla_attn.mla_attn" if mla else "attn"
    pairs = (
        (r"\.self_attn\.([kv])_proj\.([kv])_scale$", rf".self_attn.{attention}.\2_scale"),
        (r"\.self_attn\.qkv_proj\.([kv])_scale$", r".self_attn.attn.\1_scale"),
        (r"\.self_attn\.qkqkv_proj\.([kv])_scale$", r".self_attn.attn.\1_scale"),
        (r"\.mixer\.[kv]_proj\.([kv])_scale$", r".mixer.attn.\1_scale"),
        (r"\.self_attn\.q\.scale$", r".self_attn.attn.q_scale"),
        (r"\.self_attn\.([kv])_cache\.scale$", r".self_attn.attn.\1_scale"),
        (r"\.([qkv])_scale$", r".attn.\1_scale"),
        (r"\.([qkv])_zero_point$", r".attn.\1_zero_point"),
    )
    return tuple(Rule(RuleKind.REGEX, pattern, new, source=SOURCE) for pattern, new in pairs)


def maybe_remap_kv_scale_name(
    name: str, parameters: Container[str], *, mla: bool, by: str, guarded: bool = True
) -> tuple[str | None, Step | None]:
    """The name after the helper, and the step it took; None where the helper skips the tensor with a warning.

    The first pattern that matches wins; a result that is no parameter means the tensor is skipped. A name that is a
    parameter already stays, except in vLLM 0.22 and before (not ``guarded``), where it gets a second ``.attn``.
    """
    if guarded and name in parameters:
        return name, None
    step = remapped(name, mla=mla, by=by)
    if step is None:
        return name, None
    return (step.after if step.after in parameters else None), step


def remapped(name: str, *, mla: bool, by: str) -> Step | None:
    """What the helper makes of a name before it asks whether the result is a parameter; None where it knows nothing."""
    if name.endswith(".kv_scale"):
        rule = Rule(RuleKind.SUFFIX, ".kv_scale", ".attn.k_scale", source=SOURCE)
        return Step(rule, name, name.replace(".kv_scale", ".attn.k_scale"), by)
    if name.endswith(_SUFFIXES):
        for rule in remap_rules(mla=mla):
            if re.search(rule.pattern, name):
                return Step(rule, name, re.sub(rule.pattern, str(rule.replacement), name), by)
    return None


_OUTPUT_SCALES = (
    (".k_proj", ".k_proj.output_scale", ".attn.k_scale"),
    (".v_proj", ".v_proj.output_scale", ".attn.v_scale"),
    (".q_proj", ".q_proj.output_scale", ".attn.q_scale"),
)


def cache_scale(name: str, *, by: str) -> Step | None:
    """``get_cache_scale`` of fp8, deepseek_v4_fp8 and quark, the step it takes; None for a name it does not know.

    Every occurrence is replaced, and a known name need not change (vLLM 0.22.1, layers/quantization/fp8.py).
    """
    source = "vLLM 0.22.1, layers/quantization/fp8.py and quark/quark.py, get_cache_scale"
    if name.endswith(".output_scale"):
        for projection, old, new in _OUTPUT_SCALES:
            if projection in name:
                return Step(Rule(RuleKind.SUFFIX, old, new, source=source), name, name.replace(old, new), by)
    if name.endswith("self_attn.prob_output_scale"):
        rule = Rule(RuleKind.SUFFIX, ".prob_output_scale", ".attn.prob_scale", source=source)
        return Step(rule, name, name.replace(rule.pattern, str(rule.replacement)), by)
    return None
