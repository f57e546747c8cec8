from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QRectF
from PySide6.QtGui import QImage
from PySide6.QtSvg import QSvgRenderer
from PySide6.QtWidgets import QCheckBox, QFileDialog

from app.digest import Digest
from app.plots.series import as_csv, plot_data
from app.status import Status
from app.window import Window
from tests.app.conftest import SAMPLES, Open

HEADS = "llmcompressor/llama-32layers-kv_attn_head"
LLAMA = "llmcompressor/llama-attn_fp8_tensor"
Idle = Callable[[], None]


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_scale_is_a_point(digested: Callable[[str], Digest], sample: str) -> None:
    found = digested(sample)
    data = plot_data(found)
    shown = {point.id for series in data.series for point in series.points}
    assert shown == {row.id for row in found.rows if row.kind == "scale" and row.values}
    for series in data.series:
        values = sorted(point.value for point in series.points if point.drawable)
        if series.band is not None:
            low, middle, high = series.band
            assert values[0] <= low <= middle <= high <= values[-1]


def test_scales_per_head_keep_their_heads(digested: Callable[[str], Digest]) -> None:
    data = plot_data(digested(HEADS))
    assert data.has_heads
    rows = data.heads("k")
    assert len(rows) == 32
    assert {len(row) for row in rows} == {8}
    assert all(point.value == max(point.heads) for series in data.series for point in series.points)


def test_values_off_the_axis_are_told_apart(digested: Callable[[str], Digest]) -> None:
    data = plot_data(digested(LLAMA))
    q = next(series for series in data.series if series.role == "q")
    assert all(not point.drawable and point.status is Status.SUSPICIOUS for point in q.points)
    assert q.band is None


def test_csv_holds_every_value(digested: Callable[[str], Digest]) -> None:
    found = digested(HEADS)
    lines = list(csv.DictReader(as_csv(found).splitlines()))
    assert len(lines) == 64 * 8
    first = found.by_id[lines[0]["key"]]
    assert float(lines[3]["value"]) == first.values[3]
    assert lines[3]["head"] == "3"


@pytest.fixture
def plotted(window: Window, opened: Open, idle: Idle) -> Window:
    opened(HEADS)
    window.workspace.show_tab("plot")
    idle()
    return window


@pytest.mark.parametrize("ending", [".png", ".svg", ".csv"])
@pytest.mark.parametrize("mode", ["layers", "heads:k"])
def test_plots_are_saved(
    plotted: Window, idle: Idle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, mode: str
) -> None:
    panel = plotted.workspace.plot
    panel.mode.setCurrentIndex(panel.mode.findData(mode))
    panel.mode.activated.emit(panel.mode.currentIndex())
    idle()
    path = tmp_path / f"plot{ending}"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    panel.save_buttons[ending].click()
    if ending == ".png":
        image = QImage(str(path))
        assert panel.canvas is not None
        assert image.width() == 2 * panel.canvas.width()
        colours = {image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, image.height(), 7)}
        assert len(colours) > 5  # something is drawn
    elif ending == ".svg":
        renderer = QSvgRenderer(str(path))
        assert renderer.isValid()
        drawn = path.read_text("utf-8")
        assert drawn.count("<text") > 10  # the axes' labels
        assert drawn.count("<path" if mode == "layers" else "<image") >= 2
    else:
        assert path.read_text("utf-8").startswith("key,role,layer,head,value,status,dtype\n")


def test_a_plot_that_cannot_be_saved_says_so(plotted: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panel = plotted.workspace.plot
    for ending in (".csv", ".png"):
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "no" / "where"), ""))
        panel.save_buttons[ending].click()
        assert str(tmp_path / "no" / "where") in panel.hint


def test_a_box_selects_and_the_selection_is_ringed(plotted: Window) -> None:
    workspace = plotted.workspace
    canvas = workspace.plot.canvas
    assert canvas is not None
    box = QRectF(2.5, -9, 3, 18)
    canvas.choose_box(box, extend=False)
    layers = {plotted.session.digest.by_id[name].layer for name in workspace.selection.ids}  # type: ignore[union-attr]
    assert layers == {3, 4, 5}
    assert len(workspace.selection.ids) == 6
    canvas.choose_box(QRectF(9.5, -9, 1, 18), extend=True)
    assert len(workspace.selection.ids) == 8
    workspace.selection.select(["model.layers.9.self_attn.k_scale"])
    assert canvas.ringed() == 1
    position = canvas.position("model.layers.9.self_attn.k_scale")
    assert position is not None
    row = plotted.session.digest.by_id["model.layers.9.self_attn.k_scale"]  # type: ignore[union-attr]
    assert position.y() == pytest.approx(math.log10(max(row.values)))


def test_the_heat_map_selects_whole_layers(plotted: Window, idle: Idle) -> None:
    panel = plotted.workspace.plot
    panel.mode.setCurrentIndex(panel.mode.findData("heads:v"))
    panel.mode.activated.emit(panel.mode.currentIndex())
    idle()
    assert panel.canvas is not None
    panel.canvas.choose_box(QRectF(11.8, 1, 0.4, 2), extend=False)
    assert plotted.workspace.selection.ids == {"model.layers.12.self_attn.v_scale"}


def test_roles_can_be_left_out(plotted: Window) -> None:
    panel = plotted.workspace.plot
    assert panel.canvas is not None
    name = "model.layers.9.self_attn.v_scale"
    assert panel.canvas.position(name) is not None
    box = next(box for box in panel.findChildren(QCheckBox) if box.text() == "v")
    box.setChecked(False)
    assert panel.canvas.position(name) is None
    box.setChecked(True)
    assert panel.canvas.position(name) is not None


def test_another_checkpoint_is_plotted_anew(plotted: Window, opened: Open, idle: Idle) -> None:
    opened(LLAMA)
    plotted.workspace.show_tab("plot")
    idle()
    canvas = plotted.workspace.plot.canvas
    assert canvas is not None
    assert canvas.position("model.layers.9.self_attn.k_scale") is None
    assert canvas.position("model.layers.1.self_attn.q_scale") is not None
    assert not plotted.workspace.plot.mode.isVisible()


@pytest.mark.parametrize("ending", [".png", ".svg", ".csv"])
def test_a_plot_gets_its_ending_and_an_error_goes_with_success(
    plotted: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    panel = plotted.workspace.plot
    usage = panel.hint
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "no" / f"x{ending}"), ""))
    panel.save_buttons[ending].click()
    assert str(tmp_path / "no") in panel.hint
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "Qwen2.5-rep"), ""))
    panel.save_buttons[ending].click()
    assert [path.name for path in tmp_path.iterdir()] == [f"Qwen2.5-rep{ending}"]
    assert panel.hint == usage
