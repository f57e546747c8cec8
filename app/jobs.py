"""Work off the GUI thread: the only place in the program that starts threads.

One pool, one dispatcher. A job is a plain function that gets a :class:`core.progress.Progress` and touches no widget;
its result is handed over in the GUI thread. Jobs of one *lane* replace each other: starting one cancels its
predecessor, and a result that was already on its way is dropped, so that opening another path while one loads never
mixes the two.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from PySide6.QtCore import QCoreApplication, QObject, Qt, QTimer, Signal, SignalInstance, Slot

from core.errors import CancelledError, KVScopeError
from core.progress import Progress

T = TypeVar("T")

POLL_MS = 100
SHOW_AFTER_S = 0.6
WORKERS = 3

_log = logging.getLogger(__name__)
_all: weakref.WeakSet[Jobs] = weakref.WeakSet()


class UnexpectedError(KVScopeError):
    """A job met an exception that is a fault of this program; it is the ``__cause__``."""


class Job:
    """One piece of work that was started: its title, progress and lane, and the line of code that started it."""

    __slots__ = ("future", "handlers", "lane", "number", "origin", "progress", "scope", "started", "title")

    def __init__(self, number: int, title: str, lane: str, origin: str, scope: int) -> None:
        self.number = number
        self.title = title
        self.lane = lane
        self.scope = scope
        self.origin = origin
        self.progress = Progress(what=title)
        self.started = time.monotonic()
        self.future: Future[Any] | None = None
        self.handlers: tuple[Callable[[Any], None], Callable[[KVScopeError], None]] | None = None

    @property
    def age(self) -> float:
        """Seconds since the job was started."""
        return time.monotonic() - self.started

    @property
    def slow(self) -> bool:
        """Whether the job has run long enough to be worth showing."""
        return self.age >= SHOW_AFTER_S

    def cancel(self) -> None:
        """Ask the job to stop; it ends with ``CancelledError`` at its next check."""
        self.progress.cancel()

    def __repr__(self) -> str:
        return f"<Job {self.title!r} started at {self.origin}>"


class Jobs(QObject):
    """Owns the pool. Signals are emitted in the GUI thread."""

    job_started = Signal(object)
    job_ended = Signal(object)
    progressed = Signal()
    """About ten times a second while anything runs; whoever shows progress reads it from :meth:`running`."""

    _arrived = Signal(int)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="kvscope-job")
        self._numbers = itertools.count(1)
        self._running: dict[int, Job] = {}
        self._lanes: dict[tuple[int, str], int] = {}
        self._closed = False
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self.progressed)
        self._arrived.connect(self._on_arrived, Qt.ConnectionType.QueuedConnection)
        _all.add(self)

    def start(
        self,
        title: str,
        work: Callable[[Progress], T],
        *,
        done: Callable[[T], None],
        failed: Callable[[KVScopeError], None],
        lane: str = "",
        scope: int = 0,
    ) -> Job:
        """Run ``work`` in the pool; then ``done(result)`` or ``failed(error)`` in the GUI thread, never both.

        ``failed`` gets :class:`core.errors.CancelledError` when the user stopped the job; an exception that is not
        meant for users is logged with its traceback and arrives as a KVScopeError. A job that a newer one of its
        lane replaced calls neither.
        """
        if self._closed:
            raise RuntimeError("the job pool has been shut down")
        caller = sys._getframe(1)  # noqa: SLF001 - a leaked job names the line that started it
        if caller.f_code.co_filename == __file__ and caller.f_back is not None:  # a scope stands between
            caller = caller.f_back
        job = Job(next(self._numbers), title, lane, f"{caller.f_code.co_filename}:{caller.f_lineno}", scope)
        job.handlers = done, failed
        if lane:
            self.cancel(lane, scope=scope)
            self._lanes[scope, lane] = job.number
        self._running[job.number] = job
        if not self._timer.isActive():
            self._timer.start()
        job.future = self._pool.submit(_run, work, job.progress)
        job.future.add_done_callback(partial(_announce, self._arrived, job.number))
        self.job_started.emit(job)
        return job

    def scope(self) -> Scope:
        """The same pool with lanes of its own, for one of several open checkpoints."""
        return Scope(self, next(self._numbers))

    def running(self) -> tuple[Job, ...]:
        """Jobs not yet handed over, oldest first."""
        return tuple(self._running.values())

    def cancel(self, lane: str, *, scope: int = 0) -> None:
        """Cancel the lane's job, if one runs, and drop whatever it still delivers."""
        number = self._lanes.pop((scope, lane), None)
        if number in self._running:
            self._running[number].cancel()

    def cancel_all(self) -> None:
        """Ask every job to stop; each ends as cancelled."""
        for job in self.running():
            job.cancel()

    def shutdown(self) -> None:
        """Cancel everything, wait for it, deliver nothing more. May be called twice."""
        self._closed = True
        self.cancel_all()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._running.clear()
        self._lanes.clear()
        self._timer.stop()

    @Slot(int)
    def _on_arrived(self, number: int) -> None:
        job = self._running.get(number)
        if job is None or job.future is None:
            return
        error = job.future.exception()
        del self._running[number]
        if not self._running:
            self._timer.stop()
        current = not job.lane or self._lanes.get((job.scope, job.lane)) == number
        if job.lane and current:
            del self._lanes[job.scope, job.lane]
        handlers, job.handlers = job.handlers, None
        self.job_ended.emit(job)
        if not current or handlers is None:
            return
        done, failed = handlers
        if error is None:
            done(job.future.result())
        else:
            failed(_for_people(job, error))


