"""Finds what a test left running: threads, jobs, timers. Each is named with the line that is to blame."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import pytest
import shiboken6
from PySide6.QtCore import QCoreApplication, QEvent, QTimer

GRACE_S = 20.0  # for a thread that is just ending, on a slow machine


def _wait_until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        if QCoreApplication.instance() is not None:
            QCoreApplication.processEvents()
        time.sleep(0.005)


def running_threads(before: set[threading.Thread]) -> list[str]:
    """Non-daemon threads that were not there ``before``, each with the line it is at."""

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if not thread.daemon and thread not in before]

    _wait_until(lambda: not left(), GRACE_S)
    frames = sys._current_frames()
    found = []
    for thread in left():
        frame = frames.get(thread.ident or 0)
        where = f" at {_line(traceback.extract_stack(frame)[-1])}" if frame else ""
        found.append(f"thread {thread.name!r}{where}")
    return found


def running_jobs() -> list[str]:
    """Jobs of the window that have not ended. Waits for them afterwards: Qt aborts when a pool dies at work."""
    jobs = sys.modules.get("app.jobs")
    if jobs is None:
        return []
    if QCoreApplication.instance() is not None:
        QCoreApplication.processEvents()
    found = [f"job {job}" for job in jobs.running_jobs()]
    _wait_until(lambda: not jobs.running_jobs(), 10.0)
    return found


class Timers:
    """Remembers, for the length of one test, each QTimer that Python code starts and where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._started: WeakKeyDictionary[QTimer, str] = WeakKeyDictionary()
        original = QTimer.start

        def start(timer: QTimer, *args: int) -> None:
            caller = sys._getframe(1)
            self._started[timer] = f"{caller.f_code.co_filename}:{caller.f_lineno}"
            original(timer, *args)

        monkeypatch.setattr(QTimer, "start", start)

    def active(self) -> list[str]:
        """Timers that still run, once everything that asked for deletion is deleted."""
        if QCoreApplication.instance() is not None:
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
        return [
            f"timer {timer.objectName()!r} ({timer.interval()} ms), started at {where}"
            for timer, where in list(self._started.items())
            if shiboken6.isValid(timer) and timer.isActive()
        ]


@contextmanager
def nothing_left_running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test in whose span something was started that still runs when it ends."""
    before = set(threading.enumerate())
    timers = Timers(monkeypatch)
    yield
    left = [*running_jobs(), *timers.active(), *running_threads(before)]
    if left:
        pytest.fail("the test left running: " + "; ".join(left), pytrace=False)


def _line(entry: traceback.FrameSummary) -> str:
    return f"{entry.filename}:{entry.lineno}"
