"""The key table: any number of rows behind an own index of the visible ones.

No QSortFilterProxyModel: over a Python model it needs seconds to filter and most of a minute to sort 100,000 rows.
Here a filter or a sort makes a new index array and resets the model once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QObject, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QIcon

from app import text
from app.digest import COVERED_ROLES, Digest, Row
from app.models.query import Query
from app.status import Status
from app.text import QT_TRANSLATE_NOOP
from app.theme.status import meaning, tone, word
from app.theme.theme import theme
from core.ordering import natural

Indices = npt.NDArray[np.intp]
_ROOT = QModelIndex()


class Column(IntEnum):
    """The table's columns, in order: the narrow facts first, then the names, which may be cut."""

    STATUS = 0
    LAYER = 1
    ROLE = 2
    VALUE = 3
    KEY = 4
    TARGET = 5
    DTYPE = 6
    SHAPE = 7
    CONVENTION = 8


_COLUMNS = len(Column)


_HEADERS = {
    Column.STATUS: QT_TRANSLATE_NOOP("Keys", "Status"),
    Column.LAYER: QT_TRANSLATE_NOOP("Keys", "Layer"),
    Column.ROLE: QT_TRANSLATE_NOOP("Keys", "Role"),
    Column.KEY: QT_TRANSLATE_NOOP("Keys", "Checkpoint key"),
    Column.TARGET: QT_TRANSLATE_NOOP("Keys", "→ Engine parameter"),
    Column.VALUE: QT_TRANSLATE_NOOP("Keys", "Value"),
    Column.DTYPE: QT_TRANSLATE_NOOP("Keys", "Dtype"),
    Column.SHAPE: QT_TRANSLATE_NOOP("Keys", "Shape"),
    Column.CONVENTION: QT_TRANSLATE_NOOP("Keys", "Convention"),
}
_TIPS = {
    Column.STATUS: QT_TRANSLATE_NOOP("Keys", "What becomes of the tensor in the chosen engine"),
    Column.TARGET: QT_TRANSLATE_NOOP("Keys", "The parameter it reaches, else the name the engine looked for last"),
    Column.VALUE: QT_TRANSLATE_NOOP("Keys", "The stored number; smallest and largest of several"),
    Column.CONVENTION: QT_TRANSLATE_NOOP("Keys", "The way of naming and storing scales that the key follows"),
}


def header(column: int) -> str:
    """The column's title, translated."""
    return QCoreApplication.translate("Keys", _HEADERS[Column(column)])


class Source(Protocol):
    """Rows by number. Nothing here raises for a number below ``len``."""

    def __len__(self) -> int: ...

    def id_at(self, number: int) -> str: ...

    def ids_at(self, numbers: Indices) -> list[str]: ...

    def number_of(self, name: str) -> int | None: ...

    def numbers_of(self, names: Collection[str]) -> list[int]:
        """The numbers of those names that it has, in any order."""
        ...

    def cell(self, number: int, column: int) -> str: ...

    def lines(self, numbers: Indices) -> list[tuple[str, ...]]:
        """All cells of many rows."""
        ...

    def row_at(self, number: int) -> Row | None: ...

    def accepted(self, query: Query) -> Indices: ...

    def order(self, visible: Indices, column: int, *, descending: bool) -> Indices: ...


class ScaleSource:
    """The rows of a digest."""

    def __init__(self, digest: Digest) -> None:
        self._digest = digest
        self._rows = digest.rows
        self._numbers = {row.id: number for number, row in enumerate(digest.rows)}
        self._codes: Mapping[str, frozenset[str]] = {
            name: frozenset(finding.code for finding in found) for name, found in self._by_row(digest).items()
        }
        self._cells: list[tuple[str, ...] | None] = [None] * len(self._rows)

    @staticmethod
    def _by_row(digest: Digest) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for finding in digest.inspection.findings:
            for name in digest.ids_of(finding):
                found.setdefault(name, []).append(finding)
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def id_at(self, number: int) -> str:
        return self._rows[number].id

    def ids_at(self, numbers: Indices) -> list[str]:
        return [self._rows[number].id for number in numbers.tolist()]

    def number_of(self, name: str) -> int | None:
        return self._numbers.get(name)

    def numbers_of(self, names: Collection[str]) -> list[int]:
        return [self._numbers[name] for name in names if name in self._numbers]

    def row_at(self, number: int) -> Row | None:
        return self._rows[number]

    def cell(self, number: int, column: int) -> str:
        cells = self._cells[number]
        if cells is None:
            cells = self._cells[number] = cells_of(self._rows[number])
        return cells[column]

    def lines(self, numbers: Indices) -> list[tuple[str, ...]]:
        return [cells_of(self._rows[number]) for number in numbers.tolist()]

    def accepted(self, query: Query) -> Indices:
        if not query.terms:
            return np.arange(len(self._rows), dtype=np.intp)
        nothing: frozenset[str] = frozenset()
        codes = self._codes
        return np.fromiter(
            (n for n, row in enumerate(self._rows) if query.accepts(row, codes.get(row.id, nothing))), dtype=np.intp
        )

    def order(self, visible: Indices, column: int, *, descending: bool) -> Indices:
        rows = self._rows
        key = _SORT_KEYS[Column(column)]
        # Stable in both directions: equal rows keep the digest's order.
        ordered = sorted((int(number) for number in visible), key=lambda number: key(rows[number]), reverse=descending)
        return np.array(ordered, dtype=np.intp)


