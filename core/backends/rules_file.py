r"""A TOML file of renaming rules: an out-of-tree backend without a line of Python.

::

    name = "my-backend"              # for people
    method = "compressed-tensors"    # optional: the built-in method whose KV method takes the scales

    [[rule]]
    kind = "regex"                   # renaming, regex, substr, stacked, prefix or suffix
    pattern = '\.cache_k\.scale$'
    replacement = '.attn.k_scale'    # or: drop = true
    shard = "k"                      # stacked rules only
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.checkpoint.faults import BrokenFileError
from core.checkpoint.files import read_given
from core.errors import KVScopeError
from core.naming.mapper import Rule, RuleKind, WeightsMapper
from core.wording import joined, say

_LIMIT = 1 << 20
_KNOWN = {"kind", "pattern", "replacement", "drop", "shard", "source"}


@dataclass(frozen=True, slots=True)
class RulesFile:
    """What such a file says; ``method`` None means: the method the checkpoint declares."""

    name: str
    method: str | None
    mapper: WeightsMapper


def read_rules(path: Path | str) -> RulesFile:
    """Read a file of rules. Raises KVScopeError that names the file, the rule and the remedy."""
    path = Path(path)
    try:
        text = read_given(path, _LIMIT).decode("utf-8")
    except BrokenFileError as error:
        raise KVScopeError(error.problem, path=path, remedy=error.remedy) from error
    except UnicodeDecodeError as error:
        raise _not_toml(error, path) from error
    return parse_rules(text, path)


def parse_rules(text: str, path: Path) -> RulesFile:
    """The rules of such a text. Raises KVScopeError that names the file at ``path``, the rule and the remedy."""
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside its own error, numbers of thousands of digits and depth
        raise _not_toml(error, path) from error
    rows = data.get("rule", [])
    if not isinstance(rows, list) or not rows:
        raise KVScopeError(say("holds no [[rule]]"), path=path, remedy=say("Add at least one [[rule]] table"))
    name, method = data.get("name", path.stem), data.get("method")
    if not isinstance(name, str) or not isinstance(method, str | None):
        raise KVScopeError(
            say("name and method are texts"), path=path, remedy=say('Write them in quotes: name = "my-backend"')
        )
    rules = tuple(_rule(row, number, path) for number, row in enumerate(rows, start=1))
    try:
        mapper = WeightsMapper(rules)
    except ValueError as error:
        raise KVScopeError(error.args[0], path=path, remedy=say("Mend the pattern")) from error
    return RulesFile(name, method, mapper)


def _not_toml(error: Exception, path: Path) -> KVScopeError:
    return KVScopeError(say("is not TOML: {error}", error=str(error)), path=path, remedy=say("Mend it at that place"))


def _rule(row: Any, number: int, path: Path) -> Rule:
    if not isinstance(row, dict):
        raise KVScopeError(
            say("rule {number} is no table", number=number), path=path, remedy=say("Begin it with [[rule]]")
        )
    unknown = sorted(set(row) - _KNOWN)
    if unknown:
        raise KVScopeError(
            say("rule {number} has the unknown field {field!r}", number=number, field=unknown[0]),
            path=path,
            remedy=say("Known are {choices}", choices=joined(", ", sorted(_KNOWN))),
        )
    kind = row.get("kind")
    if kind not in tuple(RuleKind):
        raise KVScopeError(
            say("rule {number} has the kind {kind!r}", number=number, kind=kind),
            path=path,
            remedy=say("Choose one of {choices}", choices=joined(", ", RuleKind)),
        )
    pattern, replacement, drop = row.get("pattern"), row.get("replacement"), row.get("drop", False)
    if not isinstance(pattern, str) or not pattern:
        raise KVScopeError(
            say("rule {number} has no pattern", number=number), path=path, remedy=say("Give it a pattern in quotes")
        )
    if drop is not True and not isinstance(replacement, str):
        raise KVScopeError(
            say("rule {number} has neither a replacement nor drop = true", number=number),
            path=path,
            remedy=say("Give it one of the two"),
        )
    shard = row.get("shard")
    if shard is not None and not isinstance(shard, str | int):
        raise KVScopeError(
            say("rule {number} has a shard that is no text and no number", number=number),
            path=path,
            remedy=say('Write shard = "k"'),
        )
    source = row.get("source")
    return Rule(
        RuleKind(kind),
        pattern,
        None if drop is True else replacement,
        shard=shard,
        source=source if isinstance(source, str) else f"{path.name}, rule {number}",
        foreign=True,
    )
