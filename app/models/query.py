"""The filter language of the key table. No Qt.

Terms are separated by spaces and AND-ed. A bare term is looked for, without regard to case, in the key and in the
engine's name; ``field:value`` looks at one field; several values separated by commas are OR-ed; a minus before a term
turns it round; quotes keep spaces together. Number fields take ``3``, ``3-7``, ``>0.5``, ``<=2`` and ``nan``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container
from dataclasses import dataclass

from app.digest import Row

FIELDS = ("layer", "role", "kind", "status", "dtype", "shape", "value", "convention", "file", "problem")
_TERM = re.compile(r'(-?)(?:([a-z]+):)?("[^"]*"?|\S*)')
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_SIZE = re.compile(r"[0-9]{1,18}")
_COMPARED = re.compile(r"^(>=|<=|>|<|=)?\s*(.+)$")

Test = Callable[[Row, Container[str]], bool]


@dataclass(frozen=True, slots=True)
class Term:
    """One term: ``field`` "" is a bare word; ``test`` gets a row and the codes of the findings that concern it."""

    field: str
    text: str
    negated: bool
    test: Test

    def accepts(self, row: Row, codes: Container[str]) -> bool:
        return self.test(row, codes) is not self.negated


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed filter. ``mistaken`` are field and value of terms that say nothing; they are taken as bare words."""

    terms: tuple[Term, ...] = ()
    mistaken: tuple[tuple[str, str], ...] = ()

    def accepts(self, row: Row, codes: Container[str] = ()) -> bool:
        return all(term.accepts(row, codes) for term in self.terms)

    @property
    def words(self) -> tuple[Term, ...]:
        """The bare terms: all that a table without scales' fields can look at quickly."""
        return tuple(term for term in self.terms if not term.field)


def parse(text: str) -> Query:
    """Read a filter; never raises. "" accepts everything."""
    terms: list[Term] = []
    mistaken: list[tuple[str, str]] = []
    for match in _TERM.finditer(text):
        minus, name, raw = match.groups()
        value = raw.strip('"')
        if not value:
            continue
        if name is None:
            terms.append(_word(value, negated=bool(minus)))
            continue
        test = _field_test(name, value)
        if test is None:
            mistaken.append((name, value))
            terms.append(_word(f"{name}:{value}", negated=bool(minus)))
        else:
            terms.append(Term(name, value, bool(minus), test))
    return Query(tuple(terms), tuple(mistaken))


def quoted(value: str) -> str:
    """``value`` as one term of the language."""
    return f'"{value}"' if re.search(r"[\s,]", value) else value


def _word(value: str, *, negated: bool) -> Term:
    needle = value.lower()
    return Term("", value, negated, lambda row, _: needle in row.key.lower() or needle in row.target.lower())


def _field_test(name: str, value: str) -> Test | None:
    match name:
        case "role" | "kind":
            wanted = frozenset(value.lower().split(","))
            return lambda row, _: getattr(row, name).lower() in wanted
        case "status":
            starts = tuple(part.replace(" ", "_").lower() for part in value.split(",") if part)
            return lambda row, _: row.status.value.startswith(starts)
        case "dtype":
            starts = tuple(part.lower() for part in value.split(",") if part)
            return lambda row, _: row.dtype.lower().startswith(starts)
        case "convention" | "file":
            parts = tuple(part.lower() for part in value.split(",") if part)
            return lambda row, _: any(part in getattr(row, name).lower() for part in parts)
        case "problem":
            codes = tuple(part.lower() for part in value.split(",") if part)
            return lambda _, present: any(code in present for code in codes)
        case "shape":
            return _shape_test(value)
        case "layer":
            return _layer_test(value)
        case "value":
            return _value_test(value)
        case _:
            return None


def shape_of(value: str) -> tuple[int, ...] | None:
    """The shape that a term asks for: "scalar", "8x1", "[8, 1]"; None where it is none."""
    if value.lower() in ("scalar", "[]", "()"):
        return ()
    parts = [part for part in re.split(r"[x×,\[\]()\s]+", value.lower()) if part]
    if not parts or not all(map(_SIZE.fullmatch, parts)):
        return None
    return tuple(int(part) for part in parts)


def _shape_test(value: str) -> Test | None:
    wanted = shape_of(value)
    if wanted is None:
        return None
    if not wanted:
        return lambda row, _: not row.missing and not row.shape
    return lambda row, _: row.shape == wanted


def _layer_test(value: str) -> Test | None:
    ranges: list[tuple[int, int]] = []
    for part in value.split(","):
        match = _RANGE.fullmatch(part)
        if match:
            low = int(match.group(1))
            ranges.append((low, int(match.group(2) or low)))
            continue
        compare = _compare(part)
        if compare is None or part.lower() == "nan":
            return None
        return lambda row, _: row.layer is not None and compare(row.layer)
    return lambda row, _: row.layer is not None and any(low <= row.layer <= high for low, high in ranges)


def _value_test(value: str) -> Test | None:
    compare = _compare(value)
    if compare is None:
        return None
    return lambda row, _: any(compare(stored) for stored in row.values)


def _compare(text: str) -> Callable[[float], bool] | None:
    match = _COMPARED.match(text)
    if match is None:
        return None
    operator, operand = match.group(1) or "=", match.group(2)
    try:
        bound = float(operand)
    except ValueError:
        return None
    if math.isnan(bound):
        return math.isnan
    match operator:
        case ">":
            return lambda number: number > bound
        case ">=":
            return lambda number: number >= bound
        case "<":
            return lambda number: number < bound
        case "<=":
            return lambda number: number <= bound
        case _:
            return lambda number: number == bound or math.isclose(number, bound, rel_tol=1e-3)
