"""SGLang's ``maybe_remap_kv_scale_name``: the one place where it renames scales, for the models that call it.

Source: SGLang 0.5.23, ``srt/model_loader/weight_utils.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.naming.mapper import Rule, RuleKind, Step

HELPER = "maybe_remap_kv_scale_name"
SOURCE = f"SGLang 0.5.23, model_loader/weight_utils.py, {HELPER}"

_UNDER_PROJECTIONS = (".self_attn.", ".mixer.")
_OUTPUT_SCALES = (
    (".q_proj.output_scale", ".attn.q_scale"),
    (".k_proj.output_scale", ".attn.k_scale"),
    (".v_proj.output_scale", ".attn.v_scale"),
    # The old part has no leading dot and the new one has: the result holds two dots in a row.
    ("self_attn.prob_output_scale", ".attn.prob_scale"),
)


@dataclass(frozen=True, slots=True)
class Remapped:
    """``name`` None: the target does not exist and the tensor is left out with a warning; ``step``: what was tried."""

    name: str | None
    step: Step | None


def helper_rules() -> tuple[Rule, ...]:
    """The helper's rules in the order in which it tries them; the first that fits decides."""
    pairs = [(".kv_scale", ".attn.k_scale")]
    for role in ("k", "v"):
        leaf = f".{role}_scale"
        pairs += [(f"{where}{role}_proj{leaf}", f"{where}attn{leaf}") for where in _UNDER_PROJECTIONS]
        pairs.append((leaf, f".attn{leaf}"))
    return tuple(Rule(RuleKind.SUFFIX, old, new, source=SOURCE) for old, new in (*pairs, *_OUTPUT_SCALES))


def maybe_remap_kv_scale_name(name: str, exists: Callable[[str], bool], *, by: str = "") -> Remapped:
    """The name a scale is looked up under.

    The first rule that fits decides. ``kv_scale``, ``k_scale`` and ``v_scale`` must lead to a parameter; the
    ``output_scale`` spellings are renamed without looking. A name that already stands below ``.attn`` gets a second
    ``.attn``, and so never exists.
    """
    if name.endswith(".kv_scale"):
        return _checked(name, ".kv_scale", ".attn.k_scale", exists, by)
    for role in ("k", "v"):
        leaf = f".{role}_scale"
        if not name.endswith(leaf):
            continue
        for container in _UNDER_PROJECTIONS:
            old = f"{container}{role}_proj{leaf}"
            if old in name:
                return _checked(name, old, f"{container}attn{leaf}", exists, by)
        return _checked(name, leaf, f".attn{leaf}", exists, by)
    for old, new in _OUTPUT_SCALES:
        if name.endswith(old):
            after = name.replace(old, new)
            return Remapped(after, _step(name, old, new, after, by))
    return Remapped(name, None)


def _checked(name: str, old: str, new: str, exists: Callable[[str], bool], by: str) -> Remapped:
    after = name.replace(old, new)
    return Remapped(after if exists(after) else None, _step(name, old, new, after, by))


def _step(before: str, old: str, new: str, after: str, by: str) -> Step:
    return Step(Rule(RuleKind.SUFFIX, old, new, source=SOURCE), before, after, by)
