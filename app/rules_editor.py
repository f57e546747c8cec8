"""An editor for the renaming rules of an out-of-tree backend, with what they make of the open checkpoint beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QCloseEvent
from PySide6.QtWidgets import QDialog, QFileDialog, QPlainTextEdit, QWidget

from app import text
from app.digest import Digest, digest
from app.models.records import Record, RecordTable
from app.panels.layouts import grow, horizontal, split, vertical
from app.panels.parts import Button, Chip, label
from app.panels.tables import Table
from app.session import Session
from app.theme.outcome import outcome_look, outcome_word
from app.theme.status import tone, word
from app.theme.theme import fixed_font, theme
from core.backends.rules_file import RulesFile, parse_rules
from core.errors import CancelledError, KVScopeError
from core.inspection import Inspection, reinspect
from core.progress import Progress

DELAY_MS = 250
MOST_ROWS = 2_000
_LANE = "rules"


def example() -> str:
    """The file to begin with; its comments are in the user's language."""
    order = text.translate(
        "RulesEditor",
        "Rules run in the order of their kinds, as the engine runs them. "
        "The command line takes this file with --rules.",
    )
    method = text.translate("RulesEditor", "the built-in method whose KV method takes the scales")
    kinds = text.translate("RulesEditor", "renaming, regex, substr, stacked, prefix or suffix")
    return f"""\
# {order}
name = "my-backend"
# method = "compressed-tensors"   # {method}

[[rule]]
kind = "regex"                    # {kinds}
pattern = '\\.self_attn\\.([kv])_proj\\.output_scale$'
replacement = '.self_attn.attn.\\1_scale'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What the rules would make of the checkpoint."""

    rules: RulesFile
    found: Digest = field(repr=False)