class Scope:
    """What one open checkpoint may ask of the pool: its lanes are not those of the others, and close with it."""

    def __init__(self, jobs: Jobs, number: int) -> None:
        self._jobs = jobs
        self._number = number

    def start(
        self,
        title: str,
        work: Callable[[Progress], T],
        *,
        done: Callable[[T], None],
        failed: Callable[[KVScopeError], None],
        lane: str = "",
    ) -> Job:
        """As :meth:`Jobs.start`."""
        return self._jobs.start(title, work, done=done, failed=failed, lane=lane, scope=self._number)

    def cancel(self, lane: str) -> None:
        """As :meth:`Jobs.cancel`, among the lanes of this scope."""
        self._jobs.cancel(lane, scope=self._number)

    def running(self) -> tuple[Job, ...]:
        """The scope's jobs not yet handed over, oldest first."""
        return tuple(job for job in self._jobs.running() if job.scope == self._number)

    def close(self) -> None:
        """Cancel whatever runs here and deliver nothing of it: whoever waited is about to be deleted."""
        for job in self.running():
            job.cancel()
            job.handlers = None


AnyJobs = Jobs | Scope


def _run(work: Callable[[Progress], T], progress: Progress) -> T:
    progress.check()
    return work(progress)


def _announce(arrived: SignalInstance, number: int, _future: Future[Any]) -> None:
    """Runs in the worker, after the future is settled; the signal is queued into the GUI thread."""
    arrived.emit(number)


def _for_people(job: Job, error: BaseException) -> KVScopeError:
    if isinstance(error, CancelledError) or job.progress.cancelled:
        return CancelledError(job.title)
    if isinstance(error, KVScopeError):
        return error
    _log.error("%s: unexpected %s", job.title, type(error).__name__, exc_info=error)
    problem = QCoreApplication.translate("Jobs", "{job} stopped on an unexpected {error}: {text}").format(
        job=job.title, error=type(error).__name__, text=error
    )
    found = UnexpectedError(problem, remedy=QCoreApplication.translate("Jobs", "Its details belong into a report."))
    found.__cause__ = error
    return found


def running_jobs() -> tuple[Job, ...]:
    """Every job of every pool that has not been handed over; tests end with none."""
    return tuple(job for jobs in _all for job in jobs.running())
