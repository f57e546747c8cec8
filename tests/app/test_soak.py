"""Fifty checkpoints, one after the other, in one window: nothing is left behind."""

from __future__ import annotations

import gc
import itertools
import sys
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
SETTLED = 17
"""Rounds after which every module is imported and every cache is as large as it gets: the checkpoints come again then,
because each new architecture leaves its module tree in one.
"""
GROWTH = 12 << 20
"""Bytes of resident memory that the last 33 rounds may add. Seven MiB are seen, less than one where glibc keeps one
arena (MALLOC_ARENA_MAX=1): jobs run in threads, and their arenas fragment.
"""
BLOCKS = 20_000
"""Blocks of Python's memory that they may add, of more than a million; which checkpoint was open last decides 7,000."""
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


def resident() -> int:
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
    paths = [path for path in checkpoint_folders().values() if str(path) != base][:SETTLED]
    widgets = objects = memory = blocks = 0
    for number, path in enumerate(itertools.islice(itertools.cycle(paths), ROUNDS)):
        one_round(window, idle, path, number)
        if number + 1 == SETTLED:
            cleared()
            widgets, memory = len(QApplication.allWidgets()), resident()
            objects, blocks = len(window.findChildren(QObject)), sys.getallocatedblocks()
    idle()
    cleared()
    assert window.documents.paths() == [base]
    assert window.jobs.running() == ()
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("kvscope-job")]
    assert len(workers) <= 3
    assert len(QApplication.allWidgets()) <= widgets + 5
    assert len(window.findChildren(QObject)) <= objects + 5
    assert [timer for timer in window.findChildren(QTimer) if timer.isActive()] == []
    assert sys.getallocatedblocks() - blocks < BLOCKS
    assert resident() - memory < GROWTH, f"{(resident() - memory) >> 20} MiB more"
