"""The drawing itself, with pyqtgraph: scales by layer on a logarithmic axis, or a heat map per head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QGraphicsRectItem, QWidget

from app import text
from app.plots.series import LEAST, MOST, Ghost, PlotData, Point, Series
from app.status import Status
from app.theme.palettes import Colours
from app.theme.status import shape, tone, word

_SIZE = 11
_EDGE = 0.35  # decades between the outermost value and the gutter in which undrawable values stand


class Box(pg.ViewBox):  # type: ignore[misc]
    """A view in which the left button drags a box that selects, the middle one pans and the wheel zooms."""

    boxed = Signal(object, object)
    cleared = Signal()

    def __init__(self) -> None:
        super().__init__(enableMenu=False)
        self._frame = QGraphicsRectItem()
        self._frame.setZValue(1e9)
        self._frame.hide()
        self.addItem(self._frame, ignoreBounds=True)

    def paint_frame(self, colour: QColor) -> None:
        fill = QColor(colour)
        fill.setAlpha(40)
        self._frame.setPen(pg.mkPen(colour, width=1))
        self._frame.setBrush(fill)

    def mouseDragEvent(self, event: Any, axis: Any = None) -> None:
        if event.button() != Qt.MouseButton.LeftButton or axis is not None:
            super().mouseDragEvent(event, axis)
            return
        event.accept()
        box = QRectF(self.mapToView(event.buttonDownPos()), self.mapToView(event.pos())).normalized()
        if event.isFinish():
            self._frame.hide()
            extend = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
            self.boxed.emit(box, extend)
        else:
            self._frame.setRect(box)
            self._frame.show()

    def mouseClickEvent(self, event: Any) -> None:
        if event.button() == Qt.MouseButton.LeftButton and event.double():
            event.accept()
            self.autoRange(padding=0.04)
        elif event.button() == Qt.MouseButton.LeftButton:
            event.accept()
            self.cleared.emit()


class LayerAxis(pg.AxisItem):  # type: ignore[misc]
    """The axis of places, labelled with layer numbers."""

    def __init__(self) -> None:
        super().__init__("bottom")
        self.labels: dict[int, str] = {}

    def tickValues(self, least: float, most: float, size: float) -> list[tuple[float, list[float]]]:
        shown = max(size / 34, 1)
        step = next((s for s in (1, 2, 5, 10, 20, 50, 100) if (most - least) / s <= shown), 200)
        first = max(math.ceil(least / step) * step, 0)
        return [(float(step), [float(v) for v in range(int(first), math.floor(most) + 1, step)])]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        return [self.labels.get(int(value), "") for value in values]


class ScaleAxis(pg.AxisItem):  # type: ignore[misc]
    """The axis of values: positions are decimal logarithms, labels the numbers."""

    def __init__(self) -> None:
        super().__init__("left")

    def tickValues(self, least: float, most: float, size: float) -> list[tuple[float, list[float]]]:
        whole = [float(v) for v in range(math.ceil(least), math.floor(most) + 1)]
        if most - least > 3:
            step = max(1, math.ceil((most - least) / 8))
            return [(1.0, [v for v in whole if not int(v) % step])]
        steps = (2, 5) if most - least > 1.2 else (1.5, 2, 3, 4, 5, 6, 7, 8, 9)
        between = [
            power + math.log10(digit)
            for power in range(math.floor(least), math.ceil(most) + 1)
            for digit in steps
            if least <= power + math.log10(digit) <= most
        ]
        return [(1.0, whole), (0.3, between)]

    def tickStrings(self, values: Sequence[float], scale: float, spacing: float) -> list[str]:
        return [text.number(float(f"{10**value:.2g}")) for value in values]


class Canvas(pg.GraphicsLayoutWidget):  # type: ignore[misc]
    """Draws a :class:`PlotData`; emits what was clicked or boxed."""

    points_chosen = Signal(object, bool)
    """Row ids, and whether they are added to the selection."""

    def __init__(self, colours: Colours, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = colours
        self._data: PlotData | None = None
        self._chosen: frozenset[str] = frozenset()
        self._shown: dict[str, tuple[float, float]] = {}
        self._hidden: frozenset[str] = frozenset()
        self._mode = "layers"
        self._rings: Any = None
        self.setAccessibleName(self.tr("Plot of scales"))
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setRenderHint(QPainter.RenderHint.Antialiasing)
        self.ci.layout.setContentsMargins(6, 8, 12, 4)

    # --- content

    def show_data(self, data: PlotData, colours: Colours, *, mode: str = "layers") -> None:
        """Draw anew: "layers", or the heat map of a role ("heads:k")."""
        self._data, self._colours, self._mode = data, colours, mode
        self.ci.clear()
        self._shown = {}
        self._rings = None
        self.setBackground(QColor(colours.base))
        if mode.startswith("heads:"):
            self._draw_heads(data, mode.removeprefix("heads:"))
        else:
            self._draw_layers(data)
        self.mark(self._chosen)

    def hide_roles(self, roles: Iterable[str]) -> None:
        """Leave out some roles."""
        self._hidden = frozenset(roles)
        if self._data is not None:
            self.show_data(self._data, self._colours, mode=self._mode)

    def mark(self, ids: frozenset[str]) -> None:
        """Ring the points of the selection."""
        self._chosen = ids
        if self._rings is None:
            return
        found = [self._shown[name] for name in ids if name in self._shown]
        if self._mode == "layers":
            self._rings.setData(pos=np.array(found, dtype=float).reshape(-1, 2))
            return
        outline = [corner for x, middle in found for corner in _column(x, 2 * middle + 1)]
        self._rings.setData(*np.array(outline, dtype=float).reshape(-1, 2).T)

    def position(self, name: str) -> QPointF | None:
        """Where a point is drawn, in the view's coordinates."""
        found = self._shown.get(name)
        return QPointF(*found) if found is not None else None

    def ringed(self) -> int:
        """How many points of the selection are drawn."""
        return len(self._chosen & self._shown.keys())

    # --- layers

    def _draw_layers(self, data: PlotData) -> None:
        now = self._colours
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
        plot.setLabel("left", self.tr("scale"), color=now.muted)
        plot.showGrid(x=False, y=True, alpha=0.16)
        series = [found for found in data.series if found.role not in self._hidden]
        ghosts = [found for found in data.ghosts if found.role not in self._hidden]
        low, high = _range(series, ghosts)
        self._add_levels(plot, series, data)
        for place in data.breaks:
            line = pg.InfiniteLine(place - 0.5, angle=90, pen=pg.mkPen(now.border))
            plot.addItem(line, ignoreBounds=True)
        for ghost in ghosts:
            self._add_ghost(plot, ghost, [found.role for found in series])
        for found in series:
            self._add_series(plot, found, len(series), series.index(found), low, high)
        self._rings = pg.ScatterPlotItem(
            size=_SIZE + 8, pen=pg.mkPen(now.accent, width=2), brush=None, symbol="o", pxMode=True
        )
        self._rings.setZValue(50)
        plot.addItem(self._rings)
        box.setRange(xRange=(-0.6, max(data.places - 0.4, 0.6)), yRange=(low - _EDGE, high + _EDGE), padding=0.02)
        box.setLimits(xMin=-2, xMax=data.places + 1, yMin=low - 3, yMax=high + 3)
        box.boxed.connect(self._on_boxed)
        box.cleared.connect(self._on_cleared)

    def _add_levels(self, plot: Any, series: Sequence[Series], data: PlotData) -> None:
        now = self._colours
        for found in series:
            if found.band is None:
                continue
            colour = QColor(series_colour(now, found.role))
            tint = QColor(colour)
            tint.setAlpha(26)
            low, middle, high = (math.log10(value) for value in found.band)
            band = pg.LinearRegionItem(
                (low, high), orientation="horizontal", movable=False, brush=tint, pen=pg.mkPen(None)
            )
            band.setZValue(-20)
            plot.addItem(band, ignoreBounds=True)
            line = pg.InfiniteLine(middle, angle=0, pen=pg.mkPen(colour, width=1, style=Qt.PenStyle.DotLine))
            line.setZValue(-10)
            plot.addItem(line, ignoreBounds=True)
        one = pg.InfiniteLine(0, angle=0, pen=pg.mkPen(now.muted, width=1, style=Qt.PenStyle.DashLine))
        one.setZValue(-5)
        plot.addItem(one, ignoreBounds=True)

    def _add_series(self, plot: Any, series: Series, count: int, number: int, low: float, high: float) -> None:
        now = self._colours
        colour = QColor(series_colour(now, series.role))
        shift = (number - (count - 1) / 2) * min(0.24, 0.6 / max(count, 1))
        drawable = [point for point in series.points if point.drawable]
        faint = QColor(colour)
        faint.setAlpha(110)
        if len(drawable) > 1:
            plot.addItem(
                pg.PlotCurveItem(
                    x=np.array([point.place + shift for point in drawable]),
                    y=np.array([math.log10(point.value) for point in drawable]),
                    pen=pg.mkPen(faint, width=1.2),
                )
            )
        spans = [
            (point.place + shift, math.log10(min(head for head in point.heads if head > 0)), math.log10(point.value))
            for point in drawable
            if point.heads and any(head > 0 for head in point.heads)
        ]
        if spans:
            plot.addItem(
                pg.PlotCurveItem(
                    x=np.array([x for x, _, _ in spans for _ in (0, 1)]),
                    y=np.array([y for _, least, most in spans for y in (least, most)]),
                    connect="pairs",
                    pen=pg.mkPen(faint, width=2.5),
                )
            )
        spots = []
        for point in series.points:
            x, y = point.place + shift, _height(point, low, high)
            self._shown[point.id] = (x, y)
            ink = colour if point.status is Status.LOADED else QColor(now.tone(tone(point.status)).ink)
            spots.append(
                {
                    "pos": (x, y),
                    "symbol": shape(point.status),
                    "size": _SIZE if point.status is not Status.LOADED else _SIZE - 2,
                    "brush": ink,
                    "pen": pg.mkPen(colour, width=1),
                    "data": point,
                }
            )
        scatter = pg.ScatterPlotItem(spots=spots, pxMode=True, hoverable=True, tip=self._tip, hoverSize=_SIZE + 4)
        scatter.setZValue(20)
        scatter.sigClicked.connect(self._on_clicked)
        plot.addItem(scatter)

    def _add_ghost(self, plot: Any, ghost: Ghost, roles: Sequence[str]) -> None:
        """The compared checkpoint's series: hollow marks on a dashed line, behind the own ones."""
        colour = QColor(series_colour(self._colours, ghost.role))
        colour.setAlpha(150)
        number = roles.index(ghost.role) if ghost.role in roles else 0
        shift = (number - (max(len(roles), 1) - 1) / 2) * min(0.24, 0.6 / max(len(roles), 1))
        x = np.array([place + shift for place, _, _ in ghost.points])
        y = np.array([math.log10(value) for _, value, _ in ghost.points])
        line = pg.PlotCurveItem(x=x, y=y, pen=pg.mkPen(colour, width=1.2, style=Qt.PenStyle.DashLine))
        line.setZValue(-3)
        plot.addItem(line)
        marks = pg.ScatterPlotItem(
            x=x, y=y, data=[key for _, _, key in ghost.points], symbol="o", size=_SIZE + 2, brush=None,
            pen=pg.mkPen(colour, width=1.4), pxMode=True, hoverable=True, tip=self._ghost_tip,
        )  # fmt: skip
        marks.setZValue(10)
        plot.addItem(marks)

    def _ghost_tip(self, x: float, y: float, data: str) -> str:
        words: str = self.tr("{key}\n{value}  (compared checkpoint)")
        return words.format(key=data, value=text.number(10**y))

    @staticmethod
    def _tip(x: float, y: float, data: Point) -> str:  # noqa: ARG004 - pyqtgraph's signature
        value = text.exact(data.value)
        return f"{data.id}\n{value}  ({word(data.status)})"

    # --- heads

    def _draw_heads(self, data: PlotData, role: str) -> None:
        now = self._colours
        rows = data.heads(role)
        most = max((len(row) for row in rows), default=0)
        image = np.full((len(rows), max(most, 1)), np.nan)
        for place, row in enumerate(rows):
            for head, value in enumerate(row):
                if math.isfinite(value) and LEAST <= value <= MOST:
                    image[place, head] = math.log10(value)
        box = Box()
        box.paint_frame(QColor(now.accent))
        axis = LayerAxis()
        axis.labels = dict(data.ticks)
        plot = self.addPlot(viewBox=box, axisItems={"bottom": axis})
        plot.hideButtons()
        plot.setMenuEnabled(False)
        for side in ("left", "bottom"):
            item = plot.getAxis(side)
            item.setPen(pg.mkPen(now.border))
            item.setTextPen(pg.mkPen(now.muted))
        plot.setLabel("bottom", self.tr("layer"), color=now.muted)
        plot.setLabel("left", self.tr("head of {role}").format(role=role), color=now.muted)
        finite = image[np.isfinite(image)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (-2.0, 0.0)
        if high - low < 1e-6:
            low, high = low - 0.5, high + 0.5
        item = pg.ImageItem(image, levels=(low, high))
        colours = pg.ColorMap([0.0, 0.5, 1.0], _ramp(now, role))
        item.setLookupTable(colours.getLookupTable(nPts=256))
        item.setRect(QRectF(-0.5, -0.5, image.shape[0], image.shape[1]))
        plot.addItem(item)
        bar = pg.ColorBarItem(
            values=(low, high), colorMap=colours, interactive=False, width=14, label=self.tr("scale"),
        )  # fmt: skip
        bar.axis.tickValues = ScaleAxis().tickValues
        bar.axis.tickStrings = ScaleAxis().tickStrings
        bar.axis.setPen(pg.mkPen(now.border))
        bar.axis.setTextPen(pg.mkPen(now.muted))
        bar.setImageItem(item, insert_in=plot)
        box.boxed.connect(self._on_boxed)
        box.cleared.connect(self._on_cleared)
        for series in data.series:
            if series.role == role:
                for point in series.points:
                    self._shown[point.id] = (float(point.place), (len(point.heads) - 1) / 2)
        self._rings = pg.PlotCurveItem(pen=pg.mkPen(now.text, width=2.5), connect="finite")
        plot.addItem(self._rings)

    # --- mouse

    def _on_clicked(self, _scatter: Any, spots: Sequence[Any], event: Any) -> None:
        if len(spots):
            event.accept()
            extend = bool(event.modifiers() & Qt.KeyboardModifier.ControlModifier)
            self.points_chosen.emit([spots[0].data().id], extend)

    def _on_boxed(self, box: QRectF, extend: bool) -> None:
        self.choose_box(box, extend=extend)

    def choose_box(self, box: QRectF, *, extend: bool) -> None:
        """Choose the points in a box of the view: places across, decades (or heads) up."""
        if self._mode == "layers":
            ids = [name for name, place in self._shown.items() if box.contains(QPointF(*place))]
        else:
            ids = [name for name, (x, _) in self._shown.items() if box.left() - 0.5 <= x <= box.right() + 0.5]
        self.points_chosen.emit(ids, extend)

    def _on_cleared(self) -> None:
        self.points_chosen.emit([], False)


def _column(place: float, heads: float) -> tuple[tuple[float, float], ...]:
    """The outline of a layer's column in the heat map, closed, and a break after it."""
    left, right, bottom, top = place - 0.5, place + 0.5, -0.5, heads - 0.5
    return (left, bottom), (right, bottom), (right, top), (left, top), (left, bottom), (math.nan, math.nan)


def series_colour(now: Colours, role: str) -> str:
    """The colour of a role's series."""
    return {"k": now.series_k, "v": now.series_v}.get(role, now.series_q)


def _ramp(now: Colours, role: str) -> list[tuple[int, int, int]]:
    """From the ground to the role's colour and past it: order is told by lightness."""
    ground, ink, text_colour = QColor(now.alternate), QColor(series_colour(now, role)), QColor(now.text)
    return [(c.red(), c.green(), c.blue()) for c in (ground, ink, text_colour)]


def _range(series: Sequence[Series], ghosts: Sequence[Ghost]) -> tuple[float, float]:
    """The decades to show: all drawable values and 1.0."""
    logs = [math.log10(point.value) for found in series for point in found.points if point.drawable]
    logs += [
        math.log10(head) for found in series for p in found.points if p.drawable for head in p.heads if head > LEAST
    ]
    logs += [math.log10(value) for ghost in ghosts for _, value, _ in ghost.points]
    return (min(logs), max(*logs, 0.0)) if logs else (-2.0, 0.0)


def _height(point: Point, low: float, high: float) -> float:
    """Where a point stands; at the edge where the axis has no place for it."""
    if point.drawable:
        return math.log10(point.value)
    return high + _EDGE * 0.7 if point.value > MOST else low - _EDGE * 0.7
