"""A window on a real X server, started from the command line and driven by the keyboard alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.display import missing_packages

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
SERVER = shutil.which("Xvfb")

# What runs in the window's process: after the window has drawn the checkpoint, keys are sent to whatever has the
# keyboard, as a user's are, and a picture is taken of the screen, not of a widget.
DRIVER = """
import sys
from PySide6.QtCore import Qt, QTimer
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from app import entry, gui
from app.window import Window

OUT = sys.argv.pop()
steps = iter(())

def press(key, modifiers=Qt.KeyboardModifier.NoModifier):
    QTest.keyClick(QApplication.focusWidget(), key, modifiers)

def drive(window):
    control = Qt.KeyboardModifier.ControlModifier
    assert QApplication.platformName() == "xcb", QApplication.platformName()
    while QApplication.focusWidget() is None:  # there is no window manager to give the window the keyboard
        window.activateWindow()
        yield
    press(Qt.Key.Key_F, control)
    QTest.keyClicks(QApplication.focusWidget(), "layer:7")
    press(Qt.Key.Key_Return)
    yield
    print("rows", window.workspace.keys.table.rowCount())
    press(Qt.Key.Key_Down)
    yield
    print("current", window.workspace.selection.current)
    press(Qt.Key.Key_C, control)
    print("clipboard", QApplication.clipboard().text())
    press(Qt.Key.Key_D, control | Qt.KeyboardModifier.ShiftModifier)
    yield
    press(Qt.Key.Key_4, control)
    yield
    yield
    print("tab", window.workspace.current_tab())
    picture = window.screen().grabWindow(window.winId())
    print("picture", picture.width(), picture.height(), picture.save(OUT))
    press(Qt.Key.Key_Q, control)

class Watched(Window):
    def furnish(self):
        super().furnish()
        self.steps = drive(self)
        self.timer = QTimer(self)
        self.timer.timeout.connect(self.step)
        self.timer.start(150)

    def step(self):
        if not self.busy and self.session.digest is not None:
            next(self.steps, None)

gui.Window = Watched
sys.exit(entry.main())
"""


@pytest.fixture
def display(tmp_path: Path) -> Iterator[str]:
    """An X server of its own, without a window manager."""
    assert SERVER is not None
    reading, writing = os.pipe()
    server = subprocess.Popen(
        [SERVER, "-displayfd", str(writing), "-screen", "0", "1280x800x24", "-nolisten", "tcp"],
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        number = os.read(reading, 16).decode().strip()
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        os.close(reading)
        server.terminate()
        server.wait(timeout=20)


def test_the_setup_brings_what_a_real_window_needs() -> None:
    import ctypes

    def loads(library: str) -> bool:
        try:
            ctypes.CDLL(library)
        except OSError:
            return False
        return True

    assert SERVER is not None, "Xvfb is not installed: sudo apt install xvfb"
    assert missing_packages(xcb=True, loads=loads) == ()


def test_a_real_window_is_driven_by_keys(display: str, samples: Path, tmp_path: Path) -> None:
    picture = tmp_path / "window.png"
    environment = {name: value for name, value in os.environ.items() if name != "QT_QPA_PLATFORM"}
    environment |= {"DISPLAY": display, "XDG_CONFIG_HOME": str(tmp_path), "LANG": "C.UTF-8"}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(samples / QWEN), str(picture)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=150,  # less than a test may take before it is ended with every thread's stack
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert said == {
        "rows": "2",
        "current": "model.layers.7.self_attn.v_proj.v_scale",
        "clipboard": "model.layers.7.self_attn.v_proj.v_scale",
        "tab": "plot",
        "picture": "1280 800 True",
    }
    assert picture.stat().st_size > 30_000

    from PySide6.QtGui import QImage

    drawn = QImage(str(picture))
    assert drawn.pixelColor(640, 795).lightnessF() < 0.5  # the dark theme, switched to by its key
    colours = {drawn.pixel(x, y) for x in range(0, 1280, 5) for y in range(0, 800, 5)}
    assert len(colours) > 60
