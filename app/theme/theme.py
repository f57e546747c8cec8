"""The theme in force: which palette, applied to the whole application, and the signal that it changed."""

from __future__ import annotations

from typing import Literal, cast, get_args

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QColor, QFont, QFontDatabase, QGuiApplication, QIcon, QPalette
from PySide6.QtWidgets import QApplication

from app.status import Status
from app.theme import icons, status
from app.theme.palettes import DARK, LIGHT, Colours
from app.theme.style import style_sheet

Mode = Literal["system", "light", "dark"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Theme(QObject):
    """Applies Fusion with the program's own palette. Widgets that paint themselves follow :attr:`changed`."""

    changed = Signal()

    def __init__(self, application: QApplication) -> None:
        super().__init__(application)
        self.setObjectName("theme")
        self._mode: Mode = "system"
        self._colours = LIGHT
        self._status_icons: dict[Status, QIcon] = {}
        application.setStyle("Fusion")
        self._paint_application()
        application.styleHints().colorSchemeChanged.connect(self._on_scheme_changed)

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def colours(self) -> Colours:
        return self._colours

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
        if application.styleSheet():
            application.setStyleSheet("")  # a palette changed under a style sheet is worked out anew for each widget
        application.setPalette(palette(self._colours))
        application.setStyleSheet(style_sheet(self._colours))


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
    """A QPalette with every role the program uses set, disabled text included."""
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
        role.LinkVisited: of.accent,
        role.Accent: of.accent,
    }
    for which, colour in roles.items():
        built.setColor(which, QColor(colour))
    faint = QColor(of.muted)
    faint.setAlpha(140)
    for which in (role.WindowText, role.Text, role.ButtonText):
        built.setColor(QPalette.ColorGroup.Disabled, which, faint)
    return built
