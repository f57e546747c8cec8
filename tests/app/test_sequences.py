"""What is on show after one thing was done while another was under way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from app.panels.export import ExportPanel
from app.window import Window
from core.diagnosis import Thresholds
from tests.app.conftest import Open

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
HEADS = "llmcompressor/llama-32layers-kv_attn_head"
Idle = Callable[[], None]


def _planned(window: Window, idle: Idle) -> ExportPanel:
    window.workspace.show_tab("export")
    idle()
    return window.workspace.export


def test_an_export_is_not_written_while_another_plan_is_made(
    window: Window, opened: Open, idle: Idle, tmp_path: Path
) -> None:
    opened(GEMMA)
    panel = _planned(window, idle)
    panel.folder.setText(str(tmp_path / "out"))
    row = panel.repairs.row("swap")
    assert row is not None
    row.box.click()
    assert not panel.write_button.isEnabled()
    panel.write()
    assert not panel.writing
    idle()
    assert panel.current_plan is not None
    assert [fix.code for fix in panel.current_plan.fixes] == ["swap"]
    assert panel.write_button.isEnabled()


def test_another_checkpoint_does_not_show_what_was_written_of_the_one_before(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    opened(GEMMA)
    panel = _planned(window, idle)
    panel.folder.setText(str(tmp_path / "out"))
    panel.write()
    assert panel.writing
    window.actions_table["close"].trigger()
    window.open_path(str(samples / QWEN))
    idle()
    panel = window.workspace.export
    assert panel.result is None
    assert panel.message == ""
    assert not panel.writing
    assert panel.write_button.isEnabled()


def test_another_engine_does_not_show_the_verdicts_of_what_is_being_written(
    window: Window, opened: Open, idle: Idle, tmp_path: Path
) -> None:
    opened(GEMMA)
    panel = _planned(window, idle)
    panel.folder.setText(str(tmp_path / "mine"))
    panel.write()
    window.actions_table["undo"].trigger()
    window.session.choose(window.session.choices.with_engine("sglang-0.5.23"))
    idle()
    assert panel.result is not None
    assert panel.result.out == tmp_path / "mine"
    assert panel.folder.text() == str(tmp_path / "mine")
    assert panel.current_plan is not None
    assert "SGLang" in panel.current_plan.verdict_before.text


def test_a_home_that_does_not_exist_is_told(window: Window, opened: Open, idle: Idle) -> None:
    opened(GEMMA)
    panel = _planned(window, idle)
    panel.folder.setText("~nobody-of-that-name/out")
    panel.write()
    assert panel.message == "~nobody-of-that-name/out: no such user"


def test_a_folder_that_is_gone_is_told(window: Window, idle: Idle, samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "qwen"
    shutil.copytree(samples / QWEN, folder)
    window.open_path(str(folder))
    idle()
    shutil.rmtree(folder)
    panel = _planned(window, idle)
    assert "cannot be read for copying: No such file or directory" in panel.note
    assert "unexpected" not in panel.note


def test_the_comparison_is_linked_after_reading_again(window: Window, opened: Open, idle: Idle, samples: Path) -> None:
    opened(QWEN)
    window.session.compare(str(samples / HEADS))
    idle()
    panel = window.workspace.compare
    linked = sum(panel.id_of(row) is not None for row in panel.table.rows())
    assert linked == 72
    window.session.reload()
    idle()
    assert sum(panel.id_of(row) is not None for row in panel.table.rows()) == linked


def test_what_is_cancelled_is_taken_back(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    session = window.session
    session.choose(session.choices.with_engine("sglang-0.5.23"))
    session.set_thresholds(Thresholds(large=0.001))
    session.choose(session.choices.with_engine("vllm-0.22.1"))
    window.jobs.cancel_all()
    idle()
    assert session.inspection is not None
    assert session.inspection.settings.engine.value == (session.choices.engine or "vllm-0.33.0")
    # None, where nothing was judged again before it was cancelled, is the usual limits too.
    assert (session.inspection.thresholds or Thresholds()) == (session.thresholds or Thresholds())


def test_limits_that_are_set_while_a_checkpoint_opens_hold_for_it(window: Window, idle: Idle, samples: Path) -> None:
    window.open_path(str(samples / QWEN))
    window.session.set_thresholds(Thresholds(large=0.001))
    idle()
    assert window.session.inspection is not None
    assert window.session.inspection.thresholds == Thresholds(large=0.001)


def test_a_problem_is_chosen_again_by_a_click(qtbot: QtBot, window: Window, opened: Open, idle: Idle) -> None:
    opened(GEMMA)
    problems, selection = window.workspace.problems, window.workspace.selection
    where = problems.view.visualRect(problems.table.index(0, 0)).center()
    QTest.mouseClick(problems.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    chosen = selection.ids
    assert len(chosen) > 1
    selection.select([next(iter(sorted(chosen)))])
    QTest.mouseClick(problems.view.viewport(), Qt.MouseButton.LeftButton, pos=where)
    assert selection.ids == chosen


@pytest.mark.parametrize("dark", [True, False])
def test_the_theme_changes_at_once_in_every_tab(window: Window, opened: Open, idle: Idle, *, dark: bool) -> None:
    opened(QWEN)
    opened(GEMMA)
    window.actions_table["theme_dark" if dark else "theme_light"].trigger()
    idle()
    corner = window.grab().toImage().pixelColor(window.width() - 5, window.height() - 5)
    assert (corner.lightnessF() < 0.5) is dark
