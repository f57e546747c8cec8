"""How an export is written, on the command line: its arguments, and a line that says how far it is."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from core.errors import UsageError
from core.progress import Progress
from core.wording import size

if TYPE_CHECKING:
    from core.export import ExportPlan, ExportResult, Prepared, WriteOptions

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
        "--in-place",
        action="store_true",
        help="change the checkpoint itself, without OUT: only headers that fit, with a journal",
    )
    export.add_argument(
        "--resume", action="store_true", help="take up an interrupted export, and leave one when interrupted"
    )


def settle_target(options: argparse.Namespace) -> None:
    """Check that OUT and ``--in-place`` go together; in place, put back what an interrupted export left.

    Raises:
        UsageError: they do not.
        ExportError: nothing could be put back, or a dry run found that something has to be.
    """
    if not options.in_place:
        if options.out is None:
            raise UsageError("OUT is missing", remedy="Name the folder to write, or give --in-place")
        return
    if options.out is not None:
        raise UsageError("--in-place takes no OUT", remedy="Leave one of them away")
    if options.mode or options.verify or options.resume or options.overlay:
        raise UsageError(
            "--in-place copies nothing", remedy="Leave --link, --clone, --copy, --overlay, --verify and --resume away"
        )
    from core.export import recover, refuse_unended

    if options.dry_run:
        refuse_unended(Path(options.path))
    elif recover(Path(options.path)):
        sys.stderr.write("An export in place had not ended; what it had changed was put back.\n")


def prepare(plan: ExportPlan, options: argparse.Namespace) -> Prepared:
    """The export made ready; raises ExportError where it is refused."""
    from core.export import prepare_export, prepare_in_place

    if options.in_place:
        return prepare_in_place(plan).prepared
    return prepare_export(plan, Path(options.out), _write_options(options))


def write(plan: ExportPlan, options: argparse.Namespace, progress: Progress) -> ExportResult:
    """The export written; raises ExportError where it is refused or fails."""
    from core.export import export_in_place, write_export

    if options.in_place:
        return export_in_place(plan, progress=progress)
    return write_export(plan, Path(options.out), options=_write_options(options), progress=progress)


def _write_options(options: argparse.Namespace) -> WriteOptions:
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
            return f"{size(self.done)} of {size(self.total)}"
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
