from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app.jobs import SHOW_AFTER_S, Jobs, running_jobs
from core.errors import CancelledError, KVScopeError, UsageError
from core.progress import Progress


class Outcome:
    """Collects what a job hands over, and in which thread."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.errors: list[KVScopeError] = []
        self.threads: set[threading.Thread] = set()

    def done(self, result: Any) -> None:
        self.results.append(result)
        self.threads.add(threading.current_thread())

    def failed(self, error: KVScopeError) -> None:
        self.errors.append(error)
        self.threads.add(threading.current_thread())


def wait_idle(qtbot: QtBot, jobs: Jobs) -> None:
    qtbot.waitUntil(lambda: not jobs.running(), timeout=60_000)


def test_work_runs_elsewhere_and_its_result_arrives_in_the_gui_thread(qtbot: QtBot, jobs: Jobs) -> None:
    outcome = Outcome()
    jobs.start("count", lambda _: threading.current_thread(), done=outcome.done, failed=outcome.failed)
    assert [job.title for job in running_jobs()] == ["count"]
    wait_idle(qtbot, jobs)
    assert outcome.results
    assert outcome.results[0] is not threading.main_thread()
    assert outcome.threads == {threading.main_thread()}
    assert not running_jobs()


def test_a_newer_job_of_a_lane_cancels_the_older_and_drops_its_result(qtbot: QtBot, jobs: Jobs) -> None:
    outcome = Outcome()
    release = threading.Event()

    def slow(progress: Progress) -> str:
        release.wait(60)
        return "old"

    first = jobs.start("first", slow, done=outcome.done, failed=outcome.failed, lane="open")
    jobs.start("second", lambda _: "new", done=outcome.done, failed=outcome.failed, lane="open")
    assert first.progress.cancelled
    release.set()
    wait_idle(qtbot, jobs)
    assert outcome.results == ["new"]
    assert outcome.errors == []


def test_a_result_that_is_on_its_way_is_dropped_when_its_lane_is_cancelled(qtbot: QtBot, jobs: Jobs) -> None:
    outcome = Outcome()
    job = jobs.start("quick", lambda _: "stale", done=outcome.done, failed=outcome.failed, lane="open")
    assert job.future is not None
    job.future.result(timeout=60)  # finished in its thread, not yet handed over
    jobs.cancel("open")
    wait_idle(qtbot, jobs)
    assert outcome.results == []
    assert outcome.errors == []


def test_a_cancelled_job_says_so(qtbot: QtBot, jobs: Jobs) -> None:
    outcome = Outcome()

    def endless(progress: Progress) -> None:
        while True:
            progress.advance()

    job = jobs.start("reading", endless, done=outcome.done, failed=outcome.failed)
    job.cancel()
    wait_idle(qtbot, jobs)
    assert isinstance(outcome.errors[0], CancelledError)
    assert str(outcome.errors[0]) == "reading was cancelled"


def test_an_error_for_people_passes_as_it_is(qtbot: QtBot, jobs: Jobs) -> None:
    outcome = Outcome()
    raised = UsageError("no engine is called 'x'", remedy="Choose one")

    def fail(progress: Progress) -> None:
        raise raised

    jobs.start("predicting", fail, done=outcome.done, failed=outcome.failed)
    wait_idle(qtbot, jobs)
    assert outcome.errors == [raised]


def test_an_unexpected_error_becomes_a_sentence_and_keeps_its_traceback(
    qtbot: QtBot, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = Outcome()

    def fail(progress: Progress) -> None:
        raise ZeroDivisionError("by zero")

    with caplog.at_level(logging.ERROR, "app.jobs"):
        jobs.start("predicting", fail, done=outcome.done, failed=outcome.failed)
        wait_idle(qtbot, jobs)
    expected = "predicting stopped on an unexpected ZeroDivisionError: by zero. Its details belong into a report."
    assert str(outcome.errors[0]) == expected
    assert isinstance(outcome.errors[0].__cause__, ZeroDivisionError)
    assert caplog.records[0].exc_info is not None


def test_progress_is_polled_and_a_job_counts_as_slow_only_after_a_while(qtbot: QtBot, jobs: Jobs) -> None:
    release = threading.Event()
    outcome = Outcome()

    def work(progress: Progress) -> None:
        progress.start("reading headers", total=3, unit="shards")
        progress.advance(2)
        release.wait(60)

    job = jobs.start("opening", work, done=outcome.done, failed=outcome.failed)
    with qtbot.waitSignal(jobs.progressed, timeout=60_000):
        pass
    qtbot.waitUntil(lambda: job.progress.done == 2, timeout=60_000)
    assert (job.progress.what, job.progress.total) == ("reading headers", 3)
    job.started = time.monotonic()
    assert not job.slow
    job.started -= SHOW_AFTER_S
    assert job.slow
    release.set()
    wait_idle(qtbot, jobs)


def test_shutdown_cancels_waits_and_delivers_nothing(qtbot: QtBot, jobs: Jobs) -> None:
    outcome = Outcome()

    def endless(progress: Progress) -> None:
        while True:
            progress.advance()

    for number in range(5):
        jobs.start(f"job {number}", endless, done=outcome.done, failed=outcome.failed)
    jobs.shutdown()
    qtbot.wait(20)
    assert not running_jobs()
    assert outcome.results == []
    assert outcome.errors == []
    with pytest.raises(RuntimeError, match="shut down"):
        jobs.start("late", lambda _: 1, done=outcome.done, failed=outcome.failed)


def test_a_job_names_the_line_that_started_it(qtbot: QtBot, jobs: Jobs) -> None:
    outcome = Outcome()
    job = jobs.start("named", lambda _: 1, done=outcome.done, failed=outcome.failed)
    assert "test_jobs.py:" in repr(job)
    wait_idle(qtbot, jobs)
