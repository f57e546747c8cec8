"""The watch itself is watched: a real pytest run of small tests that leave something running."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

LEAVES_A_THREAD = """
    import threading

    import pytest
    import tests.leaks

    tests.leaks.GRACE_S = 0.1  # the thread goes on until the session ends, however slow the machine is
    let_go = threading.Event()

    @pytest.fixture(autouse=True, scope="session")
    def _end():
        yield
        let_go.set()

    def test_thread():
        threading.Thread(target=let_go.wait, name="forgotten").start()
"""
LEAVES_A_TIMER = """
    from PySide6.QtCore import QTimer

    kept = []

    def test_timer(qapp):
        timer = QTimer(objectName="forgotten")
        timer.start(60_000)
        kept.append(timer)
"""
LEAVES_A_JOB = """
    import sys, types

    def test_job():
        jobs = types.ModuleType("app.jobs")
        answers = iter([["open /a/model"], []])
        jobs.running_jobs = lambda: next(answers)
        sys.modules["app.jobs"] = jobs
"""
CLEAN = """
    import threading
    from PySide6.QtCore import QSettings, QTimer
    from PySide6.QtWidgets import QWidget

    def test_clean(qtbot):
        thread = threading.Thread(target=threading.Event().wait, args=(0.05,))
        thread.start()
        widget = QWidget()
        qtbot.addWidget(widget)
        QTimer(widget).start(60_000)
        stopped = QTimer(widget)
        stopped.start(10)
        qtbot.wait(20)
        stopped.stop()

    def test_settings_written():
        settings = QSettings("kvscope", "kvscope")
        settings.setValue("recent", "/a/model")
        settings.sync()
        assert QSettings("kvscope", "kvscope").value("recent") == "/a/model"

    def test_settings_are_not_shared():
        assert QSettings("kvscope", "kvscope").value("recent") is None
"""


def _run(pytester: pytest.Pytester, source: str) -> pytest.RunResult:
    root = Path(__file__).parent.parent
    pytester.makeini(f"[pytest]\nqt_api = pyside6\npythonpath = {root}\n")
    pytester.makeconftest(
        "from tests.conftest import *\nfrom tests.conftest import _nothing_left_running, _own_settings"
    )
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:xdist")


@pytest.mark.parametrize(
    ("source", "named"),
    [
        (LEAVES_A_THREAD, "*left running: thread 'forgotten' at *threading.py*"),
        (LEAVES_A_TIMER, "*left running: timer 'forgotten' (60000 ms), started at *test_*.py:*"),
        (LEAVES_A_JOB, "*left running: job open /a/model*"),
    ],
    ids=["thread", "timer", "job"],
)
def test_what_is_left_running_is_named(pytester: pytest.Pytester, source: str, named: str) -> None:
    result = _run(pytester, source)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([named])


def test_a_clean_test_passes_and_has_settings_of_its_own(pytester: pytest.Pytester) -> None:
    _run(pytester, CLEAN).assert_outcomes(passed=3)
