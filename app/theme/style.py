"""The style sheet: spacing, borders and surfaces that Fusion alone leaves to each platform's habit.

It names roles of the application's palette and no colour, so that one text serves both palettes. Setting another text
has every widget of every open checkpoint worked out twice before the window answers again; see :mod:`app.theme.theme`.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template
from types import MappingProxyType

from resources import resource

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "window": "window",
        "base": "base",
        "alternate": "alternate-base",
        "raised": "button",
        "text": "window-text",
        "muted": "dark",
        "border": "mid",
        "accent": "accent",
        "on_accent": "link-visited",
        "selected": "highlight",
        "on_selected": "highlighted-text",
        "hover": "midlight",
        "error": "bright-text",
    }
)
"""The role of QPalette that carries each colour of the style sheet; :func:`app.theme.theme.palette` sets them."""

PICTURES: Mapping[str, str] = MappingProxyType({"arrow": "chevron", "close": "close-tab"})
"""In a grey that can be seen in both palettes: Qt keeps the pictures of a style sheet, whatever changes later."""

_SHEET = Template("""
QToolTip { color: $text; background: $raised; border: 1px solid $border; padding: 4px 6px; }
QMenuBar { background: $window; border-bottom: 1px solid $border; padding: 1px 4px; }
QMenuBar::item { padding: 4px 9px; background: transparent; border-radius: 4px; }
QMenuBar::item:selected { background: $hover; }
QMenu { background: $raised; border: 1px solid $border; padding: 4px; }
QMenu::item { padding: 5px 26px 5px 8px; border-radius: 4px; margin: 0 1px; }
QMenu::item:selected { background: $selected; color: $on_selected; }
QMenu::item:disabled { color: $muted; }
QMenu::separator { height: 1px; background: $border; margin: 4px 6px; }
QMenu::icon { padding-left: 8px; }
QStatusBar { background: $window; border-top: 1px solid $border; }
QStatusBar::item { border: none; }

QPushButton, QToolButton#raised {
  background: $raised; border: 1px solid $border; border-radius: 5px; padding: 4px 11px; min-height: 18px;
}
QToolButton#raised { padding: 4px 8px; }
QToolButton#raised[popupMode="1"] { padding-right: 22px; }
QToolButton#raised::menu-button { border: none; border-left: 1px solid $border; width: 18px; }
QPushButton:hover, QToolButton#raised:hover { background: $hover; }
QPushButton:pressed, QToolButton#raised:pressed, QPushButton:checked { background: $selected; color: $on_selected; }
QPushButton:disabled, QToolButton#raised:disabled { color: $muted; background: $window; }
QPushButton:focus, QToolButton#raised:focus { border-color: $accent; }
/* Borders tell the focus, a tab its ground; Fusion would draw a frame around the words as well. */
QPushButton, QToolButton, QTabBar { outline: none; }
QPushButton[primary="true"] { background: $accent; border-color: $accent; color: $on_accent; font-weight: 600; }
QPushButton[primary="true"]:focus { border-color: $text; }
QPushButton[primary="true"]:disabled { background: $window; border-color: $border; color: $muted; }
QPushButton[flat="true"] { background: transparent; border-color: transparent; padding: 3px 7px; }
QPushButton[flat="true"]:hover { background: $hover; }
QPushButton[flat="true"]:checked { background: $selected; color: $on_selected; border-color: $border; }
QPushButton[flat="true"]:focus { border-color: $accent; }
QToolButton { border: 1px solid transparent; border-radius: 4px; padding: 3px; background: transparent; }
QToolButton:hover { background: $hover; }
QToolButton:checked { background: $selected; color: $on_selected; }
QToolButton:focus { border-color: $accent; }

QLineEdit, QPlainTextEdit, QTextEdit {
  background: $base; border: 1px solid $border; border-radius: 5px; padding: 3px 6px;
  selection-background-color: $selected; selection-color: $on_selected;
}
QLineEdit:focus, QPlainTextEdit:focus, QTextEdit:focus { border-color: $accent; }
QTextEdit#passage { background: transparent; border: none; border-radius: 0; padding: 0; }
QTextEdit#passage[dim="true"] { color: $muted; }
QLineEdit[invalid="true"] { border-color: $error; }
QComboBox {
  background: $raised; border: 1px solid $border; border-radius: 5px; padding: 3px 6px 3px 8px; min-height: 18px;
}
QComboBox:hover { background: $hover; }
QComboBox:focus { border-color: $accent; }
QComboBox:disabled { color: $muted; background: $window; }
QComboBox::drop-down { border: none; width: 18px; }
QComboBox::down-arrow { image: url($arrow); width: 11px; height: 11px; }
QComboBox QAbstractItemView { background: $raised; border: 1px solid $border; outline: none; padding: 3px; }
QCheckBox, QRadioButton { spacing: 6px; }

