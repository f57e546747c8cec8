"""The rows of a comparison as a table: what changed, by how much, and the names on either side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal

from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QObject, Qt
from PySide6.QtGui import QBrush, QColor, QIcon

from app import text
from app.models.keys import kind_words, short_kind
from app.text import QT_TRANSLATE_NOOP, translate
from app.theme import icons
from app.theme.palettes import Tone
from app.theme.theme import colours
from core.comparison import Comparison, Row

_ROOT = QModelIndex()
Show = Literal["differences", "beyond", "all"]
SHOWS: tuple[Show, ...] = ("differences", "beyond", "all")


class Column(IntEnum):
    """The table's columns, in order."""

    CHANGE = 0
    LAYER = 1
    ROLE = 2
    LEFT = 3
    RIGHT = 4
    RATIO = 5
    LEFT_KEY = 6
    RIGHT_KEY = 7


_HEADERS = {
    Column.CHANGE: QT_TRANSLATE_NOOP("Comparison", "Change"),
    Column.LAYER: QT_TRANSLATE_NOOP("Comparison", "Layer"),
    Column.ROLE: QT_TRANSLATE_NOOP("Comparison", "Role"),
    Column.LEFT: QT_TRANSLATE_NOOP("Comparison", "Value in A"),
    Column.RIGHT: QT_TRANSLATE_NOOP("Comparison", "Value in B"),
    Column.RATIO: QT_TRANSLATE_NOOP("Comparison", "B / A"),
    Column.LEFT_KEY: QT_TRANSLATE_NOOP("Comparison", "Key in A"),
    Column.RIGHT_KEY: QT_TRANSLATE_NOOP("Comparison", "Key in B"),
}
_NUMERIC = frozenset({Column.LAYER, Column.LEFT, Column.RIGHT, Column.RATIO})


@dataclass(frozen=True, slots=True)
class Look:
    """How a kind of row reads: icon, word, tone."""

    icon: str
    word: str
    tone: Tone


_LOOKS = {
    "same": Look("same", QT_TRANSLATE_NOOP("Comparison", "Same"), "neutral"),
    "renamed": Look("renamed", QT_TRANSLATE_NOOP("Comparison", "Renamed"), "info"),
    "within": Look("changed", QT_TRANSLATE_NOOP("Comparison", "Changed, within noise"), "info"),
    "changed": Look("changed", QT_TRANSLATE_NOOP("Comparison", "Changed"), "warning"),
    "added": Look("added", QT_TRANSLATE_NOOP("Comparison", "Only in B"), "missing"),
    "removed": Look("removed", QT_TRANSLATE_NOOP("Comparison", "Only in A"), "error"),
}


def look(row: Row) -> Look:
    """The icon, word and tone of a row."""
    return _LOOKS["within" if row.change == "changed" and row.within_noise else row.change]


class ComparisonTable(QAbstractTableModel):
    """Shows a :class:`core.comparison.Comparison` through an index of visible rows, like the key table."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._rows: tuple[Row, ...] = ()
        self._visible: list[int] = []
        self._show: Show = "differences"
        self._sort: tuple[int, bool] | None = None
        self._right = (Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter).value
        self._left = (Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter).value
        self._icons: dict[str, QIcon] = {}
        self._inks: dict[Tone, QBrush] = {}
        self.refresh_theme()

    def show_comparison(self, comparison: Comparison | None) -> None:
        """Show another comparison."""
        rows = comparison.rows if comparison is not None else ()
        self._rows = tuple(sorted(rows, key=_by_layer))
        self._rebuild()

    def show_only(self, show: Show) -> None:
        """All rows, those that differ, or those that differ beyond the calibration noise."""
        self._show = show
        self._rebuild()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Order by a column; -1 for the comparison's own order."""
        self._sort = None if column < 0 else (column, order == Qt.SortOrder.DescendingOrder)
        self._rebuild()

    def row(self, position: int) -> Row | None:
        """The row shown at a position."""
        return self._rows[self._visible[position]] if 0 <= position < len(self._visible) else None

    def rows(self) -> Sequence[Row]:
        """The visible rows, in the table's order."""
        return [self._rows[number] for number in self._visible]

    def total(self) -> int:
        return len(self._rows)

    def refresh_theme(self) -> None:
        now = colours()
        self._icons = {
            kind: icons.icon(shown.icon, now.tone(shown.tone).ink, now.border) for kind, shown in _LOOKS.items()
        }
        self._inks = {shown.tone: QBrush(QColor(now.tone(shown.tone).ink)) for shown in _LOOKS.values()}
        if self._visible:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._visible) - 1, len(Column) - 1))

    def _rebuild(self) -> None:
        self.beginResetModel()
        self._visible = [number for number, row in enumerate(self._rows) if self._accepts(row)]
        if self._sort is not None:
            column, descending = self._sort
            self._visible.sort(key=lambda number: _order(self._rows[number], column), reverse=descending)
        self.endResetModel()

    def _accepts(self, row: Row) -> bool:
        match self._show:
            case "all":
                return True
            case "differences":
                return row.change != "same" or row.reshaped
            case _:
                return row.change in ("added", "removed") or (row.change == "changed" and not row.within_noise)

    # --- QAbstractTableModel

    def rowCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._visible)

    def columnCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(Column)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(Column):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return translate("Comparison", _HEADERS[Column(section)])
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self._right if section in _NUMERIC else self._left
        return None

    def data(self, index: Any, role: int = 0) -> Any:
        row = self.row(index.row()) if index.isValid() else None
        if row is None:
            return None
        column = index.column()
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return cell(row, column)
            case Qt.ItemDataRole.ToolTipRole:
                return _tip(row, column)
            case Qt.ItemDataRole.DecorationRole if column == Column.CHANGE:
                return self._icons[_kind(row)]
            case Qt.ItemDataRole.ForegroundRole if column in (Column.CHANGE, Column.RATIO):
                return self._inks[look(row).tone]
            case Qt.ItemDataRole.TextAlignmentRole:
                return self._right if column in _NUMERIC else self._left
            case _:
                return None


