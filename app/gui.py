"""Starting the window: the application, its theme and the one window. Ask :mod:`app.display` first.

What is imported above is what an empty frame needs; the rest is imported once that is on the screen.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QApplication

from app.window import Window

if TYPE_CHECKING:
    from core.engines import Wish

_SWITCH_S = 0.0005
"""How long a job may keep the interpreter from this thread, which asks for it after every call into Qt that let go of
it: at Python's 5 ms the window drags while a job computes.
"""
_PATIENCE_MS = 400  # a window that starts minimized or covered is painted late or never


def start(
    paths: Sequence[str] = (), *, engine: str | None = None, wish: Wish | None = None, select: str | None = None
) -> int:
    """Show the window, open the first of ``paths``, and run until it is closed; returns the exit status.

    ``engine`` and ``wish`` are choices as on the command line, None where the checkpoint decides. ``select`` is a key
    to show. Without paths the checkpoints of the last run are opened.
    """
    application = bare_application(sys.argv[:1])
    window = Window(furnish=False)
    begin = partial(_begin, application, window, tuple(paths), engine, wish, select)
    window.painted.connect(partial(QTimer.singleShot, 0, window, begin))
    QTimer.singleShot(_PATIENCE_MS, window, begin)
    window.show()
    return application.exec()


def _begin(
    application: QApplication,
    window: Window,
    paths: tuple[str, ...],
    engine: str | None,
    wish: Wish | None,
    select: str | None,
) -> None:
    """Fill the frame, and open what was asked for; once."""
    if window.property("begun"):
        return
    window.setProperty("begun", True)
    dress(application)
    window.furnish()
    if not paths:
        restore(window)
        return
    choices = None
    if engine is not None or wish is not None:
        from app.session import Choices

        choices = Choices(engine=engine or window.settings.text("engine") or None)
        if wish is not None:
            choices = Choices(
                engine=choices.engine,
                method=wish.method,
                architecture=wish.architecture,
                kv_cache_dtype=None if wish.kv_cache_dtype == "auto" else wish.kv_cache_dtype,
                dtype=wish.dtype,
                rules=wish.rules,
            )
    window.open_all(list(dict.fromkeys(paths)), paths[0], choices=choices, select=select)


def restore(window: Window) -> None:
    """Open what was open last, the front one at once and the others when they are looked at."""
    paths, front = window.settings.open()
    there = [path for path in paths if "://" in path or Path(path).exists()]
    if there and window.settings.text("restore") != "no":
        window.open_all(there, front if front in there else there[0])


def make_application(arguments: Sequence[str]) -> QApplication:
    """The QApplication with name, icon, language and theme."""
    application = bare_application(arguments)
    dress(application)
    return application


def bare_application(arguments: Sequence[str]) -> QApplication:
    """The QApplication, Fusion already, so that the first frame does not change its looks."""
    existing = QApplication.instance()
    if isinstance(existing, QApplication):
        return existing
    application = QApplication(list(arguments))
    application.setApplicationDisplayName("KVScope")
    application.setDesktopFileName("kvscope")
    return application


def dress(application: QApplication) -> None:
    """Give the application its names, icon and theme, and keep Python's garbage in this thread."""
    from PySide6.QtGui import QIcon

    from app.garbage import GuiThreadCollector
    from app.language import speak
    from app.settings import APPLICATION, ORGANIZATION, Settings
    from app.theme.theme import MODES, theme
    from core import __version__
    from resources import resource

    sys.setswitchinterval(_SWITCH_S)
    if application.findChild(GuiThreadCollector) is None:
        GuiThreadCollector(application)
    application.setOrganizationName(ORGANIZATION)
    application.setApplicationName(APPLICATION)
    application.setApplicationDisplayName("KVScope")
    application.setApplicationVersion(__version__)
    application.setDesktopFileName("kvscope")
    application.setWindowIcon(QIcon(str(resource("icons", "kvscope.svg"))))
    settings = Settings()
    speak(application, settings.text("language"))
    wanted = settings.text("theme", "system")
    theme().set_mode(next((mode for mode in MODES if mode == wanted), "system"))
