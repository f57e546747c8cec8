"""Engines: the checkpoint under every engine and version, and key by key where two of them part."""

from __future__ import annotations

from PySide6.QtCore import QModelIndex, Qt
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QHeaderView, QWidget

from app import text
from app.digest import Digest
from app.models.engines import (
    EngineAnswer,
    EngineAnswers,
    EngineColumn,
    EngineTable,
    PairColumn,
    PairTable,
    ask_engines,
    mend_text,
)
from app.panels.layouts import grow, horizontal, split, stacked, vertical
from app.panels.parts import Button, Chip, Note
from app.panels.reading import ElidedLabel, Page, Passage
from app.panels.tables import NameDelegate, Table
from app.selection import Selection
from app.session import Session
from app.theme.outcome import outcome_look, outcome_word
from app.theme.theme import theme
from core.engines import ENGINES, INSTALLED, get_engine
from core.errors import CancelledError, KVScopeError
from core.inspection import Inspection
from core.installation import InstalledNote
from core.progress import Progress


class EngineDetail(QWidget):
    """One engine beside the one in force: its verdict, every key under both, and where they part on one of them."""

    def __init__(self, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._selection = selection
        self._answer: EngineAnswer | None = None
        self.table = PairTable(self)
        self.view = Table(self.table, self.tr("Keys under two engines"), {PairColumn.LEFT: "dropped, k 0.0123"})
        self.view.setItemDelegateForColumn(PairColumn.KEY, NameDelegate(self.view))
        self.view.setColumnWidth(PairColumn.RIGHT, self.view.columnWidth(PairColumn.LEFT) + 24)
        _stretch(self.view, PairColumn.KEY)
        self.view.selectionModel().currentRowChanged.connect(self._on_row_changed)
        self._note = Note("engines", self.tr("Choose another engine to see, key by key, where the two part."))
        keys = QWidget()
        self._keys = stacked(keys, self._note, self.view)

        self._outcome = Chip()
        self._title = ElidedLabel()
        self.use_button = Button(self.tr("Use"), "ok", tip=self.tr("Predict with this engine (Return)"))
        head = horizontal(self._outcome, self._title, self.use_button, margins=(12, 5, 6, 3), spacing=8)
        grow(head, self._title)
        self.verdict = Passage()
        self.verdict.setAccessibleName(self.tr("Verdict in this engine"))
        self.installed = Passage()
        self.installed.setAccessibleName(self.tr("Differences from the built-in profile"))
        self.why = Passage(small=True)
        self.why.setAccessibleName(self.tr("Why they differ"))
        self._page = Page()
        vertical(self.verdict, self.installed, self.why, 1, parent=self._page.page, margins=(12, 2, 8, 6), spacing=8)
        told = QWidget()
        grow(vertical(head, self._page, parent=told), self._page)
        halves = split(Qt.Orientation.Horizontal, (keys, 560, 3), (told, 300, 2))
        grow(vertical(halves, parent=self), halves)
        selection.changed.connect(self._on_selection_changed)

    @property
    def answer(self) -> EngineAnswer | None:
        return self._answer

    def show_pair(self, current: EngineAnswer | None, other: EngineAnswer, note: InstalledNote | None = None) -> None:
        """Show ``other`` beside the engine in force; ``note`` is what to tell of an installed engine."""
        self._answer = other
        column = other.column
        _, tone = outcome_look(column.outcome)
        self._outcome.show_word(outcome_word(column.outcome), tone)
        same = current is other
        self._title.setText(column.title)
        self._title.setToolTip(text.spoken(get_engine(column.engine).how_checked))
        self.use_button.setEnabled(not same and column.inspection is not None)
        self.use_button.setAccessibleName(self.tr("Use {engine}").format(engine=column.title))
        mend = mend_text(column)
        mended = self.tr("Mended by {mend}.").format(mend=mend) if mend else ""
        self.verdict.setPlainText(f"{text.spoken(column.text)} {mended}".strip())
        told = [note.text, *note.concerning, *note.others] if note is not None else []
        self.installed.setPlainText("\n".join(map(text.spoken, told)))
        self.installed.setVisible(bool(told))
        self.table.show_pair(None if same else current, other)
        self._keys.setCurrentWidget(self.view if self.table.rowCount() else self._note)
        self._tell(self._first())
        self._page.to_top()

    def refresh_theme(self) -> None:
        self.table.refresh_theme()

    def _first(self) -> int:
        """The row to explain before one is chosen: the selection's, else the first that differs."""
        current = self._selection.current
        place = self.table.place_of(current) if current is not None else -1
        if place >= 0:
            return place
        return next((row for row in range(self.table.rowCount()) if self.table.differs(row)), -1)

    def _tell(self, row: int) -> None:
        count, differing = self.table.rowCount(), self.table.differing
        if count == 0:
            told = ""
        elif differing == 0:
            told = self.tr("Every key ends alike in both.")
        else:
            told = self.tr("{differing} of {count} keys end differently.\n{why}").format(
                differing=text.count(differing),
                count=text.count(count),
                why=self.table.why(row) if 0 <= row < count else "",
            )
        self.why.setPlainText(told.strip())
        self.why.setVisible(bool(told))

    def _on_row_changed(self, current: QModelIndex) -> None:
        name = self.table.row_id(current.row())
        if name is not None:
            self._tell(current.row())
            self._selection.select([name], current=name, origin=self)

    def _on_selection_changed(self, origin: object) -> None:
        current = self._selection.current
        if origin is self or current is None:
            return
        place = self.table.place_of(current)
        if place < 0:
            return
        model = self.view.selectionModel()
        model.blockSignals(True)
        self.view.selectRow(place)
        model.blockSignals(False)
        self.view.viewport().update()
        self._tell(place)


class EnginesPanel(QWidget):
    """Asks every engine when it is first looked at, in a job that can be cancelled."""

    def __init__(self, session: Session, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._digest: Digest | None = None
        self._asked: tuple[object, ...] | None = None
        self._answers: EngineAnswers | None = None
        self._lane = f"engines-{session.lane}"
        self.headline = Passage()
        self.headline.setAccessibleName(self.tr("All engines in a sentence"))
        self.table = EngineTable(self)
        self.view = Table(
            self.table,
            self.tr("Engines"),
            {
                EngineColumn.ENGINE: "vLLM 0.33.0 (installed)",
                EngineColumn.OUTCOME: "Degraded____",
                EngineColumn.SERVED: "30 of 30",
            },
        )
        _stretch(self.view, EngineColumn.FATE)
        self.view.selectionModel().currentRowChanged.connect(self._on_row_changed)
        self.view.activated.connect(self._on_activated)
        self.detail = EngineDetail(selection)
        self.detail.use_button.clicked.connect(self._on_use_clicked)
        halves = split(Qt.Orientation.Horizontal, (self.view, 560, 2), (self.detail, 860, 3))
        self._shown = QWidget()
        grow(vertical(_inset(self.headline, top=6, bottom=6), halves, parent=self._shown), halves)
        self._note = Note("engines")
        self._stack = stacked(self, self._note, self._shown)
        theme().changed.connect(self._on_theme_changed)

    @property
    def answers(self) -> EngineAnswers | None:
        return self._answers

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        if digest is None:
            self._session.jobs.cancel(self._lane)
            self._asked = self._answers = None
            self.table.show_answers((), "")
            self._say(self.tr("Open a checkpoint to compare engines on it."))
        elif self._answers is not None and self._asked == _question(digest.inspection):
            self._show_current()  # only another engine of those that have answered
        else:
            self._asked = self._answers = None
            self.table.show_answers((), "")
            if self.isVisible():
                self._ask()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._digest is not None and self._asked != _question(self._digest.inspection):
            self._ask()

    def use(self, engine: str) -> None:
        """Predict with another engine."""
        if engine != self._current:
            self._session.choose(self._session.choices.with_engine(engine))

    @property
    def _current(self) -> str:
        return str(self._digest.inspection.settings.engine.value) if self._digest is not None else ""

    def _ask(self) -> None:
        if self._digest is None:
            return
        inspection = self._digest.inspection
        self._asked, self._answers = _question(inspection), None
        self._say(self.tr("Predicting every engine …"))

        def work(progress: Progress) -> EngineAnswers:
            return ask_engines(inspection, progress)

        self._session.jobs.start(
            self.tr("Predicting every engine"), work, done=self._on_answered, failed=self._on_failed, lane=self._lane
        )

    def _on_answered(self, answers: EngineAnswers) -> None:
        self._answers = answers
        self.headline.setPlainText(text.spoken(answers.headline))
        self._stack.setCurrentWidget(self._shown)
        self.table.show_answers(answers.answers, self._current)
        self.view.setCurrentIndex(self.table.index(self._most_telling(), 0))

    def _on_failed(self, error: KVScopeError) -> None:
        self._asked = None
        self._say(
            self.tr("Cancelled. Show this tab again to retry.")
            if isinstance(error, CancelledError)
            else text.complaint(error)
        )

    def _most_telling(self) -> int:
        """The first engine that does something else than the one in force."""
        here = self.table.place_of(self._current)
        own = self.table.answer(here)
        outcome = own.column.outcome if own is not None else ""
        for row, answer in enumerate(self.table.answers()):
            if answer.column.outcome not in (outcome, "unknown"):
                return row
        return max(here, 0)

    def _show_current(self) -> None:
        self.table.set_current(self._current)
        self._show_row(self.view.currentIndex().row())

    def _show_row(self, row: int) -> None:
        answer = self.table.answer(row)
        if answer is not None:
            note = self._answers.installed if self._answers is not None and answer.column.engine == INSTALLED else None
            self.detail.show_pair(self.table.answer(self.table.place_of(self._current)), answer, note)

    def _say(self, words: str) -> None:
        self._note.say(words, icon="engines")
        self._stack.setCurrentWidget(self._note)

    def _on_row_changed(self, current: QModelIndex) -> None:
        self._show_row(current.row())

    def _on_activated(self, index: QModelIndex) -> None:
        answer = self.table.answer(index.row())
        if answer is not None and answer.column.inspection is not None:
            self.use(answer.column.engine)

    def _on_use_clicked(self) -> None:
        if self.detail.answer is not None:
            self.use(self.detail.answer.column.engine)

    def _on_theme_changed(self) -> None:
        self.table.refresh_theme()
        self.detail.refresh_theme()


def _question(inspection: Inspection) -> tuple[object, ...]:
    """What the answers depend on: the same checkpoint and options have the same, whichever engine is in force."""
    return id(inspection.checkpoint), inspection.wish, tuple(ENGINES)


def _stretch(view: Table, column: int) -> None:
    """Let one column take the room that the others leave, so that nothing has to be scrolled to."""
    header = view.horizontalHeader()
    header.setStretchLastSection(False)
    header.setMinimumSectionSize(60)
    header.setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)


def _inset(widget: QWidget, *, top: int = 0, bottom: int = 0) -> QWidget:
    around = QWidget()
    vertical(widget, parent=around, margins=(12, top, 12, bottom))
    return around
