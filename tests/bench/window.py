"""What the window costs, measured in a process of its own without a display. Each function prints nothing and returns
milliseconds: CPU time up to the first paint, or the longest wait a user would notice.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["QT_QPA_PLATFORM"] = "offscreen"

if TYPE_CHECKING:
    from PySide6.QtCore import QCoreApplication

    from app.window import Window


def bare_window(_checkpoint: Path) -> float:
    """CPU time from the start of the process to the first paint of a QMainWindow."""
    from PySide6.QtCore import QEvent
    from PySide6.QtWidgets import QApplication, QMainWindow

    spent: list[float] = []

    class Bare(QMainWindow):
        def event(self, event: QEvent) -> bool:
            done = super().event(event)
            if event.type() == QEvent.Type.Paint and not spent:
                spent.append(time.process_time())
            return done

    application = QApplication([])
    window = Bare()
    window.resize(1280, 800)
    window.setWindowTitle("bare")
    window.show()
    while not spent:
        application.processEvents()
    return 1000 * spent[0]


def first_window(_checkpoint: Path) -> float:
    """The same for ``kvscope``, run as its command runs it, with no settings of this machine."""
    spent: list[float] = []
    sys.argv[:] = ["kvscope"]
    os.environ["XDG_CONFIG_HOME"] = tempfile.mkdtemp()
    from app import entry, gui

    def painted() -> None:
        spent.append(time.process_time())

    from app.window import Window

    class Watched(Window):
        def __init__(self, *, furnish: bool = True) -> None:
            super().__init__(furnish=furnish)
            self.painted.connect(painted)
            self.furnished.connect(self.close)

    setattr(gui, "Window", Watched)  # noqa: B010 - the name that start() uses
    entry.main()
    return 1000 * spent[0]


def _shown() -> tuple[QCoreApplication, Window]:
    from PySide6.QtCore import QSettings

    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, tempfile.mkdtemp())
    from app.gui import make_application
    from app.window import Window

    application = make_application(["kvscope"])
    window = Window()
    window.show()
    _settle(application, window)
    return application, window


def _settle(application: QCoreApplication, window: Window) -> float:
    """Handle events until nothing is left to do; the longest time that the loop was away, in ms.

    Away is the time from one turn of the loop to the next, whoever held it up: a slot, a paint, or a job's thread with
    the interpreter's lock.
    """
    longest, before, quiet = 0.0, time.perf_counter(), 0
    while quiet < 20:
        application.processEvents()
        now = time.perf_counter()
        longest, before = max(longest, now - before), now
        quiet = 0 if window.busy else quiet + 1
        time.sleep(0.0005)
    return 1000 * longest


def opening_stall(checkpoint: Path) -> float:
    """The longest stall of the event loop from asking for a checkpoint to its verdict on the screen."""
    application, window = _shown()
    started = time.perf_counter()
    window.open_path(str(checkpoint))
    asked = 1000 * (time.perf_counter() - started)
    longest = max(asked, _settle(application, window))
    window.close()
    return longest


def _listed(checkpoint: Path) -> tuple[QCoreApplication, Window]:
    application, window = _shown()
    window.open_path(str(checkpoint))
    _settle(application, window)
    window.workspace.keys.set_all_tensors(True)
    _settle(application, window)
    return application, window


def filter_names(checkpoint: Path) -> float:
    """All tensors listed: CPU time from a changed filter to the painted rows; the slowest of several filters."""
    application, window = _listed(checkpoint)
    keys = window.workspace.keys
    keys.set_filter("warm")
    spent = []
    for query in ("experts.17", "layers.5 weight_scale", "-mlp", "dtype:f8", "K_PROJ", "layer:3"):
        before = time.thread_time()
        keys.set_filter(query)
        keys.view.viewport().repaint()
        spent.append(1000 * (time.thread_time() - before))
        application.processEvents()
    window.close()
    return max(spent)


def sort_names(checkpoint: Path) -> float:
    """All tensors listed: CPU time from a click on a column's head to the painted rows; the slowest column."""
    from PySide6.QtCore import Qt

    application, window = _listed(checkpoint)
    keys = window.workspace.keys
    spent = []
    for column in range(keys.table.columnCount()):
        for order in (Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder):
            before = time.thread_time()
            keys.view.sortByColumn(column, order)
            keys.view.viewport().repaint()
            spent.append(1000 * (time.thread_time() - before))
            application.processEvents()
    window.close()
    return max(spent)


MEASURES: dict[str, Callable[[Path], float]] = {
    measure.__name__: measure for measure in (bare_window, first_window, opening_stall, filter_names, sort_names)
}


if __name__ == "__main__":
    print(MEASURES[sys.argv[1]](Path(sys.argv[2])))
