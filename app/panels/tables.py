"""The house style of tables: rows selected whole, no grid, widths from sample texts, names elided at the left."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from PySide6.QtCore import QAbstractItemModel, QItemSelectionModel, QModelIndex, QPersistentModelIndex, QSize, Qt
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QStyledItemDelegate, QStyleOptionViewItem, QTableView

PADDING = 22
_ICON = 20


class NameDelegate(QStyledItemDelegate):
    """Elides long names at the left: their ends tell them apart."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideLeft


class Table(QTableView):
    """A table of records. ``samples`` are texts that just fit their columns; ``names`` are columns of dotted names."""

    def __init__(
        self,
        model: QAbstractItemModel,
        name: str,
        samples: Mapping[int, str],
        *,
        names: Collection[int] = (),
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
