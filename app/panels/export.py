"""The export: what a normalized copy would change, beside one Write button; then both verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QModelIndex, Qt, Signal
from PySide6.QtGui import QShowEvent, QUndoStack
from PySide6.QtWidgets import QFileDialog, QWidget

from app import text
from app.digest import Digest
from app.models.records import Record, RecordTable
from app.panels.export_sheet import OVERLAY, ExportSheet, action_words
from app.panels.layouts import grow, horizontal, split, stacked, vertical
from app.panels.parts import Button, Note
from app.panels.repairs import Choices, Choosing, offers_of
from app.panels.tables import Table
from app.selection import Selection
from app.session import Session, cancelled
from app.theme.palettes import Tone
from app.theme.theme import theme
from core.diagnosis.finding import Finding
from core.errors import KVScopeError
from core.ordering import natural
from core.progress import Progress
from core.wording import spread

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
        self._planning = False
        self._writing: ExportPlan | None = None
        self._written_from: str | None = None
        """The checkpoint from which is written."""
        self._choices = Choices()
        self._complaint = ""
        self._wanted: tuple[str, ...] = ()
        self.undo_stack = QUndoStack(self)
        self.undo_stack.indexChanged.connect(self._enable)

        self.table = RecordTable(
            [self.tr("Change"), self.tr("Before"), self.tr("→ After"), self.tr("Stored as"), self.tr("Why")],
            parent=self,
        )
        samples = ("duplicated", "12.self_attn.k_proj.output_scale", "12.self_attn.attn.k_scale___", "0.0312 F32 8 × 1")
        self.view = Table(self.table, self.tr("What the export changes"), dict(enumerate(samples)), names=(1, 2))
        self.view.selectionModel().currentRowChanged.connect(self._on_row_changed)
        self.view.clicked.connect(self._on_row_changed)

        self._sheet = ExportSheet()
        self._connect()
        self._split = split(Qt.Orientation.Horizontal, (self.view, 640, 3), (self._sheet, 460, 2))
        self._note = Note("export")
        self.retry_button = Button(self.tr("Plan again"), "reload")
        self.retry_button.clicked.connect(self.plan)
        self._notes = QWidget()
        grow(vertical(self._note, horizontal(1, self.retry_button, 1), 1, parent=self._notes), self._note)
        self._stack = stacked(self, self._notes, self._split)
        theme().changed.connect(self.table.refresh_theme)

    def _connect(self) -> None:
        sheet = self._sheet
        self.target, self.mode, self.folder, self.repairs = sheet.target, sheet.mode, sheet.folder, sheet.repairs
        self.write_button, self.open_button, self.browse_button = (
            sheet.write_button, sheet.open_button, sheet.browse_button,
        )  # fmt: skip
        self.undo_button, self.redo_button, self.scales_button = (
            sheet.undo_button, sheet.redo_button, sheet.scales_button,
        )  # fmt: skip
        self.target.activated.connect(self._on_target_activated)
        self.repairs.changed.connect(self._on_fix_chosen)
        self.repairs.cleared.connect(self._on_fix_cleared)
        self.undo_button.clicked.connect(self.undo_stack.undo)
        self.redo_button.clicked.connect(self.undo_stack.redo)
        self.scales_button.clicked.connect(self._on_scales_clicked)
        self.folder.textChanged.connect(self._enable)
        self.browse_button.clicked.connect(self._on_browse_clicked)
        self.write_button.clicked.connect(self.write)
        self.open_button.clicked.connect(self._on_open_clicked)

    # --- content

    @property
    def current_plan(self) -> ExportPlan | None:
        return self._plan

    @property
    def message(self) -> str:
        """What became of writing."""
        return self._sheet.message

    @property
    def note(self) -> str:
        """What stands in place of a plan."""
        return self._note.text

    @property
    def result(self) -> ExportResult | None:
        return self._result

    @property
    def writing(self) -> bool:
        """Whether a copy is being written: until it is, nothing can be chosen."""
        return self._writing is not None

    @property
    def choices(self) -> Choices:
        """The target, the repairs and the source of scales that are chosen."""
        return self._choices

    def choose_fixes(self, findings: Iterable[Finding]) -> None:
        """Open the preview with the usual repair of each finding chosen; every one can be undone."""
        self._wanted = tuple(finding.code for finding in findings)
        if self._plan is not None and not self._stale:
            self._choose_wanted()

    def _digest_is_another(self, digest: Digest) -> bool:
        """Whether it is another checkpoint, and not the same under another engine."""
        return self._digest is None or self._digest.inspection.checkpoint is not digest.inspection.checkpoint

    def show_digest(self, digest: Digest | None) -> None:
        if self._writing is not None and self._session.path != self._written_from:
            self._session.jobs.cancel("export-write")
            self._writing = None
        another = digest is None or self._digest_is_another(digest)
        if another:
            self._choices = Choices()
            self.undo_stack.clear()
            self.target.setCurrentIndex(0)
        self._digest = digest
        self._plan = self._result = None
        self._stale = True
        self._planning = False
        self._session.jobs.cancel("export-plan")
        self.table.set_records(())
        if digest is None:
            self._say(self.tr("Open a checkpoint to see what an export would change."))
        else:
            if another:
                checkpoint = digest.inspection.checkpoint
                elsewhere = checkpoint.remote is not None
                folder = Path.home() if elsewhere else checkpoint.root.parent
                self.folder.setText(str(folder / f"{checkpoint.root.name}-kvscope"))
                self._sheet.show_place(elsewhere=elsewhere)
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
        self._planning = True
        self._enable()
        if self._plan is None:
            self._say(self.tr("Planning the export …"))
        inspection, choices = self._digest.inspection, self._choices
        kind, _, name = choices.target.partition(":")
        fill_targets = self.target.count() <= 2

        def work(progress: Progress) -> tuple[ExportPlan, list[tuple[str, str]]]:
            from core.engines import ENGINES
            from core.export import as_overlay, plan_export
            from core.export.names import CONVENTIONS
            from core.export.target import with_quantized_cache
            from core.inspection import reinspect

            progress.start(self.tr("planning the export"))
            target = inspection
            if kind == "engine" and name != inspection.settings.engine.value:
                target = reinspect(inspection, engine=name, thresholds=inspection.thresholds)
            plan = plan_export(
                with_quantized_cache(target),
                names=name if kind == "names" else None,
                fixes=choices.fixes,
                scales_from=choices.scales_from or None,
            )
            if plan.source.remote is not None:
                plan = as_overlay(plan)
            if not fill_targets:
                return plan, []
            engines = [(f"engine:{profile.id}", profile.title) for profile in ENGINES.values()]
            return plan, [*engines, *((f"names:{each.id}", each.id) for each in CONVENTIONS)]

        self._session.jobs.start(
            self.tr("Planning the export"), work, done=self._on_planned, failed=self._on_plan_failed, lane="export-plan"
        )

    def _place(self) -> Path | None:
        """The folder to write; None for one below the home of a user that does not exist."""
        try:
            return Path(self.folder.text()).expanduser()
        except RuntimeError:
            return None

    def write(self) -> None:
        """Write the planned copy, in a job; then show both verdicts."""
        plan = self._plan
        if plan is None or self._planning or self._writing is not None:
            return
        target = self._place()
        if target is None:
            self._sheet.tell(self.tr("{folder}: no such user").format(folder=self.folder.text()), "error")
            return
        way = self.mode.currentData()
        self._writing, self._written_from = plan, self._session.path
        self._enable()
        self._sheet.tell(self.tr("Writing {folder} …").format(folder=target), "neutral")

        def work(progress: Progress) -> ExportResult:
            from core.export import WriteOptions, write_export

            options = WriteOptions(overlay=True) if way == OVERLAY else WriteOptions(mode=way or None)
            return write_export(plan, target, options=options, progress=progress)

        self._session.jobs.start(
            self.tr("Exporting to {folder}").format(folder=target.name),
            work,
            done=partial(self._on_written, plan),
            failed=partial(self._on_write_failed, plan),
            lane="export-write",
        )

    # --- results

    def _on_planned(self, found: tuple[ExportPlan, list[tuple[str, str]]]) -> None:
        plan, targets = found
        self._planning = False
        for value, title in targets:
            words = self.tr("What {engine} takes") if value.startswith("engine:") else self.tr("Convention: {engine}")
            self.target.addItem(words.format(engine=title), value)
        self._plan = plan
        edits = sorted(plan.edits, key=lambda edit: natural(edit.key or edit.new_key or ""))
        happens = action_words()
        self.table.set_records([_record(edit, happens[edit.action]) for edit in edits])
        stored = any(edit.new_shape is not None or edit.new_dtype is not None or edit.values for edit in edits)
        self.view.setColumnHidden(3, not stored)
        asked = self._digest.inspection.wish.kv_cache_dtype if self._digest is not None else ""
        judged = plan.before.wish.kv_cache_dtype
        self._sheet.show_plan(plan, cache=judged if judged != asked else "")
        self.repairs.show_offers(offers_of(plan), self._choices)
        self._sheet.tell(self._complaint, "error" if self._complaint else "neutral")
        self._complaint = ""
        self.open_button.hide()
        self._stack.setCurrentWidget(self._split)
        self._enable()
        self._choose_wanted()

    def _on_plan_failed(self, error: KVScopeError) -> None:
        self._planning = False
        if self._plan is not None and not cancelled(error) and self.undo_stack.canUndo():
            self._complaint = text.complaint(error)  # said beside the plan without it
            self.undo_stack.undo()
            return
        if self._choices != Choices() and not cancelled(error):  # made for another engine, under which they are void
            self._complaint = text.complaint(error)
            self.undo_stack.clear()
            self._apply(Choices())
            return
        self._plan = None
        self._stale = cancelled(error)
        self._say(self.tr("Cancelled.") if cancelled(error) else text.complaint(error), failed=True)

    def _on_written(self, plan: ExportPlan, result: ExportResult) -> None:
        if self._writing is not plan:
            return
        self._writing = None
        self._result = result
        remote = plan.source.remote
        words = (
            self.tr("Written to {folder}: {size} in {seconds:.1f} s, {count} tensors compared with the source.")
            if remote is None
            else self.tr("Written to {folder}: {size} in {seconds:.1f} s. Put it beside the shards of {address}.")
        )
        self._sheet.tell(
            words.format(
                folder=result.out,
                size=text.size(result.bytes_written),
                seconds=result.seconds,
                count=result.verified,
                address=plan.source.place,
            ),
            "ok",
        )
        if self._plan is plan:  # and no other, made for another engine meanwhile
            self._sheet.show_verdicts(plan.verdict_before, result.verdict_after, judged=True)
        self.open_button.setVisible(remote is None)  # an overlay alone opens nowhere
        self._enable()
        self.written.emit(result)

    def _on_write_failed(self, plan: ExportPlan, error: KVScopeError) -> None:
        if self._writing is not plan:
            return
        self._writing = None
        words = self.tr("Cancelled; nothing was left behind.") if cancelled(error) else text.complaint(error)
        self._sheet.tell(words, "neutral" if cancelled(error) else "error")
        self._enable()

    def _say(self, words: str, *, failed: bool = False) -> None:
        self._note.say(words, icon="error" if failed else "export", tone="error" if failed else "neutral")
        self.retry_button.setVisible(failed)
        self._stack.setCurrentWidget(self._notes)

    def _enable(self) -> None:
        ready = self._plan is not None and not self._planning and not self.writing
        self.write_button.setEnabled(ready and bool(self.folder.text().strip()))
        for widget in (self.target, self.mode, self.repairs, self.scales_button):
            widget.setEnabled(not self.writing)
        self.undo_button.setEnabled(self.undo_stack.canUndo() and not self.writing)
        self.redo_button.setEnabled(self.undo_stack.canRedo() and not self.writing)
        self.undo_button.setToolTip(self.undo_stack.undoText())
        self.redo_button.setToolTip(self.undo_stack.redoText())

    # --- what the user does

    def _choose(self, choices: Choices, words: str) -> None:
        """Take up other choices, as a step that can be undone."""
        if choices != self._choices:
            self.undo_stack.push(Choosing(self._choices, choices, words, self._apply))

    def _apply(self, choices: Choices) -> None:
        self._choices = choices
        self.target.setCurrentIndex(max(0, self.target.findData(choices.target)))
        self._sheet.show_source(choices.scales_from)
        self.plan()

    def _choose_wanted(self) -> None:
        wanted, self._wanted = self._wanted, ()
        for row in filter(None, map(self.repairs.row, wanted)):
            row.box.setFocus(Qt.FocusReason.OtherFocusReason)
            if self._choices.fix_of(row.offer.code) is None:
                row.choose_first()

    def _on_target_activated(self) -> None:
        words = self.tr("target {target}").format(target=self.target.currentText())
        self._choose(replace(self._choices, target=self.target.currentData()), words)

    def _on_fix_chosen(self, code: str, value: str) -> None:
        from core.export.fixes import Fix

        fixes = (*(fix for fix in self._choices.fixes if fix.code != code), Fix(code, value))
        self._choose(replace(self._choices, fixes=fixes), f"{code}={value}" if value else code)

    def _on_fix_cleared(self, code: str) -> None:
        fixes = tuple(fix for fix in self._choices.fixes if fix.code != code)
        self._choose(replace(self._choices, fixes=fixes), self.tr("without {code}").format(code=code))
        if self._plan is not None:
            self.repairs.show_offers(offers_of(self._plan), self._choices)

    def _on_scales_clicked(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, self.tr("Take the scales from"), "", self.tr("Scales (*.json *.safetensors);;All files (*)")
        )
        if chosen:
            self._choose(replace(self._choices, scales_from=chosen), self.tr("scales from a file"))

    def _on_browse_clicked(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self, self.tr("Choose an empty folder"), str((self._place() or Path()).parent)
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


def _record(edit: TensorEdit, action: str) -> Record:
    reason = text.spoken(edit.reason)
    stored = " · ".join(
        part
        for part in (
            text.spoken(spread(edit.values)) if edit.values else "",
            edit.new_dtype or "",
            _shape(edit.new_shape) if edit.new_shape is not None else "",
        )
        if part
    )
    after = "" if edit.new_key is None and edit.action == "dropped" else (edit.new_key or edit.key)
    return Record(
        cells=(action, edit.key, after, stored, reason),
        icon=_ICONS[edit.action],
        tone=_TONES[edit.action],
        tip=reason,
        id=edit.key,
    )


def _shape(shape: tuple[int, ...]) -> str:
    return text.shape(shape) if len(shape) != 1 else f"[{shape[0]}]"
