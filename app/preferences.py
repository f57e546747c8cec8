"""The settings, in one small dialog: looks, language, the engine to begin with, the limits of the rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QGroupBox,
    QLineEdit,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.language import LANGUAGES, SYSTEM
from app.panels.parts import CheckBox, label
from app.text import spoken
from app.theme.theme import MODES, theme
from core.diagnosis import Thresholds
from core.engines import DEFAULT_ENGINE, ENGINES

if TYPE_CHECKING:
    from app.window import Window


class Preferences(QDialog):
    """Takes effect with OK; a language with the next start."""

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        self._window = window
        self._settings = window.settings
        self.setWindowTitle(self.tr("Settings"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(560, 620)
        self.theme = self._box(
            self.tr("Theme"), zip(MODES, (self.tr("As the system"), self.tr("Light"), self.tr("Dark")), strict=True)
        )
        self.theme.setCurrentIndex(self.theme.findData(theme().mode))
        self.language = self._box(
            self.tr("Language"), ((SYSTEM, self.tr("As the system")), *((one.code, one.name) for one in LANGUAGES))
        )
        self.language.setCurrentIndex(max(self.language.findData(self._settings.text("language")), 0))
        self.engine = self._box(
            self.tr("Engine to begin with"), ((engine.id, engine.title) for engine in ENGINES.values())
        )
        wanted = self._settings.text("engine") or DEFAULT_ENGINE
        self.engine.setCurrentIndex(max(self.engine.findData(wanted), 0))
        self.restore = CheckBox(self.tr("Open the checkpoints of the last run again"))
        self.restore.setChecked(self._settings.text("restore") != "no")
        top = QFormLayout()
        for caption, widget in (
            (self.tr("Theme"), self.theme),
            (self.tr("Language"), self.language),
            ("", label(self.tr("Another language is spoken from the next start on."), dim=True)),
            (self.tr("Engine to begin with"), self.engine),
            ("", self.restore),
        ):
            top.addRow(caption, widget)
        self.limits: dict[str, QLineEdit] = {}
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok
            | QDialogButtonBox.StandardButton.Cancel
            | QDialogButtonBox.StandardButton.RestoreDefaults
        )
        buttons.accepted.connect(self._on_accepted)
        buttons.rejected.connect(self.reject)
        self.ok_button = buttons.button(QDialogButtonBox.StandardButton.Ok)
        self.defaults_button = buttons.button(QDialogButtonBox.StandardButton.RestoreDefaults)
        self.defaults_button.clicked.connect(self._on_defaults)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(16, 14, 16, 12)
        rows.setSpacing(12)
        rows.addLayout(top)
        rows.addWidget(self._limits_group(), 1)
        rows.addWidget(buttons)

    def _box(self, name: str, entries: object) -> QComboBox:
        box = QComboBox()
        box.setAccessibleName(name)
        for value, shown in entries:  # type: ignore[attr-defined]
            box.addItem(shown, value)
        return box

    def _limits_group(self) -> QWidget:
        """One line for each limit of the rules, with its meaning and where the number comes from."""
        group = QGroupBox(self.tr("Limits of the rules"))
        page = QWidget()
        page.setObjectName("page")
        form = QFormLayout(page)
        form.setContentsMargins(12, 8, 12, 8)
        current = self._settings.thresholds() or Thresholds()
        for row in current.table():
            field = QLineEdit(repr(row.value))
            field.textChanged.connect(self._on_limit_changed)
            field.setFixedWidth(110)
            field.setAccessibleName(row.name)
            field.setToolTip(f"{spoken(row.meaning)}\n{spoken(row.source)}")
            field.setAccessibleDescription(spoken(row.meaning))
            meaning = label(f"{row.name.replace('_', ' ')}: {spoken(row.meaning)}", wrap=True)
            meaning.setToolTip(spoken(row.source))
            form.addRow(field, meaning)
            self.limits[row.name] = field
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setWidget(page)
        column = QVBoxLayout(group)
        column.setContentsMargins(0, 6, 0, 0)
        column.addWidget(area)
        return group

    def _on_defaults(self) -> None:
        self.theme.setCurrentIndex(0)
        self.language.setCurrentIndex(0)
        self.engine.setCurrentIndex(max(self.engine.findData(DEFAULT_ENGINE), 0))
        self.restore.setChecked(True)
        for row in Thresholds().table():
            self.limits[row.name].setText(repr(row.value))

    def thresholds(self) -> Thresholds:
        """The limits as they stand in the dialog; one that cannot be a limit stays the core's own."""
        found = {row.name: self._limit(row.name, row.value) for row in Thresholds().table()}
        return Thresholds(**{name: value for name, value in found.items() if value is not None})  # type: ignore[arg-type]

    def _limit(self, name: str, own: float) -> float | None:
        """What is typed for a limit; None where it cannot be one."""
        try:
            value = type(own)(self.limits[name].text())
        except ValueError:
            return None
        return value if value > 0 and math.isfinite(value) else None

    def _on_limit_changed(self) -> None:
        wrong = {row.name for row in Thresholds().table() if self._limit(row.name, row.value) is None}
        for name, field in self.limits.items():
            if field.property("invalid") != (name in wrong):
                field.setProperty("invalid", name in wrong)
                field.style().polish(field)
        self.ok_button.setEnabled(not wrong)

    def _on_accepted(self) -> None:
        settings = self._settings
        mode = self.theme.currentData()
        theme().set_mode(mode)
        settings.set_text("theme", mode)
        self._window.commands.check_theme()
        settings.set_text("language", self.language.currentData())
        engine = self.engine.currentData()
        settings.set_text("engine", "" if engine == DEFAULT_ENGINE else engine)
        settings.set_text("restore", "" if self.restore.isChecked() else "no")
        settings.set_thresholds(self.thresholds())
        self._window.judge_by_settings()
        self.accept()
