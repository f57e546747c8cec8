"""The export: what a normalized copy would change, beside one Write button; then both verdicts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QModelIndex, Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QFileDialog, QGridLayout, QLineEdit, QWidget

from app import text
from app.digest import Digest, natural
from app.models.records import Record, RecordTable
from app.panels.layouts import grow, horizontal, split, stacked, vertical
from app.panels.parts import Button, Chip, Note, clear, label
from app.panels.reading import ElidedBox, Page, Passage
from app.panels.tables import Table
from app.selection import Selection
from app.session import Session, cancelled
from app.theme.outcome import outcome_look, outcome_word
from app.theme.palettes import Tone
from app.theme.theme import theme
from core.diagnosis.finding import Verdict
from core.errors import KVScopeError
from core.progress import Progress

if TYPE_CHECKING:
    from core.export import ExportPlan, ExportResult, TensorEdit

_TONES: dict[str, Tone] = {
    "kept": "neutral",
    "renamed": "info",
    "reshaped": "info",
    "duplicated": "info",
    "dropped": "warning",
    "added": "ok",
    "repaired": "ok",
}
_ICONS = {
    "kept": "ok",
    "renamed": "write",
    "reshaped": "write",
    "duplicated": "copy",
    "dropped": "trash",
    "added": "tensors",
    "repaired": "write",
}


class ExportPanel(QWidget):
    """Plans when it is first looked at, writes on demand; both run as jobs."""

    open_requested = Signal(str)
    written = Signal(object)

    def __init__(self, session: Session, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._selection = selection
        self._digest: Digest | None = None
        self._plan: ExportPlan | None = None
        self._result: ExportResult | None = None
        self._stale = True
        self._writing = False

        self.table = RecordTable(
            [self.tr("Change"), self.tr("Before"), self.tr("→ After"), self.tr("Stored as"), self.tr("Why")],
            parent=self,
        )
        samples = ("duplicated", "12.self_attn.k_proj.output_scale", "12.self_attn.attn.k_scale___", "F32 8 × 1 × 1")
        self.view = Table(self.table, self.tr("What the export changes"), dict(enumerate(samples)), names=(1, 2))
        self.view.selectionModel().currentRowChanged.connect(self._on_row_changed)

        self._make_controls()
        self._split = split(Qt.Orientation.Horizontal, (self.view, 640, 3), (self._make_sheet(), 460, 2))
        self._note = Note("export")
        self.retry_button = Button(self.tr("Plan again"), "reload")
        self.retry_button.clicked.connect(self.plan)
        self._notes = QWidget()
        grow(vertical(self._note, horizontal(1, self.retry_button, 1), 1, parent=self._notes), self._note)
        self._stack = stacked(self, self._notes, self._split)
        theme().changed.connect(self.table.refresh_theme)

    def _make_controls(self) -> None:
        self.names = ElidedBox()
        self.names.setAccessibleName(self.tr("Names to write"))
        self.names.addItem(self.tr("Automatic: what the engine loads, changing least"), "")
        self.names.addItem(self.tr("as they are"), "as-is")
        self.names.activated.connect(self._on_names_activated)
        self.folder = QLineEdit()
        self.folder.setAccessibleName(self.tr("New folder"))
        self.folder.textChanged.connect(self._enable)
        self.browse_button = Button(self.tr("Browse…"), "open-folder")
        self.browse_button.clicked.connect(self._on_browse_clicked)
        self.write_button = Button(self.tr("Write"), "export", primary=True)
        self.write_button.clicked.connect(self.write)
        self.open_button = Button(self.tr("Open the result"), "open-folder")
        self.open_button.clicked.connect(self._on_open_clicked)
        self.open_button.hide()
        self._summary = label(wrap=True)
        self._message = Passage()
        self._message.hide()

    def _make_sheet(self) -> QWidget:
        form = QGridLayout()
        form.setHorizontalSpacing(8)
        form.setVerticalSpacing(6)
        form.setColumnStretch(1, 1)
        form.addWidget(label(self.tr("Names"), dim=True), 0, 0)
        form.addWidget(self.names, 0, 1, 1, 2)
        form.addWidget(label(self.tr("New folder"), dim=True), 1, 0)
        form.addWidget(self.folder, 1, 1)
        form.addWidget(self.browse_button, 1, 2)
        line = horizontal(self._summary, self.write_button)
        grow(line, self._summary)
        self._verdicts = QGridLayout()
        self._verdicts.setHorizontalSpacing(10)
        self._verdicts.setVerticalSpacing(5)
        self._verdicts.setColumnStretch(2, 1)
        self._details = vertical(spacing=5)
        area = Page()
        parts = (form, line, self._verdicts, self._message, horizontal(self.open_button, 1), self._details, 1)
        vertical(*parts, parent=area.page, margins=(14, 10, 8, 10), spacing=8)
        return area

    # --- content

    @property
    def current_plan(self) -> ExportPlan | None:
        return self._plan

    @property
    def message(self) -> str:
        """What became of writing."""
        return self._message.toPlainText()

    @property
    def note(self) -> str:
        """What stands in place of a plan."""
        return self._note.text

    @property
    def result(self) -> ExportResult | None:
        return self._result

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        self._plan = self._result = None
        self._stale = True
        self._session.jobs.cancel("export-plan")
        self.table.set_records(())
        if digest is None:
            self._say(self.tr("Open a checkpoint to see what an export would change."))
        else:
            place = digest.inspection.checkpoint.root
            self.folder.setText(str(place.with_name(f"{place.name}-kvscope")))
            if self.isVisible():
                self.plan()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._stale and self._digest is not None:
            self.plan()

    def plan(self) -> None:
        """Work out, in a job, what the export would change."""
        if self._digest is None:
            return
        self._stale = False
        self._result = None
        if self._plan is None:
            self._say(self.tr("Planning the export …"))
        inspection = self._digest.inspection
        names = self.names.currentData() or None
        fill_names = self.names.count() <= 2

        def work(progress: Progress) -> tuple[ExportPlan, list[str]]:
            from core.export import plan_export
            from core.export.names import SPELLINGS

            progress.start(self.tr("planning the export"))
            return plan_export(inspection, names=names), [s.id for s in SPELLINGS] if fill_names else []

        self._session.jobs.start(
            self.tr("Planning the export"), work, done=self._on_planned, failed=self._on_plan_failed, lane="export-plan"
        )

    def write(self) -> None:
        """Write the planned copy, in a job; then show both verdicts."""
        plan = self._plan
        if plan is None or self._writing:
            return
        target = Path(self.folder.text()).expanduser()
        self._writing = True
        self._enable()
        self._tell(self.tr("Writing {folder} …").format(folder=target), "neutral")

        def work(progress: Progress) -> ExportResult:
            from core.export import write_export

            return write_export(plan, target, progress=progress)

        self._session.jobs.start(
            self.tr("Exporting to {folder}").format(folder=target.name),
            work,
            done=self._on_written,
            failed=self._on_write_failed,
            lane="export-write",
        )

    # --- results

    def _on_planned(self, found: tuple[ExportPlan, list[str]]) -> None:
        plan, spellings = found
        for name in spellings:
            self.names.addItem(name, name)
        self._plan = plan
        edits = sorted(plan.edits, key=lambda edit: natural(edit.key or edit.new_key or ""))
        self.table.set_records([_record(edit) for edit in edits])
        stored = any(edit.new_shape is not None or edit.new_dtype is not None for edit in edits)
        self.view.setColumnHidden(3, not stored)
        self._show_plan(plan)
        self._tell("", "neutral")
        self.open_button.hide()
        self._stack.setCurrentWidget(self._split)
        self._enable()

    def _on_plan_failed(self, error: KVScopeError) -> None:
        self._plan = None
        self._stale = cancelled(error)
        self._say(self.tr("Cancelled.") if cancelled(error) else str(error), failed=True)

    def _on_written(self, result: ExportResult) -> None:
        self._writing = False
        self._result = result
        self._tell(
            self.tr("Written to {folder}: {size} in {seconds:.1f} s, {count} tensors compared with the source.").format(
                folder=result.out, size=text.size(result.bytes_written), seconds=result.seconds, count=result.verified
            ),
            "ok",
        )
        self._show_verdicts(result.verdict_after, judged=True)
        self.open_button.show()
        self._enable()
        self.written.emit(result)

    def _on_write_failed(self, error: KVScopeError) -> None:
        self._writing = False
        words = self.tr("Cancelled; nothing was left behind.") if cancelled(error) else str(error)
        self._tell(words, "neutral" if cancelled(error) else "error")
        self._enable()

    def _show_plan(self, plan: ExportPlan) -> None:
        counted: Counter[str] = Counter(edit.action for edit in plan.edits)
        words = {
            "kept": self.tr("kept"),
            "renamed": self.tr("renamed"),
            "reshaped": self.tr("reshaped"),
            "duplicated": self.tr("duplicated"),
            "dropped": self.tr("dropped"),
            "added": self.tr("added"),
        }
        parts = [f"{text.count(counted[action])} {word}" for action, word in words.items() if counted[action]]
        self._summary.setText(
            self.tr("{changes}; names: {names}. Needs {space}.").format(
                changes=", ".join(parts) or self.tr("no scale changes"),
                names=plan.names or self.tr("as they are"),
                space=text.size(plan.space_needed),
            )
        )
        self._show_verdicts(None, judged=False)
        clear(self._details)
        for edit in plan.config_edits:
            changes = ", ".join(f"{c.field}: {_json(c.before)} → {_json(c.after)}" for c in edit.changes)
            self._detail(self.tr("{file} changes").format(file=edit.file), f"{changes}. {edit.reason}")
        for missed in plan.unreachable:
            self._detail(self.tr("{count} keys stay unreachable").format(count=len(missed.keys)), missed.reason)
        for note in plan.notes:
            self._detail("", note)
        if plan.files_copied:
            self._detail(self.tr("Copied as they are"), ", ".join(plan.files_copied))

    def _show_verdicts(self, after: Verdict | None, *, judged: bool) -> None:
        clear(self._verdicts)
        if self._plan is None:
            return
        lines = [(self.tr("Before"), self._plan.verdict_before)]
        if after is not None:
            lines.append((self.tr("After") if judged else self.tr("Predicted"), after))
        for row, (caption, verdict) in enumerate(lines):
            self._verdicts.addWidget(label(caption, dim=True), row, 0, Qt.AlignmentFlag.AlignTop)
            chip = Chip(outcome_word(verdict.outcome), outcome_look(verdict.outcome)[1])
            self._verdicts.addWidget(chip, row, 1, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
            self._verdicts.addWidget(Passage(verdict.text), row, 2)

    def _detail(self, caption: str, words: str) -> None:
        if caption:
            self._details.addWidget(label(caption, dim=True))
        self._details.addWidget(Passage(words))

    def _say(self, words: str, *, failed: bool = False) -> None:
        self._note.say(words, icon="error" if failed else "export", tone="error" if failed else "neutral")
        self.retry_button.setVisible(failed)
        self._stack.setCurrentWidget(self._notes)

    def _tell(self, words: str, tone: Tone) -> None:
        self._message.setProperty("wrong", tone == "error")
        self._message.style().polish(self._message)
        self._message.setPlainText(words)
        self._message.setVisible(bool(words))

    def _enable(self) -> None:
        self.write_button.setEnabled(self._plan is not None and not self._writing and bool(self.folder.text().strip()))
        self.names.setEnabled(not self._writing)

    # --- what the user does

    def _on_names_activated(self) -> None:
        self.plan()

    def _on_browse_clicked(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self, self.tr("Choose an empty folder"), str(Path(self.folder.text()).expanduser().parent)
        )
        if chosen:
            self.folder.setText(chosen)

    def _on_open_clicked(self) -> None:
        if self._result is not None:
            self.open_requested.emit(str(self._result.out))

    def _on_row_changed(self, current: QModelIndex) -> None:
        record = self.table.record(current.row())
        if record is not None and self._digest is not None:
            ids = self._digest.ids_by_key.get(record.id, ())
            if ids:
                self._selection.select(ids, origin=self)


def _record(edit: TensorEdit) -> Record:
    stored = " ".join(
        part
        for part in (edit.new_dtype or "", text.shape(edit.new_shape) if edit.new_shape is not None else "")
        if part
    )
    after = "" if edit.new_key is None and edit.action == "dropped" else (edit.new_key or edit.key)
    return Record(
        cells=(edit.action, edit.key, after, stored, edit.reason),
        icon=_ICONS[edit.action],
        tone=_TONES[edit.action],
        tip=edit.reason,
        id=edit.key,
    )


def _json(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
