"""One open checkpoint with the choices made for it. Panels listen; they never read files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, QObject, Signal

from app.compared import comparer
from app.jobs import AnyJobs
from core.errors import CancelledError, KVScopeError

if TYPE_CHECKING:
    from app.compared import Compared
    from app.digest import Digest
    from core.diagnosis import Thresholds
    from core.engines import Wish
    from core.inspection import Inspection
    from core.loading.verification import Verification
    from core.naming.mapper import WeightsMapper
    from core.progress import Progress

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user chose; None follows the checkpoint (engine: this program's default)."""

    engine: str | None = None
    method: str | None = None
    architecture: str | None = None
    kv_cache_dtype: str | None = None
    dtype: str | None = None
    rules: WeightsMapper | None = None
    rules_file: str | None = None
    """Where the rules were read from, for the command line that repeats the choices."""

    def with_engine(self, engine: str) -> Choices:
        """The same for another engine; what that one does not know follows the checkpoint again."""
        from core.engines import get_engine
        from core.engines.variants import kept_by

        wish = kept_by(get_engine(engine), self.wish())
        chosen = None if wish.kv_cache_dtype == "auto" else wish.kv_cache_dtype
        return replace(self, engine=engine, method=wish.method, architecture=wish.architecture, kv_cache_dtype=chosen)

    def wish(self) -> Wish:
        """The same for the core."""
        from core.engines import Wish

        return Wish(
            method=self.method,
            architecture=self.architecture,
            kv_cache_dtype=self.kv_cache_dtype or "auto",
            dtype=self.dtype,
            rules=self.rules,
        )