_KINDS = {"zero_point": "zp", "bias": "bias"}


def short_kind(kind: str) -> str:
    """What stands behind the role of what is no scale: "zp" for a zero point."""
    return _KINDS.get(kind, kind)


def kind_words() -> Mapping[str, str]:
    """What a row holds in full words, translated."""
    return {
        "scale": QCoreApplication.translate("Keys", "scale"),
        "zero_point": QCoreApplication.translate("Keys", "zero point"),
        "bias": QCoreApplication.translate("Keys", "bias"),
    }


def cells_of(row: Row) -> tuple[str, ...]:
    """The texts of one row, in column order."""
    nothing = QCoreApplication.translate("Keys", "no tensor")
    return (
        word(row.status),
        "" if row.layer is None else str(row.layer),
        row.role if row.kind in ("scale", "") else f"{row.role} {short_kind(row.kind)}",
        text.values(row.values),
        row.key or nothing,
        row.target,
        row.dtype,
        "" if row.missing and not row.shape else (text.shape(row.shape) if row.dtype or row.shape else ""),
        row.convention,
    )


_SORT_KEYS: dict[Column, Any] = {
    Column.STATUS: lambda row: row.status.rank,
    Column.LAYER: lambda row: -1 if row.layer is None else row.layer,
    Column.ROLE: lambda row: (COVERED_ROLES.index(row.role) if row.role in COVERED_ROLES else 9, row.kind),
    Column.KEY: lambda row: natural(row.key),
    Column.TARGET: lambda row: natural(row.target),
    Column.VALUE: lambda row: _value_order(row.value),
    Column.DTYPE: lambda row: row.dtype,
    Column.SHAPE: lambda row: (len(row.shape), row.shape),
    Column.CONVENTION: lambda row: row.convention,
}


def _value_order(value: float | None) -> tuple[int, float]:
    """Rows without a value first, NaN last: a total order."""
    if value is None:
        return (0, 0.0)
    return (2, 0.0) if value != value else (1, value)  # noqa: PLR0124 - NaN is the number that differs from itself


@dataclass(frozen=True, slots=True, eq=False)
class ShownRows:
    """What a table shows at one moment, for a job that must not ask the table: it may change meanwhile."""

    source: Source | None
    visible: Indices

    def chosen(self, ids: Collection[str]) -> Indices:
        """The numbers of the rows of these ids that are shown, in the order shown."""
        if self.source is None:
            return self.visible
        wanted = np.zeros(len(self.source), dtype=np.bool_)
        wanted[np.array(self.source.numbers_of(ids), dtype=np.intp)] = True
        return self.visible[wanted[self.visible]]


