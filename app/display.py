"""Whether a window can be shown here at all, found out without importing Qt."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping

# Debian and Ubuntu packages by the library that Qt and its platform plugins load.
_COMMON = {
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libfontconfig.so.1": "libfontconfig1",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libdbus-1.so.3": "libdbus-1-3",
}
_XCB = {
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
    "libxcb-shape.so.0": "libxcb-shape0",
}


def why_no_window(
    environment: Mapping[str, str] = os.environ, *, loads: Callable[[str], bool] | None = None
) -> str | None:
    """The reason why no window can be shown, as a sentence with its remedy; None when nothing speaks against one.

    Qt aborts the process where its platform plugin cannot start, so this is asked before Qt is touched. ``loads``
    tells whether a shared library can be loaded.
    """
    for package in ("PySide6", "pyqtgraph"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package} is not installed. Install it with: pip install kvscope"
    if not sys.platform.startswith("linux"):
        return None
    platform = environment.get("QT_QPA_PLATFORM", "")
    wayland = environment.get("WAYLAND_DISPLAY")
    if not platform and not environment.get("DISPLAY") and not wayland:
        return "this machine has no display (DISPLAY and WAYLAND_DISPLAY are not set). Here is the report as text"
    missing = missing_packages(xcb=platform.startswith("xcb") or not (platform or wayland), loads=loads or _loads)
    if missing:
        return (
            f"system libraries that Qt needs are not installed. Install them with: sudo apt install {' '.join(missing)}"
        )
    return None


def missing_packages(*, xcb: bool, loads: Callable[[str], bool]) -> tuple[str, ...]:
    """The Debian packages of the libraries that cannot be loaded; ``xcb``: those of a window on X11 as well."""
    wanted = _COMMON | (_XCB if xcb else {})
    return tuple(package for library, package in wanted.items() if not loads(library))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
