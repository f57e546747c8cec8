"""Rows as text and CSV, the choice of columns, and the config files with what decided marked."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot
from safetensors.numpy import save_file

from app.digest import Digest
from app.jobs import WORKERS
from app.models.config_text import MOST_LINES, lines_of, marked, places_of
from app.models.keys import Column
from app.models.tensors import TensorSource
from app.window import Window
from core.checkpoint import Catalog
from tests.app.conftest import Open

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
HEADS = "llmcompressor/llama-32layers-kv_attn_head"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]


def clipboard() -> str:
    return QGuiApplication.clipboard().text()


def test_rows_are_copied_as_text_and_csv(window: Window, opened: Open) -> None:
    opened(HEADS)
    keys = window.workspace.keys
    window.workspace.selection.select([keys.table.id_at(row) or "" for row in (2, 0)])
    window.actions_table["copy_text"].trigger()
    lines = [line.split("\t") for line in clipboard().splitlines()]
    assert lines[0][:3] == ["Status", "Layer", "Role"]
    assert [line[1] for line in lines[1:]] == ["0", "1"]  # the table's order, not that of the selection
    assert window.status.currentMessage() == "2 rows copied"
    window.actions_table["copy_csv"].trigger()
    rows = list(csv.DictReader(io.StringIO(clipboard())))
    first = keys.table.row_at(0)
    assert first is not None
    assert tuple(float(value) for value in rows[0]["Value"].split()) == first.values
    assert len(first.values) == 8


def test_rows_that_are_no_scales_are_copied_too(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.workspace.keys.set_all_tensors(True)
    idle()
    window.workspace.selection.select(["model.norm.weight", "model.layers.0.self_attn.k_proj.k_scale"])
    window.actions_table["copy_row"].trigger()
    found = {row["key"]: row for row in json.loads(clipboard())}
    assert found["model.norm.weight"]["dtype"] == "BF16"
    assert found["model.layers.0.self_attn.k_proj.k_scale"]["values"]


def test_many_rows_are_copied_in_a_job_as_few_are_at_once(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.workspace.keys.set_all_tensors(True)
    idle()
    keys, selection = window.workspace.keys, window.workspace.selection
    keys.set_filter("layers")
    ids = list(keys.table.visible_ids())
    assert len(ids) > 900
    made = {}
    for name in ("copy_key", "copy_text", "copy_csv", "copy_row"):
        QGuiApplication.clipboard().setText("before")
        selection.select(ids)
        window.actions_table[name].trigger()
        assert [job.lane for job in window.jobs.running()] == ["copy"], name
        assert clipboard() == "before"
        keys.set_filter("no row has this name")  # what was chosen is copied, whatever is shown meanwhile
        idle()
        made[name] = clipboard()
        assert window.status.currentMessage().startswith(f"{len(ids):,} "), name
        keys.set_filter("layers")
    assert made["copy_key"].splitlines()[-1] == ids[-1]
    assert [line.split("\t")[4] for line in made["copy_text"].splitlines()[1:]] == ids
    assert [row["Checkpoint key"] for row in csv.DictReader(io.StringIO(made["copy_csv"]))] == ids
    objects = json.loads(made["copy_row"])
    assert sorted(item["key"] for item in objects) == sorted(ids)
    assert made["copy_row"] == json.dumps(objects, indent=2, ensure_ascii=False)
    for size in (1, 100, 101):  # the same, put together from parts
        selection.select(ids[:size])
        window.actions_table["copy_row"].trigger()
        few = json.loads(clipboard())
        assert clipboard() == json.dumps(few, indent=2, ensure_ascii=False)
        assert len([few] if size == 1 else few) == size


def test_copying_is_cancelled(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    window.workspace.keys.set_all_tensors(True)
    idle()
    window.workspace.selection.select(list(window.workspace.keys.table.visible_ids()))
    QGuiApplication.clipboard().setText("before")
    gate = Event()
    for number in range(WORKERS):  # nobody is free to be done with it before it is stopped
        window.jobs.start(f"held {number}", lambda _: gate.wait(60), done=lambda _: None, failed=lambda _: None)
    window.actions_table["copy_row"].trigger()
    window.actions_table["stop"].trigger()
    gate.set()
    idle()
    assert clipboard() == "before"
    assert window.status.currentMessage() == "Copying was cancelled."


def test_a_tensor_that_two_shards_hold_is_copied_by_its_key(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(samples / QWEN, folder)
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    save_file({"model.norm.weight": np.zeros(4, np.float32)}, folder / "zz.safetensors")
    opened(str(folder))
    window.workspace.keys.set_all_tensors(True)
    idle()
    window.workspace.selection.select(["model.norm.weight (zz.safetensors)"])
    window.actions_table["copy_key"].trigger()
    assert clipboard() == "model.norm.weight"
    window.actions_table["copy_row"].trigger()
    assert json.loads(clipboard()) == {
        "key": "model.norm.weight",
        "file": "zz.safetensors",
        "dtype": "F32",
        "shape": [4],
    }


def test_a_listing_for_the_engine_before_is_dropped(
    window: Window, opened: Open, idle: Idle, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(QWEN)
    keys, session, goes_on = window.workspace.keys, window.session, Event()

    def listed(catalog: Catalog, digest: Digest) -> TensorSource:
        goes_on.wait(60)
        return TensorSource(catalog, digest)

    monkeypatch.setattr("app.panels.keys.TensorSource", listed)
    keys.set_all_tensors(True)
    keys.set_all_tensors(False)
    with qtbot.waitSignal(session.checkpoint_inspected, timeout=60_000):
        session.choose(session.choices.with_engine("tensorrt-llm"))
    goes_on.set()
    idle()
    keys.set_all_tensors(True)
    idle()
    row = keys.table.row_at(keys.table.position_of("model.layers.0.self_attn.k_proj.k_scale") or 0)
    assert session.digest is not None
    assert row is session.digest.by_id["model.layers.0.self_attn.k_proj.k_scale"]


def test_columns_are_chosen_and_remembered(window: Window, opened: Open, qtbot: QtBot, samples: Path) -> None:
    opened(QWEN)
    keys = window.workspace.keys
    menu = keys.column_menu()
    entries = {action.text(): action for action in menu.actions()}
    assert not entries["Checkpoint key"].isEnabled()
    entries["Dtype"].trigger()
    entries["Convention"].trigger()
    menu.close()
    assert Column.DTYPE not in keys.columns_shown()
    window.workspace.selection.select([keys.table.id_at(0) or ""])
    window.actions_table["copy_text"].trigger()
    assert "Dtype" not in clipboard().splitlines()[0]
    keys.view.horizontalHeader().moveSection(Column.KEY, 0)
    order = keys.columns_ordered()
    assert order[:2] == [Column.KEY, Column.STATUS]
    keys.order_columns([0, 0, 1])  # damaged settings
    assert keys.columns_ordered() == order
    window.close()
    later = Window()
    qtbot.addWidget(later)
    later.show()
    later.open_path(str(samples / QWEN))
    qtbot.waitUntil(lambda: not later.busy, timeout=60_000)
    assert later.workspace.keys.columns_ordered() == order
    assert later.workspace.keys.columns_hidden() == [Column.DTYPE, Column.CONVENTION]
    later.close()


def test_config_files_with_what_decided_marked(window: Window, opened: Open, idle: Idle) -> None:
    opened(GEMMA)
    window.actions_table["show_config"].trigger()
    idle()
    panel = window.workspace.config
    assert panel.files.item(0).text() == "config.json  ·  decided something"
    shown = panel.marked_lines()
    assert any(line.startswith('"quant_method": "quark"') and line.endswith("◀") for line in shown)
    assert any('"dtype": "fp8_e4m3"' in line for line in shown)  # inside the field of the KV cache
    assert not any("hidden_size" in line for line in shown)
    fields = [panel.fields.item(row).text() for row in range(panel.fields.count())]
    place = next(row for row, field in enumerate(fields) if "*k_proj.output_tensors" in field)
    panel.fields.itemActivated.emit(panel.fields.item(place))
    assert '"output_tensors"' in panel.text.textCursor().block().text()
    assert panel.show_file("\0model.safetensors")
    assert '"format": "pt"' in panel.text.toPlainText()
    assert not panel.show_file("no such file")
    window.actions_table["theme_dark"].trigger()
    assert len(panel.text.extraSelections()) == 0  # metadata decides nothing
    panel.files.setCurrentRow(0)
    assert len(panel.text.extraSelections()) == len(panel.marked_lines())


def test_a_broken_config_is_told_in_its_place(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(samples / QWEN, folder)
    (folder / "generation_config.json").write_text("{ broken")
    (folder / "large.json").write_text(json.dumps({"a": "x" * (5 << 20)}))
    opened(str(folder))
    window.workspace.show_tab("config")
    idle()
    panel = window.workspace.config
    assert panel.show_file("generation_config.json")
    assert "generation_config.json" in panel.text.toPlainText()
    assert panel.show_file("large.json")
    assert "too large to show here" in panel.text.toPlainText()


def test_a_folder_that_vanished_after_opening_is_told(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(samples / GEMMA, folder)
    opened(str(folder))
    folder.rename(tmp_path / "elsewhere")
    window.workspace.show_tab("config")
    idle()
    panel = window.workspace.config
    assert panel.gone.isVisible()
    assert panel.gone.toPlainText().startswith(f"{folder} is no longer there. ")
    assert panel.files.item(0).text() == "config.json  ·  decided something"  # as it was read
    assert any('"quant_method": "quark"' in line for line in panel.marked_lines())
    (tmp_path / "elsewhere").rename(folder)
    window.actions_table["reload"].trigger()
    idle()
    assert not panel.gone.isVisible()
    names = [panel.files.item(row).data(Qt.ItemDataRole.UserRole) for row in range(panel.files.count())]
    assert "generation_config.json" in names
    (folder / "generation_config.json").unlink()
    assert panel.show_file("config.json")
    assert panel.show_file("generation_config.json")
    assert "is no longer there" in panel.text.toPlainText()


def test_a_config_deleted_after_opening_is_told(
    window: Window, opened: Open, idle: Idle, samples: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(samples / GEMMA, folder)
    opened(str(folder))
    (folder / "config.json").unlink()
    window.workspace.show_tab("config")
    idle()
    panel = window.workspace.config
    assert panel.gone.isVisible()
    assert panel.gone.toPlainText().startswith(f"config.json: no longer in {folder}. ")
    assert panel.show_file("config.json")


def test_fields_are_found_whatever_their_keys_hold() -> None:
    value = {"a.b": {"*k_proj": {"c": 1}}, "a": {"b": 2}, "list": [{"x": 1}, 2], "flat": [1, 2]}
    assert places_of(value, "a.b.*k_proj.c") == ("a.b", "*k_proj", "c")
    assert places_of(value, "a.b") == ("a.b",)
    assert places_of(value, "list.0.x") == ("list", "0", "x")
    assert places_of(value, "no.such") is None
    lines = lines_of(value)
    assert json.loads("\n".join(line.text for line in lines)) == value
    found = marked(lines, [("a.b", "*k_proj")])
    assert [lines[number].text.strip() for number in found] == ['"*k_proj": {', '"c": 1', "}"]
    assert lines_of({str(number): 1 for number in range(MOST_LINES + 10)})[-1].text.startswith("… (+")
    assert lines_of({}) == lines_of({})


def test_header_menu_opens_over_the_heads(window: Window, opened: Open) -> None:
    opened(QWEN)
    header = window.workspace.keys.view.horizontalHeader()
    header.customContextMenuRequested.emit(header.rect().center())
    menus = [menu for menu in window.workspace.keys.findChildren(type(window.menus["recent"])) if menu.isVisible()]
    assert len(menus) == 1
    assert header.contextMenuPolicy() is Qt.ContextMenuPolicy.CustomContextMenu
    menus[0].close()


def test_names_take_the_room_of_a_wide_table_until_a_column_is_drawn_by_hand(window: Window, opened: Open) -> None:
    opened(QWEN)
    view = window.workspace.keys.view
    key = view.model().index(0, Column.KEY)
    view.resize(700, 300)
    least = view.columnWidth(Column.KEY)
    view.resize(1700, 300)
    wide = view.columnWidth(Column.KEY)
    assert view.fontMetrics().horizontalAdvance(key.data()) + 2 * view.iconSize().width() < wide
    assert view.horizontalHeader().length() == view.viewport().width()
    view.setColumnHidden(Column.TARGET, True)
    assert view.columnWidth(Column.KEY) == wide  # it had all that it can use
    view.setColumnHidden(Column.TARGET, False)
    view.resize(700, 300)
    assert view.columnWidth(Column.KEY) == least
    header = view.horizontalHeader()
    edge = QPoint(header.sectionViewportPosition(Column.KEY) + least - 1, header.height() // 2)
    QTest.mousePress(header.viewport(), Qt.MouseButton.LeftButton, pos=edge)
    QTest.mouseMove(header.viewport(), edge + QPoint(40, 0))
    QTest.mouseRelease(header.viewport(), Qt.MouseButton.LeftButton, pos=edge + QPoint(40, 0))
    drawn = view.columnWidth(Column.KEY)
    assert drawn > least
    view.resize(1700, 300)
    assert view.columnWidth(Column.KEY) == drawn
