"""Fifty checkpoints, one after the other, in one window: nothing is left behind."""

from __future__ import annotations

import ctypes
import gc
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QCoreApplication, QEvent, QObject, QTimer
from PySide6.QtWidgets import QApplication

from app.window import Window
from tests.app.conftest import Open
from tests.places import checkpoint_folders

Idle = Callable[[], None]
ROUNDS = 50
SETTLED = 15
"""Rounds after which every module is imported and every cache is as large as it gets."""
GROWTH = 20 << 20
"""Bytes of resident memory that the last 35 rounds may add. A workspace that stays behind costs 5 MiB; the quarter of
a MiB a round that is seen is no object of Python or Qt.
"""
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


def resident() -> int:
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back first: glibc keeps it otherwise
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def cleared() -> None:
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
    gc.collect()


def one_round(window: Window, idle: Idle, path: Path, number: int) -> None:
    """What a user does with a checkpoint, in a tab of its own that is closed again."""
    window.open_path(str(path))
    idle()
    assert window.session.path == str(path)
    assert window.session.digest is not None, path
    workspace = window.workspace
    workspace.keys.set_filter("layer:0 -role:v")
    workspace.keys.set_all_tensors(True)
    idle()
    workspace.keys.clear_filter()
    ids = list(itertools.islice(workspace.keys.table.visible_ids(), 3))
    workspace.selection.select(ids)
    workspace.go_to_problem(1)
    if number % 3 == 0:
        workspace.show_tab(("plot", "backends", "engines", "config", "export")[number // 3 % 5])
        idle()
    window.session.compare(str(window.documents.all()[0].path))
    idle()
    assert window.session.compared is not None
    if number % 8 == 0:
        workspace.show_tab("gpu")
        idle()
        workspace.gpu.run()
        idle()
    window.actions_table["close"].trigger()


def test_fifty_checkpoints_leave_nothing_behind(window: Window, opened: Open, idle: Idle) -> None:
    opened(QWEN)
    base = window.session.path
    paths = [path for path in checkpoint_folders().values() if str(path) != base]
    widgets = objects = memory = 0
    for number, path in enumerate(itertools.islice(itertools.cycle(paths), ROUNDS)):
        one_round(window, idle, path, number)
        if number + 1 == SETTLED:
            cleared()
            widgets, memory = len(QApplication.allWidgets()), resident()
            objects = len(window.findChildren(QObject))
    idle()
    cleared()
    assert window.documents.paths() == [base]
    assert window.jobs.running() == ()
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("kvscope-job")]
    assert len(workers) <= 3
    assert len(QApplication.allWidgets()) <= widgets + 5
    assert len(window.findChildren(QObject)) <= objects + 5
    assert [timer for timer in window.findChildren(QTimer) if timer.isActive()] == []
    assert resident() - memory < GROWTH, f"{(resident() - memory) >> 20} MiB more"
