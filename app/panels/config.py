"""The checkpoint's config files and its shards' metadata, with the fields that decided something marked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QShowEvent, QTextCursor, QTextFormat
from PySide6.QtWidgets import QListWidget, QListWidgetItem, QPlainTextEdit, QTextEdit, QWidget

from app.digest import Digest
from app.models.config_text import Place, lines_of, marked, places_of
from app.panels.layouts import grow, split, vertical
from app.panels.reading import Passage
from app.text import complaint, translate
from app.theme.theme import colours, fixed_font, theme
from core.checkpoint import Checkpoint
from core.errors import KVScopeError

_FIELD = Qt.ItemDataRole.UserRole
_MOST_SHARDS = 200
_LARGEST = 4 << 20


class ConfigPanel(QWidget):
    """Files at the left, the text of the chosen one, and the fields that decided at the right; a field jumps there."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._digest: Digest | None = None
        self._stale = True
        self._marked: dict[int, Place] = {}
        self._value: Any = None
        self.files = QListWidget()
        self.files.setAccessibleName(self.tr("Config files and shards"))
        self.files.currentRowChanged.connect(self._on_file_changed)
        self.text = QPlainTextEdit()
        self.text.setReadOnly(True)
        self.text.setObjectName("log")
        self.text.setFont(fixed_font(0.95))
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setAccessibleName(self.tr("Text of the file"))
        self.fields = QListWidget()
        self.fields.setAccessibleName(self.tr("Fields that decided something"))
        self.fields.setWordWrap(True)
        self.fields.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        for listed in (self.files, self.fields):
            listed.setSpacing(2)
        self.fields.itemActivated.connect(self._on_field_chosen)
        self.fields.itemClicked.connect(self._on_field_chosen)
        self._parts = split(Qt.Orientation.Horizontal, (self.files, 220, 0), (self.text, 620, 3), (self.fields, 340, 2))
        self.gone = Passage()
        self.gone.setAccessibleName(self.tr("What is no longer there"))
        self._gone = QWidget()
        vertical(self.gone, parent=self._gone, margins=(10, 6, 10, 6))
        self._gone.hide()
        grow(vertical(self._gone, self._parts, parent=self), self._parts)
        theme().changed.connect(self._mark)

    def show_digest(self, digest: Digest | None) -> None:
        """Show another checkpoint's files, when the panel is looked at."""
        same = (
            digest is not None
            and self._digest is not None
            and digest.inspection.checkpoint is self._digest.inspection.checkpoint
        )
        self._digest = digest
        if not same:
            self._stale = True
            if self.isVisible():
                self._refresh()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._stale:
            self._refresh()

    def _refresh(self) -> None:
        self._stale = False
        self.files.clear()
        self.fields.clear()
        self.text.clear()
        self._gone.hide()
        digest = self._digest
        if digest is None:
            return
        checkpoint, sources = digest.inspection.checkpoint, digest.inspection.declaration.sources
        deciding = {source.file for source in sources}
        there = set(checkpoint.config_names())
        names = sorted(there | _kept(checkpoint, deciding), key=lambda name: (name not in deciding, name))
        for name in names:
            self._add_file(
                name, self.tr("{file}  ·  decided something").format(file=name) if name in deciding else name
            )
        if checkpoint.remote is None:
            self._tell_what_is_gone(checkpoint, [name for name in names if name not in there])
        for shard in checkpoint.shards[:_MOST_SHARDS]:
            if shard.metadata:
                self._add_file(f"\0{shard.name}", self.tr("metadata of {file}").format(file=shard.name))
        for source in sources:
            item = QListWidgetItem(str(source))
            item.setToolTip(str(source))
            item.setData(_FIELD, (source.file, source.field))
            self.fields.addItem(item)
        if self.files.count():
            self.files.setCurrentRow(0)
        else:
            self.text.setPlainText(self.tr("This checkpoint has neither a config file nor metadata."))

    def _tell_what_is_gone(self, checkpoint: Checkpoint, names: Sequence[str]) -> None:
        """Say what of the checkpoint was moved or deleted since it was opened."""
        if not checkpoint.root.exists():
            words = self.tr(
                "{path} is no longer there. Shown is what was read when it was opened; its other config files were not "
                "read. Reload opens it again once it is back."
            ).format(path=checkpoint.root)
        elif names:
            words = self.tr(
                "{files}: no longer in {path}. Shown is what was read when it was opened; Reload judges without it."
            ).format(files=", ".join(names), path=checkpoint.root)
        else:
            return
        self.gone.setPlainText(words)
        self._gone.show()

    def _add_file(self, name: str, shown: str) -> None:
        item = QListWidgetItem(shown)
        item.setData(_FIELD, name)
        item.setToolTip(name.lstrip("\0"))
        self.files.addItem(item)

    def show_file(self, name: str) -> bool:
        """Choose a file by its name; whether it is listed."""
        for row in range(self.files.count()):
            if self.files.item(row).data(_FIELD) == name:
                self.files.setCurrentRow(row)
                return True
        return False

    def marked_lines(self) -> list[str]:
        """The marked lines of the text shown."""
        text = self.text.toPlainText().split("\n")
        return [text[number].strip() for number in sorted(self._marked)]

    def _on_file_changed(self, row: int) -> None:
        digest = self._digest
        if digest is None or row < 0:
            return
        name = str(self.files.item(row).data(_FIELD))
        self._marked, self._value = {}, None
        try:
            value = self._value = _content(digest.inspection.checkpoint, name)
        except KVScopeError as error:
            self.text.setPlainText(complaint(error))
            return
        lines = lines_of(value)
        fields = [source.field for source in digest.inspection.declaration.sources if source.file == name]
        places = [place for field in fields if (place := places_of(value, field)) is not None]
        self._marked = marked(lines, places)
        first = {place: number for number, place in reversed(self._marked.items())}
        shown = [
            f"{line.text}    ◀" if number in self._marked and first[self._marked[number]] == number else line.text
            for number, line in enumerate(lines)
        ]
        self.text.setPlainText("\n".join(shown))
        self._mark()

    def _mark(self) -> None:
        """The marked lines on a tinted ground; the sign at their end says it without colour."""
        accent = colours().info
        found = []
        for number in self._marked:
            block = self.text.document().findBlockByNumber(number)
            selection = QTextEdit.ExtraSelection()
            selection.cursor = QTextCursor(block)
            selection.format.setBackground(QColor(accent.tint))
            selection.format.setProperty(QTextFormat.Property.FullWidthSelection.value, True)
            found.append(selection)
        self.text.setExtraSelections(found)

    def _on_field_chosen(self, item: QListWidgetItem) -> None:
        digest = self._digest
        file, field = item.data(_FIELD)
        if digest is None or not self.show_file(file):
            return
        place = places_of(self._value, field)
        number = next((number for number, marks in self._marked.items() if marks == place), None)
        if number is not None:
            self.text.setTextCursor(QTextCursor(self.text.document().findBlockByNumber(number)))
            self.text.centerCursor()


def _kept(checkpoint: Checkpoint, deciding: Collection[str]) -> set[str]:
    """The deciding files that were read when the checkpoint was opened, wherever they are now."""
    if checkpoint.remote is not None:
        return set()
    names = {name for name in deciding if name.endswith(".json") and checkpoint.config_fault(name) is None}
    return {name for name in names if checkpoint.config(name) is not None}


def _content(checkpoint: Checkpoint, name: str) -> Any:
    """A config file's object, or a shard's metadata."""
    if name.startswith("\0"):
        shard = next(shard for shard in checkpoint.shards if shard.name == name[1:])
        return dict(shard.metadata)
    path = checkpoint.root / name
    if path.exists() and path.stat().st_size > _LARGEST:
        raise KVScopeError(
            translate("ConfigPanel", "is too large to show here"),
            path=path,
            remedy=translate("ConfigPanel", "Open it in an editor."),
        )
    value = checkpoint.config(name)
    if value is None:
        raise KVScopeError(
            translate("ConfigPanel", "is no longer there"),
            path=path,
            remedy=translate("ConfigPanel", "Reload the checkpoint."),
        )
    return value
