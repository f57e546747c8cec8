"""The plot of an attention run: its data, and what is drawn of errors that are no numbers."""

from __future__ import annotations

import math

import pytest
from PySide6.QtGui import QImage
from pytestqt.qtbot import QtBot

from app.panels.forward import ForwardView
from app.plots.errors import LEAST, error_plot, series_word
from app.theme.theme import colours
from core.loading.forward_result import Forward, LayerForward


def layer(number: int, received: float, *, swapped: float = 0.5) -> LayerForward:
    return LayerForward(
        path=f"model.layers.{number}.self_attn.attn",
        layer=number,
        data="claimed",
        errors={"received": received, "one": 0.1, "swapped": swapped, "fitted": 0.05},
    )


def forward(*layers: LayerForward, reason: str = "") -> Forward:
    return Forward(format="float8_e4m3fn", tokens=128, queries=32, seed=0, layers=layers, reason=reason)


def test_layers_stand_in_their_order_with_their_numbers() -> None:
    found = error_plot(forward(layer(4, 0.06), layer(7, 0.07)))
    assert list(found.series) == ["received", "one", "swapped"]
    assert found.ticks == {0: "4", 1: "7"}
    assert [(point.place, point.error) for point in found.series["received"]] == [(0, 0.06), (1, 0.07)]
    assert [point.error for point in found.fitted] == [0.05, 0.05]
    low, high = found.range()
    assert [low, high] == pytest.approx([math.log10(0.05), math.log10(0.5)])


def test_layers_without_errors_are_left_out_and_tiny_errors_stand_at_the_end() -> None:
    without = LayerForward(path="a", layer=None, data="unit", errors={}, note="raises")
    found = error_plot(forward(without, layer(1, 0.0)))
    assert found.places == 1
    assert found.series["received"][0].height == math.log10(LEAST)
    nothing = error_plot(forward(without))
    assert (nothing.places, nothing.range()) == (0, (-2.0, 0.0))


def test_every_series_has_a_name() -> None:
    assert [series_word(variant) for variant in ("received", "one", "swapped", "fitted")] == [
        "scales received", "at 1.0", "k and v exchanged", "fitted to the data",
    ]  # fmt: skip


def _painted(view: ForwardView, colour: str) -> int:
    """Pixels of the plot that have a colour."""
    assert view.canvas is not None
    image: QImage = view.canvas.grab().toImage()
    return sum(
        image.pixelColor(x, y).name() == colour for x in range(0, image.width(), 2) for y in range(0, image.height(), 2)
    )


def test_what_is_no_number_is_drawn_above_all_others(qtbot: QtBot) -> None:
    view = ForwardView()
    qtbot.addWidget(view)
    view.resize(600, 400)
    view.show()
    view.show_forward(forward(layer(0, math.nan, swapped=math.inf), layer(1, 0.06), layer(2, 0.06)))
    qtbot.waitUntil(lambda: view.canvas is not None and bool(view.canvas.drawn), timeout=60_000)
    assert view.canvas is not None
    assert view.canvas.drawn == {"received": 3, "one": 3, "swapped": 3}
    now = colours()
    for colour in (now.series_k, now.series_v, now.series_q):
        assert _painted(view, colour) > 10
    assert view.verdict.toPlainText() == "Layer 0 at 1.0: NaN instead of 0.05."
    view.show_forward(forward(reason="a KV cache of nvfp4 is not computed here"))
    assert view.note == "Attention not run: a KV cache of nvfp4 is not computed here"
    view.show_forward(None)
    assert view.note.startswith("Tick")