class RulesEditor(QDialog):
    """Text at the left, the outcome at the right. *Use* predicts the window's checkpoint with the saved rules."""

    def __init__(self, session: Session, parent: QWidget) -> None:
        super().__init__(parent)
        self._session = session
        self._path: Path | None = None
        self._saved = ""
        self._preview: Preview | None = None
        self.setWindowTitle(self.tr("Renaming rules"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(1040, 560)
        self.editor = QPlainTextEdit()
        self.editor.setFont(fixed_font())
        self.editor.setAccessibleName(self.tr("Rules as TOML"))
        self.editor.setTabChangesFocus(True)
        self.table = RecordTable((self.tr("Status"), self.tr("Checkpoint key"), self.tr("→ Engine parameter")))
        samples = {0: "not reached", 1: "…yers.12.self_attn.k_proj.output_scale"}
        self.view = Table(self.table, self.tr("What the rules make of the keys"), samples, names=(1, 2))
        self.verdict = Chip()
        self.words = label(wrap=True)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        right = QWidget()
        top = horizontal(self.verdict, self.words, margins=(10, 8, 10, 8))
        grow(top, self.words)
        grow(vertical(top, self.view, parent=right), self.view)
        parts = split(Qt.Orientation.Horizontal, (self.editor, 470, 1), (right, 570, 1))
        self.open_button = Button(self.tr("Open…"), "open-file")
        self.open_button.clicked.connect(self._on_open)
        self.save_button = Button(self.tr("Save as…"), "save")
        self.save_button.clicked.connect(self._on_save)
        self.use_button = Button(
            self.tr("Use"), "ok", primary=True, tip=self.tr("Predict with these rules, once saved")
        )
        self.use_button.clicked.connect(self._on_use)
        self.drop_button = Button(self.tr("Without rules"), "cancel", tip=self.tr("Predict without rules again"))
        self.drop_button.clicked.connect(self._on_drop)
        self.drop_button.setEnabled(session.choices.rules is not None)
        close = Button(self.tr("Close"), "close")
        close.clicked.connect(self.close)
        bar = horizontal(
            self.open_button, self.save_button, 1, self.drop_button, self.use_button, close, margins=(10, 8, 10, 8)
        )
        grow(vertical(parts, bar, parent=self), parts)
        self._delay = QTimer(self)
        self._delay.setSingleShot(True)
        self._delay.setInterval(DELAY_MS)
        self._delay.timeout.connect(self.preview_now)
        self.editor.textChanged.connect(self._on_text_changed)
        session.checkpoint_inspected.connect(self._on_text_changed)
        session.checkpoint_closed.connect(self.close)
        theme().changed.connect(self.table.refresh_theme)
        if session.choices.rules_file is not None and Path(session.choices.rules_file).is_file():
            self.open_path(Path(session.choices.rules_file))
        else:
            self.editor.setPlainText(example())
        self.preview_now()

    @property
    def session(self) -> Session:
        return self._session

    @property
    def preview(self) -> Preview | None:
        """What the text as it stands makes of the checkpoint; None until that is known, and while it is mistaken."""
        return self._preview

    def closeEvent(self, event: QCloseEvent) -> None:
        self._delay.stop()
        self._session.jobs.cancel(_LANE)
        super().closeEvent(event)

    # --- preview

    def _on_text_changed(self) -> None:
        # What the earlier text made of the checkpoint must not be used under the name of the new one.
        self._preview = None
        self._session.jobs.cancel(_LANE)
        self.use_button.setEnabled(False)
        self._delay.start()

    def preview_now(self) -> None:
        """Read the rules and predict, in a job; what is wrong with them is said at once."""
        self._delay.stop()
        inspection = self._session.inspection
        if inspection is None:
            return
        try:
            rules = parse_rules(self.editor.toPlainText(), self._path or Path("rules.toml"))
        except KVScopeError as error:
            self._on_failed(error)
            return
        self._session.jobs.start(
            self.tr("Trying the rules"),
            _tried(inspection, rules),
            done=self._on_previewed,
            failed=self._on_failed,
            lane=_LANE,
        )

    def _on_previewed(self, preview: Preview) -> None:
        self._preview = preview
        found = preview.found
        verdict = found.inspection.verdict
        self.verdict.show_word(outcome_word(verdict.outcome), outcome_look(verdict.outcome)[1])
        self.words.setText(text.spoken(verdict.text))
        self.table.set_records(
            [
                Record(
                    (word(row.status), row.key or self.tr("no tensor"), row.target),
                    icon=row.status,
                    tone=tone(row.status),
                    tip=text.spoken(row.reason),
                    id=row.id,
                )
                for row in found.rows[:MOST_ROWS]
            ]
        )
        self._enable()

    def _on_failed(self, error: KVScopeError) -> None:
        if isinstance(error, CancelledError):
            return
        self._preview = None
        self._session.jobs.cancel(_LANE)
        self.verdict.show_word(self.tr("Mistaken"), "error")
        self.words.setText(text.complaint(error))
        self.table.set_records(())
        self._enable()

    def _enable(self) -> None:
        self.use_button.setEnabled(self._preview is not None)
        self.save_button.setEnabled(self._preview is not None)
        self.drop_button.setEnabled(self._session.choices.rules is not None)

    # --- files

    def open_path(self, path: Path) -> None:
        """Edit a file of rules; one that cannot be read is told."""
        try:
            content = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.words.setText(self.tr("{path} was not read: {error}").format(path=path, error=error))
            return
        self._path, self._saved = path, content
        self.editor.setPlainText(content)
        self.setWindowTitle(self.tr("Renaming rules: {name}").format(name=path.name))

    def save_to(self, path: Path) -> bool:
        """Write the rules as the command line reads them; whether that went well."""
        content = self.editor.toPlainText()
        try:
            path.write_text(content, "utf-8")
        except OSError as error:
            self.words.setText(self.tr("{path} was not written: {error}").format(path=path, error=error.strerror))
            return False
        self._path, self._saved = path, content
        self.setWindowTitle(self.tr("Renaming rules: {name}").format(name=path.name))
        return True

    def _on_open(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(self, self.tr("Open rules"), "", self.tr("Rules (*.toml)"))
        if chosen:
            self.open_path(Path(chosen))

    def _on_save(self) -> bool:
        suggested = str(self._path) if self._path is not None else "rules.toml"
        chosen, _ = QFileDialog.getSaveFileName(self, self.tr("Save rules"), suggested, self.tr("Rules (*.toml)"))
        return bool(chosen) and self.save_to(Path(chosen))

    def _on_use(self) -> None:
        preview = self._preview
        if preview is None:
            return
        changed = self._path is None or self.editor.toPlainText() != self._saved
        if changed and not self._on_save():
            return
        choices = replace(
            self._session.choices,
            rules=preview.rules.mapper,
            rules_file=str(self._path),
            method=self._session.choices.method or preview.rules.method,
        )
        self._session.choose(choices)
        self._enable()

    def _on_drop(self) -> None:
        self._session.choose(replace(self._session.choices, rules=None, rules_file=None))
        self._enable()


def _tried(inspection: Inspection, rules: RulesFile) -> Callable[[Progress], Preview]:
    def work(progress: Progress) -> Preview:
        progress.start(text.translate("RulesEditor", "trying the rules"))
        wish = replace(inspection.wish, rules=rules.mapper, method=inspection.wish.method or rules.method)
        return Preview(rules=rules, found=digest(reinspect(inspection, wish=wish)))

    return work
