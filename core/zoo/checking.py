"""Judging many checkpoints in processes of their own, so that one that cannot be read harms no other."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from typing import Any

from core.engines import DEFAULT_ENGINE
from core.errors import KVScopeError, UsageError
from core.progress import Progress

_POLL = 0.1  # seconds between two looks whether the user asked to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The question, the same for every checkpoint. ``rules`` is a file of renaming rules; ``limits`` are those of the
    rules that differ from the usual, as ``name=number``.
    """

    engines: tuple[str, ...] = (DEFAULT_ENGINE,)
    method: str | None = None
    architecture: str | None = None
    kv_cache_dtype: str = "auto"
    dtype: str | None = None
    rules: str | None = None
    limits: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """The question as a record keeps it."""
        return {**asdict(self), "engines": list(self.engines), "limits": list(self.limits)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One checkpoint's answer.

    ``reports`` is one report (schema ``kvscope.report/1``) for each engine, in the order asked; none where the
    checkpoint could not be read, and then ``error`` is the sentence that says why. ``line`` is the first engine's
    verdict in one line, and the others' outcomes. ``state`` is what was learned of a remote one by which a change of
    its files shows; None where nothing does.
    """

    path: str
    line: str
    reports: tuple[dict[str, Any], ...] = ()
    error: str | None = None
    state: tuple[tuple[str, int, str], ...] | None = field(default=None, compare=False)

    @property
    def sound(self) -> bool:
        """Whether every engine's verdict is ok, and no finding is more than a remark."""
        return self.error is None and all(
            report["verdict"]["outcome"] == "ok"
            and all(finding["severity"] == "info" for finding in report["findings"])
            for report in self.reports
        )


def default_jobs() -> int:
    """Processes that this machine has room for."""
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def check_all(
    paths: Sequence[str], asked: Asked, *, jobs: int | None = None, progress: Progress | None = None
) -> Iterator[Entry]:
    """The entries of all paths, in their order, each as soon as it and those before it are there.

    Raises:
        UsageError: an engine, a method or the rules are not known.
        CancelledError: ``progress`` was told to stop.
    """
    progress = progress or Progress()
    progress.start("checking", total=len(paths), unit="checkpoints")
    jobs = min(jobs or default_jobs(), len(paths))
    entries = _in_processes(paths, asked, jobs, progress) if jobs > 1 else (check_one(path, asked) for path in paths)
    for entry in entries:
        yield entry
        progress.advance()


def check_one(path: str, asked: Asked) -> Entry:
    """One checkpoint, judged here. Raises UsageError for a question that no checkpoint could answer."""
    from core.backends.rules_file import read_rules
    from core.checkpoint import open_checkpoint
    from core.diagnosis.thresholds import with_limits
    from core.engines import Wish
    from core.inspection import inspect_opened, reinspect
    from core.naming.conventions import ENDINGS
    from core.report import report
    from core.report.text import one_line

    rules = read_rules(asked.rules) if asked.rules is not None else None
    wish = Wish(
        method=asked.method or (rules.method if rules is not None else None),
        architecture=asked.architecture,
        kv_cache_dtype=asked.kv_cache_dtype,
        dtype=asked.dtype,
        rules=rules.mapper if rules is not None else None,
    )
    try:
        checkpoint = open_checkpoint(path, wanted=ENDINGS)
    except KVScopeError as error:
        return _unread(path, str(error))
    except Exception as error:  # noqa: BLE001 - the others must go on
        return _unread(path, f"{path}: an unexpected {type(error).__name__}: {error}")
    try:
        first = inspect_opened(
            checkpoint,
            engine=asked.engines[0],
            wish=wish,
            thresholds=with_limits(asked.limits) if asked.limits else None,
        )
        answers = (first, *(reinspect(first, engine=engine) for engine in asked.engines[1:]))
        reports = tuple(report(answer) for answer in answers)
    except UsageError:
        raise
    except KVScopeError as error:
        return _unread(path, str(error))
    except Exception as error:  # noqa: BLE001 - the others must go on
        return _unread(path, f"{path}: an unexpected {type(error).__name__}: {error}")
    state = checkpoint.remote.state if checkpoint.remote is not None else None
    return Entry(path=path, line=one_line(*answers), reports=reports, state=state)


def _unread(path: str, sentence: str) -> Entry:
    return Entry(path=path, line=f"{'UNREAD':8} {sentence}", error=sentence)


def _in_processes(paths: Sequence[str], asked: Asked, jobs: int, progress: Progress) -> Iterator[Entry]:
    waiting = deque(paths)
    running: deque[tuple[str, Future[Entry]]] = deque()
    pool = _pool(jobs)
    try:
        while waiting or running:
            while waiting and len(running) < 2 * jobs:
                try:
                    future = pool.submit(check_one, waiting[0], asked)
                except BrokenProcessPool:  # one of those under way will say so, or no path was being judged
                    break
                running.append((waiting.popleft(), future))
            if not running:
                pool.shutdown(cancel_futures=True)
                pool = _pool(jobs)
                continue
            path, future = running[0]
            try:
                entry = _result(future, progress)
            except BrokenProcessPool:
                # Somebody's process was killed, perhaps for its memory. Which path it had is known only when one runs
                # alone: so the first of the line is tried alone, and the rest anew.
                pool.shutdown(cancel_futures=True)
                entry = _alone(path, asked, progress)
                waiting.extendleft(reversed([other for other, _ in running][1:]))
                running.clear()
                pool = _pool(jobs)
            else:
                running.popleft()
            yield entry
    finally:
        _end(pool)


def _alone(path: str, asked: Asked, progress: Progress) -> Entry:
    pool = _pool(1)
    try:
        return _result(pool.submit(check_one, path, asked), progress)
    except BrokenProcessPool:
        return _unread(path, f"{path}: the process that judged it died. Check the machine's memory.")
    finally:
        _end(pool)


def _result(future: Future[Entry], progress: Progress) -> Entry:
    while True:
        progress.check()
        try:
            return future.result(timeout=_POLL)
        except TimeoutError:
            if future.done():
                raise


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=jobs, mp_context=multiprocessing.get_context("spawn"))


def _end(pool: ProcessPoolExecutor) -> None:
    """End the processes; those that are still at work are not waited for."""
    workers = list((pool._processes or {}).values())  # noqa: SLF001 - 3.14 has terminate_workers()
    pool.shutdown(wait=False, cancel_futures=True)
    for worker in workers:
        if worker.is_alive():
            worker.terminate()
    for worker in workers:
        worker.join(timeout=10)
