"""Cyclic garbage is collected in the GUI thread alone."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

from PySide6.QtCore import QObject
from pytestqt.qtbot import QtBot

from app.garbage import GuiThreadCollector


class Knot(QObject):
    """An object in a cycle, which only the collector can free."""

    def __init__(self) -> None:
        super().__init__()
        self.itself = self


def test_a_job_never_collects_and_the_timer_does(qtbot: QtBot) -> None:
    owner = QObject()
    collector = GuiThreadCollector(owner)
    assert not gc.isenabled()
    gone = weakref.ref(Knot())

    def allocate() -> None:
        kept: list[list[int]] = [[] for _ in range(50_000)]
        assert kept

    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    assert gone() is not None
    garbage = [[] for _ in range(5_000)]  # type: ignore[var-annotated]
    qtbot.waitUntil(lambda: gone() is None, timeout=60_000)
    assert garbage
    assert isinstance(collector, QObject)
    owner.deleteLater()
    qtbot.wait(1)


def test_everything_is_looked_at_only_when_much_is_new(qtbot: QtBot) -> None:
    """A full collection takes a fifth of a second once PyTorch is imported; CPython's own rule spares most of them."""
    owner = QObject()
    collector = GuiThreadCollector(owner)
    seen: list[int] = []

    def note(phase: str, details: dict[str, int]) -> None:
        if phase == "start":
            seen.append(details["generation"])

    def collected() -> list[int]:
        for generation in (1, 0):
            for _ in range(gc.get_threshold()[generation + 1] + 1):
                gc.collect(generation)
        gc.callbacks.append(note)
        collector.collect_due()
        gc.callbacks.remove(note)
        found = list(seen)
        seen.clear()
        return found

    assert collected() == [2]
    assert collected() == [1]
    new = [[] for _ in range(len(gc.get_objects()) // 3)]  # type: ignore[var-annotated]
    gc.collect(1)
    assert collected() == [2]
    assert collected() == [1]
    assert new
    owner.deleteLater()
    qtbot.wait(1)


def test_the_application_brings_one_collector() -> None:
    script = (
        "import gc; from app.gui import make_application; from app.garbage import GuiThreadCollector; "
        "a = make_application([]); make_application([]); "
        "print(len(a.findChildren(GuiThreadCollector)), gc.isenabled())"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "1 False"
