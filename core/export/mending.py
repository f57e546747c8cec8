"""What repairs do to values that are stored: other values, other units, one in place of several."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from core.diagnosis.catalog import DOUBTS
from core.diagnosis.thresholds import LARGEST_NUMBER
from core.errors import UsageError
from core.export.fixes import Choice
from core.export.names import spelling_of
from core.export.rows import Row
from core.inspection import Inspection
from core.naming.conventions import is_nvfp4_global
from core.naming.scales import KVScale, Role
from core.side_files import ScaleSource
from core.side_files.formats import NVFP4_OVER_FP8
from core.wording import number, say, spread

Chosen = Callable[[Row], bool]
_OTHER = {"k": "v", "v": "k"}
_WORTHLESS = DOUBTS - {
    "shape", "head-count", "conflict", "offsets-lost", "outlier", "above-half", "swapped", "pair-ratio",
}  # fmt: skip
"""What is doubted about a value for its own sake: it stands for no other."""
_RECIPROCAL = re.compile(r"_cache_rcp_scaling_factor$")


def divide(
    inspection: Inspection, rows: Sequence[Row], chosen: Chosen, code: str, title: str, *, by: float | None
) -> list[Row]:
    """An amax to the scale: divided by the largest number of the cache's format, or by the number given."""
    scheme = inspection.declaration.kv_scheme
    algorithm = (scheme.algorithm or "FP8") if scheme is not None else "FP8"
    largest = by or LARGEST_NUMBER.get(algorithm, LARGEST_NUMBER["FP8"])

    def divided(row: Row, scale: KVScale) -> Row:
        values = [value / largest for value in scale.values]
        reason = say(
            "{title}: {values} divided by {largest:g}.", title=title, values=spread(scale.values), largest=largest
        )
        return renamed(row.holding(values, scale.shape, code, reason), scale)

    return _each_readable(rows, chosen, divided)


def invert(rows: Sequence[Row], chosen: Chosen, code: str, title: str) -> list[Row]:
    """A reciprocal to the scale."""

    def inverted(row: Row, scale: KVScale) -> Row:
        if not all(scale.values):
            raise UsageError(
                say("{code}: 1 / 0 is no scale", code=code),
                key=scale.key,
                remedy=say("Give this layer a value of its own"),
            )
        reason = say("{title}: 1 / {values}.", title=title, values=spread(scale.values))
        return renamed(row.holding([1.0 / value for value in scale.values], scale.shape, code, reason), scale)

    return _each_readable(rows, chosen, inverted)


def scale_by(rows: Sequence[Row], chosen: Chosen, code: str, title: str, factor: float) -> list[Row]:
    """Another unit: every value times a number."""

    def multiplied(row: Row, scale: KVScale) -> Row:
        reason = say("{title}: {values} times {factor:g}.", title=title, values=spread(scale.values), factor=factor)
        changed = row.holding([value * factor for value in scale.values], scale.shape, code, reason)
        return renamed(changed, scale) if factor == NVFP4_OVER_FP8 else changed

    return _each_readable(rows, chosen, multiplied)


def reduce(rows: Sequence[Row], chosen: Chosen, code: str, title: str) -> list[Row]:
    """One number in place of several: the largest, with which no head or channel is clipped. Zero points that are all
    zero become one zero.
    """

    def largest(row: Row, scale: KVScale) -> Row:
        reason = say(
            "{title}: the largest of {count} values, {largest}.",
            title=title,
            count=scale.numel,
            largest=number(max(scale.values)),
        )
        return row.holding([max(scale.values)], (1,), code, reason)

    several = _each_readable(rows, lambda row: chosen(row) and row.scale is not None and row.scale.numel > 1, largest)
    modules = {row.scale.module for row in several if code in row.fixes and row.scale is not None}

    def companion(row: Row) -> bool:
        scale = row.scale
        return (
            scale is not None and scale.kind == "zero_point" and scale.module in modules and scale.numel > 1
            and not any(scale.values) and not row.dropped
        )  # fmt: skip

    return _each(
        several,
        companion,
        lambda row, _: row.holding([0.0], (1,), code, say("{title}: its zero points are all zero.", title=title)),
    )


def exchange(rows: Sequence[Row], chosen: Chosen, code: str, title: str) -> list[Row]:
    """Exchange k and v of each attention module: the values of one under the name of the other."""
    pairs: dict[tuple[str, str], Row] = {}
    for row in rows:
        if chosen(row) and row.scale is not None and row.scale.values:
            pairs[row.scale.module, row.scale.role] = row

    def exchanged(row: Row, scale: KVScale) -> Row:
        partner = pairs.get((scale.module, _OTHER.get(scale.role, "")))
        if partner is None or partner.scale is None:
            return row
        other = partner.scale
        reason = say("{title}: {value}, which {key} held.", title=title, value=number(max(other.values)), key=other.key)
        changed = row.holding(other.values, other.shape, code, reason)
        if changed.scale is None or changed.scale.dtype == other.dtype or not _is_float(other.dtype):
            return changed
        return replace(changed, fed=replace(changed.fed, scale=replace(changed.scale, dtype=other.dtype)))

    return _each_readable(rows, chosen, exchanged)


