"""Draws the errors of an attention run with pyqtgraph: a curve for each kind of scales over the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QWidget

from app.plots.canvas import Box, LayerAxis, ScaleAxis
from app.plots.errors import PLOTTED, ErrorPlot, ErrorPoint, series_word
from app.text import number
from app.theme.palettes import Colours

if TYPE_CHECKING:
    from core.loading.forward_result import Variant

SYMBOLS: dict[Variant, str] = {"received": "o", "one": "s", "swapped": "t"}
_EDGE = 0.3  # decades of the gutter above the highest error, in which those stand that are no number


def error_colour(now: Colours, variant: Variant) -> str:
    """The colour of a series."""
    colours = {"received": now.series_k, "one": now.series_v, "swapped": now.series_q}
    return colours.get(variant, now.muted)


class ErrorCanvas(pg.GraphicsLayoutWidget):  # type: ignore[misc]
    """Draws an :class:`ErrorPlot`; emits the path of the layer that was clicked."""

    layer_chosen = Signal(str)

    def __init__(self, colours: Colours, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = colours
        self.setAccessibleName(self.tr("Plot of errors"))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setRenderHint(QPainter.RenderHint.Antialiasing)
        self.ci.layout.setContentsMargins(6, 8, 12, 4)
        self.drawn: dict[Variant, int] = {}
        """How many points of each series are on the plot."""

    def show_data(self, data: ErrorPlot, colours: Colours) -> None:
        """Draw anew."""
        self._colours = now = colours
        self.ci.clear()
        self.setBackground(QColor(now.base))
        box = Box()
        box.paint_frame(QColor(now.accent))
        axis = LayerAxis()
        axis.labels = dict(data.ticks)
        plot = self.addPlot(viewBox=box, axisItems={"bottom": axis, "left": ScaleAxis()})
        plot.hideButtons()
        plot.setMenuEnabled(False)
        for side in ("left", "bottom"):
            item = plot.getAxis(side)
            item.setPen(pg.mkPen(now.border))
            item.setTextPen(pg.mkPen(now.muted))
            item.setStyle(tickLength=-4)
        plot.setLabel("left", self.tr("relative error"), color=now.muted)
        plot.setLabel("bottom", self.tr("layer"), color=now.muted)
        plot.showGrid(x=False, y=True, alpha=0.16)
        low, high = data.range()
        self._add_level(plot, data.fitted)
        self.drawn = {}
        for place, variant in enumerate(reversed(PLOTTED)):  # what the layers received lies on top
            self._add_series(plot, variant, data.series[variant], shift=(1 - place) * 0.16, top=high)
        box.setRange(xRange=(-0.6, max(data.places - 0.4, 0.6)), yRange=(low - 0.1, high + _EDGE), padding=0.02)
        box.setLimits(xMin=-2, xMax=data.places + 1, yMin=low - 2, yMax=high + 2)

    def _add_level(self, plot: Any, points: Sequence[ErrorPoint]) -> None:
        drawable = [point for point in points if point.drawable]
        if drawable:
            pen = pg.mkPen(self._colours.muted, width=1, style=Qt.PenStyle.DashLine)
            plot.addItem(pg.PlotCurveItem(*_line(drawable, 0.0), pen=pen))

    def _add_series(
        self, plot: Any, variant: Variant, points: Sequence[ErrorPoint], *, shift: float, top: float
    ) -> None:
        colour = QColor(error_colour(self._colours, variant))
        faint = QColor(colour)
        faint.setAlpha(120)
        drawable = [point for point in points if point.drawable]
        if len(drawable) > 1:
            plot.addItem(pg.PlotCurveItem(*_line(drawable, shift), pen=pg.mkPen(faint, width=1.2)))
        spots = [
            {
                "pos": (point.place + shift, point.height if point.drawable else top + _EDGE * 0.7),
                "symbol": SYMBOLS[variant] if point.drawable else "x",
                "brush": colour,
                "pen": pg.mkPen(colour, width=1),
                "data": (variant, point),
            }
            for point in points
        ]
        scatter = pg.ScatterPlotItem(spots=spots, size=8, pxMode=True, hoverable=True, tip=self._tip, hoverSize=12)
        scatter.sigClicked.connect(self._on_clicked)
        plot.addItem(scatter)
        self.drawn[variant] = len(spots)

    @staticmethod
    def _tip(x: float, y: float, data: tuple[Variant, ErrorPoint]) -> str:  # noqa: ARG004 - pyqtgraph's signature
        variant, point = data
        return f"{point.path}\n{series_word(variant)}: {number(point.error, 3)}"

    def _on_clicked(self, _scatter: Any, spots: Sequence[Any], event: Any) -> None:
        if len(spots):
            event.accept()
            self.layer_chosen.emit(spots[0].data()[1].path)


def _line(points: Sequence[ErrorPoint], shift: float) -> tuple[Any, Any]:
    return np.array([point.place + shift for point in points]), np.array([point.height for point in points])
