"""The theme in force: which palette, applied to the whole application, and the signal that it changed."""

from __future__ import annotations

import time
from typing import Literal, cast, get_args

from PySide6.QtCore import QObject, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QIcon, QPalette
from PySide6.QtWidgets import QApplication
from shiboken6 import getCppPointer

from app.status import Status
from app.theme import icons, status
from app.theme.palettes import DARK, LIGHT, Colours
from app.theme.style import style_sheet

Mode = Literal["system", "light", "dark"]
MODES: tuple[Mode, ...] = get_args(Mode)
_TURN_S = 0.02


class Theme(QObject):
    """Applies Fusion with the program's own palette. Widgets that paint themselves follow :attr:`changed`.

    What the style sheet makes of a palette is kept by each widget, and a window of three checkpoints has 2,700. So
    after a change those on the screen work it out anew at once, the hidden ones in later turns of the event loop.
    """

    changed = Signal()

    def __init__(self, application: QApplication) -> None:
        super().__init__(application)
        self.setObjectName("theme")
        self._mode: Mode = "system"
        self._colours = LIGHT
        self._status_icons: dict[Status, QIcon] = {}
        self._restyled: set[int] = set()
        self._turns = QTimer(self)
        self._turns.setInterval(0)
        self._turns.timeout.connect(self._restyle)
        application.setStyle("Fusion")
        self._paint_application()
        application.styleHints().colorSchemeChanged.connect(self._on_scheme_changed)

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def colours(self) -> Colours:
        return self._colours

    @property
    def settled(self) -> bool:
        """Whether every widget shows the palette in force, the hidden ones too."""
        return not self._turns.isActive()

    def set_mode(self, mode: Mode) -> None:
        """Follow the system, or stay light or dark."""
        self._mode = mode
        self._follow()

    def icon(self, name: str) -> QIcon:
        """A bundled icon in the text colour."""
        return icons.icon(name, self._colours.text, self._colours.border)

    def status_icon(self, of: Status) -> QIcon:
        """The status's shape as an icon; built once per theme."""
        if not self._status_icons:
            self._status_icons = status.icons(self._colours)
        return self._status_icons[of]

    def _on_scheme_changed(self) -> None:
        if self._mode == "system":
            self._follow()

    def _follow(self) -> None:
        dark = self._mode == "dark" or (
            self._mode == "system" and QGuiApplication.styleHints().colorScheme() is Qt.ColorScheme.Dark
        )
        colours = DARK if dark else LIGHT
        if colours is self._colours:
            return
        self._colours = colours
        self._status_icons = {}
        self._paint_application()
        self.changed.emit()

    def _paint_application(self) -> None:
        application = cast("QApplication", self.parent())
        application.setPalette(palette(self._colours))
        if application.styleSheet():
            self._restyled.clear()
            self._turns.start()
            self._restyle()
        else:
            application.setStyleSheet(style_sheet())

    def _restyle(self) -> None:
        """Have widgets forget what the style sheet meant under the palette before: all that are visible, and as many
        others as one turn has time for.
        """
        style = QApplication.style()
        # By address: a widget may be gone by the next turn, and another one in its place was made under this palette.
        waiting = [
            (address, widget)
            for widget in QApplication.allWidgets()
            if widget.testAttribute(Qt.WidgetAttribute.WA_WState_Polished)
            and (address := getCppPointer(widget)[0]) not in self._restyled
        ]
        waiting.sort(key=lambda entry: not entry[1].isVisible())
        began = time.monotonic()  # not before: a turn that listing used up would never get on
        for address, widget in waiting:
            visible = widget.isVisible()
            if not visible and time.monotonic() - began > _TURN_S:
                return
            style.unpolish(widget)
            style.polish(widget)
            if visible:
                widget.update()
            self._restyled.add(address)
        self._turns.stop()
        self._restyled.clear()


def theme() -> Theme:
    """The running application's theme; made, light, on first use."""
    application = QApplication.instance()
    if not isinstance(application, QApplication):
        raise TypeError("there is no QApplication yet")
    found = application.findChild(Theme, "theme", Qt.FindChildOption.FindDirectChildrenOnly)
    return found if isinstance(found, Theme) else Theme(application)


def colours() -> Colours:
    """The palette in force."""
    return theme().colours


def fixed_font(scale: float = 1.0) -> QFont:
    """The system's fixed-width font at the application font's size."""
    font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
    font.setPointSizeF(QApplication.font().pointSizeF() * scale)
    return font


def palette(of: Colours) -> QPalette:
    """A QPalette with every role the program uses set, disabled text included.

    The program has no visited links: their role carries what is written on the accent, which the style sheet needs and
    QPalette has no name for (:data:`app.theme.style.ROLES`).
    """
    built = QPalette()
    role = QPalette.ColorRole
    roles = {
        role.Window: of.window,
        role.WindowText: of.text,
        role.Base: of.base,
        role.AlternateBase: of.alternate,
        role.ToolTipBase: of.raised,
        role.ToolTipText: of.text,
        role.PlaceholderText: of.muted,
        role.Text: of.text,
        role.Button: of.raised,
        role.ButtonText: of.text,
        role.BrightText: of.error.ink,
        role.Light: of.raised,
        role.Midlight: of.hover,
        role.Mid: of.border,
        role.Dark: of.muted,
        role.Shadow: of.border,
        role.Highlight: of.selected,
        role.HighlightedText: of.on_selected,
        role.Link: of.accent,
        role.LinkVisited: of.on_accent,
        role.Accent: of.accent,
    }
    for which, colour in roles.items():
        built.setColor(which, QColor(colour))
    faint = QColor(of.muted)
    faint.setAlpha(140)
    for which in (role.WindowText, role.Text, role.ButtonText):
        built.setColor(QPalette.ColorGroup.Disabled, which, faint)
    return built
