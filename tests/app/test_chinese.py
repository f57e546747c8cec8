"""The Chinese window on real checkpoints: nothing it shows is English but names, and what engines say themselves.

KVSCOPE_FULL=1 opens every checkpoint, otherwise every tenth.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QAbstractItemModel, QModelIndex, Qt
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QApplication,
    QLabel,
    QLineEdit,
    QListView,
    QPlainTextEdit,
    QWidget,
)

from app.language import speak
from app.window import Window
from app.workspace import TABS
from tests.app.conftest import Open
from tests.core.spoken import left_in_english
from tests.places import checkpoint_folders

Idle = Callable[[], None]
_LARGEST = 400
"""Rows of a table that are read: its texts repeat."""
_SKIPPED = {"log"}
"""The log repeats, in English, what Python's logging was told."""

_EXCEPTION = re.compile(r"\b\w+(?:Error|Exception): [^\n]*")
"""What an engine says itself."""
_GRAMMAR = re.compile(
    r"(?<![\w./'-])(?:a|the|then|gives|takes|is|are|of|and|with|at|by|for|from|not|drops)(?![\w/'=-]|\.\w)"
)
"""Words without which no English sentence does, and which no name has."""


@pytest.fixture
def chinese(qapp: QApplication) -> Iterator[None]:
    speak(qapp, "zh_CN")
    yield
    speak(qapp, "en")


def shown(root: QWidget) -> Iterator[tuple[str, str]]:
    """Every text below a widget with the name of the class that shows it, tool tips and accessible names included."""
    for widget in (root, *root.findChildren(QWidget)):
        name = type(widget).__name__
        told = (widget.toolTip(), widget.accessibleName(), widget.accessibleDescription())
        yield from ((name, text) for text in told)
        if isinstance(widget, QLabel | QAbstractButton | QLineEdit):
            yield name, widget.text()
        elif isinstance(widget, QPlainTextEdit) and widget.objectName() not in _SKIPPED:
            yield name, widget.toPlainText()
        elif isinstance(widget, QAbstractItemView):
            columns = 1 if isinstance(widget, QListView) else widget.model().columnCount()
            found = cells(widget.model(), QModelIndex(), columns)
            yield from ((f"{name} {widget.accessibleName()}", text) for text in found)


def cells(model: QAbstractItemModel, parent: QModelIndex, columns: int) -> Iterator[str]:
    for row in range(min(model.rowCount(parent), _LARGEST)):
        for column in range(columns):
            index = model.index(row, column, parent)
            for role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
                found = index.data(role)
                if isinstance(found, str):
                    yield found
            if column == 0 and model.rowCount(index):
                yield from cells(model, index, columns)


def english(text: str) -> list[str]:
    own = _EXCEPTION.sub("", text)
    return left_in_english(own) or _GRAMMAR.findall(own)


def assert_chinese(root: QWidget) -> None:
    told = dict.fromkeys(shown(root))
    found = [(name, left, text) for name, text in told if (left := english(text))]
    assert not found, "\n".join(map(str, found))


CHECKPOINTS = sorted(checkpoint_folders())
EVERY = 1 if os.environ.get("KVSCOPE_FULL") == "1" else 10


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("name", CHECKPOINTS[::EVERY])
def test_no_panel_shows_english(window: Window, idle: Idle, name: str) -> None:
    window.open_path(str(checkpoint_folders()[name]))
    idle()
    workspace = window.workspace
    for tab in TABS:
        workspace.show_tab(tab)
        idle()
    for row in list(workspace.keys.table.visible_ids())[:3]:
        workspace.selection.select([row])
        idle()
        assert_chinese(workspace.why)
    assert_chinese(window)


@pytest.mark.usefixtures("chinese")
def test_nothing_that_is_done_shows_english(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    opened("llmcompressor/llama-attn_fp8_tensor")
    workspace = window.workspace
    window.session.compare(str(samples / "modelopt/qwen3-36layers-fp8-kvfp8"))
    idle()
    workspace.show_tab("gpu")
    idle()
    workspace.gpu.forward.setChecked(True)
    workspace.gpu.run()
    idle()
    assert workspace.gpu.held.rowCount()
    workspace.show_tab("export")
    idle()
    workspace.export.folder.setText(str(tmp_path / "out"))
    workspace.export.write()
    idle()
    assert workspace.export.result is not None
    workspace.export.folder.setText(str(samples))
    workspace.export.write()
    idle()
    assert_chinese(window)


@pytest.mark.usefixtures("chinese")
def test_what_is_wrong_with_files_is_not_told_in_english(
    window: Window, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(samples / "modelopt/deepseekv3-30layers-fp8-kvfp8", folder)
    first = min(folder.glob("*.safetensors"))
    first.write_bytes(first.read_bytes()[:100])
    for path in (str(folder), str(tmp_path / "nowhere"), str(tmp_path)):
        window.open_path(path)
        idle()
        assert_chinese(window)


@pytest.mark.usefixtures("chinese")
def test_no_dialog_is_in_english(window: Window, opened: Open, idle: Idle) -> None:
    from app.dialogs import About, AddressDialog, CommandPalette
    from app.preferences import Preferences
    from app.rules_editor import RulesEditor
    from app.shortcuts import Shortcuts

    opened("modelopt/qwen3-36layers-fp8-kvfp8")
    for dialog in (
        About(window),
        AddressDialog(window),
        CommandPalette(window.actions_table, window),
        Shortcuts(window.actions_table, window.settings, window),
        Preferences(window),
        RulesEditor(window.session, window),
    ):
        idle()
        assert_chinese(dialog)
        dialog.deleteLater()
