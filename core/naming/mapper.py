"""``WeightsMapper``: declarative renaming of checkpoint keys, with a trace of every step.

The six kinds of rules and the order in which they run are those of vLLM's ``WeightsMapper`` (vLLM 0.33.0,
``model_executor/models/utils.py``; pull request #43167). Each kind is tried in turn, every matching rule of a kind
is applied to the result so far, and a rule whose replacement is None drops the tensor.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

from core.naming import patterns
from core.wording import say


class RuleKind(StrEnum):
    """How a rule's pattern is compared with a name; listed in the order in which vLLM applies them."""

    RENAMING = "renaming"
    REGEX = "regex"
    SUBSTR = "substr"
    STACKED = "stacked"
    PREFIX = "prefix"
    SUFFIX = "suffix"


ORDER = tuple(RuleKind)


@dataclass(frozen=True, slots=True)
class Rule:
    """One renaming rule.

    ``replacement`` None drops the tensor. ``shard`` is the part of a fused parameter a stacked rule selects
    ("q", "k", "v", or a number). ``source`` says where the rule comes from, for people who want to check it.
    ``foreign``: somebody else wrote it, so its regular expression is matched with a time limit, and SlowPatternError
    is raised past it.
    """

    kind: RuleKind
    pattern: str
    replacement: str | None
    shard: str | int | None = None
    source: str = ""
    foreign: bool = field(default=False, compare=False)

    def matches(self, name: str) -> bool:
        match self.kind:
            case RuleKind.REGEX | RuleKind.RENAMING:
                return self._found_in(name)
            case RuleKind.SUBSTR | RuleKind.STACKED:
                return self.pattern in name
            case RuleKind.PREFIX:
                return name.startswith(self.pattern)
            case RuleKind.SUFFIX:
                return name.endswith(self.pattern)

    def rewrite(self, name: str) -> str | None:
        """The name after this rule; only meaningful where :meth:`matches` is true."""
        if self.replacement is None:
            return None
        match self.kind:
            case RuleKind.REGEX:
                return self._replaced(self.replacement, name, 0)
            case RuleKind.RENAMING:
                return self._replaced(self.replacement, name, 1)
            case RuleKind.SUBSTR | RuleKind.STACKED | RuleKind.PREFIX:
                return name.replace(self.pattern, self.replacement, 1)
            case RuleKind.SUFFIX:
                return name[: len(name) - len(self.pattern)] + self.replacement

    def _found_in(self, name: str) -> bool:
        if self.foreign:
            return patterns.found_in(self.pattern, name, source=self.source)
        return _compiled(self.pattern).search(name) is not None

    def _replaced(self, replacement: str, name: str, count: int) -> str:
        if self.foreign:
            return patterns.replaced(self.pattern, replacement, name, count=count, source=self.source)
        return _compiled(self.pattern).sub(replacement, name, count=count)

    def __str__(self) -> str:
        target = "dropped" if self.replacement is None else self.replacement
        return f"{self.kind}: {self.pattern} -> {target}"


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that changed a name; ``after`` is None when the rule dropped the tensor.

    ``by`` names the loader that applied it ("LlamaForCausalLM"), because nested loaders map the same name again.
    """

    rule: Rule
    before: str
    after: str | None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Renaming:
    """What a mapper made of one name, and why. ``result`` is None when a rule dropped the tensor."""

    name: str
    result: str | None
    shard: str | int | None
    steps: tuple[Step, ...]

    @property
    def dropped(self) -> bool:
        return self.result is None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@lru_cache(maxsize=4096)
def _check(pattern: str, replacement: str | None, *, foreign: bool) -> None:
    """Raises ValueError for what does not compile, or for a replacement with a group that the pattern has not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            compiled = _compiled(pattern)
        if foreign:
            patterns.check_pattern(pattern)
    except (re.error, OverflowError, RecursionError, ValueError) as error:
        raise ValueError(
            say("rule {pattern!r} is not a regular expression: {error}", pattern=pattern, error=str(error))
        ) from error
    try:
        compiled.sub(replacement or "", "")  # reads the replacement whether or not anything matches
    except (re.error, IndexError) as error:
        raise ValueError(
            say(
                "rule {pattern!r} has a replacement that does not fit it, {replacement!r}: {error}",
                pattern=pattern,
                replacement=replacement,
                error=str(error),
            )
        ) from error


_MOST_MAPPERS, _MOST_NAMES = 256, 1 << 13
_traced_by: dict[tuple[Rule, ...], dict[tuple[str, str], Renaming]] = {}


