"""The window as users drive it: open, look, select, filter, switch, close."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QComboBox, QFileDialog, QLabel, QLineEdit, QTabWidget
from pytestqt.qtbot import QtBot

from app.panels.pickers import Picker
from app.session import Choices
from app.status import Status
from app.theme.theme import theme
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
    assert [group.label for group in faulty] == [shard.name]
    assert tree.data(tree.index(1, 0), Qt.ItemDataRole.ForegroundRole) is not None
    assert shard.name in tree.data(tree.index(1, 0), Qt.ItemDataRole.ToolTipRole)
    assert workspace.keys.table.rowCount() > 0
    assert "faulty file" in window.status.counts.text()


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
    window.open_path(str(samples / QWEN))
    window.actions_table["stop"].trigger()
    idle()
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
    assert window.status.currentMessage() == "no.such.key is no scale of this checkpoint"


# --- one selection


def test_every_view_sets_and_follows_the_one_selection(window: Window, opened: Open, idle: Idle, qtbot: QtBot) -> None:
    opened(QWEN)
    workspace = window.workspace
    selection = workspace.selection
    workspace.show_tab("plot")
    idle()
    keys, strip, canvas = workspace.keys, workspace.coverage.strip, workspace.plot.canvas
    assert canvas is not None

    place = strip.place_of("v", 7)
    assert place is not None
    QTest.mouseClick(strip, Qt.MouseButton.LeftButton, pos=strip.box(place).center().toPoint())
    from_strip = "model.layers.7.self_attn.v_proj.v_scale"
    assert selection.ids == {from_strip}
    chosen = keys.view.selectionModel().selectedRows()
    assert [keys.table.id_at(index.row()) for index in chosen] == [from_strip]

    keys.view.selectRow(0)
    assert selection.ids == {"model.layers.0.self_attn.k_proj.k_scale"}

    tree = workspace.groups
    tree.view.setCurrentIndex(tree.tree.index(1, 0))
    assert len(selection.ids) == 36
    assert all(name.endswith("v_scale") for name in selection.ids)
    assert len(keys.view.selectionModel().selectedRows()) == 36

    canvas.points_chosen.emit(["model.layers.3.self_attn.k_proj.k_scale"], False)
    assert selection.ids == {"model.layers.3.self_attn.k_proj.k_scale"}
    idle()
    story = workspace.why.story
    assert story is not None
    assert story.row.layer == 3

    opened(LLAMA)
    problem = next(
        row for row in range(workspace.problems.table.rowCount())
        if workspace.problems.table.findings()[row].code == "uninitialised"
    )  # fmt: skip
    workspace.problems.choose(problem)
    assert {window.session.digest.by_id[name].role for name in selection.ids} == {"q"}  # type: ignore[union-attr]


def test_the_strip_works_by_keyboard_and_by_range(window: Window, opened: Open, qtbot: QtBot) -> None:
    opened(QWEN)
    strip, selection = window.workspace.coverage.strip, window.workspace.selection
    strip.setFocus()
    QTest.keyClick(strip, Qt.Key.Key_Right)
    assert selection.ids == {"model.layers.1.self_attn.k_proj.k_scale"}
    QTest.keyClick(strip, Qt.Key.Key_Down)
    assert selection.ids == {"model.layers.1.self_attn.v_proj.v_scale"}
    for _ in range(2):
        QTest.keyClick(strip, Qt.Key.Key_Right, Qt.KeyboardModifier.ShiftModifier)
    assert {name.split(".")[2] for name in selection.ids} == {"1", "2", "3"}
    QTest.keyClick(strip, Qt.Key.Key_End)
    assert selection.ids == {"model.layers.35.self_attn.v_proj.v_scale"}
    first, last = strip.box((0, 2)).center().toPoint(), strip.box((1, 4)).center().toPoint()
    QTest.mousePress(strip, Qt.MouseButton.LeftButton, pos=first)
    QTest.mouseMove(strip, last)
    QTest.mouseRelease(strip, Qt.MouseButton.LeftButton, pos=last)
    QTest.mouseClick(strip, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ShiftModifier, last)
    assert len(selection.ids) == 6
    QTest.mouseClick(strip, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ControlModifier, first)
    assert len(selection.ids) == 5
    ruler = QPoint(strip.box((0, 9)).center().toPoint().x(), 5)
    QTest.mouseClick(strip, Qt.MouseButton.LeftButton, pos=ruler)
    assert {name.split(".")[2] for name in selection.ids} == {"9"}
    label = QPoint(10, strip.box((1, 0)).center().toPoint().y())
    QTest.mouseClick(strip, Qt.MouseButton.LeftButton, pos=label)
    assert len(selection.ids) == 36


def test_the_strip_explains_a_cell(window: Window, opened: Open) -> None:
    opened(DEEPSEEK)
    strip = window.workspace.coverage.strip
    tip = strip.tip((0, 4))
    assert tip.startswith("k: dropped\nlayer 4, ")
    assert "model.layers.4.self_attn.k_proj.k_scale" in tip
    assert tip.endswith("ends with 1.0")
    assert strip.tip((5, 0)) == ""


def test_the_legend_counts_and_filters(window: Window, opened: Open) -> None:
    opened(LLAMA)
    workspace = window.workspace
    assert workspace.coverage.counts() == {Status.LOADED: 4, Status.SUSPICIOUS: 2}
    entry = next(
        button
        for button in workspace.coverage.findChildren(QAbstractButton)
        if button.property("status") == "suspicious"
    )
    assert entry.text() == "2 suspicious"
    entry.click()
    assert workspace.keys.filter.text() == "status:suspicious"
    assert workspace.keys.table.rowCount() == 2


def test_f8_goes_from_problem_to_problem_and_round(window: Window, opened: Open, qtbot: QtBot) -> None:
    opened(LLAMA)
    selection = window.workspace.selection
    visited = []
    for _ in range(3):
        QTest.keyClick(window, Qt.Key.Key_F8)
        visited.append(selection.current)
    assert visited[0] == visited[2] == "model.layers.0.self_attn.q_scale"
    assert visited[1] == "model.layers.1.self_attn.q_scale"
    assert window.status.currentMessage() == "Continued from the top"
    QTest.keyClick(window, Qt.Key.Key_F8, Qt.KeyboardModifier.ShiftModifier)
    assert selection.current == "model.layers.1.self_attn.q_scale"
    window.workspace.keys.view.selectRow(0)
    QTest.keyClick(window, Qt.Key.Key_F8)
    assert selection.current == "model.layers.0.self_attn.q_scale"
    window.workspace.keys.set_filter("role:k")
    QTest.keyClick(window, Qt.Key.Key_F8)  # hidden by the filter: the filter goes, not the problem
    assert window.workspace.keys.filter.text() == ""
    assert selection.current is not None
    assert selection.current.endswith("q_scale")


# --- filter and table


def test_the_filter_waits_a_moment_and_enter_does_not(window: Window, opened: Open, qtbot: QtBot) -> None:
    opened(QWEN)
    keys = window.workspace.keys
    QTest.keyClick(window, Qt.Key.Key_Slash)
    assert window.focusWidget() is keys.filter
    QTest.keyClicks(keys.filter, "layer:3 role:k")
    assert keys.table.rowCount() == 72
    qtbot.waitUntil(lambda: keys.table.rowCount() == 1, timeout=5_000)
    QTest.keyClicks(keys.filter, ",v")
    QTest.keyClick(keys.filter, Qt.Key.Key_Return)
    assert keys.table.rowCount() == 2
    QTest.keyClick(keys.filter, Qt.Key.Key_Escape)
    assert keys.table.rowCount() == 72


def test_a_mistaken_filter_is_explained(window: Window, opened: Open) -> None:
    opened(LLAMA)
    keys = window.workspace.keys
    keys.set_filter("lair:3")
    hints = [
        label.text() for label in keys.findChildren(QLabel) if label.isVisible() and "is not a field" in label.text()
    ]
    assert hints
    assert keys.filter.property("invalid") is True
    keys.set_filter("layer:1")
    assert keys.filter.property("invalid") is False
    assert keys.table.rowCount() == 6


def test_a_problem_becomes_a_filter(window: Window, opened: Open) -> None:
    opened(LLAMA)
    problems = window.workspace.problems
    problems.choose(0)
    problems.detail.filter_button.click()
    assert window.workspace.keys.filter.text() == "problem:uninitialised"
    assert window.workspace.keys.table.rowCount() == 2
    window.actions_table["clear_filter"].trigger()
    assert window.workspace.keys.table.rowCount() == 12


def test_all_tensors_are_one_switch_away(window: Window, opened: Open, idle: Idle) -> None:
    opened(LLAMA)
    workspace = window.workspace
    window.actions_table["all_tensors"].trigger()
    idle()
    assert workspace.keys.table.rowCount() == 33
    assert workspace.groups.tree.rowCount() > 6
    workspace.keys.set_filter("weight")
    workspace.keys.view.selectRow(0)
    idle()
    assert workspace.why.story is None  # a weight has no story
    window.actions_table["copy_key"].trigger()
    assert clipboard().endswith("weight")
    window.actions_table["all_tensors"].trigger()
    workspace.keys.clear_filter()
    assert workspace.keys.table.rowCount() == 12


def test_groups_change_and_filter(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    groups = window.workspace.groups
    groups.set_grouping("modules")
    assert groups.tree.rowCount() == 1
    groups.set_grouping("shards")
    groups.set_grouping("patterns")
    groups.view.doubleClicked.emit(groups.tree.index(0, 0))
    assert window.workspace.keys.table.rowCount() == 36
    window.actions_table["groups"].trigger()
    assert not groups.isVisible()


def test_copies(window: Window, opened: Open) -> None:
    opened(LLAMA)
    key = "model.layers.1.self_attn.v_scale"
    window.workspace.selection.select([key])
    window.actions_table["copy_key"].trigger()
    assert clipboard() == key
    window.actions_table["copy_row"].trigger()
    row = json.loads(clipboard())
    assert (row["key"], row["outcome"], row["target"]) == (key, "loaded", "model.layers.1.self_attn.attn.v_scale")
    assert [step["after"] for step in row["steps"]] == ["model.layers.1.self_attn.attn.v_scale"]
    window.actions_table["copy_why"].trigger()
    assert clipboard().startswith(f"{key}: loaded (vLLM 0.33.0)\n\n1. In the checkpoint\n   {key}\n")
    window.workspace.why.copy_json()
    assert json.loads(clipboard())["engine"] == "vLLM 0.33.0"
    window.actions_table["copy_report"].trigger()
    assert json.loads(clipboard())["schema"] == "kvscope.report/1"


@pytest.mark.parametrize(("name", "begins"), [("r.json", "{"), ("r.txt", ""), ("r.html", "<!")])
def test_the_report_is_saved(
    window: Window, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, begins: str
) -> None:
    opened(LLAMA)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / name), ""))
    window.actions_table["save_report"].trigger()
    saved = (tmp_path / name).read_text("utf-8")
    assert saved.startswith(begins)
    assert "uninitialised" in saved
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "no" / name), ""))
    window.actions_table["save_report"].trigger()
    assert "was not written" in window.status.currentMessage()


# --- choices


def pickers(window: Window) -> dict[str, Picker]:
    header = window.workspace.header
    return {name: getattr(header, name) for name in ("engine", "method", "architecture", "kv_cache_dtype", "dtype")}


def test_pickers_say_where_values_come_from(window: Window, opened: Open) -> None:
    opened(QWEN)
    assert {name: (picker.box.currentText(), picker.origin) for name, picker in pickers(window).items()} == {
        "engine": ("vLLM 0.33.0", "Engine · default"),
        "method": ("Auto: modelopt", "Backend · from config"),
        "architecture": ("Auto: Qwen3ForCausalLM", "Architecture · from config"),
        "kv_cache_dtype": ("Auto: auto → fp8_e4m3", "KV cache dtype · default"),
        "dtype": ("Auto: bfloat16", "Model dtype · from config"),
    }
    assert "config.json" in window.workspace.header.method.toolTip()


def test_another_backend_predicts_anew_and_can_be_taken_back(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.workspace.selection.select(["model.layers.5.self_attn.k_proj.k_scale"])
    window.workspace.header.method.pick("awq")
    idle()
    assert window.workspace.banner.word == "Degraded"
    assert window.workspace.header.method.origin == "Backend · chosen"
    assert window.workspace.selection.ids == {"model.layers.5.self_attn.k_proj.k_scale"}
    assert window.session.digest is not None
    assert Status.LOADED not in window.session.digest.counts
    window.actions_table["reset_choices"].trigger()
    idle()
    assert window.workspace.banner.word == "OK"
    assert window.workspace.header.method.origin == "Backend · from config"


def test_a_choice_the_core_refuses_is_taken_back(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.session.choose(Choices(method="no-such-method"))
    idle()
    assert "no-such-method" in window.status.currentMessage()
    assert window.session.choices == Choices()
    assert window.workspace.banner.word == "OK"


def test_menus_choose_engine_and_backend(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.menus["backends"].aboutToShow.emit()
    entries = {action.text(): action for action in window.menus["backends"].actions()}
    assert entries["Automatic"].isChecked()
    entries["awq"].trigger()
    idle()
    assert window.session.choices.method == "awq"
    window.menus["engines"].aboutToShow.emit()
    engines = window.menus["engines"].actions()
    assert [action.text() for action in engines if action.isChecked()] == ["vLLM 0.33.0"]


def test_reload_reads_the_disk_and_keeps_the_choices(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(samples / LLAMA, folder)
    opened(str(folder))
    window.workspace.header.kv_cache_dtype.pick("fp8")
    idle()
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["kv_cache_scheme"] = None
    (folder / "config.json").write_text(json.dumps(config))
    before = window.session.inspection
    window.actions_table["reload"].trigger()
    idle()
    assert window.session.inspection is not before
    assert window.session.choices.kv_cache_dtype == "fp8"
    assert window.session.inspection is not None
    assert window.session.inspection.declaration.kv_scheme != before.declaration.kv_scheme  # type: ignore[union-attr]


# --- looks, memory, keyboard


def test_light_and_dark(window: Window, opened: Open, idle: Idle) -> None:
    opened(LLAMA)
    window.workspace.show_tab("plot")
    window.workspace.selection.select(["model.layers.0.self_attn.q_scale"])
    idle()
    for name, dark in (("theme_dark", True), ("theme_light", False), ("toggle_theme", True)):
        window.actions_table[name].trigger()
        idle()
        assert theme().colours.dark is dark
        corner = window.grab().toImage().pixelColor(window.width() - 5, window.height() - 5)
        assert (corner.lightnessF() < 0.5) is dark
    assert window.settings.text("theme") == "dark"
    assert window.actions_table["theme_dark"].isChecked()


def test_sizes_are_remembered(qtbot: QtBot, samples: Path) -> None:
    first = Window()
    qtbot.addWidget(first)
    first.show()
    first.resize(960, 640)  # the offscreen screen is 800 pixels wide, and a window is not restored beyond its screen
    first.open_path(str(samples / LLAMA))
    qtbot.waitUntil(lambda: first.session.digest is not None)
    first.workspace.body.setSizes([140, 420, 300])
    sizes = first.workspace.body.sizes()
    first.close()
    second = Window()
    qtbot.addWidget(second)
    second.show()
    assert (second.width(), second.height()) == (960, 640)
    second.open_path(str(samples / LLAMA))
    qtbot.waitUntil(lambda: second.session.digest is not None)
    assert second.workspace.body.sizes() == sizes
    second.close()


def test_closing_while_something_runs_waits_for_it(window: Window, samples: Path) -> None:
    window.open_path(str(samples / QWEN))
    assert window.jobs.running()
    window.close()
    assert not window.jobs.running()


def test_every_control_has_an_accessible_name(window: Window, opened: Open, idle: Idle) -> None:
    opened(LLAMA)
    for name in TABS:
        window.workspace.show_tab(name)
        idle()
    kinds = (QAbstractButton, QComboBox, QLineEdit, QTabWidget)
    nameless = [
        widget
        for kind in kinds
        for widget in window.workspace.findChildren(kind)
        if not (widget.accessibleName() or (isinstance(widget, QAbstractButton) and widget.text()))
        and widget.focusPolicy() != Qt.FocusPolicy.NoFocus
        and not widget.objectName().startswith("qt_")
    ]
    assert nameless == []


def test_dialogs_open_and_close(window: Window, opened: Open, idle: Idle, qtbot: QtBot) -> None:
    from app.dialogs import About, CommandPalette, ShortcutHelp

    opened(LLAMA)
    for name, kind in (("about", About), ("shortcuts", ShortcutHelp), ("commands", CommandPalette)):
        window.actions_table[name].trigger()
        dialog = window.findChild(kind)
        assert dialog is not None
        assert dialog.isVisible()
        if isinstance(dialog, CommandPalette):
            QTest.keyClicks(dialog.search, "export prev")
            QTest.keyClick(dialog.search, Qt.Key.Key_Return)
            assert window.workspace.current_tab() == "export"
        else:
            dialog.close()
    idle()
