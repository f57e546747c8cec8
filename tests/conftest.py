"""What every test gets: Qt without a display, settings of its own, real checkpoints, and a watch on what it leaves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")  # read when the first QApplication is made
os.environ["KVSCOPE_DATA"] = str(Path(__file__).parent / "nothing-kept")  # no engine that was probed on this machine

import hypothesis
import pytest
from PySide6.QtCore import QSettings

from tests.leaks import nothing_left_running
from tests.places import SAMPLES, checkpoint_folders, shared_folder

# A loaded machine makes any deadline a coin toss; the same examples on every run make a failure one that repeats.
hypothesis.settings.register_profile("kvscope", deadline=None, derandomize=True)
hypothesis.settings.load_profile("kvscope")


def pytest_configure() -> None:
    try:
        shared_folder()
    except NotADirectoryError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header() -> str:
    shared = shared_folder()
    if shared is None:
        return "shared checkpoints: none (KVSCOPE_SHARED or ../shared); the tests that need them are deselected"
    return f"shared checkpoints: {shared}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if shared_folder() is not None:
        return
    needing = [item for item in items if "shared" in getattr(item, "fixturenames", ())]
    if needing:
        config.hook.pytest_deselected(items=needing)
        items[:] = [item for item in items if item not in needing]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``checkpoint_folder`` in a test's arguments runs it once for each real checkpoint at hand."""
    if "checkpoint_folder" in metafunc.fixturenames:
        folders = checkpoint_folders()
        metafunc.parametrize("checkpoint_folder", folders.values(), ids=folders.keys())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the agreement with golden data that tests recorded, before pytest's last line."""
    lines = sorted(
        str(value)
        for kind in ("passed", "failed")
        for report in terminalreporter.stats.get(kind, ())
        for name, value in report.user_properties
        if name == "agreement"
    )
    if lines:
        terminalreporter.section("agreement with real engines")
        for line in lines:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with all real checkpoints and golden data; tests that ask for it are deselected where it is not."""
    folder = shared_folder()
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def samples() -> Path:
    """The bundled sample checkpoints, ``tool/name`` below it."""
    return SAMPLES


@pytest.fixture(autouse=True)
def _own_settings(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> None:
    """QSettings of a folder that no other test sees; Qt creates it with the first write."""
    folder = tmp_path_factory.getbasetemp() / "settings" / str(abs(hash(request.node.nodeid)))
    for scope in (QSettings.Scope.UserScope, QSettings.Scope.SystemScope):
        for kind in (QSettings.Format.NativeFormat, QSettings.Format.IniFormat):
            QSettings.setPath(kind, scope, str(folder))


@pytest.fixture(autouse=True)
def _nothing_left_running(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with nothing_left_running(monkeypatch):
        yield
