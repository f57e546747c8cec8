"""The numbers behind the plot, as plain data: one point per scale, by role. No Qt."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from app.digest import COVERED_ROLES, Digest
from app.status import Status
from core.comparison import Comparison
from core.naming.scales import KVScale

LEAST, MOST = 1e-8, 1e4
"""Values outside are drawn at the edge: an uninitialised 4.5e34 would flatten all others."""


@dataclass(frozen=True, slots=True)
class Point:
    """One scale: its place among the attention layers, its value (the largest of several heads), what became of it.

    ``heads`` are all values of a per-head scale, () for a scalar.
    """

    id: str
    place: int
    value: float
    heads: tuple[float, ...]
    status: Status

    @property
    def drawable(self) -> bool:
        """Whether the value has a place on the logarithmic axis."""
        return math.isfinite(self.value) and LEAST <= self.value <= MOST


@dataclass(frozen=True, slots=True)
class Series:
    """All points of one role, with the quartiles of those that can be drawn (None with fewer than two)."""

    role: str
    points: tuple[Point, ...]
    band: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class Ghost:
    """A role's values in the checkpoint that is compared, as (place, value, key)."""

    role: str
    points: tuple[tuple[int, float, str], ...]


@dataclass(frozen=True, slots=True)
class PlotData:
    """The series of an inspection. ``ticks`` label the places with layer numbers; ``breaks`` are where a group ends;
    ``ghosts`` are the compared checkpoint's.
    """

    series: tuple[Series, ...]
    ticks: tuple[tuple[int, str], ...]
    breaks: tuple[int, ...]
    places: int
    ghosts: tuple[Ghost, ...] = ()

    @property
    def has_heads(self) -> bool:
        return any(len(point.heads) > 1 for series in self.series for point in series.points)

    def heads(self, role: str) -> tuple[tuple[float, ...], ...]:
        """One row of per-head values for each place; () where there are none."""
        rows: list[tuple[float, ...]] = [()] * self.places
        for series in self.series:
            if series.role == role:
                for point in series.points:
                    rows[point.place] = point.heads
        return tuple(rows)


def plot_data(digest: Digest, comparison: Comparison | None = None) -> PlotData:
    """Arrange a digest's scales for plotting, in the order of the coverage strip; the compared ones beside them."""
    series = []
    for role in digest.roles if digest.columns else ():
        points = []
        for place, column in enumerate(digest.columns):
            for name in column.cells[role].ids:
                row = digest.by_id[name]
                if row.kind == "scale" and row.values:
                    value = _largest(row.values)
                    points.append(Point(name, place, value, row.values if len(row.values) > 1 else (), row.status))
        if points:
            series.append(Series(role, tuple(points), _band([point.value for point in points if point.drawable])))
    ticks = tuple((place, str(column.layer)) for place, column in enumerate(digest.columns) if column.layer is not None)
    breaks = tuple(
        place
        for place in range(1, len(digest.columns))
        if digest.columns[place].group != digest.columns[place - 1].group
    )
    ghosts = _ghosts(digest, comparison) if comparison is not None else ()
    return PlotData(tuple(series), ticks, breaks, len(digest.columns), ghosts)


def _ghosts(digest: Digest, comparison: Comparison) -> tuple[Ghost, ...]:
    """The other checkpoint's scales: at the place of their counterpart, else at the first place of their layer."""
    ids = {id(row.scale): row.id for row in digest.rows if row.scale is not None}
    place_of = {
        name: place
        for place, column in enumerate(digest.columns)
        for cell in column.cells.values()
        for name in cell.ids
    }
    by_layer: dict[int, int] = {}
    for place, column in enumerate(digest.columns):
        if column.layer is not None:
            by_layer.setdefault(column.layer, place)
    found: dict[str, list[tuple[int, float, str]]] = {}
    for row in comparison.rows:
        right = row.right
        if right is None or right.kind != "scale" or not right.values:
            continue
        at: int | None = place_of.get(ids.get(id(row.left), ""))
        if at is None and right.layer is not None:
            at = by_layer.get(right.layer)
        value = _largest(right.values)
        if at is not None and math.isfinite(value) and LEAST <= value <= MOST:
            for role in _roles(right):
                found.setdefault(role, []).append((at, value, right.key))
    return tuple(Ghost(role, tuple(sorted(points))) for role, points in found.items())


def as_csv(digest: Digest) -> str:
    """Every plotted series as CSV, one line per value: key, role, layer, head, value, status, dtype."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("key", "role", "layer", "head", "value", "status", "dtype"))
    order = {role: number for number, role in enumerate(COVERED_ROLES)}
    for row in sorted(
        (row for row in digest.rows if row.kind == "scale" and row.values), key=lambda row: order.get(row.role, 9)
    ):
        for head, value in enumerate(row.values):
            writer.writerow(
                (
                    row.key,
                    row.role,
                    "" if row.layer is None else row.layer,
                    head if len(row.values) > 1 else "",
                    repr(value),
                    row.status.value,
                    row.dtype,
                )
            )
    return out.getvalue()


def _roles(scale: KVScale) -> tuple[str, ...]:
    return ("k", "v") if scale.role == "kv" else (scale.role,)


def _largest(values: Sequence[float]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else max(values)


def _band(values: Sequence[float]) -> tuple[float, float, float] | None:
    if len(values) < 2:
        return None
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, median(values), high
