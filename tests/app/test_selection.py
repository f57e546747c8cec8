"""One selection in every view, and the filter."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QFileDialog, QLabel, QStyle, QStyledItemDelegate, QStyleOptionViewItem
from pytestqt.qtbot import QtBot

from app.models.query import FIELDS
from app.status import Status
from app.window import Window
from tests.app.conftest import Open

LLAMA = "llmcompressor/llama-attn_fp8_tensor"
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]


def clipboard() -> str:
    return QGuiApplication.clipboard().text()


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
    workspace.why.refresh()
    story = workspace.why.story
    assert story is not None
    assert story.row.layer == 3

    opened(LLAMA)
    workspace = window.workspace  # each checkpoint has one of its own
    selection = workspace.selection
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
    visited = [selection.current]  # a checkpoint opens at its worst problem
    for _ in range(2):
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
    qtbot.waitUntil(lambda: keys.table.rowCount() == 1, timeout=60_000)
    QTest.keyClicks(keys.filter, ",v")
    QTest.keyClick(keys.filter, Qt.Key.Key_Return)
    assert keys.table.rowCount() == 2
    QTest.keyClick(keys.filter, Qt.Key.Key_Escape)
    assert keys.table.rowCount() == 72


def test_a_mistaken_filter_is_explained(window: Window, opened: Open) -> None:
    opened(LLAMA)
    keys = window.workspace.keys
    for mistaken, hint in (
        ("lair:3", f"lair: is not a field; there are {', '.join(f'{field}:' for field in FIELDS)}"),
        ("layer:first", "layer:first is not understood; try layer:0-7 or layer:3"),
        ("value:high", "value:high is not understood; try value:>0.5 or value:nan"),
        ("shape:²", "shape:² is not understood; try shape:scalar or shape:128x1"),
    ):
        keys.set_filter(mistaken)
        assert hint in [label.text() for label in keys.findChildren(QLabel) if label.isVisible()]
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


def test_a_plain_tensor_stays_selected_under_another_engine(window: Window, opened: Open, idle: Idle) -> None:
    opened(LLAMA)
    window.actions_table["all_tensors"].trigger()
    idle()
    window.workspace.selection.select(["model.norm.weight", "no such tensor"])
    window.session.choose(window.session.choices.with_engine("sglang-0.5.23"))
    idle()
    assert window.workspace.selection.ids == {"model.norm.weight"}


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


def test_copies(window: Window, opened: Open, idle: Idle) -> None:
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
    assert window.jobs.running()  # a report of a large checkpoint takes longer than a window may halt
    idle()
    assert json.loads(clipboard())["schema"] == "kvscope.report/1"


@pytest.mark.parametrize(("name", "begins"), [("r.json", "{"), ("r.txt", ""), ("r.html", "<!")])
def test_the_report_is_saved(
    window: Window, opened: Open, idle: Idle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, begins: str
) -> None:
    opened(LLAMA)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / name), ""))
    window.actions_table["save_report"].trigger()
    idle()
    saved = (tmp_path / name).read_text("utf-8")
    assert saved.startswith(begins)
    assert "uninitialised" in saved
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "no" / name), ""))
    window.actions_table["save_report"].trigger()
    idle()
    assert "was not written" in window.status.currentMessage()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_what_no_encoding_holds_is_saved_escaped(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a folder may be any bytes; the command line escapes them in the same way."""
    folder = tmp_path / os.fsdecode(b"model-\xff")
    shutil.copytree(samples / LLAMA, folder)
    opened(str(folder))
    for ending in ("json", "html", "txt"):
        target = tmp_path / f"report.{ending}"
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, target=target: (str(target), ""))
        window.actions_table["save_report"].trigger()
        idle()
        assert "uninitialised" in target.read_text("utf-8"), window.status.currentMessage()