def cell(row: Row, column: int) -> str:
    """The text of one cell."""
    one = row.left or row.right
    match column:
        case Column.CHANGE:
            word = translate("Comparison", look(row).word)
            return f"{word}, {translate('Comparison', 'reshaped')}" if row.reshaped else word
        case Column.LAYER:
            return "" if one is None or one.layer is None else str(one.layer)
        case Column.ROLE:
            return "" if one is None else (one.role if one.kind == "scale" else f"{one.role} {short_kind(one.kind)}")
        case Column.LEFT:
            return text.values(row.left.values) if row.left is not None else ""
        case Column.RIGHT:
            return text.values(row.right.values) if row.right is not None else ""
        case Column.RATIO:
            return "" if row.ratio is None else f"× {text.number(row.ratio, 4)}"
        case Column.LEFT_KEY:
            return row.left.key if row.left is not None else ""
        case _:
            return row.right.key if row.right is not None else ""


def _kind(row: Row) -> str:
    return "within" if row.change == "changed" and row.within_noise else row.change


def _tip(row: Row, column: int) -> str:
    side = row.left if column == Column.LEFT else row.right if column == Column.RIGHT else None
    if side is not None and len(side.values) == 1:
        return f"{text.exact(side.values[0])}  {side.dtype} {text.shape(side.shape)}"
    if column == Column.ROLE:
        one = row.left or row.right
        return f"{one.role} {kind_words().get(one.kind, one.kind)}" if one is not None else ""
    if column == Column.RATIO and row.ratio is None and row.left is not None and row.right is not None:
        return QCoreApplication.translate("Comparison", "No ratio: the two hold differently many values, a zero or NaN")
    return cell(row, column)


_CHANGE_ORDER = ("removed", "added", "changed", "within", "renamed", "same")


def _order(row: Row, column: int) -> tuple[Any, ...]:
    one = row.left or row.right
    layer = -1 if one is None or one.layer is None else one.layer
    match column:
        case Column.CHANGE:
            return (_CHANGE_ORDER.index(_kind(row)), layer)
        case Column.LAYER:
            return (layer,)
        case Column.ROLE:
            return (cell(row, column), layer)
        case Column.RATIO:
            return (distance(row.ratio),)
        case Column.LEFT | Column.RIGHT:
            side = row.left if column == Column.LEFT else row.right
            known = [value for value in side.values if not math.isnan(value)] if side is not None else []
            return (max(known, default=-math.inf),)
        case _:
            return (cell(row, column),)


def _by_layer(row: Row) -> tuple[bool, int, str]:
    """Layer 2 before layer 10, k before v: checkpoints are read by name."""
    one = row.left or row.right
    layer = one.layer if one is not None else None
    return (layer is None, layer or 0, one.role if one is not None else "")


def distance(ratio: float | None) -> float:
    """How far a ratio is from 1, either way: 2 and 0.5 are equally far; -1 where there is none."""
    if ratio is None:
        return -1.0
    return abs(math.log(ratio)) if 0 < ratio < math.inf else math.inf