class Session(QObject):
    """Opens a path, judges it, and judges it again when a choice changes. Each newer request replaces the older one."""

    opening_started = Signal(str)
    checkpoint_inspected = Signal(object)
    opening_failed = Signal(str, object)
    choice_failed = Signal(object)
    choices_changed = Signal()
    checkpoint_closed = Signal()
    verification_changed = Signal(object)
    comparing_started = Signal(str)
    compared_changed = Signal(object)
    """The :class:`app.compared.Compared` beside the open checkpoint, None when there is none any more."""
    comparing_failed = Signal(str, object)

    def __init__(self, jobs: AnyJobs, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self._lane = f"inspect-{next(_numbers)}"
        self._path: str | None = None
        self._choices = Choices()
        self._digest: Digest | None = None
        self._verification: Verification | None = None
        self._compared: Compared | None = None
        self._other: str | None = None
        self._thresholds: Thresholds | None = None
        self._in_force: tuple[Choices, Thresholds | None] = (self._choices, None)
        """What the present digest was made with."""

    @property
    def jobs(self) -> AnyJobs:
        return self._jobs

    @property
    def path(self) -> str | None:
        """What is open or being opened; also what failed to open, so that it can be tried again."""
        return self._path

    @property
    def digest(self) -> Digest | None:
        return self._digest

    @property
    def inspection(self) -> Inspection | None:
        return self._digest.inspection if self._digest is not None else None

    @property
    def choices(self) -> Choices:
        return self._choices

    @property
    def verification(self) -> Verification | None:
        """The result of running the loader on this inspection; None when it did not run."""
        return self._verification

    @property
    def lane(self) -> str:
        """The lane of the session's inspection jobs."""
        return self._lane

    @property
    def compared(self) -> Compared | None:
        """The comparison with a second checkpoint, once it was read."""
        return self._compared

    @property
    def other(self) -> str | None:
        """The second checkpoint's path, also while it is read and after that failed."""
        return self._other

    def open(self, path: str, choices: Choices | None = None) -> None:
        """Open a checkpoint in a job. Choices of the last checkpoint are kept for the engine alone."""
        if path != self._path:
            self.stop_comparing()
        self._path = path
        self._choices = choices if choices is not None else Choices(engine=self._choices.engine)
        self._set_verification(None)
        self._digest = None
        self.opening_started.emit(path)
        self.choices_changed.emit()
        self._run(
            self.tr("Opening {path}").format(path=path), _opener(path, self._choices, self._thresholds), self._on_failed
        )

    def reload(self) -> None:
        """Read the checkpoint again from disk, with the same choices."""
        if self._path is not None:
            self.open(self._path, self._choices)

    def choose(self, choices: Choices) -> None:
        """Predict anew under other choices; one that the core refuses is taken back."""
        if choices == self._choices:
            return
        self._choices = choices
        self.choices_changed.emit()
        if self._digest is not None:
            self._judge_anew(self._digest, self.tr("Predicting"))
        elif self._path is not None:
            self.open(self._path, choices)

    @property
    def thresholds(self) -> Thresholds | None:
        """The limits judged by, None for the core's own."""
        return self._thresholds

    def set_thresholds(self, thresholds: Thresholds | None) -> None:
        """Judge by other limits, None for the core's own; what is open, or being opened, is judged anew."""
        if thresholds == self._thresholds:
            return
        self._thresholds = thresholds
        if self._digest is not None:
            self._judge_anew(self._digest, self.tr("Judging anew"))

    def _judge_anew(self, digest: Digest, title: str) -> None:
        self._run(title, _chooser(digest.inspection, self._choices, self._thresholds), self._take_back)

    def _take_back(self, error: KVScopeError) -> None:
        """What was chosen is refused, or was cancelled: the verdict that stands was made with other choices."""
        self._choices, self._thresholds = self._in_force
        self.choices_changed.emit()
        self.choice_failed.emit(error)

    def reset_choices(self) -> None:
        """Follow the checkpoint in everything."""
        self.choose(Choices())

    def close(self) -> None:
        """Forget the checkpoint; whatever still runs for it is dropped."""
        self._jobs.cancel(self._lane)
        self.stop_comparing()
        self._path = None
        self._digest = None
        self._choices = Choices(engine=self._choices.engine)
        self._set_verification(None)
        self.checkpoint_closed.emit()

    def compare(self, path: str) -> None:
        """Compare the open checkpoint's scales with those at ``path``; a newer request replaces an older one."""
        inspection = self.inspection
        if inspection is None:
            return
        self._set_compared(None)
        self._other = path
        self.comparing_started.emit(path)

        def failed(error: KVScopeError) -> None:
            self.comparing_failed.emit(path, error)

        self._jobs.start(
            self.tr("Comparing with {path}").format(path=path),
            comparer(inspection.scales, path),
            done=self._set_compared,
            failed=failed,
            lane=f"compare-{self._lane}",
        )

    def stop_comparing(self) -> None:
        """Forget the second checkpoint."""
        self._jobs.cancel(f"compare-{self._lane}")
        had, self._other = self._other, None
        self._compared = None
        if had is not None:
            self.compared_changed.emit(None)

    def _set_compared(self, compared: Compared | None) -> None:
        if compared is not self._compared:
            self._compared = compared
            self.compared_changed.emit(compared)

    def set_verification(self, verification: Verification | None) -> None:
        """Keep what the loader observed for the present inspection."""
        self._set_verification(verification)

    def _set_verification(self, verification: Verification | None) -> None:
        if verification is not self._verification:
            self._verification = verification
            self.verification_changed.emit(verification)

    def _run(self, title: str, work: Callable[[Progress], Digest], failed: Callable[[KVScopeError], None]) -> None:
        made_with = self._choices, self._thresholds

        def done(digest: Digest) -> None:
            self._in_force = made_with
            self._on_inspected(digest)
            if made_with[1] != self._thresholds:  # they were changed while it was being opened
                self._judge_anew(digest, self.tr("Judging anew"))

        self._jobs.start(title, work, done=done, failed=failed, lane=self._lane)

    def _on_inspected(self, digest: Digest) -> None:
        self._digest = digest
        self._set_verification(None)
        self.checkpoint_inspected.emit(digest)
        scales = digest.inspection.scales  # read again, they are other objects, by which the comparison finds its rows
        if self._other is not None and (self._compared is None or self._compared.left is not scales):
            self.compare(self._other)

    def _on_failed(self, error: KVScopeError) -> None:
        self.opening_failed.emit(self._path or "", error)


def cancelled(error: KVScopeError) -> bool:
    """Whether an error only says that the user stopped the job."""
    return isinstance(error, CancelledError)


def _opener(path: str, choices: Choices, thresholds: Thresholds | None) -> Callable[[Progress], Digest]:
    def work(progress: Progress) -> Digest:
        from app.digest import digest
        from core.engines import DEFAULT_ENGINE
        from core.inspection import inspect

        wish = choices.wish()
        return digest(
            inspect(
                path,
                engine=choices.engine or DEFAULT_ENGINE,
                method=wish.method,
                architecture=wish.architecture,
                kv_cache_dtype=wish.kv_cache_dtype,
                dtype=wish.dtype,
                rules=wish.rules,
                thresholds=thresholds,
                progress=progress,
            )
        )

    return work


def _chooser(inspection: Inspection, choices: Choices, thresholds: Thresholds | None) -> Callable[[Progress], Digest]:
    def work(progress: Progress) -> Digest:
        from app.digest import digest
        from core.diagnosis import Thresholds
        from core.engines import DEFAULT_ENGINE
        from core.inspection import reinspect

        progress.start(QCoreApplication.translate("Session", "Predicting"))
        engine = choices.engine or DEFAULT_ENGINE
        limits = thresholds or Thresholds()
        return digest(reinspect(inspection, engine=engine, wish=choices.wish(), thresholds=limits))

    return work
