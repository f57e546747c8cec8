"""The findings as a table, worst first, in the order of the diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

from PySide6.QtCore import QAbstractTableModel, QCoreApplication, QModelIndex, QObject, Qt
from PySide6.QtGui import QBrush, QColor, QFont, QIcon

from app import text
from app.text import QT_TRANSLATE_NOOP
from app.theme import icons
from app.theme.palettes import Tone
from app.theme.theme import colours
from core.diagnosis.finding import Finding, Severity

_ROOT = QModelIndex()
_ORDER: tuple[Severity, ...] = ("error", "warning", "info")


class ProblemColumn(IntEnum):
    """The table's columns."""

    SEVERITY = 0
    TITLE = 1
    COUNT = 2
    LAYERS = 3
    CODE = 4


_HEADERS = {
    ProblemColumn.SEVERITY: QT_TRANSLATE_NOOP("Problems", "Severity"),
    ProblemColumn.TITLE: QT_TRANSLATE_NOOP("Problems", "Problem"),
    ProblemColumn.COUNT: QT_TRANSLATE_NOOP("Problems", "Count"),
    ProblemColumn.LAYERS: QT_TRANSLATE_NOOP("Problems", "Layers"),
    ProblemColumn.CODE: QT_TRANSLATE_NOOP("Problems", "Code"),
}


def severity_word(severity: Severity) -> str:
    """The severity, translated."""
    words = {
        "error": QCoreApplication.translate("Problems", "error"),
        "warning": QCoreApplication.translate("Problems", "warning"),
        "info": QCoreApplication.translate("Problems", "info"),
    }
    return words[severity]


def severity_tone(severity: Severity) -> Tone:
    """The severity's tone: the palettes have one for each."""
    return severity


def ranges(numbers: Sequence[int]) -> str:
    """Layer numbers, runs joined: "0-5, 7"."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


class ProblemTable(QAbstractTableModel):
    """One row a finding. Sorting happens once, when the findings come."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._findings: tuple[Finding, ...] = ()
        self._cells: list[tuple[str, ...]] = []
        self._icons: dict[Severity, QIcon] = {}
        self._brushes: dict[Severity, QBrush] = {}
        self._bold = QFont()
        self._bold.setBold(True)
        self._right = (Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter).value
        self._left = (Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter).value
        self.refresh_theme()

    def set_findings(self, findings: Sequence[Finding]) -> None:
        """Show other findings."""
        self.beginResetModel()
        self._findings = tuple(sorted(findings, key=lambda finding: _ORDER.index(finding.severity)))
        self._cells = [
            (
                severity_word(finding.severity),
                text.spoken(finding.title),
                text.count(finding.count) if finding.count else "",
                ranges(finding.layers),
                finding.code,
            )
            for finding in self._findings
        ]
        self.endResetModel()

    def finding(self, row: int) -> Finding | None:
        return self._findings[row] if 0 <= row < len(self._findings) else None

    def findings(self) -> tuple[Finding, ...]:
        """In the order shown."""
        return self._findings

    def refresh_theme(self) -> None:
        """Take icons and colours from the theme in force."""
        now = colours()
        for severity in _ORDER:
            ink = now.tone(severity_tone(severity)).ink
            self._icons[severity] = icons.icon(severity, ink, ink)
            self._brushes[severity] = QBrush(QColor(ink))
        if self._findings:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self._findings) - 1, len(ProblemColumn) - 1))

    def rowCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(self._findings)

    def columnCount(self, parent: Any = _ROOT) -> int:
        return 0 if parent.isValid() else len(ProblemColumn)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(ProblemColumn):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return QCoreApplication.translate("Problems", _HEADERS[ProblemColumn(section)])
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return self._right if section == ProblemColumn.COUNT else self._left
        return None

    def data(self, index: Any, role: int = 0) -> Any:
        if not index.isValid() or index.row() >= len(self._findings):
            return None
        column = index.column()
        severity = self._findings[index.row()].severity
        match role:
            case Qt.ItemDataRole.DisplayRole | Qt.ItemDataRole.ToolTipRole:
                return self._cells[index.row()][column]
            case Qt.ItemDataRole.DecorationRole if column == ProblemColumn.SEVERITY:
                return self._icons[severity]
            case Qt.ItemDataRole.ForegroundRole if column == ProblemColumn.SEVERITY:
                return self._brushes[severity]
            case Qt.ItemDataRole.FontRole if column == ProblemColumn.SEVERITY:
                return self._bold
            case Qt.ItemDataRole.TextAlignmentRole:
                return self._right if column == ProblemColumn.COUNT else self._left
            case _:
                return None
