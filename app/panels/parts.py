"""Small widgets the panels share: heads, chips, notes, buttons with accessible names."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPaintEvent
from PySide6.QtWidgets import (
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QPushButton,
    QSizePolicy,
    QStyle,
    QStyleOptionButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.theme import icons
from app.theme.palettes import Tone
from app.theme.theme import colours, theme


def label(text: str = "", *, dim: bool = False, strong: bool = False, wrap: bool = False) -> QLabel:
    """A plain-text label; ``dim`` for captions, ``strong`` for what counts."""
    made = QLabel(text)
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setProperty("dim", dim)
    made.setProperty("strong", strong)
    made.setWordWrap(wrap)
    return made


class IconLabel(QLabel):
    """A bundled icon in a tone's colour; follows the theme."""

    def __init__(self, name: str, *, tone: Tone = "neutral", side: int = 16, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name, self._tone, self._side = name, tone, side
        self.setFixedSize(side, side)
        self._draw()
        theme().changed.connect(self._draw)

    def show_icon(self, name: str, tone: Tone) -> None:
        self._name, self._tone = name, tone
        self._draw()

    def _draw(self) -> None:
        ink = colours().tone(self._tone).ink
        self.setPixmap(icons.pixmap(self._name, ink, self._side, 2.0))  # drawn down where the screen is coarser


class Chip(QLabel):
    """A word on a tinted, rounded ground."""

    def __init__(self, text: str = "", tone: Tone = "neutral", parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self._tone: Tone = tone
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setContentsMargins(8, 1, 8, 1)
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        font = self.font()
        font.setBold(True)
        font.setPointSizeF(font.pointSizeF() * 0.88)
        self.setFont(font)
        self._colour()
        theme().changed.connect(self._colour)

    def show_word(self, text: str, tone: Tone) -> None:
        self._tone = tone
        self.setText(text)
        self._colour()

    def _colour(self) -> None:
        palette = self.palette()
        palette.setColor(self.foregroundRole(), QColor(colours().tone(self._tone).ink))
        self.setPalette(palette)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        accent = colours().tone(self._tone)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor(accent.edge))
        painter.setBrush(QColor(accent.tint))
        box = self.rect().toRectF().adjusted(0.5, 0.5, -0.5, -0.5)
        painter.drawRoundedRect(box, box.height() / 2, box.height() / 2)
        painter.setPen(QColor(accent.ink))
        painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, self.text())
        painter.end()


class Button(QPushButton):
    """A push button with a bundled icon; follows the theme. ``flat`` for buttons in a panel's head."""

    def __init__(self, text: str, icon: str = "", *, flat: bool = False, primary: bool = False, tip: str = "") -> None:
        super().__init__(f" {text}" if icon else text)  # the style leaves too little room after an icon
        self._icon = icon
        self._primary = primary
        self.setProperty("flat", flat)
        self.setProperty("primary", primary)
        self.setAccessibleName(text)
        if tip:
            self.setToolTip(tip)
        self.setIconSize(QSize(15, 15))
        self.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self._draw()
        if icon:
            theme().changed.connect(self._draw)

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.EnabledChange and self._primary:
            self._draw()

    def _draw(self) -> None:
        if self._icon:
            now = colours()
            ink = now.on_accent if self._primary and self.isEnabled() else now.text
            self.setIcon(icons.icon(self._icon, ink, now.muted))


class CheckBox(QCheckBox):
    """A check box that draws its tick itself: a picture in the style sheet would have one colour for both palettes."""

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self.isChecked():
            return
        option = QStyleOptionButton()
        self.initStyleOption(option)
        box = self.style().subElementRect(QStyle.SubElement.SE_CheckBoxIndicator, option, self).adjusted(1, 1, -1, -1)
        painter = QPainter(self)
        side = min(box.width(), box.height())
        painter.drawPixmap(box.topLeft(), icons.pixmap("check", colours().on_accent, side, self.devicePixelRatioF()))
        painter.end()


def tool_button(icon: str, tip: str, clicked: Callable[[], None]) -> QToolButton:
    """A small icon-only button; its tip is its accessible name."""
    made = ThemedToolButton(icon)
    made.setToolTip(tip)
    made.setAccessibleName(tip)
    made.clicked.connect(clicked)
    return made


class ThemedToolButton(QToolButton):
    """A tool button whose bundled icon follows the theme."""

    def __init__(self, icon: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = icon
        self.setIconSize(QSize(15, 15))
        self._draw()
        theme().changed.connect(self._draw)

    def _draw(self) -> None:
        self.setIcon(theme().icon(self._name))


class Head(QFrame):
    """A panel's head: its title, a line of detail, and controls at the right."""

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("head")
        self._row = QHBoxLayout(self)
        self._row.setContentsMargins(10, 3, 6, 3)
        self._row.setSpacing(6)
        self._title = QLabel(title.upper())
        self._title.setObjectName("head-title")
        font = self._title.font()
        font.setPointSizeF(font.pointSizeF() * 0.88)
        self._title.setFont(font)
        self._row.addWidget(self._title)
        self.detail = label(dim=True)
        self.detail.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._row.addWidget(self.detail, 1)
        self.setFixedHeight(32)

    def add(self, widget: QWidget, stretch: int = 0) -> None:
        """Put a control at the right end."""
        self._row.addWidget(widget, stretch)


class Note(QWidget):
    """A centred sentence where there is nothing else to show."""

    def __init__(self, icon: str, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 12, 24, 12)
        column.setSpacing(8)
        column.addStretch(1)
        self._icon = IconLabel(icon, side=24)
        column.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignHCenter)
        self._text = label(text, dim=True, wrap=True)
        self._text.setAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop)
        column.addWidget(self._text)
        column.addStretch(1)

    @property
    def text(self) -> str:
        return self._text.text()

    def say(self, text: str, *, icon: str = "info", tone: Tone = "neutral") -> None:
        """Show another sentence."""
        self._icon.show_icon(icon, tone)
        self._text.setProperty("dim", tone != "error")
        self._text.style().polish(self._text)
        self._text.setText(text)


def surface(parent: QWidget | None = None) -> QWidget:
    """A widget with the ground of lists and tables."""
    made = QWidget(parent)
    made.setObjectName("surface")
    made.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
    return made


def clear(layout: QLayout) -> None:
    """Remove and delete everything in a layout."""
    while layout.count():
        item = layout.takeAt(0)
        widget = item.widget() if item is not None else None
        if widget is not None:
            widget.hide()
            widget.deleteLater()
            continue
        inner = item.layout() if item is not None else None
        if inner is not None:
            clear(inner)