QCheckBox::indicator {
  width: 13px; height: 13px; border: 1px solid $muted; border-radius: 3px; background: $base;
}
QCheckBox::indicator:hover, QCheckBox:focus::indicator { border-color: $accent; }
QCheckBox::indicator:checked { background: $accent; border-color: $accent; }
QCheckBox::indicator:disabled { border-color: $border; }

QTableView, QTreeView, QListView {
  background: $base; alternate-background-color: $alternate; border: none; gridline-color: $hover; outline: none;
  selection-background-color: $selected; selection-color: $on_selected;
}
QTableView::item { padding: 0 6px; }
QTreeView::item { padding: 2px 2px; }
QHeaderView { background: $window; border: none; }
QHeaderView::section {
  background: $window; color: $muted; border: none; border-right: 1px solid $hover; border-bottom: 1px solid $border;
  padding: 4px 7px; font-weight: 600;
}
QHeaderView::section:hover { background: $hover; color: $text; }
QTableCornerButton::section { background: $window; border: none; }

QTabWidget::pane { border: none; border-top: 1px solid $border; background: $base; }
QTabWidget::tab-bar { left: 8px; }
QTabBar { background: $window; qproperty-drawBase: 0; }
QTabBar::tab {
  background: transparent; color: $muted; padding: 6px 13px 5px 11px;
  border: none; border-bottom: 2px solid transparent;
}
QTabBar::tab:hover { color: $text; background: $hover; }
QTabBar::tab:selected { color: $text; border-bottom-color: $accent; font-weight: 600; }
QTabBar::tab:focus { color: $accent; background: $hover; }
QTabBar::close-button { image: url($close); border-radius: 3px; margin: 3px; }
QTabBar::close-button:hover { background: $hover; }
QSplitter::handle { background: $border; }
QSplitter::handle:horizontal { width: 1px; }
QSplitter::handle:vertical { height: 1px; }
QSplitter::handle:hover { background: $accent; }
QScrollBar { background: transparent; border: none; margin: 0; }
QScrollBar:vertical { width: 11px; }
QScrollBar:horizontal { height: 11px; }
QScrollBar::handle { background: $border; border-radius: 4px; margin: 2px; }
QScrollBar::handle:vertical { min-height: 28px; }
QScrollBar::handle:horizontal { min-width: 28px; }
QScrollBar::handle:disabled { background: transparent; }
QScrollBar::handle:hover { background: $muted; }
QScrollBar::add-line, QScrollBar::sub-line { width: 0; height: 0; }
QScrollBar::add-page, QScrollBar::sub-page { background: transparent; }
QAbstractScrollArea::corner { background: transparent; border: none; }
QScrollArea { border: none; background: $base; }
QScrollArea > QWidget > QWidget#page { background: $base; }
QProgressBar {
  background: $base; border: 1px solid $border; border-radius: 4px; text-align: center; min-height: 12px;
  max-height: 14px; color: $text;
}
QProgressBar::chunk { background: $selected; border-radius: 3px; }

QWidget#surface, QFrame#surface { background: $base; }
QFrame#head { background: $window; border-bottom: 1px solid $border; }
QLabel#head-title { color: $muted; font-weight: 700; letter-spacing: 0.5px; }
QLabel[dim="true"] { color: $muted; }
QLabel[wrong="true"] { color: $error; }
QLabel[strong="true"] { font-weight: 600; }
QLabel#chip { border-radius: 8px; padding: 1px 8px; font-weight: 600; }
QFrame#card { background: $raised; border: 1px solid $border; border-radius: 8px; }
QPushButton#card {
  background: $raised; border: 1px solid $border; border-radius: 8px; padding: 9px 12px; text-align: left;
}
QPushButton#card:hover { background: $hover; }
QPushButton#card:focus { border-color: $accent; }
""")


def style_sheet() -> str:
    """The application's style sheet, for either palette."""
    pictures = {name: resource("icons", f"{file}.svg").as_posix() for name, file in PICTURES.items()}
    return _SHEET.substitute({name: f"palette({role})" for name, role in ROLES.items()} | pictures)
