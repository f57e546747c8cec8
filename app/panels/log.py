"""The log: what the program's own modules reported, errors with their tracebacks."""

from __future__ import annotations

import logging

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from app.panels.parts import Button
from app.theme.theme import fixed_font

MOST_LINES = 5_000


class LogBridge(QObject):
    """Carries log records of any thread into the GUI thread."""

    recorded = Signal(str, int)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._handler = _Handler(self)
        self._loggers = [logging.getLogger(name) for name in ("app", "core")]
        for logger in self._loggers:
            logger.addHandler(self._handler)
            if logger.level == logging.NOTSET:
                logger.setLevel(logging.INFO)

    def close(self) -> None:
        """Stop listening."""
        for logger in self._loggers:
            logger.removeHandler(self._handler)


class _Handler(logging.Handler):
    def __init__(self, bridge: LogBridge) -> None:
        super().__init__()
        self._bridge = bridge
        self.setFormatter(logging.Formatter("%(asctime)s  %(levelname)-7s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        self._bridge.recorded.emit(self.format(record), record.levelno)


class LogPanel(QWidget):
    """The records, the newest last."""

    def __init__(self, bridge: LogBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.text = QPlainTextEdit()
        self.text.setObjectName("log")
        self.text.setReadOnly(True)
        self.text.setMaximumBlockCount(MOST_LINES)
        self.text.setFont(fixed_font(0.95))
        self.text.setAccessibleName(self.tr("Log"))
        self.text.setPlaceholderText(
            self.tr("Nothing to report. Warnings and faults of KVScope itself are written here.")
        )
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        copy = Button(self.tr("Copy all"), "copy", flat=True)
        copy.clicked.connect(self._on_copy_clicked)
        wipe = Button(self.tr("Clear"), "trash", flat=True)
        wipe.clicked.connect(self.text.clear)
        bar = QHBoxLayout()
        bar.setContentsMargins(8, 4, 8, 4)
        bar.addStretch(1)
        bar.addWidget(copy)
        bar.addWidget(wipe)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addLayout(bar)
        rows.addWidget(self.text, 1)
        bridge.recorded.connect(self._on_recorded, Qt.ConnectionType.QueuedConnection)

    def _on_recorded(self, line: str) -> None:
        self.text.appendPlainText(line)

    def _on_copy_clicked(self) -> None:
        QGuiApplication.clipboard().setText(self.text.toPlainText())
