"""Whether a window can be shown here at all, found out without importing Qt."""

from __future__ import annotations

import importlib.util
import os
import sys


def why_no_window() -> str | None:
    """The reason why no window can be shown, as a sentence with its remedy; None when nothing speaks against one.

    Qt aborts the process where its platform plugin cannot start, so this is asked before Qt is touched.
    """
    for package in ("PySide6", "pyqtgraph"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package} is not installed. Install it with: pip install kvscope"
    if not sys.platform.startswith("linux") or os.environ.get("QT_QPA_PLATFORM"):
        return None
    if not os.environ.get("DISPLAY") and not os.environ.get("WAYLAND_DISPLAY"):
        return "this machine has no display (DISPLAY and WAYLAND_DISPLAY are not set). Here is the report as text"
    return None
