"""The house style of tables: rows selected whole, no grid, widths from sample texts, names elided at the left."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from PySide6.QtCore import QAbstractItemModel, QItemSelectionModel, QModelIndex, QPersistentModelIndex, QSize, Qt
from PySide6.QtGui import QFontMetrics, QGuiApplication, QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QStyledItemDelegate, QStyleOptionViewItem, QTableView

PADDING = 22
_ICON = 20


class NameDelegate(QStyledItemDelegate):
    """Elides long names at the left: their ends tell them apart."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideLeft


class Table(QTableView):
    """A table of records. ``samples`` are texts that just fit their columns; ``names`` are columns of dotted names.

    ``roomy`` are texts that fit columns where the table is wide enough, until somebody draws one of them wider or
    narrower.
    """

    def __init__(
        self,
        model: QAbstractItemModel,
        name: str,
        samples: Mapping[int, str],
        *,
        names: Collection[int] = (),
        roomy: Mapping[int, str] | None = None,
        several: bool = False,
    ) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setModel(model)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(
            QAbstractItemView.SelectionMode.ExtendedSelection
            if several
            else QAbstractItemView.SelectionMode.SingleSelection
        )
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setAlternatingRowColors(True)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTabKeyNavigation(False)
        self.setCornerButtonEnabled(False)
        self.setIconSize(QSize(13, 13))
        metrics = QFontMetrics(self.font())
        vertical = self.verticalHeader()
        vertical.hide()
        vertical.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        vertical.setDefaultSectionSize(metrics.height() + 8)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        # To paint itself a header asks of every row whether it is selected, even where it highlights nothing.
        header.setSelectionModel(QItemSelectionModel(model, header))
        header.setStretchLastSection(True)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for column, sample in samples.items():
            self.setColumnWidth(column, metrics.horizontalAdvance(sample) + PADDING + (0 if column else _ICON))
        delegate = NameDelegate(self)
        for column in names:
            self.setItemDelegateForColumn(column, delegate)
        self._sharing = False
        self._least = {column: self.columnWidth(column) for column in samples}
        self._most = {
            column: metrics.horizontalAdvance(sample) + PADDING + _ICON for column, sample in (roomy or {}).items()
        }
        if self._most:
            header.sectionResized.connect(self._on_section_resized)

    def selectAll(self) -> None:
        self.deselect_all()
        super().selectAll()

    def deselect_all(self) -> None:
        """Forget the selection in silence, before another one is set.

        Qt holds each range of the one against each of the other: two times 20,000 scattered rows take it half a minute.
        """
        model = self.selectionModel()
        model.blockSignals(True)
        model.clearSelection()
        model.blockSignals(False)
        self.viewport().update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._share_room()

    def _on_section_resized(self, column: int) -> None:
        if self._sharing:
            return
        if column in self._most and QGuiApplication.mouseButtons() != Qt.MouseButton.NoButton:
            self._most = {}
        self._share_room()

    def _share_room(self) -> None:
        """Give the roomy columns what the others leave, in equal parts, instead of all to the last one."""
        header = self.horizontalHeader()
        shown = [column for column in range(header.count()) if not header.isSectionHidden(column)]
        roomy = [column for column in self._most if column in shown]
        if not roomy or self._sharing:
            return
        last = max(shown, key=header.visualIndex)
        taken = sum(self._least.get(c, 0) if c == last else header.sectionSize(c) for c in shown if c not in roomy)
        spare = max(0, self.viewport().width() - taken - sum(self._least[column] for column in roomy))
        self._sharing = True
        for number, column in enumerate(roomy):
            more = min(spare // (len(roomy) - number), self._most[column] - self._least[column])
            spare -= more
            if column != last:
                header.resizeSection(column, self._least[column] + more)
        self._sharing = False
