"""The light and the dark palette, as data.

Every pair that carries text keeps a contrast of at least 4.5, every status shape one of at least 3 against the
surfaces it is drawn on (WCAG 2.1); a test computes both for each palette.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Tone = Literal["ok", "warning", "error", "missing", "info", "neutral"]


@dataclass(frozen=True, slots=True)
class Accent:
    """A meaning's colours: ``ink`` for shapes and words, ``tint`` for a surface under text, ``edge`` for its border."""

    ink: str
    tint: str
    edge: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """One palette; colours as ``#rrggbb``."""

    name: str
    dark: bool
    window: str
    base: str
    alternate: str
    raised: str
    text: str
    muted: str
    border: str
    grid: str
    accent: str
    on_accent: str
    selected: str
    on_selected: str
    hover: str
    series_k: str
    series_v: str
    series_q: str
    ok: Accent
    warning: Accent
    error: Accent
    missing: Accent
    info: Accent
    neutral: Accent

    def tone(self, tone: Tone) -> Accent:
        accent: Accent = getattr(self, tone)
        return accent


LIGHT = Colours(
    name="light",
    dark=False,
    window="#f3f4f6",
    base="#ffffff",
    alternate="#f8f9fb",
    raised="#ffffff",
    text="#1b1f24",
    muted="#57606a",
    border="#d3d8de",
    grid="#e6e9ed",
    accent="#0b5cad",
    on_accent="#ffffff",
    selected="#d4e6fb",
    on_selected="#0b2239",
    hover="#e9edf2",
    series_k="#0b5cad",
    series_v="#a8480b",
    series_q="#7a3fb5",
    ok=Accent("#0a6b4f", "#dcf5ec", "#8fd3bb"),
    warning=Accent("#825300", "#fff2cf", "#e5c26b"),
    error=Accent("#b3261e", "#fde7e4", "#efa9a2"),
    missing=Accent("#6b3fa0", "#f0e8fb", "#c7acea"),
    info=Accent("#0b5cad", "#e1effc", "#9cc5ee"),
    neutral=Accent("#57606a", "#e9ecf0", "#c3cad2"),
)

DARK = Colours(
    name="dark",
    dark=True,
    window="#171a1f",
    base="#1e2228",
    alternate="#232830",
    raised="#262b33",
    text="#e4e8ed",
    muted="#9ea8b4",
    border="#39414b",
    grid="#2c323a",
    accent="#6cb2ff",
    on_accent="#0b1722",
    selected="#264a70",
    on_selected="#f2f7fd",
    hover="#2c323b",
    series_k="#6cb2ff",
    series_v="#ffa763",
    series_q="#cfa4ff",
    ok=Accent("#4fd1a5", "#153a30", "#2a6b58"),
    warning=Accent("#f0c04e", "#3d3215", "#7a6526"),
    error=Accent("#ff8a7d", "#46211e", "#8a4039"),
    missing=Accent("#cba6ff", "#33264a", "#64498f"),
    info=Accent("#6cb2ff", "#18314b", "#2f5d8c"),
    neutral=Accent("#9ea8b4", "#2c323a", "#4a535e"),
)


def contrast(first: str, second: str) -> float:
    """The WCAG 2.1 contrast ratio of two ``#rrggbb`` colours, from 1 (equal) to 21 (black on white)."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    def linear(channel: int) -> float:
        part = channel / 255
        return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
