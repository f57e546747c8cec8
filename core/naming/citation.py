"""Where a rule stands in the engine's sources, down to the line.

``resources/sources/<engine>.json`` (schema ``kvscope.lines/1``) holds the lines of each release that was read;
``find_lines.py`` beside them says how they were found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType

from core.naming.mapper import Rule
from resources import resource

Lines = Mapping[str, int]
"""Text to line; "" is the definition's own line."""

_OWN_MAPPER = re.compile(r"^(\w+)'s own mapper$")
_MAPPER = ".hf_to_vllm_mapper"
_NAME = re.compile(r"^[\w.]+$")


def cite(rule: Rule, *, by: str, release: str, title: str) -> str:
    """The rule's source with file and line: "vLLM 0.27.1, models/gemma3.py:285, Gemma3Model.hf_to_vllm_mapper".

    ``by`` is the loader that applied the rule, ``release`` the id of the engine profile whose sources were read and
    ``title`` that release for people. Rules that older releases share are cited as they stand in ``release``. Without
    a line that is known the rule's own source is returned.
    """
    files = _lines(release)
    if not files:
        return rule.source
    project, _, rest = rule.source.partition(", ")
    if project.partition(" ")[0] != title.partition(" ")[0]:
        return rule.source  # an out-of-tree backend's, or another project's
    for name in _definitions(rest, by):
        for file, defined in files.items():
            if name in defined and _is_named(file, rest):
                holder = _holder(name, rule.pattern, defined)
                lines = defined[holder]
                return f"{title}, {file}:{lines.get(rule.pattern, lines[''])}, {holder}"
    return _in_named_file(rule, rest, files, title) or rule.source


def _holder(name: str, pattern: str, defined: Mapping[str, Lines]) -> str:
    """The definition that spells the pattern out: a class's mapper is often another's of the same file."""
    if pattern in defined[name] or not name.endswith(_MAPPER):
        return name
    return next((other for other, lines in defined.items() if other.endswith(_MAPPER) and pattern in lines), name)


def _in_named_file(rule: Rule, rest: str, files: Mapping[str, Mapping[str, Lines]], title: str) -> str:
    """The rule in the file that its source names, where its loop is a base class's or a mixin's; "" where it is not."""
    named = next((file for file in files if rest.endswith(file)), "")
    if not named:
        return ""
    defined = files[named]
    holding = [name for name, lines in defined.items() if rule.pattern in lines]
    name = next(iter(holding or [name for name in defined if name.endswith("load_weights")]), "")
    return f"{title}, {named}:{defined[name].get(rule.pattern, defined[name][''])}, {name}" if name else ""


def _definitions(rest: str, by: str) -> Iterator[str]:
    """What the rule may be defined in, the likeliest first."""
    last = rest.rpartition(", ")[2]
    if (own := _OWN_MAPPER.match(last)) is not None:
        yield f"{own[1]}{_MAPPER}"
        yield f"{own[1]}.load_weights"
        return
    if _NAME.match(last) and not last.endswith(".py"):
        yield last
        yield f"{last}.get_cache_scale_mapper"
        yield f"{last}.load_weights"
        for prefix in ("Fp8Config", "QuarkConfig"):  # the helper before 0.23 is a method of both
            yield f"{prefix}.{last}"
    yield f"{by}.load_weights"
    yield f"{by}.do_load_weights"


def _is_named(file: str, rest: str) -> bool:
    """Whether ``rest`` names this file, or no file at all."""
    named = re.findall(r"[\w/]+\.py", rest)
    return not named or any(file == each or file.endswith(f"/{each}") for each in named)


@cache
def _lines(release: str) -> Mapping[str, Mapping[str, Lines]]:
    path = resource("sources") / f"{release}.json"
    if not path.is_file():
        return MappingProxyType({})
    files: dict[str, dict[str, dict[str, int]]] = json.loads(path.read_text(encoding="utf-8"))["files"]
    return MappingProxyType(files)