def set_values(
    inspection: Inspection, rows: Sequence[Row], chosen: Chosen, choice: Choice, source: ScaleSource | None, title: str
) -> list[Row]:
    """New values for scales that stand there, as the choice says."""
    values = Values(inspection, rows, choice, source)

    def changed(row: Row, scale: KVScale) -> Row:
        given, why = values.for_scale(scale)
        shape = scale.shape if scale.numel else ()
        new = given if len(given) == scale.numel else (max(given),) * math.prod(shape)
        old = spread(scale.values) if scale.values else say("unreadable")
        reason = say("{title}: {old} becomes {new}, {why}.", title=title, old=old, new=kept(new, given), why=why)
        held = row.holding(new, shape, choice.fix.code, reason)
        return held if choice.option.value == "xNUMBER" else renamed(held, scale)

    return _each(rows, chosen, changed)


@dataclass(frozen=True, slots=True)
class Values:
    """Where the values come from that a choice promises: a number, the other layers, the other role, a file."""

    inspection: Inspection
    rows: Sequence[Row]
    choice: Choice
    source: ScaleSource | None = None

    def for_scale(self, scale: KVScale) -> tuple[tuple[float, ...], str]:
        """The values for a scale (it may not exist yet), and why, in words.

        Raises:
            UsageError: there are none.
        """
        match self.choice.option.value:
            case "NUMBER":
                return (self.choice.number,), say("as typed in")
            case "xNUMBER":
                return tuple(value * self.choice.number for value in scale.values), say(
                    "times {factor:g}", factor=self.choice.number
                )
            case "PATH":
                return self._from_source(scale)
            case "median":
                return (self._median(scale),), say("the median of the {role} scales", role=scale.role)
            case _:
                return self._other(scale)

    def _from_source(self, scale: KVScale) -> tuple[tuple[float, ...], str]:
        source = self.source
        roles: tuple[Role, ...] = ("k", "v") if scale.role == "kv" else (scale.role,)
        found = [source.find(role, scale.layer, scale.module) for role in roles] if source is not None else []
        values = [each.values for each in found if each is not None]
        if source is None or len(values) < len(roles):
            raise self._refusal(
                say(
                    "{file} has no {role} scale for layer {layer}",
                    file=source.place if source is not None else self.choice.path,
                    role=scale.role,
                    layer=scale.layer,
                ),
                say("Choose another file or value"),
            )
        why = say("from {file}", file=source.path.name)
        return (values[0] if len(set(values)) == 1 else (max(map(max, values)),)), why

    def _median(self, scale: KVScale) -> float:
        doubted = {key for finding in self.inspection.findings if finding.code in DOUBTS for key in finding.keys}
        sound = [
            max(other.values)
            for row in self.rows
            if (other := row.scale) is not None
            and not row.dropped
            and (other.role, other.kind, other.quantity) == (scale.role, "scale", "scale")
            and other.values
            and other.key not in doubted
        ]
        if not sound:
            raise self._refusal(
                say("there is no sound {role} scale to take the median of", role=scale.role),
                say("Give a number, or a file with scales"),
            )
        return statistics.median_low(sound)

    def _other(self, scale: KVScale) -> tuple[tuple[float, ...], str]:
        role = _OTHER.get(scale.role)
        found = next(
            (
                other
                for row in self.rows
                if (other := row.scale) is not None
                and not row.dropped
                and (other.module, other.role, other.kind) == (scale.module, role, "scale")
            ),
            None,
        )
        if role is None or found is None:
            raise self._refusal(
                say("layer {layer} has no other role's scale to stand for {role}", layer=scale.layer, role=scale.role),
                say("Choose another value"),
            )
        if not found.values or not all(math.isfinite(value) and value > 0 for value in found.values):
            held = spread(found.values) if found.values else say("nothing that can be read")
            raise self._refusal(
                say(
                    "the {other} scale of layer {layer} cannot stand for {role}: it is {held}",
                    other=role,
                    layer=scale.layer,
                    role=scale.role,
                    held=held,
                ),
                say("Choose another value"),
            )
        if any(found.key in finding.keys for finding in self.inspection.findings if finding.code in _WORTHLESS):
            raise self._refusal(
                say(
                    "the {other} scale of layer {layer} cannot stand for {role}: it is {held}, as doubtful itself",
                    other=role,
                    layer=scale.layer,
                    role=scale.role,
                    held=spread(found.values),
                ),
                say("Choose another value"),
            )
        return found.values, say("the {role} scale of the same layer", role=role)

    def _refusal(self, problem: str, remedy: str) -> UsageError:
        return UsageError(say("{fix}: {problem}", fix=self.choice.fix, problem=problem), remedy=remedy)


def _each(rows: Sequence[Row], chosen: Chosen, change: Callable[[Row, KVScale], Row]) -> list[Row]:
    return [change(row, row.scale) if row.scale is not None and chosen(row) else row for row in rows]


def _each_readable(rows: Sequence[Row], chosen: Chosen, change: Callable[[Row, KVScale], Row]) -> list[Row]:
    """What stands in no readable value can only be replaced."""
    return _each(rows, lambda row: row.scale is not None and bool(row.scale.values) and chosen(row), change)


def kept(new: Sequence[float], given: Sequence[float]) -> str:
    """The values that are stored, and of how many they are the largest."""
    if len(given) == 1 or tuple(new) == tuple(given):
        return spread(new)
    return say("{value}, the largest of {count} values", value=number(max(new)), count=len(given))


def renamed(row: Row, scale: KVScale) -> Row:
    """Names that promise an amax, a reciprocal or an NVFP4 scale give way to the scale's."""
    if scale.quantity == "reciprocal":
        return row.called(_RECIPROCAL.sub("_cache_scaling_factor", scale.key))
    if scale.quantity == "amax" or is_nvfp4_global(scale):
        return row.called(spelling_of("portable").spell(scale, scale.role) or scale.key)
    return row


def _is_float(dtype: str) -> bool:
    return dtype in ("F64", "F32", "F16", "BF16")
