"""How an export is written, on the command line: its arguments, and a line that says how far it is."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from core.progress import Progress

if TYPE_CHECKING:
    from core.export import WriteOptions

_EVERY = 0.1


def add_writing_arguments(export: argparse.ArgumentParser) -> None:
    """The arguments of ``kvscope export`` that say how the result is written and proven."""
    ways = export.add_mutually_exclusive_group()
    for way, text in (
        ("link", "make hard links of shards that do not change"),
        ("clone", "share unchanged blocks between both folders (XFS, btrfs), or refuse"),
        ("copy", "copy every byte (default: clone where the file system can, else copy)"),
    ):
        ways.add_argument(f"--{way}", action="store_const", dest="mode", const=way, help=text)
    export.add_argument(
        "--overlay", action="store_true", help="leave all shards alone and add a small one, where the engine honours it"
    )
    export.add_argument(
        "--verify",
        choices=("all", "sample", "none"),
        help="how much of the result is compared with the source (default: all up to 16 GiB, then samples)",
    )
    export.add_argument(
        "--resume", action="store_true", help="take up an interrupted export, and leave one when interrupted"
    )


def write_options(options: argparse.Namespace) -> WriteOptions:
    """The options that were given."""
    from core.export import WriteOptions

    return WriteOptions(mode=options.mode, verify=options.verify, resume=options.resume, overlay=options.overlay)


@dataclass(slots=True)
class Line(Progress):
    """Progress that rewrites one line of a terminal, ten times a second at most."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _next: float = 0.0

    def advance(self, by: int = 1) -> None:
        Progress.advance(self, by)
        now = time.monotonic()
        if self.what and self.total and now >= self._next:
            self._next = now + _EVERY
            self.stream.write(f"\r\x1b[K{self.what}: {self._position()} ({100 * self.done // self.total} %)")
            self.stream.flush()

    def _position(self) -> str:
        if self.unit == "bytes":
            return f"{self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB"
        return f"{self.done} of {self.total} {self.unit}".rstrip()

    def clear(self) -> None:
        """Leave the line empty."""
        self.stream.write("\r\x1b[K")
        self.stream.flush()


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Progress that is shown on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    line = Line()
    try:
        yield line
    finally:
        line.clear()
