from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot

from app.panels.parts import Chip
from app.window import Window
from tests.app.conftest import Open

GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
LLAMA = "llmcompressor/llama-attn_fp8_tensor"
Idle = Callable[[], None]


@pytest.fixture
def planned(window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path) -> Window:
    """A copy of the checkpoint that raises, with its export planned."""
    folder = tmp_path / "gemma"
    shutil.copytree(samples / GEMMA, folder)
    opened(str(folder))
    window.workspace.banner.fix_button.click()
    idle()
    return window


def test_one_click_on_fix_shows_what_would_change(planned: Window, tmp_path: Path) -> None:
    panel = planned.workspace.export
    assert planned.workspace.current_tab() == "export"
    assert panel.current_plan is not None
    assert panel.table.rowCount() == len(panel.current_plan.edits)
    first = panel.table.record(0)
    assert first is not None
    assert first.cells[:3] == (
        "renamed",
        "model.layers.0.self_attn.k_proj.output_scale",
        panel.current_plan.edits[0].new_key,
    )
    assert Path(panel.folder.text()) == tmp_path / "gemma-kvscope"
    assert panel.write_button.isEnabled()
    panel.folder.setText(" ")
    assert not panel.write_button.isEnabled()


def test_writing_judges_the_result_and_opens_it(planned: Window, idle: Idle, tmp_path: Path) -> None:
    panel = planned.workspace.export
    panel.write_button.click()
    assert not panel.write_button.isEnabled()
    idle()
    assert panel.result is not None
    assert (tmp_path / "gemma-kvscope" / "config.json").exists()
    chips = [chip.text() for chip in panel.findChildren(Chip) if chip.isVisible()]
    assert chips[0] == "Fails"
    assert chips[1] != "Fails"
    panel.open_button.click()
    idle()
    assert planned.session.path == str(tmp_path / "gemma-kvscope")
    assert planned.workspace.banner.word != "Fails"


def test_a_refused_folder_is_explained_and_nothing_is_lost(planned: Window, idle: Idle, tmp_path: Path) -> None:
    panel = planned.workspace.export
    panel.folder.setText(str(tmp_path / "gemma"))
    panel.write_button.click()
    idle()
    shown = panel.message
    assert str(tmp_path / "gemma") in shown
    assert panel.result is None
    assert panel.write_button.isEnabled()


def test_a_cancelled_export_leaves_nothing(planned: Window, idle: Idle, tmp_path: Path) -> None:
    panel = planned.workspace.export
    panel.write()
    planned.jobs.cancel_all()
    idle()
    assert panel.message == "Cancelled; nothing was left behind."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gemma"]
    panel.write()
    idle()
    assert panel.result is not None


def test_names_can_be_chosen(planned: Window, idle: Idle) -> None:
    panel = planned.workspace.export
    assert panel.current_plan is not None
    names = [panel.names.itemData(number) for number in range(panel.names.count())]
    assert names[:2] == ["", "as-is"]
    assert panel.current_plan.names in names
    assert "modelopt" in names
    panel.names.setCurrentIndex(names.index("modelopt"))
    panel.names.activated.emit(names.index("modelopt"))
    idle()
    assert panel.current_plan.names == "modelopt"
    record = panel.table.record(0)
    assert record is not None
    assert record.cells[2] == "model.layers.0.self_attn.k_proj.k_scale"


def test_a_row_of_the_sheet_selects_its_key(planned: Window, idle: Idle) -> None:
    panel = planned.workspace.export
    panel.view.selectRow(3)
    record = panel.table.record(3)
    assert record is not None
    assert planned.workspace.selection.ids == {record.id}


def test_browsing_fills_in_the_folder(planned: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    planned.workspace.export.browse_button.click()
    assert planned.workspace.export.folder.text() == str(tmp_path)


def test_what_cannot_be_exported_says_why(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(samples / "llmcompressor/llama-32layers-kv_attn_head", folder)
    shard = folder / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:1000])
    opened(str(folder))
    window.workspace.show_tab("export")
    idle()
    panel = window.workspace.export
    assert panel.current_plan is None
    assert shard.name in panel.note
    assert panel.retry_button.isVisible()


def test_another_choice_plans_anew(window: Window, opened: Open, idle: Idle, qtbot: QtBot) -> None:
    opened(LLAMA)
    window.workspace.show_tab("export")
    idle()
    before = window.workspace.export.current_plan
    window.workspace.header.dtype.pick("float16")
    idle()
    after = window.workspace.export.current_plan
    assert after is not None
    assert after is not before
    assert after.before is window.session.inspection