class KeyTable(QAbstractTableModel):
    """Shows a :class:`Source` through an array of visible row numbers. ``data()`` never raises and builds nothing."""

    StatusRole: ClassVar[int] = Qt.ItemDataRole.UserRole.value + 1
    IdRole: ClassVar[int] = Qt.ItemDataRole.UserRole.value + 2

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._source: Source | None = None
        self._query = Query()
        self._sort: tuple[int, bool] | None = None
        self._visible: Indices = np.empty(0, dtype=np.intp)
        self._position: Indices | None = None
        self._italic = QFont()
        self._italic.setItalic(True)
        self._bold = QFont()
        self._bold.setBold(True)
        self._brushes: dict[Status, QBrush] = {}
        self._faint = QBrush()
        self._icons: dict[Status, QIcon] = {}
        self._number_columns = frozenset({Column.LAYER, Column.VALUE})
        self._alignment = {
            True: (Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter).value,
            False: (Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter).value,
        }
        self.refresh_theme()

    # --- what is shown

    @property
    def source(self) -> Source | None:
        return self._source

    @property
    def query(self) -> Query:
        return self._query

    def set_source(self, source: Source | None) -> None:
        """Show other rows under the filter and order in force."""
        self._source = source
        self._rebuild()

    def set_query(self, query: Query) -> None:
        """Show the rows the query accepts."""
        self._query = query
        self._rebuild()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Order by a column; -1 for the source's own order."""
        self._sort = None if column < 0 else (column, order == Qt.SortOrder.DescendingOrder)
        self._rebuild()

    def total(self) -> int:
        """Rows of the source, hidden ones included."""
        return len(self._source) if self._source is not None else 0

    def id_at(self, position: int) -> str | None:
        """The id of the visible row at a position."""
        if self._source is None or not 0 <= position < len(self._visible):
            return None
        return self._source.id_at(int(self._visible[position]))

    def ids_between(self, first: int, last: int) -> list[str]:
        """The ids of the visible rows from one position to another, both included."""
        return self._source.ids_at(self._visible[first : last + 1]) if self._source is not None else []

    def row_at(self, position: int) -> Row | None:
        if self._source is None or not 0 <= position < len(self._visible):
            return None
        return self._source.row_at(int(self._visible[position]))

    def position_of(self, name: str) -> int | None:
        """Where a row is visible; None when the filter hides it."""
        number = self._source.number_of(name) if self._source is not None else None
        if number is None:
            return None
        position = int(self._positions()[number])
        return position if position >= 0 else None

    def positions_of(self, names: Collection[str]) -> Indices:
        """Where rows are visible, from the top down; those that the filter hides are left out."""
        if self._source is None or not names:
            return np.empty(0, dtype=np.intp)
        positions = self._positions()[np.array(self._source.numbers_of(names), dtype=np.intp)]
        return np.sort(positions[positions >= 0])

    def shown(self) -> ShownRows:
        """The visible rows, in the table's order; the table replaces the array and never changes it."""
        return ShownRows(self._source, self._visible)

    def _positions(self) -> Indices:
        if self._position is None:
            self._position = np.full(self.total(), -1, dtype=np.intp)
            self._position[self._visible] = np.arange(len(self._visible), dtype=np.intp)
        return self._position

    def visible_ids(self) -> Iterable[str]:
        source = self._source
        return () if source is None else (source.id_at(int(number)) for number in self._visible)

    def refresh_theme(self) -> None:
        """Take icons and colours from the theme in force."""
        current = theme()
        self._icons = {status: current.status_icon(status) for status in Status}
        self._brushes = {status: QBrush(QColor(current.colours.tone(tone(status)).ink)) for status in Status}
        self._faint = QBrush(QColor(current.colours.muted))
        if len(self._visible):
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._visible) - 1, len(Column) - 1))

    def _rebuild(self) -> None:
        self.beginResetModel()
        if self._source is None:
            self._visible = np.empty(0, dtype=np.intp)
        else:
            self._visible = self._source.accepted(self._query)
            if self._sort is not None:
                self._visible = self._source.order(self._visible, self._sort[0], descending=self._sort[1])
        self._position = None
        self.endResetModel()

    # --- QAbstractTableModel

    def index(self, row: int, column: int, parent: Any = _ROOT) -> QModelIndex:
        # Qt's own asks for both counts each time, and a selection of 20,000 scattered rows makes 40,000 indexes.
        if parent.isValid() or not (0 <= row < len(self._visible) and 0 <= column < _COLUMNS):
            return _ROOT
        return self.createIndex(row, column)

    def rowCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._visible)

    def columnCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else _COLUMNS

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(Column):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return header(section)
        if role == Qt.ItemDataRole.ToolTipRole and section in _TIPS:
            return QCoreApplication.translate("Keys", _TIPS[Column(section)])
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self._alignment[section in self._number_columns]
        return None

    def data(self, index: Any, role: int = 0) -> Any:
        source = self._source
        if source is None or not index.isValid() or index.row() >= len(self._visible):
            return None
        number, column = int(self._visible[index.row()]), index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return source.cell(number, column)
            case Qt.ItemDataRole.TextAlignmentRole:
                return self._alignment[column in self._number_columns]
            case Qt.ItemDataRole.DecorationRole if column == Column.STATUS:
                row = source.row_at(number)
                return None if row is None else self._icons[row.status]
            case Qt.ItemDataRole.ForegroundRole:
                return self._foreground(source.row_at(number), column)
            case Qt.ItemDataRole.FontRole:
                return self._font(source.row_at(number), column)
            case Qt.ItemDataRole.ToolTipRole:
                return self._tip(source.row_at(number), source.cell(number, column), column)
            case self.StatusRole:
                row = source.row_at(number)
                return None if row is None else row.status.value
            case self.IdRole:
                return source.id_at(number)
            case _:
                return None

    def _foreground(self, row: Row | None, column: int) -> QBrush | None:
        if row is None:
            return None
        if column == Column.STATUS:
            return self._brushes[row.status]
        if (column == Column.KEY and row.missing) or (column == Column.TARGET and not row.reached and not row.missing):
            return self._faint
        return None

    def _font(self, row: Row | None, column: int) -> QFont | None:
        if row is None:
            return None
        if column == Column.STATUS:
            return None if row.status in (Status.LOADED, Status.NOT_REACHED) else self._bold
        return self._italic if column == Column.KEY and row.missing else None

    @staticmethod
    def _tip(row: Row | None, shown: str, column: int) -> str:
        if row is None:
            return shown
        if column == Column.STATUS:
            return text.spoken(row.reason) or meaning(row.status)
        if column == Column.ROLE:
            return f"{row.role} {kind_words().get(row.kind, row.kind)}"
        if column == Column.VALUE and len(row.values) == 1:
            return text.exact(row.values[0])
        if column == Column.TARGET and not row.reached and not row.missing:
            return QCoreApplication.translate("Keys", "{name}: no parameter has this name").format(name=row.target)
        return shown
