"""Draws the real window's pictures: ``python -m app.screenshots OUT_DIR``.

Every sample, and each panel with the sample that has most to show in it, light and dark; with ``--all`` in every
language and at two sizes, a folder for each. ``--only NAME ...`` draws what the README shows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QSettings
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication, QWidget

from app.gui import make_application
from app.language import LANGUAGES, speak
from app.panels.export_sheet import ExportSheet
from app.theme.theme import Mode, theme
from app.window import Window
from core.errors import KVScopeError, UsageError
from resources import resource

SIZE = (1440, 900)
SIZES = ((1280, 800), (2560, 1440))
_PATIENCE_S = 120.0
_GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
_HEADS = "llmcompressor/llama-32layers-kv_attn_head"
_DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
_LLAMA = "llmcompressor/llama-attn_fp8_tensor"
_QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: the file's name, the sample (``tool/name``, "" for the start page), the tab and the part shown.

    ``part`` names an attribute of the workspace, "" is the whole window; ``run`` presses the tab's main button first.
    """

    name: str
    sample: str
    tab: str = "problems"
    part: str = ""
    run: bool = False
    other: str = ""
    """A second sample, to compare with."""
    language: str = ""


SHOTS = (
    Shot("start", ""),
    Shot("loads", _QWEN),
    Shot("loads-per-head", _HEADS, "plot"),
    Shot("dropped", _DEEPSEEK),
    Shot("raises", _GEMMA, "export"),
    Shot("doubtful", _LLAMA),
    Shot("compare", _QWEN, "compare", other=_GEMMA),
    Shot("chinese", _DEEPSEEK, "engines", language="zh_CN"),
    Shot("panel-why", _DEEPSEEK, part="why"),
    Shot("panel-coverage", _GEMMA, part="coverage"),
    Shot("panel-problems", _LLAMA, "problems", "tabs"),
    Shot("panel-engines", _DEEPSEEK, "engines", "tabs"),
    Shot("panel-backends", _LLAMA, "backends", "tabs"),
    Shot("panel-plot", _HEADS, "plot", "tabs"),
    Shot("panel-export", _GEMMA, "export", "tabs"),
    Shot("panel-gpu", _QWEN, "gpu", "tabs", run=True),
    Shot("panel-compare", _LLAMA, "compare", "tabs", other=_HEADS),
    Shot("panel-config", _GEMMA, "config", "tabs"),
    Shot("panel-log", _QWEN, "log", "tabs"),
)


def draw(
    out: Path, *, size: tuple[int, int] = SIZE, language: str = "en", names: Collection[str] = ()
) -> Iterator[Path]:
    """Draw the pictures of these names (all where none are given) into ``out``; yields each file as it is written.

    A name is a shot's, for both themes, or a file's without its ending ("loads-dark").
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as settings:
        yield from _draw_all(out, size, language, names, Path(settings))


def _draw_all(
    out: Path, size: tuple[int, int], language: str, names: Collection[str], settings: Path
) -> Iterator[Path]:
    application = make_application(sys.argv[:1])
    modes: tuple[Mode, ...] = ("light", "dark")
    for mode in modes:
        for shot in SHOTS:
            name = f"{shot.name}-{mode}"
            if names and not {shot.name, name} & set(names):
                continue
            # Each window begins as on a machine that never ran one: no recent list, no sizes.
            QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(settings / name))
            theme().set_mode(mode)
            speak(application, shot.language or language)
            window = Window()
            path = out / f"{name}.png"
            picture = _arrange(application, window, shot, size).grab().toImage()
            # Without an unused alpha channel and packed as tightly as PNG can: these files are kept.
            if not picture.convertToFormat(QImage.Format.Format_RGB888).save(str(path), "PNG", 0):  # type: ignore[call-overload]
                raise KVScopeError("could not be written", path=path, remedy="Choose another folder.")
            window.close()
            yield path


def _arrange(application: QApplication, window: Window, shot: Shot, size: tuple[int, int]) -> QWidget:
    """Bring the window to the state to be shown; returns the part of it to draw."""
    window.show()
    window.resize(*size)
    if not shot.sample:
        _settle(application, window)
        return window
    window.open_path(str(resource("samples", *shot.sample.split("/"))))
    _settle(application, window)
    workspace = window.workspace
    workspace.show_tab(shot.tab)
    _settle(application, window)
    if shot.run:
        workspace.gpu.run()
    if shot.other:
        window.session.compare(str(resource("samples", *shot.other.split("/"))))
    _settle(application, window)
    if shot.tab == "export":  # not where this machine keeps its samples
        name = shot.sample.rpartition("/")[2]
        for sheet in workspace.export.findChildren(ExportSheet):
            sheet.folder.setText(f"/models/{name}-kvscope")
    if not shot.part:
        return window
    part: QWidget = getattr(workspace, shot.part)
    if shot.part == "why":  # all of the story, not the part that fits
        window.resize(size[0], size[1] * 2)
        workspace.halves.setSizes([size[1] * 2 - 400, 200])
        _settle(application, window)
    return part


def _settle(application: QApplication, window: Window) -> None:
    """Wait until nothing runs and everything is drawn."""
    deadline = time.monotonic() + _PATIENCE_S
    quiet = 0
    while quiet < 8:
        application.processEvents()
        time.sleep(0.02)
        quiet = 0 if window.busy else quiet + 1
        if time.monotonic() > deadline:
            raise UsageError(f"the window did not come to rest within {_PATIENCE_S:.0f} seconds")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the pictures into the folder named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m app.screenshots", description="Draw the window's pictures.")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--all", action="store_true", help="in every language and size, a folder for each")
    parser.add_argument("--only", nargs="+", default=(), metavar="NAME", help="these pictures alone")
    options = parser.parse_args(arguments)
    jobs = [(options.out, SIZE, "en")]
    if options.all:
        jobs = [
            (options.out / f"{language.code}-{size[0]}x{size[1]}", size, language.code)
            for language in LANGUAGES
            for size in SIZES
        ]
    for out, size, language in jobs:
        for path in draw(out, size=size, language=language, names=options.only):
            sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
