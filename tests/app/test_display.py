from __future__ import annotations

import pytest

from app.display import missing_packages, why_no_window


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"DISPLAY": ":0"}, None),
        ({"WAYLAND_DISPLAY": "wayland-0"}, None),
        ({"QT_QPA_PLATFORM": "offscreen"}, None),
        (
            {},
            "this machine has no display (DISPLAY and WAYLAND_DISPLAY are not set). Here is the report as text",
        ),
    ],
)
def test_where_a_window_can_be_shown(environment: dict[str, str], reason: str | None) -> None:
    assert why_no_window(environment, loads=lambda _: True) == reason


@pytest.mark.parametrize(
    ("environment", "packages"),
    [
        ({"DISPLAY": ":0"}, "libegl1 libxcb-cursor0"),
        ({"QT_QPA_PLATFORM": "xcb"}, "libegl1 libxcb-cursor0"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "libegl1"),
        ({"QT_QPA_PLATFORM": "offscreen"}, "libegl1"),
    ],
)
def test_missing_libraries_give_the_exact_command(environment: dict[str, str], packages: str) -> None:
    missing = {"libEGL.so.1", "libxcb-cursor.so.0"}
    assert why_no_window(environment, loads=lambda library: library not in missing) == (
        f"system libraries that Qt needs are not installed. Install them with: sudo apt install {packages}"
    )


def test_nothing_is_missing_where_everything_loads() -> None:
    assert missing_packages(xcb=True, loads=lambda _: True) == ()
    assert len(missing_packages(xcb=True, loads=lambda _: False)) == 11


def test_this_machine_can_show_a_window() -> None:
    """The tests that follow do."""
    assert why_no_window({"QT_QPA_PLATFORM": "offscreen"}) is None
