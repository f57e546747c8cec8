"""Writing renaming rules while the open checkpoint shows what they do; saved as the file the command line takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog

from app import cli
from app.rules_editor import RulesEditor
from app.status import Status
from app.theme.status import word
from app.theme.theme import colours, theme
from app.window import Window
from tests.app.conftest import Open

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
DROPPING = """
name = "mine"
[[rule]]
kind = "regex"
pattern = '\\.[kv]_scale$'
drop = true
"""
Idle = Callable[[], None]


@pytest.fixture
def editor(window: Window, opened: Open, idle: Idle) -> RulesEditor:
    opened(QWEN)
    window.actions_table["rules"].trigger()
    idle()
    found = window.findChild(RulesEditor)
    assert found is not None
    return found


def test_the_template_is_valid_and_previewed(editor: RulesEditor) -> None:
    assert editor.preview is not None
    assert editor.preview.rules.name == "my-backend"
    assert editor.table.rowCount() == 72
    assert editor.verdict.text()


def test_what_is_typed_is_tried_at_once(editor: RulesEditor, window: Window, idle: Idle) -> None:
    editor.editor.setPlainText(DROPPING)
    editor.preview_now()
    idle()
    assert editor.verdict.text() == "Degraded"
    statuses = {editor.table.index(row, 0).data() for row in range(editor.table.rowCount())}
    assert "dropped" in statuses
    assert window.workspace.banner.word == "OK"  # a preview changes nothing
    editor.editor.setPlainText("[[rule]]\nkind = 'regex'\npattern = '('\nreplacement = ''")
    editor.preview_now()
    idle()
    assert editor.verdict.text() == "Mistaken"
    assert "rules.toml" in editor.words.text()
    assert editor.preview is None
    assert not editor.use_button.isEnabled()
    editor.editor.setPlainText("[[rule]]\nkind = 'regex'\npattern = '(\\w|[a-z]|\\.)+\\d$'\nreplacement = ''")
    editor.preview_now()
    idle()
    assert "rules.toml, rule 1: the pattern" in editor.words.text()
    assert "did not come to an end" in editor.words.text()
    editor.editor.setPlainText("name = ")
    editor.preview_now()
    assert "is not TOML" in editor.words.text()


def test_rules_are_saved_used_and_repeated_by_the_command_line(
    editor: RulesEditor,
    window: Window,
    idle: Idle,
    samples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "mine.toml"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(file), ""))
    editor.editor.setPlainText(DROPPING)
    editor.preview_now()
    idle()
    editor.use_button.click()
    idle()
    assert file.read_text("utf-8") == DROPPING
    assert window.workspace.banner.word == "Degraded"
    window.actions_table["copy_command"].trigger()
    command = QGuiApplication.clipboard().text()
    assert command == f"kvscope check {samples / QWEN} --rules {file}"
    cli.main([*command.split()[1:], "--json"])
    report = json.loads(capsys.readouterr().out)
    assert window.session.inspection is not None
    assert report["verdict"]["text"] == window.session.inspection.verdict.text
    editor.close()
    window.actions_table["rules"].trigger()
    idle()
    again = window.findChildren(RulesEditor)[-1]
    assert again.editor.toPlainText() == DROPPING
    again.drop_button.click()
    idle()
    assert window.workspace.banner.word == "OK"
    again.close()


def test_files_that_cannot_be_read_or_written_are_told(
    editor: RulesEditor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(tmp_path / "no.toml"), ""))
    editor.open_button.click()
    assert "no.toml was not read" in editor.words.text()
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "no" / "x.toml"), ""))
    editor.save_button.click()
    assert "x.toml was not written" in editor.words.text()


def test_closing_the_checkpoint_closes_the_editor(editor: RulesEditor, window: Window, idle: Idle) -> None:
    editor.editor.setPlainText(DROPPING)
    window.actions_table["close"].trigger()
    idle()
    assert not any(found.isVisible() for found in window.findChildren(RulesEditor))


def test_rules_are_not_used_before_they_were_tried(editor: RulesEditor, idle: Idle) -> None:
    assert editor.use_button.isEnabled()
    editor.editor.setPlainText(DROPPING)
    assert editor.preview is None
    assert not editor.use_button.isEnabled()
    editor.preview_now()
    editor.editor.setPlainText(DROPPING.replace("mine", "other"))
    idle()
    editor.preview_now()
    idle()
    assert editor.preview is not None
    assert editor.preview.rules.name == "other"
    assert editor.use_button.isEnabled()


def test_the_table_follows_the_theme(editor: RulesEditor) -> None:
    theme().set_mode("dark")
    ink = editor.table.index(0, 0).data(Qt.ItemDataRole.ForegroundRole).color().name()
    record = editor.table.record(0)
    assert record is not None
    assert ink == colours().tone(record.tone).ink.lower()


def test_each_checkpoint_has_one_editor(editor: RulesEditor, window: Window) -> None:
    window.actions_table["rules"].trigger()
    assert window.findChildren(RulesEditor) == [editor]


def test_each_status_has_its_own_shape(editor: RulesEditor, idle: Idle) -> None:
    editor.editor.setPlainText(DROPPING)
    editor.preview_now()
    idle()
    for row in range(editor.table.rowCount()):
        record = editor.table.record(row)
        assert record is not None
        shown = editor.table.index(row, 0).data(Qt.ItemDataRole.DecorationRole)
        assert shown.cacheKey() == theme().status_icon(Status(record.icon)).cacheKey()
        assert word(Status(record.icon)) == record.cells[0]
