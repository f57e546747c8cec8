"""The few dialogs: commands, keyboard shortcuts, about."""

from __future__ import annotations

import platform
from importlib import metadata

from PySide6.QtCore import QEvent, QObject, Qt, Signal, qVersion
from PySide6.QtGui import QAction, QGuiApplication, QIcon, QKeyEvent, QKeySequence
from PySide6.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app.actions import Actions
from app.panels.parts import label
from app.panels.reading import Passage
from core import __version__
from resources import resource


class CommandPalette(QDialog):
    """Finds a command by parts of its name; Enter runs it."""

    def __init__(self, actions: Actions, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Commands"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(520, 380)
        self.search = QLineEdit()
        self.search.setPlaceholderText(self.tr("Type a part of a command's name"))
        self.search.setAccessibleName(self.tr("Find a command"))
        self.search.textChanged.connect(self._on_text_changed)
        self.search.installEventFilter(self)
        self.list = QListWidget()
        self.list.setAccessibleName(self.tr("Commands"))
        self.list.itemActivated.connect(self._on_item_activated)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(10, 10, 10, 10)
        rows.addWidget(self.search)
        rows.addWidget(self.list)
        self._items: list[tuple[str, QListWidgetItem, QAction]] = []
        for spec, action in actions.all():
            if spec.id == "commands":
                continue
            keys = action.shortcut().toString(QKeySequence.SequenceFormat.NativeText)
            text = f"{spec.label()}    {keys}" if keys else spec.label()
            item = QListWidgetItem(action.icon(), text)
            item.setToolTip(action.toolTip())
            if not action.isEnabled():
                item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEnabled)
            self.list.addItem(item)
            self._items.append((f"{spec.label()} {spec.tip}".lower(), item, action))
        self._choose_first()
        self.search.setFocus()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress:
            step = {Qt.Key.Key_Down: 1, Qt.Key.Key_Up: -1}.get(Qt.Key(event.key()))
            if step is not None:
                self._move(step)
                return True
            if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
                self._on_item_activated(self.list.currentItem())
                return True
        return super().eventFilter(watched, event)

    def _on_text_changed(self, text: str) -> None:
        words = text.lower().split()
        for words_of, item, _ in self._items:
            item.setHidden(not all(word in words_of for word in words))
        self._choose_first()

    def _choose_first(self) -> None:
        usable = (item for _, item, action in self._items if not item.isHidden() and action.isEnabled())
        first = next(usable, None)
        if first is not None:
            self.list.setCurrentItem(first)
        else:
            self.list.setCurrentRow(-1)

    def _move(self, step: int) -> None:
        usable = [item for _, item, action in self._items if not item.isHidden() and action.isEnabled()]
        if usable:
            current = self.list.currentItem()
            place = usable.index(current) if current in usable else -step
            self.list.setCurrentItem(usable[(place + step) % len(usable)])

    def _on_item_activated(self, chosen: QListWidgetItem | None) -> None:
        for _, item, action in self._items:
            if item is chosen and action.isEnabled():
                self.accept()
                action.trigger()
                return


class AddressDialog(QDialog):
    """Asks for the address of a checkpoint that is not on this machine."""

    chosen = Signal(str)

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("Open Address"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(560)
        self.line = QLineEdit()
        self.line.setPlaceholderText("hf://ORG/NAME")
        self.line.setAccessibleName(self.tr("Address of a checkpoint"))
        self.line.textChanged.connect(self._on_text_changed)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.accepted.connect(self._on_accepted)
        self.buttons.rejected.connect(self.reject)
        rows = QVBoxLayout(self)
        rows.addWidget(self.line)
        rows.addWidget(
            label(
                self.tr(
                    "hf://ORG/NAME@REVISION, https://host/path/model.safetensors or its index, s3://bucket/folder, "
                    "gs://bucket/folder. Configs, headers and scales are fetched, nothing else."
                ),
                dim=True,
                wrap=True,
            )
        )
        rows.addWidget(self.buttons)
        self._on_text_changed("")

    @property
    def _address(self) -> str:
        return self.line.text().strip()

    def _on_text_changed(self, _text: str) -> None:
        open_button = self.buttons.button(QDialogButtonBox.StandardButton.Open)
        open_button.setEnabled("://" in self._address and not self._address.endswith("://"))

    def _on_accepted(self) -> None:
        self.accept()
        self.chosen.emit(self._address)


class About(QDialog):
    """What this is, and which version."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle(self.tr("About KVScope"))
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setFixedWidth(440)
        picture = QLabel()
        picture.setPixmap(QIcon(str(resource("icons", "kvscope.svg"))).pixmap(56, 56))
        name = label(f"KVScope {__version__}", strong=True)
        font = name.font()
        font.setPointSizeF(font.pointSizeF() * 1.4)
        name.setFont(font)
        words = Passage(
            self.tr(
                "Inspector for the KV-cache scales of LLM checkpoints: will the engine's attention layers really "
                "receive them, and if not, why, and how is it fixed? Free software under the Apache License 2.0."
            )
        )
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        self.copy_button = buttons.addButton(self.tr("Copy for a report"), QDialogButtonBox.ButtonRole.ActionRole)
        self.copy_button.clicked.connect(self._on_copy_clicked)
        self.versions = Passage(versions(), fixed=True)
        self.versions.setAccessibleName(self.tr("Versions"))
        text = QVBoxLayout()
        text.setSpacing(6)
        text.addWidget(name)
        text.addWidget(words)
        text.addWidget(self.versions)
        line = QHBoxLayout()
        line.setSpacing(16)
        line.addWidget(picture, 0, Qt.AlignmentFlag.AlignTop)
        line.addLayout(text, 1)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(20, 18, 20, 14)
        rows.setSpacing(14)
        rows.addLayout(line)
        rows.addWidget(buttons)

    def _on_copy_clicked(self) -> None:
        QGuiApplication.clipboard().setText(versions())


def versions() -> str:
    """What a report of a fault should name: this program, what it stands on, the system. Imports none of it."""
    lines = [f"KVScope {__version__}", f"Python {platform.python_version()}", f"Qt {qVersion()}"]
    for package in ("PySide6-Essentials", "numpy", "safetensors", "torch", "pyqtgraph"):
        try:
            lines.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{package} -")
    lines.append(f"{platform.system()} {platform.release()} {platform.machine()}")
    lines.append(f"{QGuiApplication.platformName()}, {QGuiApplication.font().family()}")
    return "\n".join(lines)
