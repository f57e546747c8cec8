"""The groups: the checkpoint's names by pattern, by module or by shard, as a tree that selects."""

from __future__ import annotations

from PySide6.QtCore import QItemSelectionModel, QModelIndex, QPersistentModelIndex, QSize, Qt, Signal
from PySide6.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeView,
    QVBoxLayout,
    QWidget,
)

from app.digest import Digest
from app.jobs import AnyJobs
from app.models.groups import GROUPINGS, Group, Grouping, GroupTree, by_module, by_pattern, by_shard
from app.models.query import quoted
from app.panels.parts import Head
from app.selection import Selection
from app.text import complaint, translate
from app.theme.theme import theme
from core.errors import KVScopeError
from core.progress import Progress


class _Elided(QStyledItemDelegate):
    """Elides names in what they share, then where they tell least, and sentences about faults at the right."""

    def __init__(self, tree: GroupTree, view: QTreeView) -> None:
        super().__init__(view)
        self._tree = tree
        self._view = view

    def initStyleOption(self, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex) -> None:
        super().initStyleOption(option, index)
        group = self._tree.group(index)
        said = group is not None and group.label == group.fault
        option.textElideMode = Qt.TextElideMode.ElideRight if said else Qt.TextElideMode.ElideLeft
        if group is None or not group.shorter or option.rect.isEmpty():
            return
        style = self._view.style()
        margin = style.pixelMetric(QStyle.PixelMetric.PM_FocusFrameHMargin, option, self._view) + 1
        room = style.subElementRect(QStyle.SubElement.SE_ItemViewItemText, option, self._view).width() - 2 * margin
        for shown in (group.label, *group.shorter):
            option.text = shown
            if option.fontMetrics.horizontalAdvance(shown) <= room:
                return
        option.textElideMode = Qt.TextElideMode.ElideMiddle  # both of its ends tell it apart by now


class GroupsPanel(QWidget):
    """One of three groupings. Choosing a node selects its rows; a double click filters by it."""

    filter_requested = Signal(str)

    def __init__(self, selection: Selection, jobs: AnyJobs, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._selection = selection
        self._jobs = jobs
        self._digest: Digest | None = None
        self._all = False
        self._grouping: Grouping = "patterns"
        self.tree = GroupTree(self)
        self.view = QTreeView()
        self.view.setAccessibleName(self.tr("Groups"))
        self.view.setModel(self.tree)
        self.view.setHeaderHidden(True)
        self.view.setUniformRowHeights(True)
        self.view.setSelectionMode(QTreeView.SelectionMode.ExtendedSelection)
        self.view.setExpandsOnDoubleClick(False)
        self.view.setIconSize(QSize(13, 13))
        self.view.setIndentation(14)
        self.view.setItemDelegateForColumn(0, _Elided(self.tree, self.view))
        header = self.view.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(20)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        header.setResizeContentsPrecision(0)
        self.view.selectionModel().selectionChanged.connect(self._on_chosen)
        self.view.doubleClicked.connect(self._on_double_clicked)

        head = Head(self.tr("Groups"))
        bar = QHBoxLayout()
        bar.setContentsMargins(8, 6, 8, 6)
        bar.setSpacing(4)
        names = {"patterns": self.tr("Patterns"), "modules": self.tr("Modules"), "shards": self.tr("Shards")}
        self._buttons = QButtonGroup(self)
        for number, grouping in enumerate(GROUPINGS):
            button = QPushButton(names[grouping])
            button.setCheckable(True)
            button.setProperty("flat", True)
            button.setAccessibleName(self.tr("Group by {what}").format(what=names[grouping]))
            button.setChecked(grouping == self._grouping)
            self._buttons.addButton(button, number)
            bar.addWidget(button)
        bar.addStretch(1)
        self._buttons.idClicked.connect(self._on_grouping_clicked)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(head)
        rows.addLayout(bar)
        rows.addWidget(self.view, 1)
        selection.changed.connect(self._on_selection_changed)
        theme().changed.connect(self.tree.refresh_theme)

    @property
    def grouping(self) -> Grouping:
        return self._grouping

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        faults = digest is not None and any(shard.fault for shard in digest.inspection.checkpoint.shards)
        if faults and self._grouping != "shards":
            self.set_grouping("shards")
        else:
            self._fill()

    def set_all_tensors(self, on: bool) -> None:
        """Group every tensor instead of the scales alone."""
        if on != self._all:
            self._all = on
            self._fill()

    def set_grouping(self, grouping: Grouping) -> None:
        self._grouping = grouping
        self._buttons.button(GROUPINGS.index(grouping)).setChecked(True)
        self._fill()

    def _fill(self) -> None:
        digest, grouping, everything = self._digest, self._grouping, self._all
        if digest is None:
            self._jobs.cancel("groups")
            self.tree.set_groups([])
            return

        def build(progress: Progress) -> list[Group]:
            progress.start(translate("Groups", "Grouping"))
            names = digest.inspection.checkpoint.catalog.names if everything else [row.id for row in digest.rows]
            if grouping == "patterns":
                return by_pattern(names, digest.by_id)
            return by_module(names, digest.by_id) if grouping == "modules" else by_shard(digest)

        if everything:
            self._jobs.start(
                self.tr("Grouping names"), build, done=self._on_built, failed=self._on_failed, lane="groups"
            )
        else:
            self._jobs.cancel("groups")
            self._on_built(build(Progress()))

    def _on_built(self, groups: list[Group]) -> None:
        self.tree.set_groups(groups)
        first = self.tree.index(0, 0)
        if len(groups) == 1 and self._grouping == "modules":
            self.view.expand(first)
        if self._grouping == "shards":
            for row, group in enumerate(groups):
                if group.fault:
                    self.view.expand(self.tree.index(row, 0))

    def _on_failed(self, error: KVScopeError) -> None:
        self.tree.set_groups([Group(complaint(error), [], fault=complaint(error), icon="error")])

    def _on_grouping_clicked(self, number: int) -> None:
        self.set_grouping(GROUPINGS[number])

    def _on_chosen(self) -> None:
        ids: dict[str, None] = {}
        for index in self.view.selectionModel().selectedRows():
            group = self.tree.group(index)
            if group is not None:
                ids.update(dict.fromkeys(group.ids))
        if ids:
            self._selection.select(ids, origin=self)

    def _on_double_clicked(self, index: QModelIndex) -> None:
        group = self.tree.group(index)
        if group is None:
            return
        if self._grouping == "shards":
            top = index if not index.parent().isValid() else index.parent()
            shard = self.tree.group(top)
            if shard is not None and not shard.fault:
                self.filter_requested.emit(f"file:{quoted(shard.pattern)}")
            return
        words = [part for part in (group.pattern or group.label).split("*") if part]
        self.filter_requested.emit(" ".join(quoted(part) for part in words))

    def _on_selection_changed(self, origin: object) -> None:
        """Mark the visible nodes whose rows are all selected; nothing is opened for it."""
        if origin is self:
            return
        chosen = self._selection.ids
        model = self.view.selectionModel()
        model.blockSignals(True)
        model.clearSelection()
        for row in range(self.tree.rowCount()):
            index = self.tree.index(row, 0)
            group = self.tree.group(index)
            if group is not None and group.ids and len(group.ids) <= len(chosen) and chosen.issuperset(group.ids):
                model.select(index, QItemSelectionModel.SelectionFlag.Select | QItemSelectionModel.SelectionFlag.Rows)
        model.blockSignals(False)
        self.view.viewport().update()
