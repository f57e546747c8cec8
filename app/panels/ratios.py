"""How far the values of two checkpoints are apart, layer by layer, with the calibration noise as a band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QEvent, QPointF, QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QFontMetricsF, QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app import text
from app.theme.theme import colours, theme
from core.comparison import CALIBRATION_NOISE, Row

_MARGIN_LEFT, _MARGIN, _TOP, _BOTTOM = 62, 12, 22, 18
_LEAST = math.log(1.25)
_MOST = math.log(16.0)


@dataclass(frozen=True, slots=True)
class Dot:
    """One row of the comparison in the strip: its place among the layers and the logarithm of its ratio, cut off."""

    row: Row
    place: int
    height: float


class RatioStrip(QWidget):
    """One dot per scale at its layer, B over A on a logarithmic axis; a click chooses."""

    chosen = Signal(object)
    """The :class:`core.comparison.Row` that was clicked."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._dots: tuple[Dot, ...] = ()
        self._rows = 0
        self._places = 1
        self._span = _LEAST
        self._marked: frozenset[int] = frozenset()
        self.setMouseTracking(True)
        self.setMinimumSize(160, 90)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName(self.tr("Ratio of the values by layer"))
        theme().changed.connect(self.update)

    def sizeHint(self) -> QSize:
        return QSize(340, 180)

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Show the rows that have a ratio, at their layers; rows without a layer come last."""
        self._rows = len(rows)
        rated = [row for row in rows if row.ratio is not None and row.left is not None]
        layers = sorted({_stack(row) for row in rated})
        places = {layer: place for place, layer in enumerate(layers)}
        found = [(row, places[_stack(row)], _height(row.ratio)) for row in rated if row.ratio is not None]
        farthest = max((abs(height) for _, _, height in found if abs(height) < math.inf), default=0.0)
        self._span = min(max(farthest * 1.15, _LEAST), _MOST)
        self._dots = tuple(Dot(row, place, min(max(height, -self._span), self._span)) for row, place, height in found)
        self._places = max(len(layers), 1)
        beyond = sum(not row.within_noise for row in rated)
        self.setAccessibleDescription(
            self.tr("{beyond} of {count} scales differ by more than {noise}").format(
                beyond=text.count(beyond), count=text.count(len(rated)), noise=_percent()
            )
        )
        self.update()

    def mark(self, rows: Sequence[Row]) -> None:
        """Ring the rows of the selection."""
        self._marked = frozenset(id(row) for row in rows)
        self.update()

    @property
    def note(self) -> str:
        """Why there is not one dot; "" where there is."""
        if self._dots or not self._rows:
            return ""
        return self.tr(
            "No ratio to draw: no scale is on both sides with as many values there, none of them a zero or NaN."
        )

    def dots(self) -> tuple[Dot, ...]:
        return self._dots

    def position(self, dot: Dot) -> QPointF:
        """Where a dot is drawn."""
        box = self._field()
        x = box.left() + (dot.place + 0.5) * box.width() / self._places
        return QPointF(x + self._shift(dot.row), self._y(dot.height))

    # --- drawing

    def _field(self) -> QRectF:
        return QRectF(self.rect()).adjusted(_MARGIN_LEFT, _TOP, -_MARGIN, -_BOTTOM)

    def _y(self, height: float) -> float:
        box = self._field()
        return box.center().y() - height / self._span * (box.height() / 2 - 6)

    def _shift(self, row: Row) -> float:
        """Role k a little to the left of v: they would hide each other."""
        step = min(4.0, self._field().width() / self._places / 5)
        role = row.left.role if row.left is not None else ""
        shifts: Mapping[str, float] = {"k": -step, "v": step}
        return shifts.get(role, 0.0)

    def paintEvent(self, event: QPaintEvent) -> None:
        now = colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), QColor(now.base))
        box = self._field()
        font = self.font()
        font.setPointSizeF(font.pointSizeF() * 0.85)
        painter.setFont(font)
        if self.note:
            painter.setPen(QColor(now.muted))
            painter.drawText(
                self.rect().adjusted(_MARGIN, 0, -_MARGIN, 0),
                Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap,
                self.note,
            )
            painter.end()
            return
        noise = math.log1p(CALIBRATION_NOISE), math.log1p(-CALIBRATION_NOISE)
        upper, lower = self._y(noise[0]), self._y(noise[1])
        painter.fillRect(QRectF(box.left(), upper, box.width(), lower - upper), QColor(now.neutral.tint))
        painter.setPen(QPen(QColor(now.muted), 1, Qt.PenStyle.DashLine))
        for y in (upper, lower):
            painter.drawLine(QPointF(box.left(), y), QPointF(box.right(), y))
        painter.setPen(QPen(QColor(now.border), 1))
        middle = self._y(0.0)
        painter.drawLine(QPointF(box.left(), middle), QPointF(box.right(), middle))
        self._paint_scale(painter, box)
        painter.setPen(QColor(now.muted))
        caption = self.tr("B / A by layer; band: calibration noise of {noise}").format(noise=_percent())
        elided = QFontMetricsF(font).elidedText(caption, Qt.TextElideMode.ElideRight, box.width())
        painter.drawText(QRectF(box.left(), 2, box.width(), _TOP - 4), Qt.AlignmentFlag.AlignVCenter, elided)
        for dot in self._dots:
            self._paint_dot(painter, dot)
        painter.end()

    def _paint_scale(self, painter: QPainter, box: QRectF) -> None:
        now = colours()
        painter.setPen(QColor(now.muted))
        top = math.exp(self._span)
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        taken: list[float] = []
        marks = (1.0, top, 1 / top, 1 + CALIBRATION_NOISE, 1 - CALIBRATION_NOISE)
        for ratio in marks:
            y = self._y(math.log(ratio))
            if any(abs(y - other) < 13 for other in taken):
                continue
            taken.append(y)
            painter.drawText(QRectF(0, y - 8, _MARGIN_LEFT - 6, 16), right, f"× {text.number(ratio, 3)}")
        layers = {dot.place: dot.row.left.layer for dot in self._dots if dot.row.left is not None}
        step = next((s for s in (1, 2, 5, 10, 20, 50) if box.width() / self._places * s >= 26), 100)
        for place, layer in layers.items():
            if layer is not None and layer % step == 0:
                x = box.left() + (place + 0.5) * box.width() / self._places
                painter.drawText(QRectF(x - 20, box.bottom() + 2, 40, 14), Qt.AlignmentFlag.AlignCenter, str(layer))

    def _paint_dot(self, painter: QPainter, dot: Dot) -> None:
        now = colours()
        role = dot.row.left.role if dot.row.left is not None else ""
        colour = QColor({"k": now.series_k, "v": now.series_v}.get(role, now.series_q))
        centre = self.position(dot)
        if id(dot.row) in self._marked:
            painter.setPen(QPen(QColor(now.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawEllipse(centre, 7, 7)
        painter.setPen(QPen(colour, 1.4))
        painter.setBrush(QColor(now.base) if dot.row.within_noise else colour)  # hollow within the noise
        if role == "v":
            painter.drawRect(QRectF(centre.x() - 3, centre.y() - 3, 6, 6))
        else:
            painter.drawEllipse(centre, 3.4, 3.4)

    # --- mouse

    def dot_at(self, point: QPointF) -> Dot | None:
        """The nearest dot within reach of a point."""
        reach, nearest = 9.0, None
        for dot in self._dots:
            away = self.position(dot) - point
            distance = math.hypot(away.x(), away.y())
            if distance < reach:
                reach, nearest = distance, dot
        return nearest

    def mousePressEvent(self, event: QMouseEvent) -> None:
        dot = self.dot_at(event.position())
        if dot is not None and event.button() == Qt.MouseButton.LeftButton:
            self.chosen.emit(dot.row)

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            dot = self.dot_at(QPointF(event.pos()))
            if dot is None or dot.row.left is None or dot.row.ratio is None:
                QToolTip.hideText()
            else:
                QToolTip.showText(event.globalPos(), f"{dot.row.left.key}\n× {text.number(dot.row.ratio, 4)}", self)
            return True
        return super().event(event)


def _stack(row: Row) -> tuple[bool, str, int]:
    """Layers by number; towers and drafts, which count anew, after one another."""
    left = row.left
    if left is None or left.layer is None:
        return (True, "", 0)
    outer = left.module.split(f".{left.layer}.")[0].rpartition(".")[0] if f".{left.layer}." in left.module else ""
    return (False, outer, left.layer)


def _height(ratio: float) -> float:
    if ratio <= 0:
        return -math.inf
    return math.log(ratio) if ratio < math.inf else math.inf


def _percent() -> str:
    return f"{CALIBRATION_NOISE:.0%}".replace("%", " %")