@dataclass(frozen=True)
class WeightsMapper:
    """An ordered set of renaming rules; immutable, merged with ``|``.

    Rules are unique by kind and pattern (a merge replaces the left side's rule in its place, as merging vLLM's
    dictionaries does), except ``renaming`` rules, which are appended. A regular expression that does not compile,
    or does not fit its replacement, raises ValueError when the mapper is made, not when the first name arrives.
    """

    rules: tuple[Rule, ...] = ()
    _by_kind: tuple[tuple[Rule, ...], ...] = field(init=False, repr=False, compare=False, default=())
    _traced: dict[tuple[str, str], Renaming] = field(init=False, repr=False, compare=False, default_factory=dict)
    """What was made of names so far; mappers of equal rules share it: most of an engine's backends have equal ones."""

    def __post_init__(self) -> None:
        for rule in self.rules:
            if rule.kind in (RuleKind.REGEX, RuleKind.RENAMING):
                _check(rule.pattern, rule.replacement, foreign=rule.foreign)
        by_kind = tuple(tuple(rule for rule in self.rules if rule.kind is kind) for kind in ORDER)
        object.__setattr__(self, "_by_kind", by_kind)
        if len(_traced_by) >= _MOST_MAPPERS:
            _traced_by.clear()
        object.__setattr__(self, "_traced", _traced_by.setdefault(self.rules, {}))

    def trace(self, name: str, *, by: str = "") -> Renaming:
        """Apply every matching rule in order and keep each step."""
        found = self._traced.get((name, by))
        if found is None:
            if len(self._traced) >= _MOST_NAMES:
                self._traced.clear()
            found = self._traced[name, by] = self._trace(name, by)
        return found

    def _trace(self, name: str, by: str) -> Renaming:
        steps: list[Step] = []
        shard: str | int | None = None
        current = name
        for rules in self._by_kind:
            for rule in rules:
                if not rule.matches(current):
                    continue
                after = rule.rewrite(current)
                steps.append(Step(rule, current, after, by))
                if after is None:
                    return Renaming(name, None, None, tuple(steps))
                current = after
                if rule.kind is RuleKind.STACKED:
                    shard = rule.shard
        return Renaming(name, current, shard, tuple(steps))

    def map_name(self, name: str) -> str | None:
        """The new name, or None when the tensor is dropped."""
        return self.trace(name).result

    def apply(self, weights: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
        """Rename a stream of (name, tensor) lazily; a tensor a stacked rule selected gets a ``shard_id`` attribute."""
        for name, tensor in weights:
            renaming = self.trace(name)
            if renaming.result is None:
                continue
            if renaming.shard is not None:
                tensor.shard_id = renaming.shard
            yield renaming.result, tensor

    def __or__(self, other: object) -> WeightsMapper:
        if isinstance(other, WeightsMapper):
            return _merge(self, other)
        # Looked up in the class's own bases: on a class, getattr would find type.__ror__ and build a union of types.
        reflected = next((vars(base)["__ror__"] for base in type(other).__mro__ if "__ror__" in vars(base)), None)
        result = reflected(other, self) if reflected is not None else NotImplemented
        if isinstance(result, WeightsMapper):
            return result
        raise TypeError(_cannot_merge(self, other))

    def __ror__(self, other: object) -> WeightsMapper:
        raise TypeError(_cannot_merge(other, self))


def _qualified(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _cannot_merge(left: object, right: object) -> str:
    wrong = right if isinstance(left, WeightsMapper) else left
    hint = (
        "get_cache_scale_mapper() returned nothing; return WeightsMapper() for no rules"
        if wrong is None
        else f"a mapper merges with another WeightsMapper, and {_qualified(wrong)} is none"
    )
    return f"cannot merge {_qualified(left)} | {_qualified(right)}: {hint}"


def _merge(left: WeightsMapper, right: WeightsMapper) -> WeightsMapper:
    # The more specific class survives, so that a subclass from outside this tree keeps its own fields.
    if isinstance(left, type(right)):
        base = left
    elif isinstance(right, type(left)):
        base = right
    else:
        raise TypeError(
            f"cannot merge {_qualified(left)} | {_qualified(right)}: neither is a subclass of the other, "
            "so one side's own fields would be lost; give one of them an __or__ that knows both"
        )
    merged: dict[object, Rule] = {}
    for position, rule in enumerate((*left.rules, *right.rules)):
        key = (rule.kind, position) if rule.kind is RuleKind.RENAMING else (rule.kind, rule.pattern)
        merged[key] = rule
    return replace(base, rules=tuple(merged.values()))


def rules(kind: RuleKind, pairs: Iterable[tuple[str, str | None]], *, source: str = "") -> tuple[Rule, ...]:
    """Rules of one kind from (pattern, replacement) pairs."""
    return tuple(Rule(kind, pattern, replacement, source=source) for pattern, replacement in pairs)
