"""Opening: samples, real checkpoints, what cannot be opened, and every way to ask for it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot

from app.session import Choices
from app.window import Window
from app.workspace import TABS
from tests.app.conftest import SAMPLES, Open
from tests.places import checkpoint_folders

LLAMA = "llmcompressor/llama-attn_fp8_tensor"
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]


def clipboard() -> str:
    return QGuiApplication.clipboard().text()


# --- opening


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_opens_with_its_verdict_and_every_panel(window: Window, opened: Open, idle: Idle, sample: str) -> None:
    opened(sample)
    workspace, digest = window.workspace, window.session.digest
    assert digest is not None
    assert workspace.banner.text == digest.inspection.verdict.text
    assert workspace.banner.certainty.text() == "PREDICTED"
    assert workspace.keys.table.rowCount() == len(digest.rows)
    assert workspace.problems.table.rowCount() == len(digest.inspection.findings)
    assert workspace.groups.tree.rowCount() > 0
    for name in TABS:
        workspace.show_tab(name)
        idle()
        assert workspace.current_tab() == name
    assert sum(len(column.methods) for column in workspace.backends.table.columns()) >= 30
    assert workspace.plot.canvas is not None
    assert not workspace.plot.canvas.isHidden()
    assert workspace.export.current_plan is not None
    assert workspace.log.text.toPlainText() == ""
    window.workspace.selection.select([digest.rows[0].id])
    idle()
    assert workspace.why.story is not None
    assert window.windowTitle() == f"{Path(sample).name} – KVScope"


def test_every_real_checkpoint_opens(window: Window, idle: Idle) -> None:
    """All of them, one after the other in one window; what cannot be judged says so in a sentence."""
    for name, folder in checkpoint_folders().items():
        if window.session.path is not None:
            window.session.open(str(folder))  # in the same tab
        else:
            window.open_path(str(folder))
        idle()
        workspace, digest = window.workspace, window.session.digest
        assert digest is not None, f"{name}: {workspace.waiting.text}"
        assert workspace.banner.text == digest.inspection.verdict.text
        assert workspace.coverage.strip.isVisibleTo(workspace) is bool(digest.columns), name
        for row in digest.rows[:1]:
            workspace.selection.select([row.id])
            workspace.why.refresh()
            assert workspace.why.story is not None, name
    assert window.workspace.log.text.toPlainText() == ""


def test_a_path_without_a_checkpoint_shows_its_sentence(window: Window, opened: Open, tmp_path: Path) -> None:
    opened(str(tmp_path / "nothing here"))
    workspace = window.workspace
    assert workspace.banner.word == "Cannot be opened"
    assert "does not exist" in workspace.waiting.text
    assert workspace.waiting.isVisible()
    assert workspace.waiting.retry_button.isVisible()
    assert not workspace.waiting.details_button.isVisible()
    assert not window.actions_table["export"].isEnabled()
    assert window.settings.recent() == []


def test_trying_again_opens_what_has_come(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    target = tmp_path / "late"
    opened(str(target))
    shutil.copytree(samples / LLAMA, target)
    window.workspace.waiting.retry_button.click()
    idle()
    assert window.session.digest is not None
    assert window.workspace.coverage.isVisible()


def test_a_corrupt_shard_is_a_red_node_and_the_rest_stays_usable(
    window: Window, opened: Open, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(samples / "llmcompressor/llama-32layers-kv_attn_head", folder)
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:1000])
    opened(str(folder))
    workspace, digest = window.workspace, window.session.digest
    assert digest is not None
    assert workspace.groups.grouping == "shards"
    tree = workspace.groups.tree
    groups = [tree.group(tree.index(row, 0)) for row in range(tree.rowCount())]
    faulty = [group for group in groups if group is not None and group.fault]
    assert [(group.label, group.pattern) for group in faulty] == [(shard.stem, shard.name)]
    assert faulty[0].children is not None
    assert shard.name in faulty[0].fault
    assert tree.data(tree.index(1, 0), Qt.ItemDataRole.ForegroundRole) is not None
    assert shard.name in tree.data(tree.index(1, 0), Qt.ItemDataRole.ToolTipRole)
    assert workspace.keys.table.rowCount() > 0
    assert "faulty file" in window.status.counts.text()
    # Nothing says that a value is missing which nobody could look for.
    current = digest.by_id[workspace.selection.current or ""]
    assert current.missing
    assert workspace.problems.detail.finding is not None
    assert workspace.problems.detail.finding.code == "broken-file"
    story = workspace.why.story
    assert story is not None
    assert f"{shard.name}: cannot be read, and may hold it." in story.beats[0].text
    assert story.beats[-1].title == "The layer would end with"
    missing = sum(row.missing for row in digest.rows)
    assert missing > 0
    assert workspace.keys._head.detail.text() == f"{len(digest.rows) - missing} scales, {missing} missing"
    assert f"{len(digest.rows) - missing} scales" in window.status.files.text()
    workspace.keys.set_filter("layer:0")
    assert workspace.keys._head.detail.text() == f"2 of {len(digest.rows)} rows"


def test_a_fault_in_a_header_is_told_with_its_byte(window: Window, opened: Open, samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(samples / "llmcompressor/llama-32layers-kv_attn_head", folder)
    shard = folder / "model-00002-of-00003.safetensors"
    stored = bytearray(shard.read_bytes())
    stored[100] = 0x01  # a control character in the header's JSON
    shard.write_bytes(stored)
    opened(str(folder))
    tree = window.workspace.groups.tree
    top = next(tree.index(row, 0) for row in range(3) if "00002" in tree.index(row, 0).data())
    window.workspace.groups.view.expand(top)
    assert "(at byte " in tree.index(0, 0, top).data()


def test_opening_another_path_while_one_loads_never_mixes_them(
    window: Window, idle: Idle, samples: Path, qtbot: QtBot
) -> None:
    shown = []
    window.session.checkpoint_inspected.connect(lambda digest: shown.append(digest.inspection.checkpoint.path.name))
    for sample in SAMPLES:
        window.open_path(str(samples / sample))
    idle()
    assert shown == [Path(SAMPLES[-1]).name]
    assert window.workspace.keys.table.rowCount() == 12


def test_cancelling_says_so_and_offers_to_retry(window: Window, idle: Idle, samples: Path) -> None:
    for _ in range(10):  # a fast machine may have opened it before the action is there to be triggered
        window.open_path(str(samples / QWEN))
        window.actions_table["stop"].trigger()
        idle()
        if window.workspace.banner.word == "Cancelled":
            break
    assert window.workspace.banner.word == "Cancelled"
    window.workspace.waiting.retry_button.click()
    idle()
    assert window.workspace.banner.word == "OK"


def test_a_path_given_before_everything_is_imported_opens_when_it_is(qtbot: QtBot, samples: Path) -> None:
    early = Window()
    qtbot.addWidget(early)
    early.show()
    early.open_path(str(samples / QWEN))
    assert not early.ready
    early.open_path(str(samples / LLAMA), select="model.layers.0.self_attn.q_scale")
    qtbot.waitUntil(lambda: early.session.digest is not None, timeout=60_000)
    assert early.session.path == str(samples / LLAMA)
    assert early.workspace.selection.current == "model.layers.0.self_attn.q_scale"
    early.close()


def test_drag_and_drop_opens(window: Window, idle: Idle, samples: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl("https://example.com/x"), QUrl.fromLocalFile(str(samples / QWEN))])
    actions, buttons = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton
    enter = QDragEnterEvent(QPoint(50, 50), actions, data, buttons, Qt.KeyboardModifier.NoModifier)
    window.dragEnterEvent(enter)
    assert enter.isAccepted()
    window.dropEvent(QDropEvent(QPointF(50, 50), actions, data, buttons, Qt.KeyboardModifier.NoModifier))
    idle()
    assert window.workspace.banner.word == "OK"
    other = QMimeData()
    other.setText("no file")
    refused = QDragEnterEvent(QPoint(50, 50), actions, other, buttons, Qt.KeyboardModifier.NoModifier)
    refused.ignore()
    window.dragEnterEvent(refused)
    assert not refused.isAccepted()


def test_dialogs_open_files_and_folders(
    window: Window, idle: Idle, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = samples / LLAMA
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    window.actions_table["open_folder"].trigger()
    idle()
    assert window.session.path == str(folder)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(folder / "model.safetensors"), ""))
    window.actions_table["open_file"].trigger()
    idle()
    assert window.session.path == str(folder / "model.safetensors")
    assert window.session.digest is not None
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    window.actions_table["open_folder"].trigger()
    assert window.session.path == str(folder / "model.safetensors")


def test_the_start_page_offers_samples_and_recent(window: Window, opened: Open, idle: Idle, samples: Path) -> None:
    cards = window.welcome.cards()
    assert [card.toolTip() for card in cards] == [str(samples / sample) for sample in SAMPLES]
    cards[0].click()
    idle()
    assert window.workspace.banner.word == "OK"
    opened(LLAMA)
    assert window.settings.recent() == [str(samples / LLAMA), str(samples / QWEN)]
    assert [action.text() for action in window.menus["recent"].actions()] == window.settings.recent()
    window.actions_table["close"].trigger()
    assert window.session.path == str(samples / QWEN)  # the other tab
    window.actions_table["close"].trigger()
    assert window.welcome.isVisible()
    assert window.windowTitle() == "KVScope"
    window.actions_table["clear_recent"].trigger()
    assert window.settings.recent() == []
    assert len([card for card in window.welcome.cards() if card.isVisibleTo(window)]) == len(SAMPLES)


def test_a_key_named_on_the_command_line_is_selected(window: Window, idle: Idle, samples: Path) -> None:
    key = "model.layers.5.self_attn.k_proj.k_scale"
    window.open_path(str(samples / QWEN), choices=Choices(method="modelopt"), select=key)
    idle()
    assert window.workspace.selection.ids == {key}
    assert window.workspace.header.method.origin == "Backend · chosen"
    window.open_path(str(samples / QWEN), select="no.such.key")
    idle()
    assert window.workspace.selection.ids == frozenset()
    assert window.status.currentMessage() == "no.such.key is not in this checkpoint"
