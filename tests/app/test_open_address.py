"""Opening an address in the window, from a server process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QDialogButtonBox, QFileDialog, QLabel
from pytestqt.qtbot import QtBot

from app.dialogs import AddressDialog
from app.panels.export import ExportPanel
from app.panels.parts import Button
from app.panels.reading import Passage
from app.window import Window
from core.inspection import inspect
from tests.core.export.test_overlay import LLAMA, lost_layer
from tests.hub_server import Server, serving

SAMPLE = "modelopt/qwen3-36layers-fp8-kvfp8"
Idle = Callable[[], None]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("web")
    shutil.copytree(samples / SAMPLE, root / "qwen3")
    lost_layer(root / "lost")
    with pytest.MonkeyPatch.context() as patch, serving(root) as running:
        patch.setenv("KVSCOPE_CACHE", str(root / "cache"))
        yield running
    assert os.environ.get("KVSCOPE_CACHE") is None


def _ask(window: Window, qtbot: QtBot, address: str) -> None:
    window.actions_table["open_address"].trigger()
    dialog = window.findChildren(AddressDialog)[-1]
    QTest.keyClicks(dialog.line, address)
    QTest.keyClick(dialog.line, Qt.Key.Key_Return)


def test_an_address_opens_like_a_folder(window: Window, idle: Idle, qtbot: QtBot, server: Server) -> None:
    address = f"{server.url}/files/qwen3/model.safetensors.index.json"
    _ask(window, qtbot, address)
    idle()
    digest = window.session.digest
    assert digest is not None
    assert digest.inspection.checkpoint.place == address
    assert window.workspace.banner.word == "OK"
    assert window.settings.recent()[0] == address
    window.actions_table["reload"].trigger()
    idle()
    assert window.session.digest is not None
    window.workspace.show_tab("export")
    idle()
    assert window.workspace.export.current_plan is not None


def ways(panel: ExportPanel) -> dict[str, tuple[bool, str]]:
    """The ways of writing: whether each can be chosen, and what is said of it."""
    model = panel.mode.model()
    rows = [model.index(row, 0) for row in range(model.rowCount())]
    return {
        str(row.data(Qt.ItemDataRole.UserRole)): (
            bool(row.flags() & Qt.ItemFlag.ItemIsEnabled),
            row.data(Qt.ItemDataRole.ToolTipRole) or "",
        )
        for row in rows
    }


def told(panel: ExportPanel) -> str:
    return "\n".join(passage.toPlainText() for passage in panel.findChildren(Passage) if passage.isVisible())


def take_scales(panel: ExportPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(LLAMA / "model.safetensors"), ""))
    panel.scales_button.click()


def test_an_overlay_is_written_for_a_checkpoint_at_an_address(
    window: Window, idle: Idle, qtbot: QtBot, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{server.url}/files/lost"
    _ask(window, qtbot, address)
    idle()
    window.workspace.show_tab("export")
    idle()
    panel = window.workspace.export
    no = (False, "A copy would download the whole checkpoint.")
    assert ways(panel) == {"": no, "link": no, "clone": no, "copy": no, "overlay": (True, "")}
    assert panel.mode.currentData() == "overlay"
    assert "An overlay fetches no shard" in told(panel)
    assert Path(panel.folder.text()) == Path.home() / "lost-kvscope"
    take_scales(panel, monkeypatch)
    idle()
    out = tmp_path / "out"
    panel.folder.setText(str(out))
    server.set_faults()
    panel.write_button.click()
    idle()
    assert panel.result is not None
    assert panel.result.verdict_after.outcome == "ok"
    assert panel.message.endswith(f"Put it beside the shards of {address}.")
    assert not panel.open_button.isVisible()
    assert server.requests() == []
    written = ["kvscope-export.json", "model-kvscales.safetensors", "model.safetensors.index.json"]
    assert sorted(path.name for path in out.iterdir()) == written
    shutil.copytree(lost_layer(tmp_path / "both"), tmp_path / "whole")
    shutil.copytree(out, tmp_path / "whole", dirs_exist_ok=True)
    assert inspect(tmp_path / "whole", kv_cache_dtype="fp8").verdict == panel.result.verdict_after


def test_an_overlay_that_cannot_be_is_explained(window: Window, idle: Idle, qtbot: QtBot, server: Server) -> None:
    address = f"{server.url}/files/qwen3/model.safetensors.index.json"
    _ask(window, qtbot, address)
    idle()
    window.session.choose(window.session.choices.with_engine("sglang-0.5.23"))
    idle()
    window.workspace.show_tab("export")
    idle()
    panel = window.workspace.export
    panel.write_button.click()
    idle()
    assert panel.message == (
        f"{address}: SGLang 0.5.23 was not seen to honour an overlay. Download it first, and export that folder "
        "without --overlay."
    )
    assert panel.result is None


def test_an_overlay_is_written_for_a_folder(
    window: Window, idle: Idle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = lost_layer(tmp_path / "source")
    window.open_path(str(source))
    idle()
    window.workspace.show_tab("export")
    idle()
    panel = window.workspace.export
    assert set(ways(panel).values()) == {(True, "")}
    assert panel.mode.currentData() == ""
    assert "not on this machine" not in told(panel)
    take_scales(panel, monkeypatch)
    idle()
    panel.mode.setCurrentIndex(panel.mode.findData("overlay"))
    panel.write_button.click()
    idle()
    assert panel.result is not None
    assert panel.result.verdict_after.outcome == "ok"
    assert (panel.result.out / "model.safetensors").samefile(source / "model.safetensors")
    assert (panel.result.out / "model-kvscales.safetensors").exists()
    assert panel.open_button.isVisible()


def test_an_address_that_leads_nowhere_is_told(window: Window, idle: Idle, qtbot: QtBot, server: Server) -> None:
    _ask(window, qtbot, f"{server.url}/files/qwen3/none.safetensors")
    idle()
    assert window.session.digest is None
    assert "there is no such file" in window.workspace.waiting.text


def test_stopping_while_a_server_hangs(window: Window, idle: Idle, qtbot: QtBot, server: Server) -> None:
    server.set_faults({"match": "index.json", "kind": "hang", "seconds": 60, "times": 9})
    _ask(window, qtbot, f"{server.url}/files/qwen3/model.safetensors.index.json")
    qtbot.waitUntil(lambda: bool(server.requests()), timeout=60_000)
    window.actions_table["stop"].trigger()
    qtbot.waitUntil(lambda: not window.busy, timeout=60_000)
    assert window.session.digest is None
    server.set_faults()


def test_only_an_address_can_be_opened(window: Window, qtbot: QtBot) -> None:
    window.actions_table["open_address"].trigger()
    dialog = window.findChildren(AddressDialog)[-1]
    open_button = dialog.buttons.button(QDialogButtonBox.StandardButton.Open)
    for text, enabled in (("", False), ("hf://", False), ("a/b", False), (" hf://org/name ", True)):
        dialog.line.setText(text)
        assert open_button.isEnabled() is enabled
    dialog.buttons.button(QDialogButtonBox.StandardButton.Cancel).click()
    assert window.session.path is None


def test_the_start_page_asks_for_an_address(window: Window) -> None:
    button = next(each for each in window.welcome.zone.findChildren(Button) if "Address" in each.text())
    assert not window.findChildren(AddressDialog)
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    [dialog] = window.findChildren(AddressDialog)
    dialog.reject()


def test_the_dialog_is_as_high_as_its_text(window: Window, qtbot: QtBot) -> None:
    window.actions_table["open_address"].trigger()
    dialog = window.findChildren(AddressDialog)[-1]
    labels = dialog.findChildren(QLabel)
    assert labels
    qtbot.waitUntil(
        lambda: all(label.height() >= label.heightForWidth(label.width()) for label in labels), timeout=60_000
    )
    assert dialog.rect().contains(dialog.buttons.geometry())
    button = dialog.buttons.button(QDialogButtonBox.StandardButton.Open)
    assert button.height() >= button.minimumSizeHint().height()
    dialog.close()
