"""Every backend of the engine against the same keys: predicted one by one, equal ones joined, differences marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QObject, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QIcon

from app import text
from app.digest import Row, digest
from app.theme import icons
from app.theme.outcome import outcome_look, outcome_word
from app.theme.status import word
from app.theme.theme import colours, theme
from core.diagnosis.finding import Verdict
from core.engines.variants import Variant
from core.errors import UsageError
from core.inspection import Inspection, reinspect
from core.progress import Progress

_ROOT = QModelIndex()
MOST_ROWS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendColumn:
    """Choices that do the same with every key. ``rows`` are theirs by id; ``refusal`` says why there are none."""

    methods: tuple[str, ...]
    current: bool
    verdict: Verdict
    rows: Mapping[str, Row] = field(repr=False)
    refusal: str = ""


def compare_backends(
    inspection: Inspection, variants: Sequence[Variant], progress: Progress
) -> tuple[BackendColumn, ...]:
    """Predict the checkpoint under each choice, of which the first is in force."""
    words = text.translate("Backends", "Predicting every backend"), text.translate("Backends", "backends")
    progress.start(words[0], total=len(variants), unit=words[1])
    grouped: dict[object, BackendColumn] = {}
    for number, variant in enumerate(variants):
        column = _column(inspection, variant, current=number == 0)
        sameness: object = (
            column.refusal,
            column.verdict.outcome,
            tuple((row.id, row.status, row.target, row.reached) for row in column.rows.values()),
        )
        known = grouped.get(sameness)
        grouped[sameness] = column if known is None else replace(known, methods=(*known.methods, *column.methods))
        progress.advance()
    return tuple(grouped.values())


def _column(inspection: Inspection, variant: Variant, *, current: bool) -> BackendColumn:
    name = variant.value or QCoreApplication.translate("Backends", "no quantization")
    try:
        found = digest(inspection if current else reinspect(inspection, wish=variant.of(inspection.wish)))
    except UsageError as error:
        refused = Verdict("unknown", error.message)
        return BackendColumn(methods=(name,), current=current, verdict=refused, rows={}, refusal=text.complaint(error))
    return BackendColumn(methods=(name,), current=current, verdict=found.inspection.verdict, rows=found.by_id)


class BackendTable(QAbstractTableModel):
    """Keys down, backends across. The first line is each backend's verdict on the whole checkpoint."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._columns: tuple[BackendColumn, ...] = ()
        self._rows: tuple[Row, ...] = ()
        self._bold = QFont()
        self._bold.setBold(True)
        self._different = QBrush()
        self.refresh_theme()

    def show_columns(self, columns: Sequence[BackendColumn]) -> None:
        self.beginResetModel()
        self._columns = tuple(columns)
        self.endResetModel()

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Which keys to compare."""
        self.beginResetModel()
        self._rows = tuple(rows[:MOST_ROWS])
        self.endResetModel()

    def columns(self) -> tuple[BackendColumn, ...]:
        return self._columns

    def row(self, number: int) -> Row | None:
        """The key in a line of the table; None for the verdicts' line."""
        return self._rows[number - 1] if 1 <= number <= len(self._rows) else None

    def differs(self, number: int, column: int) -> bool:
        """Whether a backend makes something else of the key than the one in force (column 1) does."""
        row = self.row(number)
        if row is None or column < 2 or not self._columns or not self._columns[0].current:
            return False
        own, other = self._columns[0].rows.get(row.id), self._columns[column - 1].rows.get(row.id)
        if own is None or other is None:
            return own is not other
        return (own.target, own.reached, own.status) != (other.target, other.reached, other.status)

    def refresh_theme(self) -> None:
        self._different = QBrush(QColor(colours().warning.tint))
        if self.rowCount() and self._columns:
            self.dataChanged.emit(self.index(0, 0), self.index(self.rowCount() - 1, self.columnCount() - 1))

    def rowCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() or not self._columns else len(self._rows) + 1

    def columnCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._columns) + 1

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section <= len(self._columns):
            return None
        if section == 0:
            key = QCoreApplication.translate("Backends", "Checkpoint key")
            return key if role == Qt.ItemDataRole.DisplayRole else None
        methods = self._columns[section - 1].methods
        match role:
            case Qt.ItemDataRole.DisplayRole:
                shown = ", ".join(methods[:3])
                return f"{shown} +{len(methods) - 3}" if len(methods) > 3 else shown
            case Qt.ItemDataRole.ToolTipRole:
                mark = QCoreApplication.translate("Backends", "in force") if self._columns[section - 1].current else ""
                return "\n".join(part for part in (mark, ", ".join(methods)) if part)
            case Qt.ItemDataRole.FontRole if self._columns[section - 1].current:
                return self._bold
            case _:
                return None

    def data(self, index: Any, role: int = 0) -> Any:
        if not index.isValid():
            return None
        number, column = index.row(), index.column()
        row = self.row(number)
        if row is None:
            return self._verdict_data(column, role)
        if column == 0:
            return (
                (row.key or row.target) if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole) else None
            )
        found = self._columns[column - 1].rows.get(row.id)
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return self._result(found, differs=self.differs(number, column))
            case Qt.ItemDataRole.DecorationRole:
                return theme().status_icon(found.status) if found is not None else None
            case Qt.ItemDataRole.ToolTipRole:
                if found is None:
                    return self._columns[column - 1].refusal or None
                return "\n".join(part for part in (found.target, word(found.status), text.spoken(found.reason)) if part)
            case Qt.ItemDataRole.BackgroundRole if self.differs(number, column):
                return self._different
            case _:
                return None

    @staticmethod
    def _result(found: Row | None, *, differs: bool) -> str:
        if found is None:
            return "–"
        looked_for = f": {found.target}" if found.target else ""
        shown = found.target if found.reached else f"{word(found.status)}{looked_for}"
        return f"≠ {shown}" if differs else shown

    def _verdict_data(self, column: int, role: int) -> Any:
        if column == 0:
            return (
                QCoreApplication.translate("Backends", "Verdict")
                if role == Qt.ItemDataRole.DisplayRole
                else (self._bold if role == Qt.ItemDataRole.FontRole else None)
            )
        verdict = self._columns[column - 1].verdict
        icon, tone = outcome_look(verdict.outcome)
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return outcome_word(verdict.outcome)
            case Qt.ItemDataRole.ToolTipRole:
                return text.spoken(verdict.text)
            case Qt.ItemDataRole.FontRole:
                return self._bold
            case Qt.ItemDataRole.DecorationRole:
                made: QIcon = icons.icon(icon, colours().tone(tone).ink, colours().border)
                return made
            case Qt.ItemDataRole.ForegroundRole:
                return QBrush(QColor(colours().tone(tone).ink))
            case _:
                return None
