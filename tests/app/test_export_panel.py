from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtWidgets import QFileDialog
from pytestqt.qtbot import QtBot

from app.panels.export import ExportPanel
from app.panels.parts import Chip
from app.panels.reading import Passage
from app.panels.repairs import RepairRow
from app.window import Window
from tests.app.conftest import Open
from tests.core.diagnosis.build import MODELOPT, Folder, llama, scales

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
    assert chips == ["Fails", "OK"]
    told = [passage.toPlainText() for passage in panel.findChildren(Passage)]
    assert "Judged with --kv-cache-dtype fp8, under which the scales are used." in told
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


def choose_target(panel: ExportPanel, value: str) -> None:
    place = panel.target.findData(value)
    panel.target.setCurrentIndex(place)
    panel.target.activated.emit(place)


def test_engines_and_conventions_are_targets(planned: Window, idle: Idle) -> None:
    panel = planned.workspace.export
    assert panel.current_plan is not None
    offered = [panel.target.itemData(number) for number in range(panel.target.count())]
    assert offered[:2] == ["", "names:as-is"]
    assert {"engine:vllm-0.22.1", "engine:sglang-0.5.23", "names:modelopt", "names:compressed-tensors"} <= set(offered)
    choose_target(panel, "names:modelopt")
    idle()
    assert panel.current_plan.names == "modelopt"
    record = panel.table.record(0)
    assert record is not None
    assert record.cells[2] == "model.layers.0.self_attn.k_proj.k_scale"
    choose_target(panel, "engine:vllm-0.23.0")
    idle()
    assert (panel.current_plan.engine, panel.current_plan.names) == ("vllm-0.23.0", "as-is")
    panel.undo_button.click()
    idle()
    assert panel.current_plan.names == "modelopt"
    assert panel.target.currentData() == "names:modelopt"


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


# --------------------------------------------------------------------------------------------------------- repairs
@pytest.fixture
def mending(window: Window, opened: Open, idle: Idle, tmp_path: Path) -> Window:
    """A checkpoint with a scale of zero and without one layer's scales, its export planned."""
    path = tmp_path / "made"
    tensors = scales([0.03, 0.0, 0.04, None], [0.01, 0.02, 0.01, None])
    Folder(path, llama(MODELOPT, layers=4), {"model.safetensors": tensors}).write()
    opened(str(path))
    window.workspace.show_tab("export")
    idle()
    return window


def row_of(window: Window, code: str) -> RepairRow:
    row = window.workspace.export.repairs.row(code)
    assert row is not None
    return row


def values(window: Window) -> dict[str, float]:
    plan = window.workspace.export.current_plan
    assert plan is not None
    return {edit.new_key or edit.key: round(edit.values[0], 6) for edit in plan.edits if edit.values}


def shown(panel: ExportPanel) -> list[str]:
    return [chip.text() for chip in panel.findChildren(Chip) if chip.isVisible()]


def test_repairs_are_offered_with_their_reasons(mending: Window) -> None:
    panel = mending.workspace.export
    codes = [row.offer.code for row in panel.repairs.rows()]
    assert codes == ["zero", "missing-scale", "per-head", "factor", "swap", "declare", "leftovers"]
    row = row_of(mending, "zero")
    assert row.box.text() == "Scales of exactly zero"
    assert row.reason.toPlainText() == "k: 1 of 3, 0.0."
    assert not row.box.isChecked()
    assert not row.choice.isVisible()
    assert shown(panel) == ["Fails", "Fails"]


def test_a_ticked_repair_changes_the_plan_and_can_be_undone(mending: Window, idle: Idle) -> None:
    panel = mending.workspace.export
    row_of(mending, "zero").box.click()
    idle()
    assert values(mending) == {"model.layers.1.self_attn.k_scale": 0.03}
    assert [fix.code for fix in panel.choices.fixes] == ["zero"]
    assert row_of(mending, "zero").choice.isVisible()
    row_of(mending, "missing-scale").box.click()
    idle()
    assert len(values(mending)) == 3
    assert shown(panel) == ["Fails", "OK"]
    assert panel.undo_button.toolTip() == "missing-scale=median"
    assert mending.actions_table["undo"].isEnabled()
    mending.actions_table["undo"].trigger()
    idle()
    assert len(values(mending)) == 1
    assert not row_of(mending, "missing-scale").box.isChecked()
    mending.actions_table["undo"].trigger()
    idle()
    assert values(mending) == {}
    assert not panel.undo_button.isEnabled()
    mending.actions_table["redo"].trigger()
    idle()
    assert row_of(mending, "zero").box.isChecked()
    row_of(mending, "zero").box.click()
    idle()
    assert (values(mending), panel.choices.fixes) == ({}, ())


def test_a_number_can_be_typed_in(mending: Window, idle: Idle) -> None:
    row = row_of(mending, "zero")
    row.box.click()
    idle()
    row.choice.setCurrentIndex(row.choice.findData("NUMBER"))
    row.choice.activated.emit(row.choice.currentIndex())
    idle()
    assert row.value.isVisible()
    assert values(mending) == {"model.layers.1.self_attn.k_scale": 1.0}
    row.value.setText("0.25")
    row.value.editingFinished.emit()
    idle()
    assert values(mending) == {"model.layers.1.self_attn.k_scale": 0.25}


