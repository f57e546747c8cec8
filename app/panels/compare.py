"""Compare: a second checkpoint's scales beside the open one's, row by row, matched by what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PySide6.QtCore import QItemSelection, QItemSelectionModel, Qt, QUrl, Signal
from PySide6.QtGui import QAction, QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import QComboBox, QFileDialog, QMenu, QWidget

from app import text
from app.compared import Compared
from app.digest import Digest
from app.models.comparison import SHOWS, Column, ComparisonTable
from app.panels.layouts import grow, horizontal, split, stacked, vertical
from app.panels.parts import Button, Chip, Note, label
from app.panels.ratios import RatioStrip
from app.panels.tables import Table
from app.selection import Selection
from app.session import Session, cancelled
from app.shell import quoted_command
from app.text import translate
from app.theme.theme import theme
from core.comparison import Comparison, Row
from core.errors import KVScopeError

_SAMPLES: dict[int, str] = {
    Column.CHANGE: "Changed, within noise",
    Column.LAYER: "Layer",
    Column.ROLE: "k bias",
    Column.LEFT: "0.000618 – 0.0151",
    Column.RIGHT: "0.000618 – 0.0151",
    Column.RATIO: "× 0.99999",
    Column.LEFT_KEY: "model.layers.12.self_attn.k_proj.output_scale",
    Column.RIGHT_KEY: "model.layers.12.self_attn.k_proj.output_scale",
}


class ComparePanel(QWidget):
    """Chooses the second checkpoint and shows the comparison; A is the open one."""

    filter_requested = Signal(str)

    def __init__(self, session: Session, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._selection = selection
        self._digest: Digest | None = None
        self._ids: dict[int, str] = {}
        self._following = False
        self.offers: Callable[[], Sequence[str]] = tuple
        """Paths offered besides the dialogs: other open checkpoints, recent ones. The window sets it."""
        self.setAcceptDrops(True)

        self.table = ComparisonTable(self)
        self.view = Table(
            self.table,
            self.tr("Comparison"),
            _SAMPLES,
            names=(Column.LEFT_KEY, Column.RIGHT_KEY),
            several=True,
        )
        self.view.setSortingEnabled(True)
        self.view.horizontalHeader().setSortIndicatorClearable(True)
        self.view.horizontalHeader().setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self.view.selectionModel().selectionChanged.connect(self._on_view_selected)
        self.strip = RatioStrip()
        self.strip.chosen.connect(self._on_row_chosen)

        self._make_bar()
        self._note = Note("compare")
        self._empty = QWidget()
        self.empty_button = Button(self.tr("Compare with…"), "compare", primary=True)
        self.empty_button.setMenu(self.choose_menu)
        vertical(1, self._note, horizontal(1, self.empty_button, 1), 2, parent=self._empty)
        self._shown = split(Qt.Orientation.Horizontal, (self.view, 760, 3), (self.strip, 340, 1))
        body = QWidget()
        self._stack = stacked(body, self._empty, self._shown)
        grow(vertical(self._bar, body, parent=self), body)

        session.comparing_started.connect(self._on_comparing_started)
        session.compared_changed.connect(self._on_compared_changed)
        session.comparing_failed.connect(self._on_comparing_failed)
        selection.changed.connect(self._on_selection_changed)
        self.table.modelReset.connect(self._follow)
        theme().changed.connect(self.table.refresh_theme)
        self._show_nothing()

    def _make_bar(self) -> None:
        self.choose_button = Button(self.tr("Compare with…"), "compare")
        self.choose_menu = QMenu(self)
        self.choose_menu.aboutToShow.connect(self._fill_menu)
        self.choose_button.setMenu(self.choose_menu)
        self.sum = Chip()
        self.words = label(dim=True)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.words.setMinimumWidth(60)
        self.show_box = QComboBox()
        self.show_box.setAccessibleName(self.tr("Rows shown"))
        for value, shown in zip(
            SHOWS, (self.tr("Differences"), self.tr("Beyond the noise"), self.tr("All rows")), strict=True
        ):
            self.show_box.addItem(shown, value)
        self.show_box.activated.connect(self._on_show_activated)
        self.command_button = Button(
            self.tr("Copy command"), "commands", flat=True, tip=self.tr("Copy the command line that says the same")
        )
        self.command_button.clicked.connect(self._on_command_clicked)
        self.stop_button = Button(self.tr("End comparison"), "close", flat=True)
        self.stop_button.clicked.connect(self._session.stop_comparing)
        self._bar = QWidget()
        bar = horizontal(
            self.choose_button,
            self.sum,
            self.words,
            self.show_box,
            self.command_button,
            self.stop_button,
            parent=self._bar,
            margins=(10, 6, 8, 6),
            spacing=8,
        )
        grow(bar, self.words)

    @property
    def note(self) -> str:
        """What is said in place of the table; "" while the table is shown."""
        return self._note.text if self._stack.currentWidget() is self._empty else ""

    def show_digest(self, digest: Digest | None) -> None:
        """Take the rows that the comparison's left side belongs to."""
        self._digest = digest
        rows = digest.rows if digest is not None else ()
        self._ids = {id(row.scale): row.id for row in rows if row.scale is not None}
        self.empty_button.setEnabled(digest is not None)
        self.choose_button.setEnabled(digest is not None)
        if digest is None or self._session.compared is None:
            if self._session.other is None:
                self._show_nothing()
        else:
            self._follow()

    # --- what is compared

    def _fill_menu(self) -> None:
        menu = self.choose_menu
        menu.clear()
        menu.addAction(theme().icon("open-folder"), self.tr("A folder…"), self._on_folder)
        menu.addAction(theme().icon("open-file"), self.tr("A file…"), self._on_file)
        paths = [path for path in self.offers() if path != self._session.path]
        if paths:
            menu.addSeparator()
        for path in paths:
            action = menu.addAction(path)
            action.setData(path)
            action.triggered.connect(self._on_path_action)

    def _on_path_action(self) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self._session.compare(action.data())

    def _on_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Compare with a checkpoint folder"), self._folder())
        if chosen:
            self._session.compare(chosen)

    def _on_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self,
            self.tr("Compare with a file"),
            self._folder(),
            self.tr("Checkpoints (*.safetensors *.json *.bin *.pt *.pth);;All files (*)"),
        )
        if chosen:
            self._session.compare(chosen)

    def _folder(self) -> str:
        return str(Path(self._session.path).parent) if self._session.path is not None else ""

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if self._digest is not None and _local(event.mimeData().urls()) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        path = _local(event.mimeData().urls())
        if path is not None:
            event.acceptProposedAction()
            self._session.compare(path)

    # --- what the session says

    def _on_comparing_started(self, path: str) -> None:
        self.table.show_comparison(None)
        self._say(self.tr("Reading {path} …").format(path=path), bar=False)

    def _on_comparing_failed(self, path: str, error: KVScopeError) -> None:
        if cancelled(error):
            self._say(self.tr("Comparing with {path} was cancelled.").format(path=path), icon="cancel", bar=False)
        else:
            self._say(text.complaint(error), icon="error", bar=False)

    def _on_compared_changed(self, compared: Compared | None) -> None:
        if compared is None:
            self.table.show_comparison(None)
            self.strip.show_rows(())
            if self._session.other is None:
                self._show_nothing()
            return
        comparison = compared.comparison
        name = Path(compared.path).name or compared.path
        equal = comparison.equal_after_normalisation
        if not comparison.rows:
            self._say(self.tr("Neither checkpoint holds a KV-cache scale."), icon="info", bar=True)
        elif all(row.change == "same" and not row.reshaped for row in comparison.rows):
            self.sum.show_word(self.tr("Equal"), "ok")
        elif equal:
            self.sum.show_word(self.tr("Equal after normalisation"), "ok")
        else:
            self.sum.show_word(self.tr("Different"), "warning")
        self.words.setText(self.tr("B: {name}   {counts}").format(name=name, counts=counts_text(comparison)))
        self.words.setToolTip(f"A: {self._session.path}\nB: {compared.path}")
        wanted = "all" if equal and comparison.count("renamed") == 0 else "differences"
        self.show_box.setCurrentIndex(self.show_box.findData(wanted))
        self.table.show_only("all" if wanted == "all" else "differences")
        self.table.show_comparison(comparison)
        self.strip.show_rows(comparison.rows)
        if comparison.rows:
            self._bar.show()
            self._stack.setCurrentWidget(self._shown)
        self._follow()

    def _show_nothing(self) -> None:
        self._say(
            self.tr(
                "Compare this checkpoint's scales with another one's: choose it, or drop it here. Scales are matched "
                "by layer and role, so a rename is no difference."
            ),
            bar=False,
        )

    def _say(self, words: str, *, icon: str = "compare", bar: bool) -> None:
        self._note.say(words, icon=icon, tone="error" if icon == "error" else "neutral")
        self._bar.setVisible(bar)
        self._stack.setCurrentWidget(self._empty)

    def _on_show_activated(self) -> None:
        show = self.show_box.currentData()
        self.table.show_only(show)

    def _on_command_clicked(self) -> None:
        if self._session.path is not None and self._session.other is not None:
            command = quoted_command("diff", self._session.path, self._session.other)
            QGuiApplication.clipboard().setText(command)

    # --- the one selection

    def id_of(self, row: Row) -> str | None:
        """The selection's name for a row; None for one that only the other checkpoint has."""
        return self._ids.get(id(row.left)) if row.left is not None else None

    def _on_row_chosen(self, row: Row) -> None:
        name = self.id_of(row)
        if name is not None:
            self._selection.select([name], current=name)

    def _on_view_selected(self) -> None:
        if self._following:
            return
        chosen = self.view.selectionModel()
        rows = [row for index in chosen.selectedRows() if (row := self.table.row(index.row())) is not None]
        ids = [name for row in rows if (name := self.id_of(row)) is not None]
        here = self.table.row(chosen.currentIndex().row())
        self._selection.select(ids, current=self.id_of(here) if here is not None else None, origin=self)
        self.strip.mark(rows)

    def _on_selection_changed(self, origin: object) -> None:
        if origin is not self:
            self._follow()

    def _follow(self) -> None:
        """Show the selection's rows as selected."""
        ids = self._selection.ids
        places = [place for place, row in enumerate(self.table.rows()) if self.id_of(row) in ids]
        chosen = QItemSelection()
        for place in places:
            chosen.select(self.table.index(place, 0), self.table.index(place, len(Column) - 1))
        self._following = True
        try:
            self.view.selectionModel().select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)
            if places:
                self.view.scrollTo(self.table.index(places[0], 0))
        finally:
            self._following = False
        compared = self._session.compared
        rows = compared.comparison.rows if compared is not None else ()
        self.strip.mark([row for row in rows if self.id_of(row) in ids])


def counts_text(comparison: Comparison) -> str:
    """How many rows there are of each change: "70 same · 2 changed"."""
    words = {
        "same": translate("Comparison", "{count} same"),
        "renamed": translate("Comparison", "{count} renamed"),
        "changed": translate("Comparison", "{count} changed"),
        "added": translate("Comparison", "{count} only in B"),
        "removed": translate("Comparison", "{count} only in A"),
    }
    counts = {change: sum(row.change == change for row in comparison.rows) for change in words}
    return "  ·  ".join(words[change].format(count=text.count(count)) for change, count in counts.items() if count)


def _local(urls: list[QUrl]) -> str | None:
    return next((url.toLocalFile() for url in urls if url.isLocalFile()), None)
