"""A JSON object as lines that know which field they belong to, so that fields can be marked. No Qt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_LINES = 4_000
_INDENT = "  "

Place = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the text, and the keys that lead to what stands in it."""

    text: str
    place: Place


def lines_of(value: Any) -> list[Line]:
    """The object as indented JSON, at most ``MOST_LINES`` lines and one that says how many are left out."""
    found: list[Line] = []
    left = 0
    for line in _lines(value, (), "", "", ""):
        if len(found) < MOST_LINES:
            found.append(line)
        else:
            left += 1
    return [*found, Line(f"… (+{left})", ())] if left else found


def places_of(value: Any, field: str) -> Place | None:
    """The keys of a dotted field, whose keys may hold dots themselves; None where the object has no such field."""
    if not field:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = {str(number): item for number, item in enumerate(value)}
    if not isinstance(value, Mapping):
        return None
    for key, inner in value.items():
        if field == key:
            return (key,)
        if field.startswith(f"{key}."):
            below = places_of(inner, field[len(key) + 1 :])
            if below is not None:
                return (key, *below)
    return None


def marked(lines: Sequence[Line], places: Iterable[Place]) -> dict[int, Place]:
    """The numbers of the lines that belong to one of the places, each with that place."""
    wanted = set(places)
    found = {}
    for number, line in enumerate(lines):
        for length in range(len(line.place), 0, -1):
            if line.place[:length] in wanted:
                found[number] = line.place[:length]
                break
    return found


def _lines(value: Any, place: Place, indent: str, before: str, after: str) -> Iterator[Line]:
    if isinstance(value, Mapping) and value:
        yield Line(f"{indent}{before}{{", place)
        for number, (key, inner) in enumerate(value.items()):
            comma = "," if number + 1 < len(value) else ""
            name = f"{json.dumps(str(key), ensure_ascii=False)}: "
            yield from _lines(inner, (*place, str(key)), indent + _INDENT, name, comma)
        yield Line(f"{indent}}}{after}", place)
    elif isinstance(value, list) and value and not all(isinstance(item, str | int | float) for item in value):
        yield Line(f"{indent}{before}[", place)
        for number, inner in enumerate(value):
            comma = "," if number + 1 < len(value) else ""
            yield from _lines(inner, (*place, str(number)), indent + _INDENT, "", comma)
        yield Line(f"{indent}]{after}", place)
    else:
        yield Line(f"{indent}{before}{json.dumps(value, ensure_ascii=False, default=str)}{after}", place)
