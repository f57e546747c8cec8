"""A small read-only table of plain texts, for lists that never grow large: plan, steps, held values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, Qt
from PySide6.QtGui import QBrush, QColor, QIcon

from app.status import Status
from app.theme import icons
from app.theme.palettes import Tone
from app.theme.theme import colours, theme

_ROOT = QModelIndex()
_STATUSES = frozenset(status.value for status in Status)


@dataclass(frozen=True, slots=True)
class Record:
    """One line: its cells, an icon for the first cell, a tone, a tool tip, and the row id it belongs to.

    The icon is a bundled one's name, or a status for its shape.
    """

    cells: tuple[str, ...]
    icon: str = ""
    tone: Tone = "neutral"
    tip: str = ""
    id: str = ""


class RecordTable(QAbstractTableModel):
    """Records under fixed headers; ``numeric`` columns are set flush right."""

    def __init__(self, headers: Sequence[str], numeric: Sequence[int] = (), parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._headers = tuple(headers)
        self._numeric = frozenset(numeric)
        self._records: tuple[Record, ...] = ()
        self._icons: dict[tuple[str, Tone], QIcon] = {}
        self._inks: dict[Tone, QBrush] = {}
        self._right = (Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter).value
        self._left = (Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter).value

    def set_records(self, records: Sequence[Record]) -> None:
        """Show other records."""
        self.beginResetModel()
        self._records = tuple(records)
        self._take_theme()
        self.endResetModel()

    def record(self, row: int) -> Record | None:
        return self._records[row] if 0 <= row < len(self._records) else None

    def refresh_theme(self) -> None:
        self._take_theme()
        if self._records:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._records) - 1, len(self._headers) - 1))

    def _take_theme(self) -> None:
        now = colours()
        looks = {(record.icon, record.tone) for record in self._records}
        self._icons = {
            (name, tone): theme().status_icon(Status(name))
            if name in _STATUSES
            else icons.icon(name, now.tone(tone).ink, now.border)
            for name, tone in looks
            if name
        }
        self._inks = {tone: QBrush(QColor(now.tone(tone).ink)) for _, tone in looks}

    def rowCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._records)

    def columnCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._headers)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._headers):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._headers[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self._right if section in self._numeric else self._left
        return None

    def data(self, index: Any, role: int = 0) -> Any:
        if not index.isValid() or index.row() >= len(self._records):
            return None
        record, column = self._records[index.row()], index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return record.cells[column]
            case Qt.ItemDataRole.ToolTipRole:
                return record.tip or record.cells[column]
            case Qt.ItemDataRole.DecorationRole if column == 0:
                return self._icons.get((record.icon, record.tone))
            case Qt.ItemDataRole.ForegroundRole if column == 0 and record.tone != "neutral":
                return self._inks.get(record.tone)
            case Qt.ItemDataRole.TextAlignmentRole:
                return self._right if column in self._numeric else self._left
            case _:
                return None