def test_what_cannot_be_done_is_said_and_taken_back(mending: Window, idle: Idle) -> None:
    panel = mending.workspace.export
    row_of(mending, "per-head").box.click()
    idle()
    assert panel.message == "--fix per-head finds nothing to change. Leave it out"
    assert panel.choices.fixes == ()
    assert panel.current_plan is not None
    assert not row_of(mending, "per-head").box.isChecked()
    row = row_of(mending, "zero")
    row.box.click()
    idle()
    row.choice.setCurrentIndex(row.choice.findData("NUMBER"))
    row.choice.activated.emit(row.choice.currentIndex())
    idle()
    row.value.setText("-3")
    row.value.editingFinished.emit()
    idle()
    assert panel.message.startswith("'-3' is no choice for --fix zero.")
    assert row.value.text() == "1.0"


def test_scales_come_from_a_file(mending: Window, idle: Idle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = tmp_path / "kv_cache_scales.json"
    factors = {str(layer): 0.5 for layer in range(4)}
    side.write_text(json.dumps({"kv_cache": {"scaling_factor": {"0": factors}}}))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(side), ""))
    panel = mending.workspace.export
    panel.scales_button.click()
    idle()
    assert set(values(mending).values()) == {0.5}
    assert len(values(mending)) == 8
    panel.undo_button.click()
    idle()
    row = row_of(mending, "missing-scale")
    row.box.click()
    row.choice.setCurrentIndex(row.choice.findData("PATH"))
    row.choice.activated.emit(row.choice.currentIndex())
    idle()
    assert len(values(mending)) == 2
    assert row.value.text() == str(side)


def test_no_file_chosen_changes_nothing(mending: Window, idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: ("", ""))
    panel = mending.workspace.export
    panel.scales_button.click()
    idle()
    assert panel.choices.scales_from == ""
    assert not panel.undo_stack.canUndo()


def test_fix_of_a_problem_opens_the_preview_with_that_repair(mending: Window, idle: Idle) -> None:
    workspace = mending.workspace
    workspace.show_tab("problems")
    findings = workspace.problems.table.findings()
    workspace.problems.choose([found.code for found in findings].index("missing-scale"))
    assert workspace.problems.detail.fix_button.isVisible()
    workspace.problems.detail.fix_button.click()
    idle()
    assert workspace.current_tab() == "export"
    assert [str(fix) for fix in workspace.export.choices.fixes] == ["--fix missing-scale=median"]
    assert row_of(mending, "missing-scale").box.isChecked()
    assert len(values(mending)) == 2


def test_a_changed_config_shows_its_diff(window: Window, opened: Open, idle: Idle) -> None:
    opened("llmcompressor/llama-32layers-kv_attn_head")
    window.workspace.show_tab("export")
    idle()
    row_of(window, "per-head").box.click()
    idle()
    told = [passage.toPlainText() for passage in window.workspace.export.findChildren(Passage)]
    (diff,) = [words for words in told if words.startswith("@@")]
    assert '-      "strategy": "attn_head",' in diff
    assert '+      "strategy": "tensor",' in diff


def test_choices_last_while_the_checkpoint_stays(mending: Window, opened: Open, idle: Idle) -> None:
    panel = mending.workspace.export
    row_of(mending, "zero").box.click()
    idle()
    mending.workspace.header.dtype.pick("float16")
    idle()
    assert [fix.code for fix in panel.choices.fixes] == ["zero"]
    assert len(values(mending)) == 1
    opened(LLAMA)
    mending.workspace.show_tab("export")
    idle()
    assert mending.workspace.export.choices.fixes == ()
    assert not mending.workspace.export.undo_stack.canUndo()
    assert [fix.code for fix in panel.choices.fixes] == ["zero"]


def test_unchanged_shards_can_be_linked(mending: Window, idle: Idle, tmp_path: Path) -> None:
    panel = mending.workspace.export
    panel.mode.setCurrentIndex(panel.mode.findData("link"))
    panel.write()
    idle()
    assert panel.result is not None
    name = "model.safetensors"
    assert (tmp_path / "made-kvscope" / name).samefile(tmp_path / "made" / name)


@pytest.mark.parametrize(
    ("sample", "fixes"),
    [("llmcompressor/llama-attn_fp8_tensor", ("uninitialised",)), ("quark/gemma3-26layers-fp8-kvfp8", ())],
)
def test_the_banners_fix_chooses_the_repairs_of_what_decides(
    opened: Open, idle: Idle, sample: str, fixes: tuple[str, ...]
) -> None:
    workspace = opened(sample).workspace
    workspace.banner.fix_button.click()
    idle()
    plan = workspace.export.current_plan
    assert plan is not None
    assert tuple(fix.code for fix in workspace.export.choices.fixes) == fixes
    assert plan.verdict_before.outcome != "ok"
    assert plan.verdict_predicted.outcome == "ok"


def test_no_fix_is_offered_where_none_decides(opened: Open, tmp_path: Path, samples: Path) -> None:
    folder = tmp_path / "unregistered"
    shutil.copytree(samples / "llmcompressor/llama-attn_fp8_tensor", folder)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "auto_round"
    (folder / "config.json").write_text(json.dumps(config))
    workspace = opened(str(folder)).workspace
    assert workspace.banner.word == "Fails"
    assert not workspace.banner.fix_button.isVisible()
