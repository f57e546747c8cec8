"""The coverage strip under its head, whose legend counts each status and filters by it."""

from __future__ import annotations

from collections import Counter

from PySide6.QtCore import QEvent, QSize, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QToolButton, QVBoxLayout, QWidget

from app import text
from app.digest import Digest
from app.panels.parts import Head, label
from app.panels.strip import Strip
from app.selection import Selection
from app.status import Status
from app.theme.status import meaning, word
from app.theme.theme import theme


class Coverage(QWidget):
    """The strip under its head, whose legend counts each status and filters by it."""

    filter_requested = Signal(str)

    def __init__(self, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.strip = Strip(selection)
        self._head = Head(self.tr("Coverage"))
        self._legend = QWidget()
        self._entries = QHBoxLayout(self._legend)
        self._entries.setContentsMargins(0, 0, 0, 0)
        self._entries.setSpacing(2)
        self._head.add(self._legend)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(self.strip)
        self._scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._nothing = label(dim=True)
        self._nothing.setContentsMargins(12, 8, 12, 8)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(self._head)
        rows.addWidget(self._scroll)
        rows.addWidget(self._nothing)
        theme().changed.connect(self._on_theme_changed)
        self._digest: Digest | None = None

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        self.strip.show_digest(digest)
        self._fill_legend()
        has_columns = digest is not None and bool(digest.columns)
        self._scroll.setVisible(has_columns)
        self._nothing.setVisible(not has_columns)
        self._nothing.setText(self.tr("No attention layer is known for this checkpoint, and it holds no KV scale."))
        self._fit()

    def counts(self) -> Counter[Status]:
        """How many cells have each status."""
        if self._digest is None:
            return Counter()
        return Counter(column.cells[role].status for column in self._digest.columns for role in self._digest.roles)

    def _fill_legend(self) -> None:
        while self._entries.count():
            item = self._entries.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.deleteLater()
        counted = self.counts()
        before: QWidget = self.strip
        for status in Status:
            if not counted[status]:
                continue
            entry = QToolButton()
            entry.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
            entry.setIcon(theme().status_icon(status))
            entry.setIconSize(QSize(12, 12))
            entry.setText(f"{text.count(counted[status])} {word(status)}")
            entry.setToolTip(meaning(status))
            entry.setAccessibleName(self.tr("Show only {status}").format(status=word(status)))
            entry.setProperty("status", status.value)
            entry.setEnabled(status is not Status.NONE)
            entry.clicked.connect(self._on_entry_clicked)
            self._entries.addWidget(entry)
            QWidget.setTabOrder(before, entry)  # made anew each time, they would come after everything else
            before = entry

    def _on_entry_clicked(self) -> None:
        sender = self.sender()
        if sender is not None:
            self.filter_requested.emit(f"status:{sender.property('status')}")

    def _on_theme_changed(self) -> None:
        self._fill_legend()

    def resizeEvent(self, event: QEvent) -> None:
        self._fit()

    def _fit(self) -> None:
        bar = self._scroll.horizontalScrollBar()
        wide = self.strip.minimumWidth() > self.width()
        self._scroll.setFixedHeight(self.strip.minimumHeight() + (bar.sizeHint().height() if wide else 0) + 3)
