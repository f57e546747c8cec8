"""Two checkpoints in the window: what the command line says, shown; one selection; a ghost in the plot."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PySide6.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from PySide6.QtTest import QAbstractItemModelTester, QTest
from PySide6.QtWidgets import QFileDialog

from app import cli
from app.models.comparison import Column, ComparisonTable
from app.panels.compare import ComparePanel
from app.window import Window
from core.checkpoint import open_checkpoint
from core.comparison import compare
from core.naming.conventions import find_scales
from tests.app.conftest import Open

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
LLAMA = "llmcompressor/llama-attn_fp8_tensor"
Idle = Callable[[], None]
Other = Callable[..., Path]


@pytest.fixture
def other(samples: Path, tmp_path: Path) -> Other:
    """A copy of a sample with its KV scales changed: {part of a key: factor, new name, or None to leave it out}."""

    def make(changes: dict[str, float | str | None], sample: str = QWEN) -> Path:
        folder = tmp_path / "other"
        shutil.copytree(samples / sample, folder)
        for shard in folder.glob("*.safetensors"):
            rewrite(shard, changes)
        for index in folder.glob("*.index.json"):
            index.unlink()
        return folder

    return make


def rewrite(shard: Path, changes: dict[str, float | str | None]) -> None:
    """The file anew, byte for byte but for what is to change (numpy knows no bfloat16)."""
    stored = shard.read_bytes()
    length = int.from_bytes(stored[:8], "little")
    header, data = json.loads(stored[8 : 8 + length]), stored[8 + length :]
    written = b""
    kept: dict[str, object] = {}
    for key, entry in header.items():
        change = next((change for part, change in changes.items() if part in key and key.endswith("scale")), 1.0)
        if key == "__metadata__" or change is None:
            kept |= {key: entry} if change is not None else {}
            continue
        begin, end = entry["data_offsets"]
        value = data[begin:end]
        if isinstance(change, float) and change != 1.0:
            value = struct.pack("<f", change * struct.unpack("<f", value)[0])
        name = f"{key.rpartition('.')[0]}.{change}" if isinstance(change, str) else key
        kept[name] = entry | {"data_offsets": [len(written), len(written) + len(value)]}
        written += value
    text = json.dumps(kept).encode()
    shard.write_bytes(len(text).to_bytes(8, "little") + text + written)


def panel_of(window: Window, idle: Idle, path: Path | str) -> ComparePanel:
    window.workspace.show_tab("compare")
    window.session.compare(str(path))
    idle()
    return window.workspace.compare


def test_it_says_what_the_command_line_says(
    window: Window, opened: Open, idle: Idle, samples: Path, other: Other, capsys: pytest.CaptureFixture[str]
) -> None:
    there = other({"layers.3.self_attn.k_proj.k_scale": 2.0, "layers.5.self_attn.v_proj.v_scale": 1.05,
                   "layers.7.self_attn.k_proj.k_scale": None})  # fmt: skip
    opened(QWEN)
    panel = panel_of(window, idle, there)
    cli.main(["diff", str(samples / QWEN), str(there), "--json"])
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts == {"same": 69, "renamed": 0, "changed": 2, "added": 0, "removed": 1}
    assert panel.sum.text() == "Different"
    assert panel.words.text() == "B: other   69 same  ·  2 changed  ·  1 only in A"
    table = panel.table
    shown = [[table.index(row, column).data() for column in Column] for row in range(table.rowCount())]
    assert [(line[Column.CHANGE], line[Column.LAYER], line[Column.ROLE], line[Column.RATIO]) for line in shown] == [
        ("Changed", "3", "k", "× 2.0"),
        ("Changed, within noise", "5", "v", "× 1.05"),
        ("Only in A", "7", "k", ""),
    ]
    panel.show_box.setCurrentIndex(panel.show_box.findData("beyond"))
    panel.show_box.activated.emit(1)
    assert table.rowCount() == 2
    panel.show_box.setCurrentIndex(panel.show_box.findData("all"))
    panel.show_box.activated.emit(2)
    assert table.rowCount() == table.total() == 72
    panel.view.sortByColumn(Column.RATIO, Qt.SortOrder.DescendingOrder)
    first = table.row(0)
    assert first is not None
    assert first.ratio == pytest.approx(2.0)
    beyond = [dot for dot in panel.strip.dots() if not dot.row.within_noise]
    assert [dot.row.left.layer for dot in beyond if dot.row.left is not None] == [3]
    assert "1 of 71" in panel.strip.accessibleDescription()


def test_a_rename_is_equal_after_normalisation(window: Window, opened: Open, idle: Idle, other: Other) -> None:
    opened(QWEN)
    panel = panel_of(window, idle, other({"k_proj.k_scale": "output_scale"}))
    assert panel.sum.text() == "Equal after normalisation"
    assert {panel.table.index(row, 0).data() for row in range(panel.table.rowCount())} == {"Renamed"}
    assert panel.table.rowCount() == 36


def test_a_checkpoint_with_itself_is_equal(window: Window, opened: Open, idle: Idle, samples: Path) -> None:
    opened(QWEN)
    panel = panel_of(window, idle, samples / QWEN)
    assert panel.sum.text() == "Equal"
    assert panel.table.rowCount() == 72


def test_one_selection_with_the_rest(window: Window, opened: Open, idle: Idle, other: Other) -> None:
    opened(QWEN)
    panel = panel_of(
        window, idle, other({"layers.3.self_attn.k_proj.k_scale": 2.0, "layers.4.self_attn.v_proj.v_scale": 1.5})
    )
    panel.view.selectRow(0)
    assert window.workspace.selection.current == "model.layers.3.self_attn.k_proj.k_scale"
    window.workspace.keys.view.selectRow(9)  # layer 4, v
    chosen = {index.row() for index in panel.view.selectionModel().selectedRows()}
    assert {panel.table.index(row, Column.LEFT_KEY).data() for row in chosen} == window.workspace.selection.ids
    dot = next(dot for dot in panel.strip.dots() if dot.row.left is not None and dot.row.left.layer == 3)
    QTest.mouseClick(
        panel.strip, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, panel.strip.position(dot).toPoint()
    )
    assert window.workspace.selection.current == dot.row.left.key  # type: ignore[union-attr]


def test_the_plot_shows_a_ghost(window: Window, opened: Open, idle: Idle, other: Other) -> None:
    opened(QWEN)
    panel_of(window, idle, other({"k_proj.k_scale": 4.0}))
    window.workspace.show_tab("plot")
    idle()
    plot = window.workspace.plot
    assert plot.ghost.text() == "hollow, dashed: other"
    assert plot._data is not None
    ghosts = {ghost.role: ghost for ghost in plot._data.ghosts}
    own = {series.role: series for series in plot._data.series}
    assert [value for _, value, _ in ghosts["k"].points] == pytest.approx([4 * p.value for p in own["k"].points])
    assert [value for _, value, _ in ghosts["v"].points] == pytest.approx([p.value for p in own["v"].points])
    window.session.stop_comparing()
    idle()
    assert plot.ghost.text() == ""
    assert plot._data.ghosts == ()


def test_errors_and_nothing_to_compare_are_said(
    window: Window, opened: Open, idle: Idle, tmp_path: Path, samples: Path
) -> None:
    opened(QWEN)
    panel = panel_of(window, idle, tmp_path / "absent")
    assert str(tmp_path / "absent") in panel.note
    panel_of(window, idle, samples / QWEN)
    assert panel.note == ""
    panel.stop_button.click()
    assert panel.note.startswith("Compare this checkpoint's scales")
    window.session.compare(str(samples / LLAMA))
    window.jobs.cancel_all()
    idle()
    assert "was cancelled" in panel.note or panel.note == ""  # it may have been ready before


def test_it_follows_reload_and_forgets_with_another_checkpoint(
    window: Window, opened: Open, idle: Idle, samples: Path
) -> None:
    opened(QWEN)
    panel = panel_of(window, idle, samples / QWEN)
    window.actions_table["reload"].trigger()
    idle()
    assert panel.sum.text() == "Equal"
    assert panel.table.total() == 72
    window.session.open(str(samples / LLAMA))
    idle()
    assert window.session.compared is None
    assert panel.note.startswith("Compare this checkpoint's scales")


def test_dialogs_drop_and_menu_choose_the_other_one(
    window: Window, opened: Open, idle: Idle, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(LLAMA)
    panel = window.workspace.compare
    window.actions_table["compare"].trigger()
    assert window.workspace.current_tab() == "compare"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(samples / QWEN))
    panel.offers = lambda: (str(samples / QWEN), str(samples / LLAMA))
    panel.choose_menu.aboutToShow.emit()
    entries = panel.choose_menu.actions()
    assert [entry.text() for entry in entries if entry.data()] == [str(samples / QWEN)]
    entries[0].trigger()
    idle()
    assert window.session.other == str(samples / QWEN)
    file = str(samples / LLAMA / "model.safetensors")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (file, ""))
    entries[1].trigger()
    idle()
    assert window.session.other == file
    entries[-1].trigger()
    idle()
    assert window.session.other == str(samples / QWEN)
    panel.command_button.click()
    assert QGuiApplication.clipboard().text() == f"kvscope diff {samples / LLAMA} {samples / QWEN}"
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(file)])
    arguments = (Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier)
    enter = QDragEnterEvent(QPoint(5, 5), *arguments)
    panel.dragEnterEvent(enter)
    assert enter.isAccepted()
    panel.dropEvent(QDropEvent(QPointF(5, 5), *arguments))
    idle()
    assert window.session.other == file


def test_the_model_keeps_its_promises(samples: Path, shared: Path, qapp: object) -> None:
    table = ComparisonTable()
    QAbstractItemModelTester(table, QAbstractItemModelTester.FailureReportingMode.Fatal)
    left, right = (
        find_scales(open_checkpoint(shared / "checkpoints" / name))
        for name in ("modelopt/llama-fp8-kvfp8", "modelopt/trtllm-llama-fp8-kvfp8")
    )
    table.show_comparison(compare(left, right))
    for column in Column:
        table.sort(column, Qt.SortOrder.DescendingOrder)
        for row in range(table.rowCount()):
            for role in Qt.ItemDataRole:
                table.index(row, column).data(role)
    assert {table.index(row, 0).data() for row in range(table.rowCount())} >= {"Only in B"}
    table.show_only("beyond")
    table.refresh_theme()
    table.show_comparison(None)
    assert table.rowCount() == 0


def test_a_comparison_without_ratios_says_why(window: Window, opened: Open, idle: Idle, samples: Path) -> None:
    opened(LLAMA)
    window.actions_table["compare"].trigger()
    window.session.compare(str(samples / "llmcompressor/llama-32layers-kv_attn_head"))
    idle()
    panel = window.workspace.compare
    assert panel.strip.dots() == ()
    assert panel.strip.note.startswith("No ratio to draw")
    roles = {panel.table.index(row, Column.ROLE).data() for row in range(panel.table.rowCount())}
    assert roles == {"k", "v", "q", "k zp", "v zp", "q zp"}  # as the key table calls them
    place = next(row for row in range(panel.table.rowCount()) if panel.table.index(row, Column.ROLE).data() == "k zp")
    assert panel.table.index(place, Column.ROLE).data(Qt.ItemDataRole.ToolTipRole) == "k zero point"
    window.session.compare(str(samples / QWEN))
    idle()
    assert panel.strip.note == ""
