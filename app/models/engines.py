"""The checkpoint under every engine as a table, and the keys under two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QObject, Qt
from PySide6.QtGui import QBrush, QColor, QFont

from app import text
from app.digest import Digest, Row, digest
from app.text import QT_TRANSLATE_NOOP
from app.theme import icons
from app.theme.outcome import outcome_look, outcome_word
from app.theme.status import word
from app.theme.theme import colours, theme
from core.headline import fate, headline
from core.inspection import Inspection
from core.installation import InstalledNote, installed_note
from core.matrix import Column, matrix
from core.progress import Progress
from core.side_by_side import why_they_differ

_ROOT = QModelIndex()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAnswer:
    """One engine's column with the rows of its digest; ``digest`` is None where the engine gave no answer."""

    column: Column
    digest: Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAnswers:
    """All of them, what they come to in a sentence, and what is different about a vLLM that was probed."""

    answers: tuple[EngineAnswer, ...]
    headline: str
    installed: InstalledNote | None = None


def ask_engines(inspection: Inspection, progress: Progress) -> EngineAnswers:
    """Predict the checkpoint under every engine. Raises CancelledError."""
    columns = matrix(inspection, progress=progress)
    answers = []
    for column in columns:
        progress.check()
        found = digest(column.inspection) if column.inspection is not None else None
        answers.append(EngineAnswer(column=column, digest=found))
    return EngineAnswers(answers=tuple(answers), headline=headline(columns), installed=installed_note(columns))


class EngineColumn(IntEnum):
    """The columns of the engines' table."""

    ENGINE = 0
    OUTCOME = 1
    SERVED = 2
    FATE = 3


_HEADERS = {
    EngineColumn.ENGINE: QT_TRANSLATE_NOOP("Engines", "Engine"),
    EngineColumn.OUTCOME: QT_TRANSLATE_NOOP("Engines", "Outcome"),
    EngineColumn.SERVED: QT_TRANSLATE_NOOP("Engines", "Layers"),
    EngineColumn.FATE: QT_TRANSLATE_NOOP("Engines", "What it does"),
}


class EngineTable(QAbstractTableModel):
    """One row an engine; the one in force is bold and marked."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._answers: tuple[EngineAnswer, ...] = ()
        self._cells: list[tuple[str, ...]] = []
        self._current = ""
        self._bold = QFont()
        self._bold.setBold(True)

    def show_answers(self, answers: Sequence[EngineAnswer], current: str) -> None:
        """Show other answers; ``current`` is the id of the engine in force."""
        self.beginResetModel()
        self._answers = tuple(answers)
        self._current = current
        self._cells = [self._row(answer.column) for answer in answers]
        self.endResetModel()

    def set_current(self, engine: str) -> None:
        """Mark another engine as the one in force."""
        self._current = engine
        self._cells = [self._row(answer.column) for answer in self._answers]
        self.refresh_theme()

    def answer(self, row: int) -> EngineAnswer | None:
        return self._answers[row] if 0 <= row < len(self._answers) else None

    def answers(self) -> tuple[EngineAnswer, ...]:
        return self._answers

    def place_of(self, engine: str) -> int:
        """The engine's row, -1 where there is none."""
        return next((row for row, each in enumerate(self._answers) if each.column.engine == engine), -1)

    def is_current(self, row: int) -> bool:
        answer = self.answer(row)
        return answer is not None and answer.column.engine == self._current

    def refresh_theme(self) -> None:
        if self._answers:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._answers) - 1, len(EngineColumn) - 1))

    def _row(self, column: Column) -> tuple[str, ...]:
        served = QCoreApplication.translate("Engines", "{served} of {expecting}")
        return (
            f"▸ {column.title}" if column.engine == self._current else column.title,
            outcome_word(column.outcome),
            served.format(served=text.count(column.served), expecting=text.count(column.expecting))
            if column.expecting
            else "–",
            text.spoken(fate(column)),
        )

    def _tip(self, row: int, column: Column) -> str:
        mark = QCoreApplication.translate("Engines", "In force") if self.is_current(row) else ""
        mend = mend_text(column)
        mended = QCoreApplication.translate("Engines", "Mended by {mend}").format(mend=mend) if mend else ""
        return "\n".join(part for part in (mark, column.title, text.spoken(column.text), mended) if part)

    def rowCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._answers)

    def columnCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(EngineColumn)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(EngineColumn):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return QCoreApplication.translate("Engines", _HEADERS[EngineColumn(section)])
        return None

    def data(self, index: Any, role: int = 0) -> Any:
        answer = self.answer(index.row()) if index.isValid() else None
        if answer is None:
            return None
        icon, tone = outcome_look(answer.column.outcome)
        place = index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._cells[index.row()][place]
            case Qt.ItemDataRole.AccessibleTextRole if place == EngineColumn.ENGINE and self.is_current(index.row()):
                return QCoreApplication.translate("Engines", "{engine}, in force").format(engine=answer.column.title)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tip(index.row(), answer.column)
            case Qt.ItemDataRole.DecorationRole if place == EngineColumn.OUTCOME:
                return icons.icon(icon, colours().tone(tone).ink, colours().border)
            case Qt.ItemDataRole.ForegroundRole if place == EngineColumn.OUTCOME:
                return QBrush(QColor(colours().tone(tone).ink))
            case Qt.ItemDataRole.FontRole if place == EngineColumn.OUTCOME or self.is_current(index.row()):
                return self._bold
            case _:
                return None


