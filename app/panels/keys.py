"""The keys: the filter line, and the table of scales or of all tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PySide6.QtCore import QEvent, QItemSelection, QItemSelectionModel, QObject, QPoint, Qt, QTimer, Signal
from PySide6.QtGui import QAction, QContextMenuEvent, QCursor, QKeyEvent
from PySide6.QtWidgets import (
    QLineEdit,
    QMenu,
    QSizePolicy,
    QWidget,
)

from app import text
from app.digest import Digest
from app.jobs import AnyJobs
from app.models.keys import Column, Indices, KeyTable, ScaleSource, Source, header
from app.models.query import FIELDS, parse
from app.models.tensors import TensorSource
from app.panels.layouts import grow, horizontal, stacked, vertical
from app.panels.parts import Button, Head, Note, label, tool_button
from app.panels.tables import PADDING, Table
from app.selection import Selection
from app.theme.theme import theme
from core.errors import KVScopeError
from core.progress import Progress

FILTER_DELAY_MS = 150
_EXAMPLES = {"value": (">0.5", "nan"), "shape": ("scalar", "128x1")}
_SAMPLES: dict[int, str] = {
    Column.STATUS: "not reached",
    Column.LAYER: "Layer",
    Column.ROLE: "k bias",
    Column.VALUE: "-1.3432e29",
    Column.KEY: "…12.self_attn.k_proj.output_scale",
    Column.TARGET: "…12.self_attn.attn.k_scale__",
    Column.DTYPE: "BF16_",
    Column.SHAPE: "8 × 1 × 1",
    Column.CONVENTION: "compressed-tens",
}
_ROOMY: dict[int, str] = {
    Column.KEY: "model.language_model.layers.12.self_attn.k_proj.output_scale",
    Column.TARGET: "language_model.model.layers.12.self_attn.attn.k_scale__",
}


class KeysPanel(QWidget):
    """Filters and shows rows; Enter in the filter line applies it at once and goes to the first row."""

    all_tensors_changed = Signal(bool)

    def __init__(self, selection: Selection, jobs: AnyJobs, menu: list[QAction], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._selection = selection
        self._jobs = jobs
        self._menu = menu
        self._digest: Digest | None = None
        self._scales: ScaleSource | None = None
        self._tensors: Source | None = None
        self._all = False
        self._following = False
        self.table = KeyTable(self)
        self.view = Table(
            self.table, self.tr("Keys"), _SAMPLES, names=(Column.KEY, Column.TARGET), roomy=_ROOMY, several=True
        )
        self.view.horizontalHeader().setSortIndicatorClearable(True)
        self.view.horizontalHeader().setSectionsMovable(True)
        self.view.horizontalHeader().setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.view.horizontalHeader().customContextMenuRequested.connect(self._on_header_menu)
        self.view.setSortingEnabled(True)
        self.view.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)

        self._head = Head(self.tr("Keys"))
        self._clear = Button(self.tr("Clear filter"), "cancel", flat=True)
        self._clear.clicked.connect(self.clear_filter)
        self._head.add(self._clear)
        self._head.add(tool_button("columns", self.tr("Choose columns"), self._on_columns_clicked))
        self._make_filter()
        self._note = Note("filter")
        body = QWidget()
        self._stack = stacked(body, self.view, self._note)
        bar = horizontal(self.filter, margins=(8, 6, 8, 6))
        grow(vertical(self._head, bar, self._hint, body, parent=self), body)

        self.view.selectionModel().selectionChanged.connect(self._on_view_selected)
        self.view.selectionModel().currentRowChanged.connect(self._on_view_current)
        self.view.installEventFilter(self)
        self.table.modelReset.connect(self._on_model_reset)
        selection.changed.connect(self._on_selection_changed)
        theme().changed.connect(self.table.refresh_theme)

    def _make_filter(self) -> None:
        self.filter = QLineEdit()
        self.filter.setClearButtonEnabled(True)
        self.filter.setPlaceholderText(self.tr("Filter: words, layer:3-7, role:k, status:dropped, value:>0.5 …"))
        self.filter.setAccessibleName(self.tr("Filter keys"))
        self.filter.setToolTip(
            self.tr(
                "Terms are AND-ed; a minus turns one round; commas mean or.\nFields: {fields}\n"
                'Examples: k_proj -layer:0   value:>0.5   shape:8x1x1   status:dropped,missing   "two words"'
            ).format(fields=" ".join(f"{field}:" for field in FIELDS))
        )
        self.filter.textChanged.connect(self._on_text_changed)
        self.filter.returnPressed.connect(self._on_return_pressed)
        self.filter.installEventFilter(self)
        self._hint = label()
        self._hint.setProperty("wrong", True)
        self._hint.setContentsMargins(10, 0, 10, 4)
        self._hint.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self._hint.hide()
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.setInterval(FILTER_DELAY_MS)
        self._delay.timeout.connect(self.apply_filter)

    # --- columns

    def columns_shown(self) -> list[int]:
        """The columns that are shown, as they stand from left to right."""
        return [column for column in self.columns_ordered() if not self.view.isColumnHidden(column)]

    def columns_ordered(self) -> list[int]:
        """All columns, as they stand from left to right."""
        heads = self.view.horizontalHeader()
        return [heads.logicalIndex(place) for place in range(heads.count())]

    def order_columns(self, columns: Sequence[int]) -> None:
        """Put the columns in this order; nothing where it does not name each of them once."""
        if sorted(columns) == list(Column):
            heads = self.view.horizontalHeader()
            for place, column in enumerate(columns):
                heads.moveSection(heads.visualIndex(column), place)

    def columns_hidden(self) -> list[int]:
        """The columns that are not shown."""
        return sorted(set(Column) - set(self.columns_shown()))

    def hide_columns(self, columns: Iterable[int]) -> None:
        """Show all columns but these; the key's own stays."""
        hidden = set(columns) - {Column.KEY}
        for column in Column:
            self.view.setColumnHidden(column, column in hidden)

    def column_menu(self) -> QMenu:
        """A switch for each column, ticked where it is shown."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for column in Column:
            action = menu.addAction(header(column))
            action.setCheckable(True)
            action.setChecked(not self.view.isColumnHidden(column))
            action.setEnabled(column is not Column.KEY)
            action.setData(int(column))
            action.toggled.connect(self._on_column_toggled)
        return menu

    def _on_column_toggled(self, on: bool) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self.view.setColumnHidden(action.data(), not on)

    def _on_columns_clicked(self) -> None:
        self.column_menu().popup(QCursor.pos())

    def _on_header_menu(self, where: QPoint) -> None:
        self.column_menu().popup(self.view.horizontalHeader().mapToGlobal(where))

    # --- content

    def show_digest(self, digest: Digest | None) -> None:
        """Show another inspection under the filter in force."""
        same = (
            digest is not None
            and self._digest is not None
            and digest.inspection.checkpoint is self._digest.inspection.checkpoint
        )
        self._jobs.cancel("listing")  # of another checkpoint, or judged by another engine
        self._digest = digest
        self._scales = ScaleSource(digest) if digest is not None else None
        self._tensors = None
        if not same:
            self.clear_filter()
            self._fit_values()
        self._show_source()

    def _fit_values(self) -> None:
        """Scalars need less room than the ranges of scales per head, and names need all they can get."""
        rows = self._digest.rows if self._digest is not None else ()
        sample = "0.000618 – 0.0151" if any(len(row.values) > 1 for row in rows) else "-1.3432e29"
        self.view.setColumnWidth(Column.VALUE, self.view.fontMetrics().horizontalAdvance(sample) + PADDING)

    @property
    def all_tensors(self) -> bool:
        return self._all

    def set_all_tensors(self, on: bool) -> None:
        """List every tensor instead of the scales alone."""
        if on != self._all:
            self._all = on
            self._show_source()
            self.all_tensors_changed.emit(on)

    def _show_source(self) -> None:
        digest = self._digest
        if digest is None or not self._all:
            self.table.set_source(self._scales)
            return
        if self._tensors is not None:
            self.table.set_source(self._tensors)
            return

        def build(progress: Progress) -> Source:
            progress.start(self.tr("listing all tensors"))
            return TensorSource(digest.inspection.checkpoint.catalog, digest)

        self._jobs.start(
            self.tr("Listing all tensors"), build, done=self._on_listed, failed=self._on_listing_failed, lane="listing"
        )

    def _on_listed(self, source: Source) -> None:
        self._tensors = source
        if self._all:
            self.table.set_source(source)

    def _on_listing_failed(self, error: KVScopeError) -> None:
        self._note.say(text.complaint(error), icon="error", tone="error")
        self._stack.setCurrentWidget(self._note)

    # --- filter

    def set_filter(self, filter_text: str) -> None:
        """Apply a filter at once."""
        self.filter.setText(filter_text)
        self.apply_filter()

    def clear_filter(self) -> None:
        self.set_filter("")

    def apply_filter(self) -> None:
        """Apply what stands in the filter line, without waiting."""
        self._delay.stop()
        query = parse(self.filter.text())
        invalid = bool(query.mistaken)
        self._hint.setText(self._hint_at(*query.mistaken[0]) if invalid else "")
        self._hint.setVisible(invalid)
        if self.filter.property("invalid") != invalid:
            self.filter.setProperty("invalid", invalid)
            self.filter.style().polish(self.filter)
        self.table.set_query(query)

    def _hint_at(self, field: str, value: str) -> str:
        """What a mistaken term of the filter should be instead."""
        if field not in FIELDS:
            fields = ", ".join(f"{each}:" for each in FIELDS)
            return self.tr("{field}: is not a field; there are {fields}").format(field=field, fields=fields)
        examples = _EXAMPLES.get(field, ("0-7", "3"))
        return self.tr("{term} is not understood; try {first} or {second}").format(
            term=f"{field}:{value}", first=f"{field}:{examples[0]}", second=f"{field}:{examples[1]}"
        )

    def _on_text_changed(self) -> None:
        self._delay.start()

    def _on_return_pressed(self) -> None:
        self.apply_filter()
        if self.table.rowCount():
            self.view.setFocus(Qt.FocusReason.OtherFocusReason)
            if not self._selection.ids:
                self.view.selectRow(0)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if watched is self.filter and isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            if event.key() == Qt.Key.Key_Escape and self.filter.text():
                self.clear_filter()
                return True
            if event.key() == Qt.Key.Key_Down:
                self._on_return_pressed()
                return True
        if watched is self.view and isinstance(event, QContextMenuEvent):
            menu = QMenu(self)
            menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            menu.addActions(self._menu)
            menu.popup(event.globalPos())
            return True
        return super().eventFilter(watched, event)

    def _on_model_reset(self) -> None:
        shown, total = self.table.rowCount(), self.table.total()
        missing = 0 if self._all or self._digest is None else sum(row.missing for row in self._digest.rows)
        what = self.tr("tensors") if self._all else self.tr("rows") if missing else self.tr("scales")
        filtered = bool(self.table.query.terms)
        self._head.detail.setText(
            self.tr("{shown} of {total} {what}").format(shown=text.count(shown), total=text.count(total), what=what)
            if filtered
            else f"{text.count(total)} {what}"
            if not missing
            else self.tr("{scales} scales, {missing} missing").format(
                scales=text.count(total - missing), missing=text.count(missing)
            )
        )
        self._clear.setVisible(filtered)
        if shown or self._digest is None:
            self._stack.setCurrentWidget(self.view)
        else:
            self._note.say(
                self.tr("No row matches the filter.")
                if filtered
                else self.tr("This checkpoint holds no KV-cache scale. View > All Tensors lists what it does hold."),
                icon="filter" if filtered else "info",
            )
            self._stack.setCurrentWidget(self._note)
        self._follow()

    # --- the one selection

    def _on_view_selected(self) -> None:
        if self._following:
            return
        chosen = self.view.selectionModel()
        ids = [
            name for part in chosen.selection().toList() for name in self.table.ids_between(part.top(), part.bottom())
        ]
        self._selection.select(ids, current=self.table.id_at(chosen.currentIndex().row()), origin=self)

    def _on_view_current(self) -> None:
        if not self._following and self.view.selectionModel().hasSelection():
            self._on_view_selected()

    def _on_selection_changed(self, origin: object) -> None:
        if origin is not self:
            self._follow()

    def show_current(self) -> None:
        """Bring the current row on screen, also after the table got its size."""
        current = self._selection.current
        place = self.table.position_of(current) if current is not None else None
        if place is not None:
            self.view.scrollTo(self.table.index(place, self.view.columnAt(0)))

    def _follow(self) -> None:
        """Show the selection's visible rows as selected and its current row on screen."""
        chosen = QItemSelection()
        last = len(Column) - 1
        for first, end in _runs(self.table.positions_of(self._selection.ids)):
            chosen.select(self.table.index(first, 0), self.table.index(end, last))
        model = self.view.selectionModel()
        self._following = True
        try:
            self.view.deselect_all()
            model.select(chosen, QItemSelectionModel.SelectionFlag.Select)
            current = self._selection.current
            place = self.table.position_of(current) if current is not None else None
            if place is not None:
                index = self.table.index(place, 0)
                model.setCurrentIndex(index, QItemSelectionModel.SelectionFlag.NoUpdate)
                self.view.scrollTo(index.siblingAtColumn(self.view.columnAt(0)))
        finally:
            self._following = False


def _runs(places: Indices) -> list[tuple[int, int]]:
    """Consecutive positions as (first, last): a selection range costs more than a row."""
    if not len(places):
        return []
    breaks = np.flatnonzero(np.diff(places) != 1)
    firsts, lasts = places[np.append(0, breaks + 1)], places[np.append(breaks, len(places) - 1)]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
