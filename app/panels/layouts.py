"""Layouts in one expression."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QBoxLayout, QHBoxLayout, QLayout, QSplitter, QStackedLayout, QVBoxLayout, QWidget

Item = QWidget | QLayout | int
"""A widget, an inner layout, or a stretch."""


def vertical(
    *items: Item, parent: QWidget | None = None, margins: tuple[int, int, int, int] = (0, 0, 0, 0), spacing: int = 0
) -> QVBoxLayout:
    """Items from top to bottom, set into ``parent`` where one is given."""
    layout = QVBoxLayout()
    _fill(layout, items, parent, margins, spacing)
    return layout


def horizontal(
    *items: Item, parent: QWidget | None = None, margins: tuple[int, int, int, int] = (0, 0, 0, 0), spacing: int = 6
) -> QHBoxLayout:
    """Items from left to right."""
    layout = QHBoxLayout()
    _fill(layout, items, parent, margins, spacing)
    return layout


def grow(layout: QBoxLayout, *widgets: QWidget) -> None:
    """Let these widgets take the room that is left."""
    for widget in widgets:
        layout.setStretchFactor(widget, 1)


def stacked(parent: QWidget, *pages: QWidget) -> QStackedLayout:
    """Pages of which one is shown."""
    layout = QStackedLayout(parent)
    for page in pages:
        layout.addWidget(page)
    return layout


def split(orientation: Qt.Orientation, *parts: tuple[QWidget, int, int]) -> QSplitter:
    """Parts with a thin handle between them, each with its first size and its stretch."""
    splitter = QSplitter(orientation)
    splitter.setHandleWidth(1)
    for number, (widget, _, stretch) in enumerate(parts):
        splitter.addWidget(widget)
        splitter.setStretchFactor(number, stretch)
    splitter.setSizes([size for _, size, _ in parts])
    splitter.setChildrenCollapsible(False)
    return splitter


def _fill(
    layout: QBoxLayout,
    items: tuple[Item, ...],
    parent: QWidget | None,
    margins: tuple[int, int, int, int],
    spacing: int,
) -> None:
    layout.setContentsMargins(*margins)
    layout.setSpacing(spacing)
    for item in items:
        if isinstance(item, int):
            layout.addStretch(item)
        elif isinstance(item, QWidget):
            layout.addWidget(item)
        else:
            layout.addLayout(item)
    if parent is not None:
        parent.setLayout(layout)
