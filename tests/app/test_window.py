"""Choices, looks, memory and keyboard of the window."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtTest import QTest
from PySide6.QtWidgets import (
    QAbstractButton,
    QAbstractScrollArea,
    QApplication,
    QComboBox,
    QLineEdit,
    QTabWidget,
    QWidget,
)
from pytestqt.qtbot import QtBot

from app import entry
from app.panels.pickers import Picker
from app.panels.reading import ElidedLabel
from app.session import Choices
from app.status import Status
from app.theme.theme import theme
from app.window import Window
from app.workspace import TABS
from tests.app.conftest import Open

LLAMA = "llmcompressor/llama-attn_fp8_tensor"
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]


def clipboard() -> str:
    return QGuiApplication.clipboard().text()


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


def test_captions_of_the_pickers_are_whole_where_there_is_room(window: Window, opened: Open) -> None:
    opened(LLAMA)
    window.resize(1600, 800)
    QApplication.processEvents()
    for name, picker in pickers(window).items():
        caption = picker.findChild(ElidedLabel)
        assert caption is not None
        assert caption.fontMetrics().horizontalAdvance(caption.text()) <= caption.width(), name


def test_sizes_are_remembered(qtbot: QtBot, samples: Path) -> None:
    first = Window()
    qtbot.addWidget(first)
    first.show()
    screen = first.screen().availableSize()  # offscreen, that is less than a window takes by itself, and 960 the least
    assert (first.width(), first.height()) == (960, min(800, screen.height()))
    first.resize(960, 640)
    first.open_path(str(samples / LLAMA))
    qtbot.waitUntil(lambda: first.session.digest is not None, timeout=60_000)
    first.workspace.body.setSizes([140, 420, 300])
    sizes = first.workspace.body.sizes()
    first.close()
    second = Window()
    qtbot.addWidget(second)
    second.show()
    assert (second.width(), second.height()) == (960, 640)
    second.open_path(str(samples / LLAMA))
    qtbot.waitUntil(lambda: second.session.digest is not None, timeout=60_000)
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
    from app.dialogs import About, CommandPalette
    from app.shortcuts import Shortcuts

    opened(LLAMA)
    for name, kind in (("about", About), ("shortcuts", Shortcuts), ("commands", CommandPalette)):
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


def test_tab_goes_through_the_views_as_they_stand(window: Window, opened: Open, qtbot: QtBot) -> None:
    opened(DEEPSEEK)
    window.activateWindow()
    workspace = window.workspace
    workspace.selection.select([workspace.keys.table.id_at(5) or ""])  # the story is told anew, after all else is made
    qtbot.wait(50)
    workspace.keys.view.setFocus()
    passed: list[QWidget] = []
    while (widget := QApplication.focusWidget()) is not None and widget not in passed:
        passed.append(widget)
        QTest.keyClick(widget, Qt.Key.Key_Tab)
    in_why = [place for place, widget in enumerate(passed) if workspace.why.isAncestorOf(widget)]
    assert in_why == [1, 2, 3]  # two buttons and the story, which is one stop
    page, story = passed[3], workspace.why.story
    assert isinstance(page, QAbstractScrollArea)
    assert story is not None
    assert page.accessibleDescription() == story.as_text(sources=False)
    assert workspace.tabs.isAncestorOf(passed[4])
    strip = passed.index(workspace.coverage.strip)
    legend = [place for place, widget in enumerate(passed) if workspace.coverage.isAncestorOf(widget)]
    assert legend == list(range(strip, strip + len(legend)))  # the strip, then its legend's buttons
    assert len(legend) == 2
    groups = [place for place, widget in enumerate(passed) if workspace.groups.isAncestorOf(widget)]
    assert groups[0] == legend[-1] + 1
    page.setFocus()
    bar = page.verticalScrollBar()
    qtbot.waitUntil(lambda: bar.maximum() > 0, timeout=60_000)
    QTest.keyClick(page, Qt.Key.Key_PageDown)
    assert bar.value() > 0


class _Windows(QObject):
    """Notes every widget that is shown as a window of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        if event.type() == QEvent.Type.Show and isinstance(watched, QWidget) and watched.isWindow():
            self.shown.append(repr(watched))
        return False


def test_no_panel_opens_a_window_and_each_takes_the_keyboard(
    window: Window, opened: Open, idle: Idle, qapp: QApplication
) -> None:
    windows = _Windows()
    qapp.installEventFilter(windows)
    window.activateWindow()
    for sample in (LLAMA, GEMMA):
        opened(sample)
        for name in TABS:
            window.workspace.show_tab(name)
            idle()
            focused = QApplication.focusWidget()
            assert focused is not None, name
            assert window.workspace.tabs.isAncestorOf(focused), name
            assert focused.focusPolicy() & Qt.FocusPolicy.TabFocus, name
    qapp.removeEventFilter(windows)
    assert windows.shown == []
    window.workspace.show_tab("problems")
    assert QApplication.focusWidget() is window.workspace.problems.view


def test_what_is_worst_is_shown_first_also_where_it_concerns_no_row(window: Window, opened: Open, shared: Path) -> None:
    opened(str(shared / "checkpoints/llmcompressor/llama-attn_int8_asym"))
    workspace = window.workspace
    assert workspace.problems.table.findings()[0].code == "load-refused"
    finding = workspace.problems.detail.finding
    assert finding is not None
    assert finding.code == "load-refused"  # of the whole checkpoint, while the row to begin with has another one
    assert workspace.selection.current is not None
    QTest.keyClick(window, Qt.Key.Key_F8)
    finding = workspace.problems.detail.finding
    assert finding is not None
    assert finding.code == "uninitialised"


def test_no_widget_is_asked_for_its_neighbour_in_the_focus_chain() -> None:
    """PySide takes what nextInFocusChain() returns for a child: windows that are collected end the process."""
    calls = re.compile(r"\.(next|previous)InFocusChain\(")
    app = Path(entry.__file__).parent
    assert [path.name for path in app.rglob("*.py") if calls.search(path.read_text("utf-8"))] == []
