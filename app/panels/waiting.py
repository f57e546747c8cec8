"""What stands in place of the views while there is nothing to show: opening, cancelled, unreadable."""

from __future__ import annotations

import traceback

from PySide6.QtCore import Qt
from PySide6.QtGui import QAction, QGuiApplication
from PySide6.QtWidgets import QWidget

from app.jobs import UnexpectedError
from app.panels.layouts import horizontal, vertical
from app.panels.parts import Button, Note
from app.text import complaint
from core.errors import KVScopeError


class Waiting(QWidget):
    """A sentence, and what can be done when it is bad news."""

    def __init__(self, retry: QAction, close: QAction, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("surface")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self._note = Note("info")
        self.retry_button = Button(self.tr("Try again"), "reload")
        self.retry_button.clicked.connect(retry.trigger)
        self.close_button = Button(self.tr("Back to the start page"), "close")
        self.close_button.clicked.connect(close.trigger)
        self.details_button = Button(self.tr("Copy details"), "copy")
        self.details_button.clicked.connect(self._on_details_clicked)
        self._details = ""
        buttons = horizontal(1, self.retry_button, self.close_button, self.details_button, 1)
        vertical(1, self._note, buttons, 2, parent=self)
        self.show_progress()

    @property
    def text(self) -> str:
        return self._note.text

    def show_progress(self) -> None:
        """Something is being opened."""
        self._show(self.tr("Reading headers, configs and scales …"), icon="open-folder", failed=False)

    def show_cancelled(self) -> None:
        """The user stopped it."""
        self._show(self.tr("Opening was cancelled."), icon="cancel", failed=True)

    def show_failure(self, error: KVScopeError) -> None:
        """It did not open: the sentence, ways on, and for a fault of this program its details to copy."""
        cause = error.__cause__ if isinstance(error, UnexpectedError) else None
        self._details = "".join(traceback.format_exception(cause)) if cause is not None else ""
        self._show(complaint(error), icon="error", failed=True)
        self.details_button.setVisible(bool(self._details))

    def _show(self, words: str, *, icon: str, failed: bool) -> None:
        self._note.say(words, icon=icon, tone="error" if failed and icon == "error" else "neutral")
        self.details_button.hide()
        self.retry_button.setVisible(failed)
        self.close_button.setVisible(failed)

    def _on_details_clicked(self) -> None:
        QGuiApplication.clipboard().setText(self._details)
