"""The real window on real checkpoints, without a display."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PySide6.QtCore import QCoreApplication, QTimer
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.digest import Digest, digest
from app.jobs import Jobs
from app.theme.theme import Theme, theme
from app.window import Window
from core.inspection import inspect

SAMPLES = (
    "modelopt/qwen3-36layers-fp8-kvfp8",
    "llmcompressor/llama-32layers-kv_attn_head",
    "modelopt/deepseekv3-30layers-fp8-kvfp8",
    "quark/gemma3-26layers-fp8-kvfp8",
    "llmcompressor/llama-attn_fp8_tensor",
)
Open = Callable[[str], Window]
REFRESH_MS = 20
"""What is drawn anew after a moment is drawn after this long; a filter or rules that are typed wait longer."""


@pytest.fixture(autouse=True, scope="session")
def _no_collection_in_jobs() -> Iterator[None]:
    """As in the running application (app/garbage.py): widgets are collected in this thread alone, between tests."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _theme_settled() -> Iterator[None]:
    """Hidden widgets of earlier tests, which nobody has collected yet, take a new palette in later turns."""
    yield
    application = QApplication.instance()
    found = application.findChild(Theme, "theme") if application is not None else None
    while isinstance(found, Theme) and not found.settled:
        QCoreApplication.processEvents()


@pytest.fixture
def jobs(qtbot: QtBot) -> Iterator[Jobs]:
    made = Jobs()
    yield made
    made.shutdown()


@pytest.fixture
def window(qtbot: QtBot) -> Iterator[Window]:
    """The window, shown at its usual size; closed, with its jobs, when the test ends."""
    theme().set_mode("light")
    made = Window()
    qtbot.addWidget(made)
    with qtbot.waitExposed(made, timeout=60_000):
        made.show()
    qtbot.waitUntil(lambda: made.ready, timeout=60_000)
    yield made
    made.close()
    theme().set_mode("light")
    qtbot.waitUntil(lambda: theme().settled, timeout=60_000)


@pytest.fixture
def idle(qtbot: QtBot, window: Window) -> Callable[[], None]:
    """Waits until no job runs and the events that its end caused are handled."""

    def refreshing() -> bool:
        timers = window.findChildren(QTimer)
        return any(timer.isActive() and timer.isSingleShot() and timer.interval() <= REFRESH_MS for timer in timers)

    def wait() -> None:
        while True:
            qtbot.waitUntil(lambda: not window.busy and not refreshing(), timeout=60_000)
            qtbot.wait(1)  # what was queued meanwhile may begin something new
            if not window.busy and not refreshing():
                return

    return wait


@pytest.fixture
def opened(window: Window, samples: Path, idle: Callable[[], None]) -> Open:
    """Opens a sample, by ``tool/name``, or any path, and waits for it."""

    def open_it(name: str) -> Window:
        path = Path(name)
        window.open_path(str(path if path.is_absolute() else samples / name))
        idle()
        return window

    return open_it


@pytest.fixture
def digested(samples: Path) -> Callable[[str], Digest]:
    """The digest of a sample, without a window."""
    return lambda name: digest(inspect(samples / name))
