"""What is plotted of an attention run: for every layer the error with three kinds of scales. No Qt, no pyqtgraph."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.text import QT_TRANSLATE_NOOP, translate

if TYPE_CHECKING:
    from core.loading.forward_result import Forward, Variant

PLOTTED: tuple[Variant, ...] = ("received", "one", "swapped")
"""The series, in the order in which they are drawn and named."""

LEAST = 1e-6
"""Errors below stand at the axis's lower end: they are rounding in float32."""

_WORDS: Mapping[Variant, str] = {
    "received": QT_TRANSLATE_NOOP("Errors", "scales received"),
    "one": QT_TRANSLATE_NOOP("Errors", "at 1.0"),
    "swapped": QT_TRANSLATE_NOOP("Errors", "k and v exchanged"),
    "fitted": QT_TRANSLATE_NOOP("Errors", "fitted to the data"),
}


def series_word(variant: Variant) -> str:
    """A series' name, translated."""
    return translate("Errors", _WORDS[variant])


@dataclass(frozen=True, slots=True)
class ErrorPoint:
    """One layer's error in one series; ``place`` is the layer's position on the axis."""

    place: int
    path: str
    error: float

    @property
    def drawable(self) -> bool:
        return math.isfinite(self.error)

    @property
    def height(self) -> float:
        """The decimal logarithm, at least that of :data:`LEAST`."""
        return math.log10(max(self.error, LEAST))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorPlot:
    """The series by variant, ``fitted`` as the level that rounding alone gives; ``ticks`` are layer numbers."""

    series: Mapping[Variant, tuple[ErrorPoint, ...]]
    fitted: tuple[ErrorPoint, ...]
    ticks: Mapping[int, str]

    @property
    def places(self) -> int:
        return len(self.ticks)

    def range(self) -> tuple[float, float]:
        """The lowest and the highest height of all that can be drawn."""
        points = [point for row in (*self.series.values(), self.fitted) for point in row if point.drawable]
        heights = [point.height for point in points]
        return (min(heights), max(heights)) if heights else (-2.0, 0.0)


def error_plot(forward: Forward) -> ErrorPlot:
    """The layers that have errors, in module order."""
    measured = forward.measured

    def row(variant: Variant) -> tuple[ErrorPoint, ...]:
        return tuple(ErrorPoint(place, layer.path, layer.errors[variant]) for place, layer in enumerate(measured))

    return ErrorPlot(
        series={variant: row(variant) for variant in PLOTTED},
        fitted=row("fitted"),
        ticks={place: str(layer.layer) if layer.layer is not None else "" for place, layer in enumerate(measured)},
    )
