"""The verdict: outcome by icon and word, the sentence, whether it is predicted or observed, and what to do next."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction, QColor, QKeySequence, QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from app.observation import Observation
from app.panels.parts import Button, Chip, IconLabel, label
from app.text import spoken
from app.theme.outcome import outcome_look, outcome_word
from app.theme.palettes import Tone
from app.theme.theme import colours, theme
from core.diagnosis.finding import Verdict


class Banner(QFrame):
    """Shows a verdict, or the one sentence about what is going on instead of one."""

    fix_requested = Signal()

    def __init__(self, next_problem: QAction, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._tone: Tone = "neutral"
        self.setAccessibleName(self.tr("Verdict"))
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 8, 12, 8)
        row.setSpacing(12)
        self._icon = IconLabel("info", side=26)
        row.addWidget(self._icon)
        words = QVBoxLayout()
        words.setSpacing(0)
        self._word = QLabel()
        font = self._word.font()
        font.setPointSizeF(font.pointSizeF() * 1.2)
        font.setBold(True)
        self._word.setFont(font)
        top = QHBoxLayout()
        top.setSpacing(9)
        top.addWidget(self._word)
        self.certainty = Chip()
        top.addWidget(self.certainty)
        self._where = label(dim=True)
        self._where.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        top.addWidget(self._where, 1)
        words.addLayout(top)
        self._text = label(wrap=True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._text.setMinimumWidth(200)
        words.addWidget(self._text)
        row.addLayout(words, 1)
        self.next_button = Button(self.tr("Next problem"), "next")
        self.next_button.clicked.connect(next_problem.trigger)
        self._next_problem = next_problem
        next_problem.changed.connect(self._name_key)  # keys may be chosen by the user
        self._name_key()
        row.addWidget(self.next_button)
        self.fix_button = Button(self.tr("Fix by export"), "write", primary=True)
        self.fix_button.setToolTip(self.tr("Preview a copy of the checkpoint that this engine loads as intended"))
        self.fix_button.clicked.connect(self.fix_requested)
        row.addWidget(self.fix_button)
        theme().changed.connect(self._colour)
        self.show_message("", "")

    @property
    def text(self) -> str:
        return self._text.text()

    @property
    def word(self) -> str:
        return self._word.text()

    def show_verdict(
        self,
        verdict: Verdict,
        *,
        where: str,
        observation: Observation,
        contradiction: str,
        problems: int,
        fixable: bool,
    ) -> None:
        """Show what was found; ``where`` names engine and checkpoint, ``contradiction`` what the loader did instead."""
        icon, tone = outcome_look(verdict.outcome)
        if observation == "contradicted":
            self._show("error", "error", outcome_word(verdict.outcome), spoken(contradiction))
        else:
            self._show(icon, tone, outcome_word(verdict.outcome), spoken(verdict.text))
        self._where.setText(where)
        words: dict[Observation, tuple[str, Tone, str]] = {
            "predicted": (
                self.tr("PREDICTED"),
                "info",
                self.tr("Worked out without loading the model; Verify on GPU makes it OBSERVED"),
            ),
            "observed": (self.tr("OBSERVED"), "ok", self.tr("The loader ran, and every layer's values were read back")),
            "contradicted": (
                self.tr("CONTRADICTED"),
                "error",
                self.tr("The loader ran, and did not do what was predicted"),
            ),
        }
        word, certainty, tip = words[observation]
        self.certainty.show_word(word, certainty)
        self.certainty.setToolTip(tip)
        self.certainty.setVisible(True)
        self.next_button.setVisible(problems > 0)
        self.fix_button.setVisible(fixable)

    def show_message(self, word: str, text: str, *, icon: str = "info", tone: Tone = "neutral") -> None:
        """Show a state that is no verdict: opening, cancelled, unreadable."""
        self._show(icon, tone, word, text)
        self._where.clear()
        self.certainty.hide()
        self.next_button.hide()
        self.fix_button.hide()

    def _show(self, icon: str, tone: Tone, word: str, text: str) -> None:
        self._tone = tone
        self._icon.show_icon(icon, tone)
        self._word.setText(word)
        self._text.setText(text)
        self.setAccessibleDescription(f"{word}: {text}")
        self._colour()

    def _name_key(self) -> None:
        keys = self._next_problem.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
        self.next_button.setText("  ".join(part for part in (f" {self.next_button.accessibleName()}", keys) if part))
        self.next_button.setToolTip(self._next_problem.toolTip())

    def _colour(self) -> None:
        palette = QPalette(self._word.palette())
        palette.setColor(QPalette.ColorRole.WindowText, QColor(colours().tone(self._tone).ink))
        self._word.setPalette(palette)
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        accent = colours().tone(self._tone)
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(accent.tint))
        painter.fillRect(0, 0, 5, self.height(), QColor(accent.ink))
        painter.fillRect(0, self.height() - 1, self.width(), 1, QColor(accent.edge))
        painter.end()
