"""``kvscope check`` over many checkpoints: a folder tree, a list, processes side by side, a record to resume from."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import KVScopeError, UsageError
from core.output import plain_line, stop_without_reader
from core.progress import Progress

if TYPE_CHECKING:
    from core.zoo import Asked, Entry


def add_many_arguments(check: argparse.ArgumentParser) -> None:
    """The arguments of ``kvscope check`` for many checkpoints."""
    many = check.add_argument_group(
        "many at once", "any of these prints a line each and a summary; with --json a JSON line each"
    )
    many.add_argument("-r", "--recursive", action="store_true", help="every checkpoint in the folders below each PATH")
    many.add_argument("--list", metavar="FILE", help="paths and addresses from a file, one a line (- for stdin)")
    many.add_argument(
        "--jobs", type=positive, metavar="N", help="processes side by side (default: the machine's cores)"
    )
    many.add_argument("--resume", metavar="FILE", help="keep results in this file, and skip what has not changed since")
    many.add_argument("--table", metavar="FILE", help="write a table of all, .md or .html")


def wants_many(options: argparse.Namespace) -> bool:
    """Whether any of these arguments was given."""
    return bool(options.recursive or options.list or options.jobs or options.resume or options.table)


def check_many(options: argparse.Namespace, engines: list[str]) -> int:
    """Judge them all. Returns 0 where all are sound, 1 where any has problems, 2 where any could not be read."""
    from app.writing import shown_progress
    from core.diagnosis.thresholds import with_limits
    from core.zoo import Asked, check_all, summary

    if options.html is not None:
        raise UsageError("--html is the report of one checkpoint", remedy="Write a table with --table FILE.html")
    form = _form(options.table)
    asked = Asked(
        engines=tuple(engines),
        method=options.method,
        architecture=options.architecture,
        kv_cache_dtype=options.kv_cache_dtype,
        dtype=options.dtype,
        rules=options.rules,
        limits=tuple(options.limit or ()),
    )
    with_limits(asked.limits)  # what is wrong with them is told once, not for each checkpoint
    if asked.rules is not None:
        from core.backends.rules_file import read_rules

        read_rules(asked.rules)  # what is wrong with it is told once, not for each checkpoint
    paths = _paths(options)
    began = time.monotonic()
    entries: dict[str, Entry] = {}
    with ExitStack() as stack:
        record = None
        if options.resume:
            from core.zoo import Record

            record = stack.enter_context(Record(Path(options.resume), asked))
        progress = Progress() if sys.stdout.isatty() else stack.enter_context(shown_progress())
        known = record.entries(paths, progress) if record is not None else {}
        fresh = check_all([path for path in paths if path not in known], asked, jobs=options.jobs, progress=progress)
        for path in paths:
            stop_without_reader()
            if path in known:
                entry = known[path]
            else:
                entry = next(fresh)
                if record is not None:
                    record.add(entry)
            entries[path] = entry
            _print(entry, asked, as_json=options.json)
    ordered = list(entries.values())
    skipped = f", {len(known)} read from the record" if known else ""
    told = sys.stderr if options.json else sys.stdout
    told.write(f"{summary(ordered, asked)} ({time.monotonic() - began:.1f} s{skipped})\n")
    if form is not None:
        _write(Path(options.table), form, ordered, asked)
    if any(entry.error is not None for entry in ordered):
        return 2
    return 0 if all(entry.sound for entry in ordered) else 1


def _print(entry: Entry, asked: Asked, *, as_json: bool) -> None:
    from core.report.contract import json_text
    from core.zoo.record import entry_as_data

    text = json_text(entry_as_data(entry, asked), indent=None) if as_json else plain_line(entry.line)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _paths(options: argparse.Namespace) -> list[str]:
    from core.zoo import find_checkpoints, read_list

    named = [*options.paths, *(read_list(options.list) if options.list else ())]
    if not named:
        raise UsageError("no checkpoint is named", remedy="Give a PATH, or --list FILE")
    if not options.recursive:
        return list(dict.fromkeys(named))
    return list(dict.fromkeys(found for root in named for found in find_checkpoints(root)))


def _form(table: str | None) -> str | None:
    if table is None:
        return None
    form = Path(table).suffix.lower()
    if form not in (".md", ".html"):
        raise UsageError("is no name of a table", path=table, remedy="Give it the ending .md or .html")
    folder = Path(table).parent
    if not folder.is_dir():  # told before hours of work, not after
        raise UsageError("is no folder, and the table would be written there", path=folder, remedy="Create it first")
    return form


def _write(path: Path, form: str, entries: list[Entry], asked: Asked) -> None:
    from core.zoo import html_table, markdown_table

    try:
        text = (html_table if form == ".html" else markdown_table)(entries, asked)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        remedy = "Choose a file in a folder you may write to"
        raise KVScopeError(f"cannot be written: {error.strerror}", path=path, remedy=remedy) from error


def positive(text: str) -> int:
    """An argument that counts something."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number
