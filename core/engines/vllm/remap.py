"""``maybe_remap_kv_scale_name``: the helper that hand-written loaders still call."""

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
    name: str, parameters: Container[str], *, mla: bool, by: str
) -> tuple[str | None, Step | None]:
    """The name after the helper, and the step it took; None where the helper skips the tensor with a warning.

    A name that is a parameter already stays; the first pattern that matches wins; a result that is no parameter means
    the tensor is skipped.
    """
    if name in parameters:
        return name, None
    if name.endswith(".kv_scale"):
        rule = Rule(RuleKind.SUFFIX, ".kv_scale", ".attn.k_scale", source=SOURCE)
        new = name.replace(".kv_scale", ".attn.k_scale")
        return (new if new in parameters else None), Step(rule, name, new, by)
    if name.endswith(_SUFFIXES):
        for rule in remap_rules(mla=mla):
            if re.search(rule.pattern, name):
                new = re.sub(rule.pattern, str(rule.replacement), name)
                return (new if new in parameters else None), Step(rule, name, new, by)
    return name, None
