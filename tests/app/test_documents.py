"""Several checkpoints in tabs, what is kept for the next run, and the way back through selections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QMimeData, QPointF, Qt, QUrl
from PySide6.QtGui import QDropEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QMenu
from pytestqt.qtbot import QtBot

from app.gui import restore
from app.history import History
from app.panels.reading import Passage
from app.selection import Selection
from app.theme.palettes import DARK, LIGHT, Colours
from app.theme.theme import theme
from app.window import Window
from tests.app.conftest import Open

LLAMA = "llmcompressor/llama-attn_fp8_tensor"
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
Idle = Callable[[], None]


def test_each_checkpoint_has_its_tab_and_its_own_state(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    assert not window.documents.bar.isVisible()
    first = window.workspace
    first.selection.select(["model.layers.5.self_attn.k_proj.k_scale"])
    first.keys.set_filter("layer:5")
    first.keys.set_all_tensors(True)
    idle()
    opened(GEMMA)
    assert window.documents.bar.isVisible()
    assert [window.documents.bar.tabText(place) for place in range(2)] == [Path(QWEN).name, Path(GEMMA).name]
    assert window.windowTitle() == f"{Path(GEMMA).name} – KVScope"
    assert window.workspace is not first
    assert window.workspace.banner.word == "Fails"
    assert window.workspace.selection.ids == {"model.layers.0.self_attn.k_proj.output_scale"}
    assert not window.actions_table["all_tensors"].isChecked()
    QTest.keyClick(window, Qt.Key.Key_PageDown, Qt.KeyboardModifier.ControlModifier)
    assert window.workspace is first
    assert window.windowTitle() == f"{Path(QWEN).name} – KVScope"
    assert first.selection.ids == {"model.layers.5.self_attn.k_proj.k_scale"}
    assert window.actions_table["all_tensors"].isChecked()
    assert "72 scales" in window.status.files.text()
    window.actions_table["previous_tab"].trigger()
    assert window.workspace.banner.word == "Fails"
    assert "72 scales" not in window.status.files.text()


def test_the_story_of_a_hidden_tab_takes_the_theme_when_it_is_shown(
    window: Window, opened: Open, idle: Idle, qtbot: QtBot
) -> None:
    def marked(colours: Colours) -> bool:
        return any(colours.ok.tint in part.toHtml() for part in hidden.why.findChildren(Passage))

    opened(QWEN)
    hidden = window.workspace
    opened(GEMMA)
    assert marked(LIGHT)
    theme().set_mode("dark")
    assert marked(LIGHT)
    qtbot.waitUntil(lambda: theme().settled, timeout=60_000)
    window.actions_table["previous_tab"].trigger()
    idle()
    assert marked(DARK)


def test_opening_what_is_open_goes_to_its_tab(window: Window, opened: Open, samples: Path) -> None:
    opened(QWEN)
    opened(LLAMA)
    opened(QWEN)
    assert window.documents.paths() == [str(samples / QWEN), str(samples / LLAMA)]
    assert window.session.path == str(samples / QWEN)


def test_what_did_not_open_leaves_its_tab_to_the_next(window: Window, opened: Open, tmp_path: Path) -> None:
    opened(str(tmp_path / "absent"))
    assert window.workspace.banner.word == "Cannot be opened"
    opened(QWEN)
    assert len(window.documents.all()) == 1


def test_closing_a_tab_while_it_works_delivers_nothing(window: Window, opened: Open, idle: Idle, samples: Path) -> None:
    opened(QWEN)
    opened(LLAMA)
    workspace = window.workspace
    workspace.show_tab("backends")
    workspace.keys.set_all_tensors(True)
    window.session.compare(str(samples / QWEN))
    assert window.jobs.running()
    window.documents.bar.tabCloseRequested.emit(1)
    idle()
    assert window.documents.paths() == [str(samples / QWEN)]
    assert window.workspace.banner.word == "OK"
    assert not window.documents.bar.isVisible()


def test_two_tabs_work_at_the_same_time(window: Window, opened: Open, idle: Idle, samples: Path) -> None:
    opened(QWEN)
    first = window.workspace
    opened(LLAMA)
    for workspace in (first, window.workspace):  # the same lane of two checkpoints: neither replaces the other
        workspace.keys.set_all_tensors(True)
    idle()
    assert first.keys.table.total() == first.session.inspection.checkpoint.tensor_count  # type: ignore[union-attr]
    assert window.workspace.keys.table.total() != first.keys.table.total()


def test_the_checkpoints_of_the_last_run_are_restored(
    window: Window, opened: Open, qtbot: QtBot, samples: Path, tmp_path: Path
) -> None:
    opened(QWEN)
    opened(LLAMA)
    opened(GEMMA)
    window.documents.bring(window.documents.all()[1])
    window.close()
    later = Window()
    qtbot.addWidget(later)
    later.show()
    restore(later)
    qtbot.waitUntil(lambda: later.session.digest is not None and not later.jobs.running(), timeout=60_000)
    assert later.documents.paths() == [str(samples / name) for name in (QWEN, LLAMA, GEMMA)]
    assert later.session.path == str(samples / LLAMA)
    assert [document.session.digest is not None for document in later.documents.all()] == [False, True, False]
    later.actions_table["next_tab"].trigger()
    qtbot.waitUntil(lambda: later.session.digest is not None and not later.jobs.running(), timeout=60_000)
    assert later.workspace.banner.word == "Fails"
    later.settings.set_text("restore", "no")
    later.close()
    last = Window()
    qtbot.addWidget(last)
    last.show()
    restore(last)
    qtbot.waitUntil(lambda: last.ready and not last.jobs.running(), timeout=60_000)
    assert last.documents.paths() == []
    last.settings.set_text("restore", "")
    last.settings.set_open([str(tmp_path / "gone")], None)
    restore(last)  # what has gone is not asked for again
    assert last.documents.paths() == []
    last.close()


def drop(window: Window, *paths: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    window.dropEvent(
        QDropEvent(
            QPointF(50, 50),
            Qt.DropAction.CopyAction,
            data,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
    )


@pytest.mark.parametrize(("entry", "tabs"), [(0, 2), (1, 1)])
def test_a_second_checkpoint_that_is_dropped_is_opened_or_compared(
    window: Window, opened: Open, idle: Idle, samples: Path, entry: int, tabs: int
) -> None:
    opened(QWEN)
    drop(window, samples / LLAMA)
    assert window._drop_menu is not None
    assert [action.text() for action in window._drop_menu.actions()] == [
        "Open in a tab of its own",
        f"Compare with {Path(QWEN).name}",
    ]
    window._drop_menu.actions()[entry].trigger()
    window._drop_menu.close()
    idle()
    assert len(window.documents.all()) == tabs
    if entry:
        assert window.workspace.current_tab() == "compare"
        assert window.session.other == str(samples / LLAMA)
    else:
        assert window.session.path == str(samples / LLAMA)


def test_several_that_are_dropped_are_opened(window: Window, idle: Idle, samples: Path) -> None:
    drop(window, samples / QWEN, samples / LLAMA)
    idle()
    assert window.documents.paths() == [str(samples / QWEN), str(samples / LLAMA)]
    assert window.session.path == str(samples / QWEN)


def test_what_is_open_is_no_second_time_when_several_are_dropped(
    window: Window, opened: Open, idle: Idle, samples: Path
) -> None:
    opened(QWEN)
    drop(window, samples / QWEN, samples / LLAMA)
    idle()
    assert window.documents.paths() == [str(samples / QWEN), str(samples / LLAMA)]


def test_menus_of_drops_go_with_them(window: Window, opened: Open, samples: Path, qtbot: QtBot) -> None:
    opened(QWEN)
    before = len(window.findChildren(QMenu))
    for _ in range(3):
        drop(window, samples / LLAMA)
        assert window._drop_menu is not None
        window._drop_menu.close()
    qtbot.waitUntil(lambda: len(window.findChildren(QMenu)) == before, timeout=60_000)


def test_all_that_is_asked_for_before_the_window_is_ready_is_opened(qtbot: QtBot, samples: Path) -> None:
    window = Window()
    qtbot.addWidget(window)
    window.show()
    assert not window.ready
    window.open_path(str(samples / QWEN))
    window.open_path(str(samples / LLAMA))
    qtbot.waitUntil(lambda: not window.busy, timeout=60_000)
    assert window.documents.paths() == [str(samples / QWEN), str(samples / LLAMA)]
    assert window.session.path == str(samples / LLAMA)
    assert window.session.digest is not None
    window.close()


def test_a_tensor_that_is_no_scale_is_shown_among_all(window: Window, idle: Idle, samples: Path) -> None:
    window.open_path(str(samples / QWEN), select="model.norm.weight")
    idle()
    idle()
    keys = window.workspace.keys
    assert keys.all_tensors
    assert keys.table.id_at(keys.view.currentIndex().row()) == "model.norm.weight"


# --- back and forward


def test_back_and_forward(window: Window, opened: Open) -> None:
    opened(QWEN)
    workspace, table = window.workspace, window.actions_table
    names = [f"model.layers.{layer}.self_attn.k_proj.k_scale" for layer in (1, 7, 30)]
    assert not table["back"].isEnabled()
    for name in names:
        workspace.selection.select([name])
    table["back"].trigger()
    table["back"].trigger()
    assert workspace.selection.current == names[0]
    assert workspace.keys.table.id_at(workspace.keys.view.currentIndex().row()) == names[0]
    table["back"].trigger()
    assert workspace.selection.current == "model.layers.0.self_attn.k_proj.k_scale"  # the one it was opened with
    assert not table["back"].isEnabled()
    table["forward"].trigger()
    QTest.keyClick(window, Qt.Key.Key_Right, Qt.KeyboardModifier.AltModifier)
    assert workspace.selection.current == names[1]
    workspace.selection.select(["model.layers.3.self_attn.v_proj.v_scale"])
    assert not table["forward"].isEnabled()


def test_a_held_arrow_key_is_one_step(qapp: object) -> None:
    now = [0.0]
    selection, view = Selection(), object()
    history = History(selection, clock=lambda: now[0])
    selection.select(["a"], origin=view)
    for name in ("b", "c", "d"):
        now[0] += 0.1
        selection.select([name], origin=view)
    now[0] += 2
    selection.select(["e"], origin=view)
    selection.clear()
    selection.select(["f"], origin=object())
    history.go(-1)
    assert selection.current == "e"
    history.go(-1)
    assert selection.current == "d"
    assert not history.can_go_back
    history.go(-1)
    assert selection.current == "d"
    for number in range(300):
        selection.select([str(number)], origin=object())
    history.clear()
    assert not history.can_go_back
