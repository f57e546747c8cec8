"""The problems: findings grouped by rule, with evidence, consequence and fix; each selects or filters its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QModelIndex, Qt, Signal
from PySide6.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QSplitter,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from app import text
from app.digest import Digest
from app.models.problems import ProblemColumn, ProblemTable, ranges, severity_tone, severity_word
from app.models.query import quoted
from app.panels.parts import Button, Chip, Note, label
from app.panels.reading import Page, Passage
from app.panels.tables import Table
from app.selection import Selection
from app.theme.theme import theme
from core.diagnosis import APPLIED_BY_EXPORT
from core.diagnosis.finding import Finding

if TYPE_CHECKING:
    from core.loading.verification import Verification


class Detail(QWidget):
    """One finding in full, with what can be done about it below."""

    filter_requested = Signal(str)
    rows_requested = Signal(object)
    fix_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._finding: Finding | None = None
        self._page = Page()
        self._page.setAccessibleName(self.tr("The problem in full"))
        rows = QVBoxLayout(self._page.page)
        rows.setContentsMargins(14, 10, 8, 6)
        rows.setSpacing(8)
        head = QHBoxLayout()
        self._severity = Chip()
        self._title = label(strong=True, wrap=True)
        head.addWidget(self._severity, 0, Qt.AlignmentFlag.AlignTop)
        head.addWidget(self._title, 1)
        rows.addLayout(head)
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(12)
        grid.setVerticalSpacing(5)
        grid.setColumnStretch(1, 1)
        self._fields: dict[str, tuple[QLabel, Passage]] = {}
        for row, (name, caption) in enumerate(
            (
                ("evidence", self.tr("Evidence")),
                ("consequence", self.tr("Consequence")),
                ("fix", self.tr("Fix")),
                ("scope", self.tr("Scope")),
                ("source", self.tr("Source")),
            )
        ):
            title, shown = label(caption, dim=True), Passage(small=name == "source")
            shown.setAccessibleName(caption)
            grid.addWidget(title, row, 0, Qt.AlignmentFlag.AlignTop)
            grid.addWidget(shown, row, 1, Qt.AlignmentFlag.AlignTop)
            self._fields[name] = (title, shown)
        rows.addLayout(grid)
        rows.addStretch(1)
        buttons = QHBoxLayout()
        buttons.setContentsMargins(14, 4, 14, 8)
        buttons.setSpacing(6)
        self.filter_button = Button(self.tr("Apply as filter"), "filter")
        self.filter_button.clicked.connect(self._on_filter_clicked)
        self.select_button = Button(self.tr("Select its rows"), "tensors")
        self.select_button.clicked.connect(self._on_select_clicked)
        self.fix_button = Button(self.tr("Fix by export"), "write")
        self.fix_button.clicked.connect(self.fix_requested)
        for button in (self.filter_button, self.select_button, self.fix_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(0)
        whole.addWidget(self._page, 1)
        whole.addLayout(buttons)

    @property
    def finding(self) -> Finding | None:
        return self._finding

    def show_finding(self, finding: Finding, ids: int, *, filterable: bool) -> None:
        """Show one finding that concerns ``ids`` rows; ``filterable`` where the filter knows its code."""
        self._finding = finding
        self._severity.show_word(severity_word(finding.severity), severity_tone(finding.severity))
        self._title.setText(text.spoken(finding.title))
        scope = (
            text.plural(len(finding.keys), self.tr("{count} key"), self.tr("{count} keys"))
            if finding.keys
            else self.tr("the whole checkpoint")
        )
        if finding.layers:
            one = len(set(finding.layers)) == 1
            layers = (self.tr("layer {layers}") if one else self.tr("layers {layers}")).format(
                layers=ranges(finding.layers)
            )
            scope = self.tr("{keys}, {layers}").format(keys=scope, layers=layers) if finding.keys else layers
        values = {
            "evidence": text.spoken(finding.evidence),
            "consequence": text.spoken(finding.consequence),
            "fix": text.spoken(finding.fix),
            "scope": scope,
            "source": finding.source,
        }
        for name, (title, shown) in self._fields.items():
            shown.setPlainText(values[name])
            title.setVisible(bool(values[name]))
            shown.setVisible(bool(values[name]))
        self.filter_button.setEnabled(ids > 0 and filterable)
        self.select_button.setEnabled(ids > 0)
        self.fix_button.setVisible(finding.remedy in APPLIED_BY_EXPORT)
        self._page.to_top()

    def _on_filter_clicked(self) -> None:
        if self._finding is not None:
            self.filter_requested.emit(f"problem:{quoted(self._finding.code)}")

    def _on_select_clicked(self) -> None:
        self.rows_requested.emit(self._finding)


class ProblemsPanel(QWidget):
    """The list of findings beside the one chosen."""

    filter_requested = Signal(str)
    fix_requested = Signal()

    def __init__(self, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._selection = selection
        self._digest: Digest | None = None
        self._verification: Verification | None = None
        self.table = ProblemTable(self)
        self.view = Table(
            self.table,
            self.tr("Problems"),
            {
                ProblemColumn.SEVERITY: "warning_",
                ProblemColumn.COUNT: "9,999",
                ProblemColumn.LAYERS: "0-15, 17",
                ProblemColumn.CODE: "declared-but-absent",
            },
        )
        self.view.horizontalHeader().setStretchLastSection(False)
        self.view.horizontalHeader().setSectionResizeMode(ProblemColumn.TITLE, QHeaderView.ResizeMode.Stretch)
        self.view.selectionModel().currentRowChanged.connect(self._on_row_changed)
        self.view.clicked.connect(self._on_row_changed)  # also the current row's: the selection may have left it
        self.view.activated.connect(self._on_row_changed)
        self.detail = Detail()
        self.detail.filter_requested.connect(self.filter_requested)
        self.detail.rows_requested.connect(self._select_rows)
        self.detail.fix_requested.connect(self.fix_requested)
        split = QSplitter(Qt.Orientation.Horizontal)
        split.setHandleWidth(1)
        split.addWidget(self.view)
        split.addWidget(self.detail)
        split.setStretchFactor(0, 3)
        split.setStretchFactor(1, 2)
        split.setSizes([640, 460])
        split.setChildrenCollapsible(False)
        self._split = split
        self._note = Note("ok")
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._note)
        self._stack.addWidget(split)
        selection.changed.connect(self._on_selection_changed)
        theme().changed.connect(self.table.refresh_theme)

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        self._verification = None
        self._fill()

    def show_verification(self, verification: Verification | None) -> None:
        """Put what the loader's run says against the prediction before all other findings."""
        before = self.table.findings()
        self._verification = verification
        if self._findings() != before:
            self._fill()

    def _findings(self) -> tuple[Finding, ...]:
        if self._digest is None:
            return ()
        inspection = self._digest.inspection
        if self._verification is None:
            return inspection.findings
        from core.loading.findings import with_observation

        return with_observation(inspection.findings, self._verification, inspection.deliveries)

    def _fill(self) -> None:
        self.table.set_findings(self._findings())
        if self.table.rowCount():
            self._stack.setCurrentWidget(self._split)
            # The first finding is shown, not selected: the row to begin with is chosen elsewhere (Digest.telling).
            finding = self.table.finding(0)
            if finding is not None:
                self._show(finding)
        else:
            self._note.say(
                self.tr(
                    "No rule found anything wrong. That proves nothing by itself: "
                    "the prediction does not run the engine."
                ),
                icon="ok",
                tone="ok",
            )
            self._stack.setCurrentWidget(self._note)

    def choose(self, row: int) -> None:
        """Make a finding the current one and select what it concerns."""
        if self.table.finding(row) is not None:
            self.view.setCurrentIndex(self.table.index(row, 0))

    def _show(self, finding: Finding) -> None:
        ids = self._digest.ids_of(finding) if self._digest is not None else ()
        judged = self._digest.inspection.findings if self._digest is not None else ()
        self.detail.show_finding(finding, len(ids), filterable=finding in judged)

    def _on_row_changed(self, current: QModelIndex) -> None:
        finding = self.table.finding(current.row())
        if finding is not None:
            self._show(finding)
            self._select_rows(finding)

    def _select_rows(self, finding: Finding | None) -> None:
        if finding is not None and self._digest is not None:
            ids = self._digest.ids_of(finding)
            if ids:
                self._selection.select(ids, origin=self)

    def _on_selection_changed(self, origin: object) -> None:
        """Show the finding that concerns the current row, without changing the selection."""
        current = self._selection.current
        if origin is self or self._digest is None or current is None:
            return
        shown = self.detail.finding
        if shown is not None and current in self._digest.ids_of(shown):
            return
        for row, finding in enumerate(self.table.findings()):
            if finding.severity == "info" and not finding.keys:
                continue  # of whole layers: it would take the place of what is wrong with the checkpoint
            if current in self._digest.ids_of(finding):
                model = self.view.selectionModel()
                model.blockSignals(True)
                self.view.selectRow(row)
                model.blockSignals(False)
                self.view.viewport().update()
                self._show(finding)
                return
