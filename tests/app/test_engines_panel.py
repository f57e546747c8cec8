"""The engines' tab: every engine on one checkpoint, and two of them key by key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from pytestqt.modeltest import ModelTester

from app.models.engines import EngineColumn, PairColumn
from app.panels.engines import EnginesPanel
from app.theme.theme import theme
from app.window import Window
from core.engines import ENGINES
from core.engines.saved import save
from tests.app.conftest import Open
from tests.core.engines.recorded import recorded_vllm

DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]


@pytest.fixture
def panel(window: Window, opened: Open, idle: Idle) -> EnginesPanel:
    """The tab, in front, on the DeepSeek sample."""
    opened(DEEPSEEK)
    window.workspace.show_tab("engines")
    idle()
    return window.workspace.engines


def cell(panel: EnginesPanel, engine: str, column: EngineColumn, role: Qt.ItemDataRole) -> object:
    return panel.table.data(panel.table.index(panel.table.place_of(engine), column), role)


def choose(panel: EnginesPanel, engine: str) -> None:
    panel.view.setCurrentIndex(panel.table.index(panel.table.place_of(engine), 0))


def test_every_engine_is_asked_and_summed_up(panel: EnginesPanel) -> None:
    show = Qt.ItemDataRole.DisplayRole
    assert [answer.column.engine for answer in panel.table.answers()] == list(ENGINES)
    assert panel.headline.toPlainText().startswith("vLLM works up to 0.23.0 and loses every scale since 0.25.0;")
    assert cell(panel, "vllm-0.33.0", EngineColumn.SERVED, show) == "0 of 30"
    assert cell(panel, "vllm-0.23.0", EngineColumn.SERVED, show) == "30 of 30"
    assert cell(panel, "vllm-0.23.0", EngineColumn.OUTCOME, show) == "OK"
    assert cell(panel, "vllm-0.27.1", EngineColumn.FATE, show) == "loses every scale"
    assert "reaches an attention layer" in str(
        cell(panel, "vllm-0.25.0", EngineColumn.FATE, Qt.ItemDataRole.ToolTipRole)
    )


def test_the_engine_in_force_is_marked_in_words_too(panel: EnginesPanel) -> None:
    assert cell(panel, "vllm-0.33.0", EngineColumn.ENGINE, Qt.ItemDataRole.DisplayRole) == "▸ vLLM 0.33.0"
    spoken = cell(panel, "vllm-0.33.0", EngineColumn.ENGINE, Qt.ItemDataRole.AccessibleTextRole)
    assert spoken == "vLLM 0.33.0, in force"
    assert cell(panel, "vllm-0.23.0", EngineColumn.ENGINE, Qt.ItemDataRole.DisplayRole) == "vLLM 0.23.0"
    for engine in ENGINES:  # an outcome has its icon and its word, not a colour alone
        assert cell(panel, engine, EngineColumn.OUTCOME, Qt.ItemDataRole.DecorationRole) is not None
        assert cell(panel, engine, EngineColumn.OUTCOME, Qt.ItemDataRole.DisplayRole)


def test_the_first_engine_that_does_otherwise_is_compared_at_once(panel: EnginesPanel) -> None:
    answer = panel.detail.answer
    assert answer is not None
    assert answer.column.engine == "vllm-0.23.0"
    pairs = panel.detail.table
    assert (pairs.rowCount(), pairs.differing) == (60, 60)
    assert pairs.data(pairs.index(0, PairColumn.LEFT), Qt.ItemDataRole.DisplayRole) == "dropped, k 1.0"
    assert pairs.data(pairs.index(0, PairColumn.RIGHT), Qt.ItemDataRole.DisplayRole) == "≠ loaded, k 0.022095"
    told = panel.detail.why.toPlainText()
    assert told.startswith("60 of 60 keys end differently.\nvLLM 0.33.0: DeepseekV3ForCausalLM's regex rule")
    assert "mla_attn.mla_attn.k_scale, then that parameter takes it." in told


def test_choosing_a_key_there_chooses_it_everywhere(panel: EnginesPanel, window: Window, idle: Idle) -> None:
    view, pairs = panel.detail.view, panel.detail.table
    view.setCurrentIndex(pairs.index(3, 0))
    assert window.workspace.selection.ids == {"model.layers.1.self_attn.v_proj.v_scale"}
    idle()
    story = window.workspace.why.story
    assert story is not None
    assert story.row.layer == 1
    window.workspace.selection.select(["model.layers.7.self_attn.k_proj.k_scale"])
    assert view.currentIndex().row() == pairs.place_of("model.layers.7.self_attn.k_proj.k_scale") == 14
    assert "layers.7.self_attn" in panel.detail.why.toPlainText()


def test_return_uses_the_engine_and_asks_no_one_again(panel: EnginesPanel, window: Window, idle: Idle) -> None:
    asked = panel.answers
    choose(panel, "vllm-0.23.0")
    panel.view.setFocus()
    QTest.keyClick(panel.view, Qt.Key.Key_Return)
    idle()
    assert window.session.choices.engine == "vllm-0.23.0"
    inspection = window.session.inspection
    assert inspection is not None
    assert inspection.verdict.outcome == "ok"
    assert panel.answers is asked
    assert panel.table.is_current(panel.table.place_of("vllm-0.23.0"))
    assert not panel.detail.use_button.isEnabled()  # it is in force now
    assert panel.detail.table.rowCount() == 0


def test_one_click_uses_the_engine_shown(panel: EnginesPanel, window: Window, idle: Idle) -> None:
    choose(panel, "sglang-0.5.23")
    assert panel.detail.use_button.accessibleName() == "Use SGLang 0.5.23"
    QTest.mouseClick(panel.detail.use_button, Qt.MouseButton.LeftButton)
    idle()
    assert window.session.choices.engine == "sglang-0.5.23"
    assert window.workspace.header.engine.box.currentData() == "sglang-0.5.23"


def test_another_option_asks_again(panel: EnginesPanel, window: Window, idle: Idle) -> None:
    asked = panel.answers
    window.workspace.header.kv_cache_dtype.pick("int8_per_token_head")
    idle()
    assert panel.answers is not asked
    assert cell(panel, "sglang-0.5.23", EngineColumn.OUTCOME, Qt.ItemDataRole.DisplayRole) == "Unknown"
    choose(panel, "sglang-0.5.23")
    assert "has no KV-cache dtype 'int8_per_token_head'" in panel.detail.verdict.toPlainText()
    assert not panel.detail.use_button.isEnabled()
    panel.view.activated.emit(panel.view.currentIndex())  # nor does Return
    assert window.session.choices.engine is None


def test_what_mends_an_engine_is_told(panel: EnginesPanel, window: Window, samples: Path, idle: Idle) -> None:
    window.session.open(str(samples / GEMMA))
    idle()
    choose(panel, "vllm-0.23.0")
    assert panel.detail.verdict.toPlainText().endswith("so none is used. Mended by --kv-cache-dtype fp8_e4m3.")
    for engine in ("vllm-0.23.0", "sglang-0.5.23"):  # whose layers hold 1.0, and the scales
        assert cell(panel, engine, EngineColumn.SERVED, Qt.ItemDataRole.DisplayRole) == "0 of 26"
        assert "keeps the cache in bfloat16" in str(cell(panel, engine, EngineColumn.FATE, Qt.ItemDataRole.DisplayRole))
    choose(panel, "vllm-0.27.1")
    assert "Mended by an export (26 of 26 layers are served then)." in panel.detail.verdict.toPlainText()
    assert panel.detail.why.toPlainText() == "Every key ends alike in both."


def test_nothing_is_asked_before_the_tab_is_looked_at(window: Window, opened: Open, idle: Idle, samples: Path) -> None:
    opened(DEEPSEEK)
    panel = window.workspace.engines
    assert panel.answers is None
    window.workspace.show_tab("engines")
    idle()
    assert panel.answers is not None
    window.workspace.show_tab("problems")
    window.session.open(str(samples / GEMMA))
    idle()
    assert panel.answers is None
    assert panel.table.rowCount() == 0


def test_a_cancelled_question_can_be_asked_again(window: Window, opened: Open, idle: Idle) -> None:
    opened(DEEPSEEK)
    panel = window.workspace.engines
    window.workspace.show_tab("engines")
    for job in window.jobs.running():
        job.cancel()
    idle()
    if panel.answers is None:  # the job may have been quicker
        assert panel._note.text == "Cancelled. Show this tab again to retry."
    window.workspace.show_tab("problems")
    window.workspace.show_tab("engines")
    idle()
    assert panel.answers is not None


def test_the_models_keep_their_promises(panel: EnginesPanel, qtmodeltester: ModelTester, window: Window) -> None:
    qtmodeltester.check(panel.table)  # type: ignore[no-untyped-call]
    qtmodeltester.check(panel.detail.table)  # type: ignore[no-untyped-call]
    theme().set_mode("dark")
    assert panel.view.accessibleName() == "Engines"
    assert panel.detail.view.accessibleName() == "Keys under two engines"


def test_a_probed_vllm_is_listed_with_what_is_different_about_it(
    window: Window, opened: Open, idle: Idle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVSCOPE_DATA", str(tmp_path / "data"))
    save(recorded_vllm())
    opened("modelopt/qwen3-36layers-fp8-kvfp8")
    window.workspace.show_tab("engines")
    idle()
    panel = window.workspace.engines
    choose(panel, "installed")
    told = panel.detail.installed.toPlainText()
    assert told.startswith("Differs from the built-in profile of vLLM 0.27.1 in 1 quantization method")
    assert "On this checkpoint it does the same as the built-in profile of vLLM 0.27.1." in told
    assert "bitsandbytes (a checkpoint that declares it is refused)" in told
    panel.detail.use_button.click()
    idle()
    picker = window.workspace.header.engine
    assert picker.box.currentText() == "vLLM 0.30.0 (installed)"
    assert "fewer: 1 quantization method: bitsandbytes" in picker.toolTip()
    choose(panel, "vllm-0.33.0")
    assert not panel.detail.installed.isVisible()
