"""The backends side by side: what each quantization backend would make of the selected keys."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QStackedLayout, QVBoxLayout, QWidget

from app import text
from app.digest import Digest
from app.jobs import AnyJobs
from app.models.backends import MOST_ROWS, BackendColumn, BackendTable, compare_backends
from app.panels.parts import Note, label
from app.panels.tables import NameDelegate, Table
from app.selection import Selection
from app.theme.theme import theme
from core.engines import get_engine
from core.engines.variants import methods_of, variants_of
from core.errors import CancelledError, KVScopeError
from core.progress import Progress


class BackendsPanel(QWidget):
    """Predicts every backend when it is first looked at, in a job."""

    def __init__(self, selection: Selection, jobs: AnyJobs, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._selection = selection
        self._jobs = jobs
        self._digest: Digest | None = None
        self._stale = True
        self.table = BackendTable(self)
        self.view = Table(self.table, self.tr("Backends side by side"), {})
        self.view.setItemDelegateForColumn(0, NameDelegate(self.view))
        self.view.setTextElideMode(Qt.TextElideMode.ElideMiddle)  # the mark at the left and the name's end both stay
        self.view.activated.connect(self._on_activated)
        self._caption = label(dim=True)
        self._caption.setContentsMargins(12, 5, 12, 5)
        shown = QWidget()
        rows = QVBoxLayout(shown)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(self._caption)
        rows.addWidget(self.view, 1)
        self._shown = shown
        self._note = Note("backends")
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._note)
        self._stack.addWidget(shown)
        selection.changed.connect(self._on_selection_changed)
        theme().changed.connect(self.table.refresh_theme)

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        self._stale = True
        self._jobs.cancel("backends")
        self.table.show_columns(())
        if digest is None or not digest.rows:
            self._say(self.tr("There is no scale to compare backends on."))
        elif self.isVisible():
            self._predict()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._stale and self._digest is not None and self._digest.rows:
            self._predict()

    def _predict(self) -> None:
        if self._digest is None:
            return
        self._stale = False
        self._say(self.tr("Predicting every backend …"))
        inspection = self._digest.inspection

        def work(progress: Progress) -> tuple[BackendColumn, ...]:
            engine = get_engine(str(inspection.settings.engine.value))
            return compare_backends(inspection, variants_of(engine, inspection.settings), progress)

        self._jobs.start(
            self.tr("Predicting every backend"), work, done=self._on_predicted, failed=self._on_failed, lane="backends"
        )

    def _on_predicted(self, columns: tuple[BackendColumn, ...]) -> None:
        self.table.show_columns(columns)
        self._show_selected()
        widest = max(280, self.view.viewport().width() // max(len(columns) + 1, 1) - 2)
        for column in range(len(columns) + 1):
            self.view.setColumnWidth(column, min(widest, 420))
        self._stack.setCurrentWidget(self._shown)

    def _on_failed(self, error: KVScopeError) -> None:
        self._stale = True
        self._say(
            self.tr("Cancelled. Show this tab again to retry.")
            if isinstance(error, CancelledError)
            else text.complaint(error)
        )

    def _say(self, words: str) -> None:
        self._note.say(words, icon="backends")
        self._stack.setCurrentWidget(self._note)

    def _show_selected(self) -> None:
        if self._digest is None:
            return
        chosen = self._selection.ids
        rows = [row for row in self._digest.rows if row.id in chosen] or list(self._digest.rows)
        self.table.show_rows(rows)
        columns = self.table.columns()
        engine = get_engine(str(self._digest.inspection.settings.engine.value))
        counts = {
            "keys": text.count(min(len(rows), MOST_ROWS)),
            "total": text.count(len(self._digest.rows)),
            "backends": sum(len(column.methods) for column in columns),
            "groups": len(columns),
            "engine": engine.title,
            "what": self.tr("backends") if methods_of(engine) else self.tr("KV-cache dtypes"),
        }
        words = (
            self.tr("{keys} of {total} keys. All {backends} {what} of {engine} do the same with this checkpoint.")
            if len(columns) == 1
            else self.tr(
                "{keys} of {total} keys. {backends} {what} of {engine} in {groups} groups; "
                "≠ marks what another one does differently."
            )
        )
        self._caption.setText(words.format(**counts))

    def _on_selection_changed(self, origin: object) -> None:
        if origin is not self and self.table.columns():
            self._show_selected()

    def _on_activated(self, index: QModelIndex) -> None:
        row = self.table.row(index.row())
        if row is not None:
            self._selection.select([row.id], origin=self)
