"""What became of a scale, as shape, word and tone; one definition for the strip, the table, the plot and the legend.

Shapes are closed paths in the unit square around the origin, drawn by filling alone, so that a painter, an icon and
a plot symbol can all use them, and so that no status is told by colour alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from PySide6.QtCore import QCoreApplication, QPointF, QRectF, Qt
from PySide6.QtGui import QColor, QIcon, QPainter, QPainterPath, QPixmap, QPolygonF, QTransform

from app.status import Status
from app.text import QT_TRANSLATE_NOOP
from app.theme.palettes import Colours, Tone


@dataclass(frozen=True, slots=True)
class Look:
    """A status for people: its word, one sentence that explains it, and its tone."""

    word: str
    meaning: str
    tone: Tone


_LOOKS: dict[Status, Look] = {
    Status.LOADED: Look(
        QT_TRANSLATE_NOOP("Status", "loaded"),
        QT_TRANSLATE_NOOP("Status", "The engine's attention layer receives this value."),
        "ok",
    ),
    Status.COPIED: Look(
        QT_TRANSLATE_NOOP("Status", "copied"),
        QT_TRANSLATE_NOOP("Status", "The layer has no value of its own and takes the other role's."),
        "info",
    ),
    Status.SUSPICIOUS: Look(
        QT_TRANSLATE_NOOP("Status", "suspicious"),
        QT_TRANSLATE_NOOP("Status", "It arrives, but a finding doubts it."),
        "warning",
    ),
    Status.OVERRIDDEN: Look(
        QT_TRANSLATE_NOOP("Status", "overridden"),
        QT_TRANSLATE_NOOP("Status", "It is loaded, and then the engine sets 1.0."),
        "warning",
    ),
    Status.MISSING: Look(
        QT_TRANSLATE_NOOP("Status", "missing"),
        QT_TRANSLATE_NOOP("Status", "The layer expects a value, and no tensor brings one."),
        "missing",
    ),
    Status.DROPPED: Look(
        QT_TRANSLATE_NOOP("Status", "dropped"),
        QT_TRANSLATE_NOOP("Status", "The engine discards this tensor; the layer runs without it."),
        "error",
    ),
    Status.IGNORED: Look(
        QT_TRANSLATE_NOOP("Status", "ignored"),
        QT_TRANSLATE_NOOP("Status", "The engine does not know the name and skips it silently."),
        "error",
    ),
    Status.RAISES: Look(
        QT_TRANSLATE_NOOP("Status", "raises"),
        QT_TRANSLATE_NOOP("Status", "The engine stops with an exception here."),
        "error",
    ),
    Status.UNREADABLE: Look(
        QT_TRANSLATE_NOOP("Status", "unreadable"),
        QT_TRANSLATE_NOOP("Status", "The file gives no value for this tensor."),
        "error",
    ),
    Status.NOT_REACHED: Look(
        QT_TRANSLATE_NOOP("Status", "not reached"),
        QT_TRANSLATE_NOOP("Status", "The load ends before this tensor's turn, or it is not known."),
        "neutral",
    ),
    Status.NONE: Look(
        QT_TRANSLATE_NOOP("Status", "no scale"),
        QT_TRANSLATE_NOOP("Status", "Nothing is stored here and nothing is expected."),
        "neutral",
    ),
}


def word(status: Status) -> str:
    """The status in one or two words, translated."""
    return QCoreApplication.translate("Status", _LOOKS[status].word)


def meaning(status: Status) -> str:
    """The status in one sentence, translated."""
    return QCoreApplication.translate("Status", _LOOKS[status].meaning)


def tone(status: Status) -> Tone:
    """The status's tone."""
    return _LOOKS[status].tone


def _polygon(*points: tuple[float, float]) -> QPainterPath:
    path = QPainterPath()
    path.addPolygon(QPolygonF([QPointF(x, y) for x, y in points]))
    path.closeSubpath()
    return path


