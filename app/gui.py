"""Starting the window: the application, its theme and the one window. Ask :mod:`app.display` first."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QApplication

from app.garbage import GuiThreadCollector
from app.session import Choices
from app.settings import APPLICATION, ORGANIZATION, Settings
from app.theme.theme import MODES, theme
from app.window import Window
from core import __version__
from resources import resource

if TYPE_CHECKING:
    from core.engines import Wish


def start(
    paths: Sequence[str] = (), *, engine: str | None = None, wish: Wish | None = None, select: str | None = None
) -> int:
    """Show the window, open the first of ``paths``, and run until it is closed; returns the exit status.

    ``engine`` and ``wish`` are choices as on the command line, None where the checkpoint decides. ``select`` is a key
    to show.
    """
    application = make_application(sys.argv[:1])
    window = Window()
    window.show()
    if paths:
        choices = Choices(engine=engine)
        if wish is not None:
            choices = Choices(
                engine=engine,
                method=wish.method,
                architecture=wish.architecture,
                kv_cache_dtype=None if wish.kv_cache_dtype == "auto" else wish.kv_cache_dtype,
                dtype=wish.dtype,
                rules=wish.rules,
            )
        window.open_path(paths[0], choices=choices, select=select)
    return application.exec()


def make_application(arguments: Sequence[str]) -> QApplication:
    """The QApplication with name, icon and theme."""
    existing = QApplication.instance()
    application = existing if isinstance(existing, QApplication) else QApplication(list(arguments))
    if application.findChild(GuiThreadCollector) is None:
        GuiThreadCollector(application)
    application.setOrganizationName(ORGANIZATION)
    application.setApplicationName(APPLICATION)
    application.setApplicationDisplayName("KVScope")
    application.setApplicationVersion(__version__)
    application.setDesktopFileName("kvscope")
    application.setWindowIcon(QIcon(str(resource("icons", "kvscope.svg"))))
    wanted = Settings().text("theme", "system")
    theme().set_mode(next((mode for mode in MODES if mode == wanted), "system"))
    return application
