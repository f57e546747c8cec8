"""Rules that nearly matched a name, and why they did not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from core.naming.mapper import ORDER, Rule, RuleKind, Step
from core.naming.patterns import SlowPatternError, check_pattern, found_in
from core.wording import say

NearKind = Literal["shadowed", "guarded", "anchored", "elsewhere", "unasked"]
_LOOKAROUND = re.compile(r"(?<!\\)\(\?<?[=!]")
_LEAST_PARTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class NearMiss:
    """A rule that did not apply although it is near.

    ``kind``: "shadowed" an earlier rule changed the name before its turn; "guarded" the rule excludes such names;
    "anchored" one part of the name differs from what the rule wants; "elsewhere" another backend has the rule;
    "unasked" the engine has the rule and the model's loader does not ask for it. ``by`` holds the rule, ``why`` is a
    sentence, ``would_make`` the name that the rule would have given, ``likeness`` how much alike what the rule
    wants and what the name has are (0 to 1), ``source`` says where the rule stands.
    """

    kind: NearKind
    rule: Rule
    by: str
    why: str
    would_make: str | None = None
    likeness: float = 1.0
    source: str = ""


def near_misses(name: str, rules: Sequence[Rule], steps: Sequence[Step], *, by: str) -> Iterator[NearMiss]:
    """The near misses of ``name`` among one loader's ``rules``, of which ``steps`` were applied to it in order."""
    applied = {(step.rule.kind, step.rule.pattern) for step in steps}
    last = steps[-1].after if steps else name
    for rule in rules:
        if (rule.kind, rule.pattern) in applied:
            continue
        if rule.matches(name):
            if (step := _shadowing(rule, steps)) is not None:
                yield NearMiss(
                    kind="shadowed",
                    rule=rule,
                    by=by,
                    why=_why_shadowed(rule, step, by),
                    would_make=rule.rewrite(step.before),
                )
        elif last is not None and _without_guards(rule, last):
            yield NearMiss(
                kind="guarded",
                rule=rule,
                by=by,
                why=say("{rule} leaves names alone that look like {name}", rule=rule.pattern, name=last),
            )
        elif (pair := _one_part_off(rule, (name, last))) is not None:
            wanted, found, where = pair
            yield NearMiss(
                kind="anchored",
                rule=rule,
                by=by,
                why=say(
                    "{rule} wants {wanted} where {name} has {found}",
                    rule=rule.pattern,
                    wanted=wanted,
                    name=where,
                    found=found,
                ),
                likeness=SequenceMatcher(None, wanted, found).ratio(),
            )


def _shadowing(rule: Rule, steps: Iterable[Step]) -> Step | None:
    """The step that changed a name the rule matches into one that it does not."""
    for step in steps:
        if rule.matches(step.before) and (step.after is None or not rule.matches(step.after)):
            return step
    return None


def _why_shadowed(rule: Rule, step: Step, by: str) -> str:
    if step.by and step.by != by:
        ahead = say("{loader} runs before {other}", loader=step.by, other=by)
    elif ORDER.index(step.rule.kind) < ORDER.index(rule.kind):
        ahead = say("{kind} rules run before {other} rules", kind=step.rule.kind, other=rule.kind)
    else:
        ahead = say("it stands before this one")
    return say("shadowed by the {kind} rule {rule}: {why}", kind=step.rule.kind, rule=told(step.rule), why=ahead)


def told(rule: Rule) -> str:
    """A rule's pattern and replacement: ".k_proj -> .qkv_proj"."""
    if rule.replacement is None:
        return say("{rule} -> dropped", rule=rule.pattern)
    return f"{rule.pattern} -> {rule.replacement}"


def _without_guards(rule: Rule, name: str) -> bool:
    """Whether only a look-around keeps a regular expression from matching."""
    if rule.kind not in (RuleKind.REGEX, RuleKind.RENAMING) or not _LOOKAROUND.search(rule.pattern):
        return False
    return _fits(rule, _bare(rule.pattern), name)


def _bare(pattern: str) -> str:
    """A regular expression without its look-arounds, and the groups inside them."""
    while (found := _LOOKAROUND.search(pattern)) is not None:
        depth, end = 0, len(pattern)
        for each in re.finditer(r"\\.|\[(?:\\.|[^]\\])+]|[()]", pattern[found.start() :]):
            depth += {"(": 1, ")": -1}.get(each.group(), 0)
            if depth == 0 and each.group() == ")":
                end = found.start() + each.end()
                break
        pattern = pattern[: found.start()] + pattern[end:]
    return pattern


def _one_part_off(rule: Rule, names: Iterable[str | None]) -> tuple[str, str, str] | None:
    """What the rule wants and what the name has, where they differ in one dotted part; and which name that is."""
    parts = _parts(rule)
    if len(parts) < _LEAST_PARTS:
        return None
    for name in names:
        ending = name.split(".")[-len(parts) :] if name is not None else []
        if len(ending) != len(parts):
            continue
        off = [place for place, part in enumerate(parts) if not _fits(rule, rf"\A(?:{part})\Z", ending[place])]
        if len(off) == 1 and off[0] < len(parts) - 1:  # another leaf is another tensor
            return _plain(parts[off[0]]), ending[off[0]], str(name)
    return None


def _fits(rule: Rule, pattern: str, text: str) -> bool:
    """Whether a part of the rule's pattern matches; of a foreign rule that is slow or broken, no hint is worth it."""
    if not rule.foreign:
        return re.search(pattern, text) is not None
    try:
        check_pattern(pattern)
        return found_in(pattern, text)
    except (ValueError, SlowPatternError):
        return False


def _parts(rule: Rule) -> list[str]:
    """The rule's pattern as one regular expression for each dotted part of a name's end; empty for other patterns."""
    match rule.kind:
        case RuleKind.SUFFIX:
            return [re.escape(part) for part in rule.pattern.strip(".").split(".")]
        case RuleKind.REGEX | RuleKind.RENAMING if rule.pattern.endswith("$"):
            bare = _bare(rule.pattern).removesuffix("$").removeprefix(r"\.")
            return bare.split(r"\.") if _compiles(bare.split(r"\.")) else []
        case _:
            return []


def _compiles(parts: Iterable[str]) -> bool:
    try:
        for part in parts:
            re.compile(part)
    except re.error:
        return False
    return True


def _plain(part: str) -> str:
    return part.replace("\\", "")