def test_a_report_without_an_ending_gets_that_of_its_kind(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "Qwen2.5-7B"
    folder.symlink_to(samples / QWEN)
    opened(str(folder))
    asked: list[str] = []
    json_kind = str(tmp_path / "rep"), "JSON (*.json)"
    answers = [(str(tmp_path / "Qwen2.5-rep"), "HTML (*.html)"), json_kind, json_kind, ("", "")]

    def ask(_parent: object, _title: str, suggested: str, _kinds: str) -> tuple[str, str]:
        asked.append(suggested)
        return answers[len(asked) - 1]

    monkeypatch.setattr(QFileDialog, "getSaveFileName", ask)
    for _ in range(3):
        window.actions_table["save_report"].trigger()
        idle()
    assert Path(asked[0]).name == "Qwen2.5-7B-kvscope.html"
    assert (tmp_path / "Qwen2.5-rep.html").read_text("utf-8").startswith("<!")
    assert json.loads((tmp_path / "rep.json").read_text("utf-8"))["schema"]
    assert not (tmp_path / "rep").exists()
    assert asked[3] == str(tmp_path / "rep.json")  # nobody agreed to replace it


def test_a_checkpoint_opens_with_the_story_of_its_worst_problem(window: Window, opened: Open) -> None:
    opened("quark/gemma3-26layers-fp8-kvfp8")
    assert window.workspace.selection.current == "model.layers.0.self_attn.k_proj.output_scale"
    story = window.workspace.why.story
    assert story is not None
    assert "AttributeError" in story.as_text()
    opened("modelopt/qwen3-36layers-fp8-kvfp8")
    assert window.workspace.selection.current == "model.layers.0.self_attn.k_proj.k_scale"


def test_groups_are_told_apart_where_their_names_do_not_fit(window: Window, opened: Open, shared: Path) -> None:
    opened(str(shared / "checkpoints/modelopt/trtllm-llama-fp8-kvfp8-outlier"))
    view = window.workspace.groups.view
    shown = set()
    for row in range(view.model().rowCount()):
        index = view.model().index(row, 0)
        option = QStyleOptionViewItem()
        delegate = view.itemDelegateForIndex(index)
        assert isinstance(delegate, QStyledItemDelegate)
        delegate.initStyleOption(option, index)
        room = view.columnWidth(0) - view.indentation() - view.iconSize().width() - 12
        shown.add(view.fontMetrics().elidedText(option.text, option.textElideMode, room))
    assert len(shown) == view.model().rowCount() == 3


@pytest.mark.parametrize(
    ("sample", "patterns"), [("llmcompressor/whisper-kvonly", 6), ("modelopt/t5-fp8-kvfp8", 6)], ids=["whisper", "t5"]
)
def test_patterns_are_told_apart_at_the_width_that_they_have(
    window: Window, opened: Open, shared: Path, sample: str, patterns: int
) -> None:
    opened(str(shared / "checkpoints" / sample))
    view = window.workspace.groups.view
    assert view.model().rowCount() == patterns
    shown = set()
    for row in range(patterns):
        index = view.model().index(row, 0)
        option = QStyleOptionViewItem()
        option.initFrom(view)
        option.rect = view.visualRect(index)
        delegate = view.itemDelegateForIndex(index)
        assert isinstance(delegate, QStyledItemDelegate)
        delegate.initStyleOption(option, index)
        assert option.rect.right() < view.viewport().width()
        room = view.style().subElementRect(QStyle.SubElement.SE_ItemViewItemText, option, view).width() - 8
        shown.add(view.fontMetrics().elidedText(option.text, option.textElideMode, room))
    assert len(shown) == patterns, shown


def test_scattered_rows_are_never_held_against_those_selected_before(
    window: Window, opened: Open, qtbot: QtBot
) -> None:
    """Qt does so range by range: two patterns of 23,000 tensors each took it seven seconds."""
    opened("modelopt/qwen3-36layers-fp8-kvfp8")
    workspace = window.workspace
    model = workspace.keys.view.selectionModel()
    shown = list(workspace.keys.table.visible_ids())
    workspace.selection.select(shown[::2])
    for chosen in (shown[1::2], shown[::2]):
        with qtbot.waitSignal(model.selectionChanged, timeout=60_000) as blocker:
            workspace.selection.select(chosen)
        assert blocker.args is not None
        assert blocker.args[1].isEmpty()
        assert [index.row() for index in model.selectedRows()] == [shown.index(name) for name in chosen]
    with qtbot.waitSignal(model.selectionChanged, timeout=60_000) as blocker:
        workspace.keys.view.selectAll()
    assert blocker.args is not None
    assert blocker.args[1].isEmpty()
    assert workspace.selection.ids == set(shown)


def test_the_row_to_begin_with_is_wholly_on_screen(window: Window, samples: Path, idle: Idle, qtbot: QtBot) -> None:
    window.open_path(str(samples / DEEPSEEK), select="model.layers.7.self_attn.v_proj.v_scale")
    idle()
    view, table = window.workspace.keys.view, window.workspace.keys.table
    place = table.position_of(window.workspace.selection.current or "")
    assert place == 15
    qtbot.waitUntil(lambda: view.viewport().rect().contains(view.visualRect(table.index(place, 0))), timeout=60_000)