def _ring(outer: float, inner: float) -> QPainterPath:
    path = QPainterPath()
    path.setFillRule(Qt.FillRule.OddEvenFill)
    path.addEllipse(QPointF(0, 0), outer, outer)
    path.addEllipse(QPointF(0, 0), inner, inner)
    return path


def _frame(outer: float, inner: float) -> QPainterPath:
    path = QPainterPath()
    path.setFillRule(Qt.FillRule.OddEvenFill)
    path.addRect(QRectF(-outer, -outer, 2 * outer, 2 * outer))
    path.addRect(QRectF(-inner, -inner, 2 * inner, 2 * inner))
    return path


@cache
def shape(status: Status) -> QPainterPath:  # noqa: PLR0911 - one return a shape
    """The status's shape in the square from -0.5 to 0.5, y downwards."""
    match status:
        case Status.LOADED:
            path = QPainterPath()
            path.addEllipse(QPointF(0, 0), 0.4, 0.4)
            return path
        case Status.COPIED:
            return _polygon((0, -0.48), (0.48, 0), (0, 0.48), (-0.48, 0))
        case Status.SUSPICIOUS:
            return _polygon((0, -0.46), (0.5, 0.42), (-0.5, 0.42))
        case Status.OVERRIDDEN:
            path = _ring(0.44, 0.28)
            bar = QPainterPath()
            bar.addRect(QRectF(-0.44, -0.08, 0.88, 0.16))
            return path.united(bar)
        case Status.MISSING:
            return _ring(0.42, 0.26)
        case Status.DROPPED:
            arm, waist = 0.44, 0.14
            cross = QPainterPath()
            cross.addRect(QRectF(-waist, -0.58, 2 * waist, 1.16))
            turned = QTransform().rotate(90).map(cross).united(cross)
            return QTransform().rotate(45).scale(arm / 0.5, arm / 0.5).map(turned)
        case Status.IGNORED:
            return _polygon((-0.46, -0.15), (0.46, -0.15), (0.46, 0.15), (-0.46, 0.15))
        case Status.RAISES:
            cut = 0.2
            return (
                _polygon(
                    (-cut, -0.48),
                    (cut, -0.48),
                    (0.48, -cut),
                    (0.48, cut),
                    (cut, 0.48),
                    (-cut, 0.48),
                    (-0.48, cut),
                    (-0.48, -cut),
                )
                .subtracted(_polygon((-0.09, -0.3), (0.09, -0.3), (0.06, 0.08), (-0.06, 0.08)))
                .subtracted(_polygon((-0.08, 0.16), (0.08, 0.16), (0.08, 0.31), (-0.08, 0.31)))
            )
        case Status.UNREADABLE:
            return _frame(0.42, 0.27).united(_polygon((-0.3, 0.42), (0.22, -0.42), (0.42, -0.42), (-0.1, 0.42)))
        case Status.NOT_REACHED:
            return _frame(0.38, 0.24)
        case Status.NONE:
            path = QPainterPath()
            path.addEllipse(QPointF(0, 0), 0.12, 0.12)
            return path


def paint(painter: QPainter, box: QRectF, status: Status, colour: QColor) -> None:
    """Fill the status's shape, as large as fits into ``box``."""
    side = min(box.width(), box.height())
    placed = QTransform.fromTranslate(box.center().x(), box.center().y()).scale(side, side).map(shape(status))
    painter.fillPath(placed, colour)


def icons(colours: Colours, side: int = 14) -> dict[Status, QIcon]:
    """One icon per status, built once per theme: ``data()`` only looks them up."""
    built = {}
    for status in Status:
        icon = QIcon()
        for factor in (1, 2):
            pixmap = QPixmap(side * factor, side * factor)
            pixmap.fill(Qt.GlobalColor.transparent)
            painter = QPainter(pixmap)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            paint(painter, QRectF(pixmap.rect()).adjusted(1, 1, -1, -1), status, QColor(colours.tone(tone(status)).ink))
            painter.end()
            pixmap.setDevicePixelRatio(factor)
            icon.addPixmap(pixmap)
            icon.addPixmap(pixmap, QIcon.Mode.Selected)
        built[status] = icon
    return built