def mend_text(column: Column) -> str:
    """What would serve more layers, in a few words."""
    match column.mend:
        case "export":
            return QCoreApplication.translate("Engines", "an export ({count} of {all} layers are served then)").format(
                count=text.count(column.mended), all=text.count(column.expecting)
            )
        case "cache":
            return QCoreApplication.translate("Engines", "--kv-cache-dtype fp8_e4m3")
        case "":
            return ""


class PairColumn(IntEnum):
    """The columns of the keys' table: the engine in force at the left, the chosen one at the right."""

    KEY = 0
    LEFT = 1
    RIGHT = 2


class PairTable(QAbstractTableModel):
    """Each key under two engines: what becomes of it and the value that its layer ends with."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._titles = ("", "")
        self._rows: tuple[tuple[Row, Row | None], ...] = ()
        self._why: dict[int, str] = {}
        self._differing: frozenset[int] = frozenset()
        self._tint = QBrush()
        self.refresh_theme()

    def show_pair(self, left: EngineAnswer | None, right: EngineAnswer | None) -> None:
        """Compare these two; None, or an engine without an answer, empties the table."""
        self.beginResetModel()
        self._why = {}
        self._rows = ()
        self._differing = frozenset()
        if left is not None and right is not None and left.digest is not None and right.digest is not None:
            self._titles = (left.column.title, right.column.title)
            others: Mapping[str, Row] = right.digest.by_id
            self._rows = tuple((row, others.get(row.id)) for row in left.digest.rows if not row.missing)
            self._differing = frozenset(place for place, pair in enumerate(self._rows) if _differ(*pair))
        self.endResetModel()

    @property
    def differing(self) -> int:
        """How many keys end differently."""
        return len(self._differing)

    def row_id(self, row: int) -> str | None:
        return self._rows[row][0].id if 0 <= row < len(self._rows) else None

    def place_of(self, name: str) -> int:
        """The row of that id, -1 where there is none."""
        return next((place for place, (row, _) in enumerate(self._rows) if row.id == name), -1)

    def differs(self, row: int) -> bool:
        return row in self._differing

    def why(self, row: int) -> str:
        """Where the two engines part on that key, in a sentence for each; "" where they do not."""
        if row not in self._why:
            left, right = self._rows[row]
            told = ""
            if right is not None and left.delivery is not None and right.delivery is not None:
                told = why_they_differ(
                    left.delivery, right.delivery, left_engine=self._titles[0], right_engine=self._titles[1]
                )
            self._why[row] = text.spoken(told)
        return self._why[row]

    def refresh_theme(self) -> None:
        self._tint = QBrush(QColor(colours().warning.tint))
        if self._rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._rows) - 1, len(PairColumn) - 1))

    def rowCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(PairColumn)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or role != Qt.ItemDataRole.DisplayRole:
            return None
        match section:
            case PairColumn.KEY:
                return QCoreApplication.translate("Engines", "Checkpoint key")
            case PairColumn.LEFT | PairColumn.RIGHT:
                return self._titles[section - PairColumn.LEFT]
            case _:
                return None

    def data(self, index: Any, role: int = 0) -> Any:
        if not index.isValid() or not 0 <= index.row() < len(self._rows):
            return None
        place, (left, right) = index.column(), self._rows[index.row()]
        shown = right if place == PairColumn.RIGHT else left
        marked = place == PairColumn.RIGHT and index.row() in self._differing
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._cell(index.row(), PairColumn(place))
            case Qt.ItemDataRole.ToolTipRole:
                why = self.why(index.row())
                return why or (text.spoken(shown.reason) if shown is not None else "")
            case Qt.ItemDataRole.DecorationRole if place >= PairColumn.LEFT and shown is not None:
                return theme().status_icon(shown.status)
            case Qt.ItemDataRole.BackgroundRole if marked:
                return self._tint
            case _:
                return None

    def _cell(self, place: int, column: PairColumn) -> str:
        left, right = self._rows[place]
        match column:
            case PairColumn.KEY:
                return left.key
            case PairColumn.LEFT:
                return _end(left)
            case PairColumn.RIGHT:
                return f"≠ {_end(right)}" if place in self._differing else _end(right)


def _end(row: Row | None) -> str:
    """What became of a key, and the number its layer ends with: "dropped, k 1.0"."""
    if row is None:
        return "–"
    values = [f"{role} {text.number(value)}" for role, value in _finals(row)]
    return ", ".join([word(row.status), *values])


def _finals(row: Row) -> list[tuple[str, float]]:
    final = row.attention.final if row.attention is not None else {}
    return [(role, final[role]) for role in (("k", "v") if row.role == "kv" else (row.role,)) if role in final]


def _differ(left: Row, right: Row | None) -> bool:
    """Whether two engines end differently on a key; numbers may differ by the rounding to the engine's dtype."""
    if right is None or (left.reached, left.status) != (right.reached, right.status):
        return True
    return any(
        abs(mine - other) > 0.005 * max(abs(mine), abs(other))
        for (_, mine), (_, other) in zip(_finals(left), _finals(right), strict=False)
    )
