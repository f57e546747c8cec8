"""The sheet beside the export's preview: the target, the repairs, both verdicts, and what else is to be said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QStandardItem, QStandardItemModel
from PySide6.QtWidgets import QGridLayout, QLineEdit

from app import text
from app.panels.layouts import grow, horizontal, vertical
from app.panels.parts import Button, Chip, clear, label
from app.panels.reading import ElidedBox, Page, Passage
from app.panels.repairs import RepairList
from app.theme.outcome import outcome_look, outcome_word
from app.theme.palettes import Tone

if TYPE_CHECKING:
    from core.diagnosis.finding import Verdict
    from core.export import ExportPlan


OVERLAY = "overlay"
"""The way of writing that leaves all shards alone."""


def action_words() -> Mapping[str, str]:
    """What an export does with a tensor, by the name the core has for it."""
    return {
        "kept": QCoreApplication.translate("ExportSheet", "kept"),
        "renamed": QCoreApplication.translate("ExportSheet", "renamed"),
        "reshaped": QCoreApplication.translate("ExportSheet", "reshaped"),
        "duplicated": QCoreApplication.translate("ExportSheet", "duplicated"),
        "dropped": QCoreApplication.translate("ExportSheet", "dropped"),
        "added": QCoreApplication.translate("ExportSheet", "added"),
        "repaired": QCoreApplication.translate("ExportSheet", "repaired"),
    }


class ExportSheet(Page):
    """Controls and words; what they do is the panel's business."""

    def __init__(self) -> None:
        super().__init__()
        self.target = ElidedBox()
        self.target.setAccessibleName(self.tr("What the copy is for"))
        self.target.addItem(self.tr("The engine above: what it takes, changing least"), "")
        self.target.addItem(self.tr("Names as they are"), "names:as-is")
        self.folder = QLineEdit()
        self.folder.setAccessibleName(self.tr("New folder"))
        self.browse_button = Button(self.tr("Browse…"), "open-folder")
        self._ways = QStandardItemModel(self)
        self.mode = ElidedBox()
        self.mode.setAccessibleName(self.tr("How unchanged bytes are written"))
        for words, mode in (
            (self.tr("Cloned where the disk can, else copied"), ""),
            (self.tr("Hard links of unchanged shards"), "link"),
            (self.tr("Cloned, or refused"), "clone"),
            (self.tr("Copied"), "copy"),
            (self.tr("Overlay: a small shard added, the others left as they are"), OVERLAY),
        ):
            item = QStandardItem(words)
            item.setData(mode, Qt.ItemDataRole.UserRole)
            self._ways.appendRow(item)
        self.mode.setModel(self._ways)
        self._elsewhere = Passage(
            self.tr(
                "This checkpoint is not on this machine, and a copy would download all of it. An overlay fetches no "
                "shard: it is a small one and an index, to be put beside the shards or uploaded there. For a copy, "
                "download the checkpoint first and open that folder."
            ),
            small=True,
        )
        self._elsewhere.hide()
        self.write_button = Button(self.tr("Write"), "export", primary=True)
        self.open_button = Button(self.tr("Open the result"), "open-folder")
        self.open_button.hide()
        self.repairs = RepairList()
        self.undo_button = Button(self.tr("Undo"), "undo")
        self.redo_button = Button(self.tr("Redo"), "redo")
        self.scales_button = Button(self.tr("Take scales from…"), "open-file")
        self._scales = label(dim=True)
        self._scales.hide()
        self._summary = label(wrap=True)
        self._message = Passage()
        self._message.hide()
        self._arrange()

    def _arrange(self) -> None:
        form = QGridLayout()
        form.setHorizontalSpacing(8)
        form.setVerticalSpacing(6)
        form.setColumnStretch(1, 1)
        form.addWidget(label(self.tr("For"), dim=True), 0, 0)
        form.addWidget(self.target, 0, 1, 1, 2)
        form.addWidget(label(self.tr("New folder"), dim=True), 1, 0)
        form.addWidget(self.folder, 1, 1)
        form.addWidget(self.browse_button, 1, 2)
        form.addWidget(label(self.tr("Written"), dim=True), 2, 0)
        form.addWidget(self.mode, 2, 1, 1, 2)
        form.addWidget(self._elsewhere, 3, 1, 1, 2)
        line = horizontal(self._summary, self.write_button)
        grow(line, self._summary)
        self._verdicts = QGridLayout()
        self._verdicts.setHorizontalSpacing(10)
        self._verdicts.setVerticalSpacing(5)
        self._verdicts.setColumnStretch(2, 1)
        self._configs = vertical(spacing=5)
        self._details = vertical(spacing=5)
        head = horizontal(
            label(self.tr("Repairs"), strong=True), 1, self.scales_button, self.undo_button, self.redo_button
        )
        result = horizontal(self.open_button, 1)
        parts = (
            form, line, self._message, result, self._verdicts, head, self._scales, self.repairs, self._configs,
            self._details, 1,
        )  # fmt: skip
        vertical(*parts, parent=self.page, margins=(14, 10, 8, 10), spacing=8)

    @property
    def message(self) -> str:
        """What became of planning and writing."""
        return self._message.toPlainText()

    def show_place(self, *, elsewhere: bool) -> None:
        """``elsewhere``: the checkpoint is not on this machine; an overlay alone can be written, and it says why."""
        self._elsewhere.setVisible(elsewhere)
        why = self.tr("A copy would download the whole checkpoint.")
        for row in range(self._ways.rowCount()):
            item = self._ways.item(row)
            possible = not elsewhere or item.data(Qt.ItemDataRole.UserRole) == OVERLAY
            item.setEnabled(possible)
            item.setToolTip("" if possible else why)
        self.mode.setCurrentIndex(self.mode.findData(OVERLAY if elsewhere else ""))

    def tell(self, words: str, tone: Tone) -> None:
        """Say what became of it, in place of what was said before."""
        self._message.setProperty("wrong", tone == "error")
        self._message.style().polish(self._message)
        self._message.setPlainText(words)
        self._message.setVisible(bool(words))

    def show_source(self, path: str) -> None:
        """Where the scales are taken from, "" for the checkpoint's own."""
        self._scales.setText(self.tr("Scales from {path}").format(path=path))
        self._scales.setVisible(bool(path))

    def show_plan(self, plan: ExportPlan, *, cache: str = "") -> None:
        """The plan in numbers and words, with the verdict that is predicted for the result.

        ``cache`` is the KV cache's dtype that it was judged with, where that is not the window's.
        """
        counted: Counter[str] = Counter(edit.action for edit in plan.edits)
        parts = [f"{text.count(counted[action])} {word}" for action, word in action_words().items() if counted[action]]
        elsewhere = plan.source.remote is not None
        words = (
            self.tr("{changes}; names: {names}.") if elsewhere else self.tr("{changes}; names: {names}. Needs {space}.")
        )
        self._summary.setText(
            words.format(
                changes=", ".join(parts) or self.tr("no scale changes"),
                names=self.tr("as they are") if plan.names == "as-is" else plan.names,
                space=text.size(plan.space_needed),
            )
        )
        self.show_verdicts(plan.verdict_before, plan.verdict_predicted, judged=False)
        clear(self._configs)
        for edit in plan.config_edits:
            self._configs.addWidget(label(self.tr("{file} changes").format(file=edit.file), strong=True))
            self._configs.addWidget(Passage(text.spoken(edit.reason)))
            self._configs.addWidget(Passage("\n".join(edit.diff.splitlines()[2:]), fixed=True))
        clear(self._details)
        if cache:
            judged = self.tr("Judged with --kv-cache-dtype {dtype}, under which the scales are used.")
            self._detail("", judged.format(dtype=cache))
        for missed in plan.unreachable:
            self._detail(
                self.tr("{count} keys stay unreachable").format(count=len(missed.keys)), text.spoken(missed.reason)
            )
        for note in plan.notes:
            self._detail("", text.spoken(note))
        if plan.files_copied and not elsewhere:
            self._detail(self.tr("Copied as they are"), ", ".join(plan.files_copied))

    def show_verdicts(self, before: Verdict, after: Verdict, *, judged: bool) -> None:
        """Both verdicts; ``judged``: the second one is that on the written result."""
        clear(self._verdicts)
        lines = ((self.tr("Before"), before), (self.tr("After") if judged else self.tr("Predicted"), after))
        for row, (caption, verdict) in enumerate(lines):
            self._verdicts.addWidget(label(caption, dim=True), row, 0, Qt.AlignmentFlag.AlignTop)
            chip = Chip(outcome_word(verdict.outcome), outcome_look(verdict.outcome)[1])
            self._verdicts.addWidget(chip, row, 1, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
            self._verdicts.addWidget(Passage(text.spoken(verdict.text)), row, 2)

    def _detail(self, caption: str, words: str) -> None:
        if caption:
            self._details.addWidget(label(caption, dim=True))
        self._details.addWidget(Passage(words))
