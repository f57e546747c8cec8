"""The program's own icons: SVG files drawn in the theme's text colour (there may be no icon theme on the machine)."""

from __future__ import annotations

from functools import cache

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from resources import resource


@cache
def _source(name: str) -> str:
    return resource("icons", f"{name}.svg").read_text("utf-8")


@cache
def pixmap(name: str, colour: str, side: int, ratio: float = 1.0) -> QPixmap:
    """The icon ``name`` in ``colour``, ``side`` logical pixels square."""
    renderer = QSvgRenderer(QByteArray(_source(name).replace("currentColor", colour).encode()))
    picture = QPixmap(round(side * ratio), round(side * ratio))
    picture.fill(Qt.GlobalColor.transparent)
    painter = QPainter(picture)
    renderer.render(painter, QRectF(picture.rect()))
    painter.end()
    picture.setDevicePixelRatio(ratio)
    return picture


@cache
def icon(name: str, colour: str, disabled: str) -> QIcon:
    """A cached QIcon at one and two times 16 pixels."""
    built = QIcon()
    for ratio in (1.0, 2.0):
        built.addPixmap(pixmap(name, colour, 16, ratio))
        built.addPixmap(pixmap(name, disabled, 16, ratio), QIcon.Mode.Disabled)
    return built
