"""A JSON text with some values changed, in which every byte stays that need not change."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_USUAL_COLON = ": "


def spliced(text: str, value: Any) -> str:
    """``text`` with as few changes as make it spell ``value``; written anew where strict readers refuse it for control
    characters in strings. Raises ValueError where it is no JSON.
    """
    begin = _after_space(text, 0)
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(value, indent=2, ensure_ascii=False) + text[len(text.rstrip()) :]
    old, end = _DECODER.raw_decode(text, begin)
    style = _Style(line="\n", unit="  ", colon=_USUAL_COLON, ascii=text.isascii() and "\\u" in text)
    return text[:begin] + _changed(text[begin:end], old, value, style) + text[end:]


@dataclass(frozen=True, slots=True)
class _Style:
    """How new values are laid out: the line end and indentation before a member (``line``, "" where all stands in one
    line), what each level adds to that, and what stands between a name and its value.
    """

    line: str
    unit: str
    colon: str
    ascii: bool

    def spell(self, value: Any, *, flat: bool = False) -> str:
        if flat or not self.line:
            return json.dumps(value, ensure_ascii=self.ascii, separators=(", ", self.colon))
        spelled = json.dumps(value, ensure_ascii=self.ascii, indent=self.unit, separators=(",", self.colon))
        return spelled.replace("\n", self.line)


@dataclass(frozen=True, slots=True)
class _Member:
    """One member of an object, by places in its text: the name from ``begin`` to ``colon``, the value up to ``end``."""

    name: str
    begin: int
    colon: int
    at: int
    end: int
    value: Any


def _changed(text: str, old: Any, new: Any, style: _Style) -> str:
    """The text of one value, as another one."""
    if json.dumps(old) == json.dumps(new):
        return text
    if isinstance(old, Mapping) and isinstance(new, Mapping) and (members := list(_members(text))):
        return _object(text, members, new, style)
    return style.spell(new, flat=isinstance(old, list | dict) and bool(old) and "\n" not in text)


def _object(text: str, members: list[_Member], new: Mapping[str, Any], outer: _Style) -> str:
    lead, tail = text[1 : members[0].begin], text[members[-1].end : -1]
    style = _style(text, members, lead, tail, outer)
    gaps = [f",{lead}", *(text[one.end : two.begin] for one, two in pairwise(members))]
    last = {member.name: number for number, member in enumerate(members)}
    items: list[tuple[str, str]] = []  # what stands before a member, and the member
    passed, gap = 0, gaps[-1]

    def keep(number: int) -> None:
        member = members[number]
        value = text[member.at : member.end]
        if last[member.name] == number:
            value = _changed(value, member.value, new[member.name], style)
        items.append((gaps[min(passed, number)], text[member.begin : member.at] + value))  # a line goes with its end

    def keep_repeated(end: int) -> None:
        nonlocal passed
        for number in range(passed, end):
            if members[number].name in new and last[members[number].name] != number:
                keep(number)
                passed = number + 1

    for name, value in new.items():
        if name in last:
            keep_repeated(last[name])
            keep(last[name])
            passed, gap = max(passed, last[name] + 1), gaps[last[name]]
            continue
        if passed < len(members) and members[passed].name not in new:  # it takes the place of one that goes
            gap, passed = gaps[passed], passed + 1
        items.append((gap, json.dumps(name, ensure_ascii=style.ascii) + style.colon + style.spell(value)))
    keep_repeated(len(members))
    if not items:
        return "{}"
    (_, first), *others = items
    return "{" + lead + first + "".join(before + member for before, member in others) + tail + "}"


def _members(text: str) -> Iterator[_Member]:
    at = _after_space(text, 1)
    while text[at] == '"':
        name, colon = _DECODER.raw_decode(text, at)
        begin = _after_space(text, _after_space(text, colon) + 1)
        value, end = _DECODER.raw_decode(text, begin)
        yield _Member(name, at, colon, begin, end, value)
        at = _after_space(text, end)
        if text[at] == ",":
            at = _after_space(text, at + 1)


def _style(text: str, members: list[_Member], lead: str, tail: str, outer: _Style) -> _Style:
    """The style of an object, read off its first member and its end."""
    colon = text[members[0].colon : members[0].at]
    if "\n" not in lead:
        return _Style("", "", colon, outer.ascii)
    ends = "\r\n" if "\r\n" in lead else "\n"
    inside, outside = lead.rpartition("\n")[2], tail.rpartition("\n")[2] if "\n" in tail else ""
    unit = inside.removeprefix(outside) or "  "
    return _Style(ends + inside, unit, colon, outer.ascii)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at
