"""The keyboard shortcuts: every command by menu, with keys that can be changed; no key stands for two commands."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from PySide6.QtCore import QCoreApplication, Qt
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFrame,
    QGridLayout,
    QKeySequenceEdit,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.actions import MENUS, SUBMENUS, Actions, Spec
from app.panels.parts import label
from app.settings import Settings
from app.text import unmarked


class Shortcuts(QDialog):
    """Each field takes the keys that are pressed in it. A command with several keys gets the one that is given."""

    def __init__(self, actions: Actions, settings: Settings, parent: QWidget) -> None:
        super().__init__(parent)
        self._actions, self._settings = actions, settings
        self.fields: dict[str, QKeySequenceEdit] = {}
        self._before = {spec.id: tuple(key.toString() for key in action.shortcuts()) for spec, action in actions.all()}
        self._names: dict[str, str] = {}
        self.setWindowTitle(self.tr("Keyboard Shortcuts"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(620, 620)
        area = QScrollArea()
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setWidget(self._page())
        self.clash = label(wrap=True)
        self.clash.setContentsMargins(16, 4, 16, 0)
        self.clash.setProperty("wrong", True)
        standard = QDialogButtonBox.StandardButton
        self._buttons = QDialogButtonBox(standard.Ok | standard.Cancel | standard.RestoreDefaults)
        self._buttons.accepted.connect(self._on_accepted)
        self._buttons.rejected.connect(self.reject)
        self._buttons.button(standard.RestoreDefaults).clicked.connect(self._on_defaults)
        buttons = QVBoxLayout()
        buttons.setContentsMargins(12, 0, 12, 0)
        buttons.addWidget(self._buttons)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 10)
        rows.addWidget(area)
        rows.addWidget(self.clash)
        rows.addLayout(buttons)
        self._check()

    @property
    def ok(self) -> QPushButton:
        return self._buttons.button(QDialogButtonBox.StandardButton.Ok)

    def _page(self) -> QWidget:
        page = QWidget()
        page.setObjectName("page")
        grid = QGridLayout(page)
        grid.setContentsMargins(16, 12, 16, 12)
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        row = 0
        for menu, title in MENUS.items():
            specs = [spec for spec, _ in self._actions.all() if SUBMENUS.get(spec.menu, spec.menu) == menu]
            if not specs or menu in SUBMENUS:
                continue
            heading = label(unmarked(QCoreApplication.translate("Actions", title)), strong=True)
            heading.setContentsMargins(0, 8 if row else 0, 0, 2)
            grid.addWidget(heading, row, 0, 1, 3)
            row += 1
            for spec in specs:
                self._add(grid, row, spec)
                row += 1
        words = self.tr("In the coverage strip: arrow keys move, Shift extends, Ctrl+click adds.")
        extra = label(words, dim=True, wrap=True)
        extra.setContentsMargins(0, 10, 0, 0)
        grid.addWidget(extra, row, 0, 1, 3)
        grid.setRowStretch(row + 1, 1)
        return page

    def _add(self, grid: QGridLayout, row: int, spec: Spec) -> None:
        keys = [QKeySequence(each) for each in self._before[spec.id]]
        field = QKeySequenceEdit(keys[0] if keys else QKeySequence())
        field.setMaximumSequenceLength(1)
        field.setClearButtonEnabled(True)
        field.setAccessibleName(self.tr("Keys of {command}").format(command=spec.label()))
        field.setFixedWidth(170)
        field.keySequenceChanged.connect(self._check)
        self.fields[spec.id], self._names[spec.id] = field, spec.label()
        others = "  ,  ".join(key.toString(QKeySequence.SequenceFormat.NativeText) for key in keys[1:])
        grid.addWidget(label(spec.label()), row, 0)
        grid.addWidget(field, row, 1)
        grid.addWidget(label(others, dim=True), row, 2)

    def keys(self) -> Mapping[str, tuple[str, ...]]:
        """The keys of each command as they stand in the dialog; further keys stay while the first is the old one."""
        found = {}
        for name, field in self.fields.items():
            old, first = self._before[name], field.keySequence().toString()
            found[name] = old if first and old[:1] == (first,) else (first,) if first else ()
        return found

    def _check(self) -> None:
        """Say which keys stand for two commands; such a choice cannot be kept."""
        users = defaultdict(list)
        for name, keys in self.keys().items():
            for key in keys:
                users[key].append(self._names[name])
        words = [
            self.tr("{keys} stands for {commands}.").format(
                keys=QKeySequence(key).toString(QKeySequence.SequenceFormat.NativeText), commands=", ".join(names)
            )
            for key, names in users.items()
            if len(names) > 1
        ]
        self.clash.setText(" ".join([*words, self.tr("Choose other keys for all but one.")]) if words else "")
        self.clash.setVisible(bool(words))
        self.ok.setEnabled(not words)

    def _on_defaults(self) -> None:
        for name, field in self.fields.items():
            self._before[name] = own = self._actions.spec(name).keys
            field.setKeySequence(QKeySequence(own[0]) if own else QKeySequence())

    def _on_accepted(self) -> None:
        chosen = self.keys()
        for name, keys in chosen.items():
            self._actions.set_keys(name, keys)
        own = {name: self._actions.spec(name).keys for name in chosen}
        self._settings.set_keys({name: keys for name, keys in chosen.items() if keys != own[name]})
        self.accept()
