"""The errors a user may see: one sentence that names the file, the key where there is one, and the remedy."""

from __future__ import annotations

from pathlib import Path

from core.wording import say, without_stop


class KVScopeError(Exception):
    """Something the user can act on.

    ``str(error)`` is the whole message: what is wrong, where, and what to do about it. The command line prints it
    to stderr and exits with 2; the window shows it in a row or a dialog. ``message`` is the same as a sentence that can
    be said in another language.
    """

    def __init__(
        self, problem: str, *, path: Path | str | None = None, key: str | None = None, remedy: str = ""
    ) -> None:
        where = str(path) if path is not None else ""
        if key:
            where = say("{path}, key {key!r}" if where else "key {key!r}", path=where, key=key)
        message: str = say("{where}: {problem}", where=where, problem=problem) if where else problem
        if remedy:
            message = say("{message}. {remedy}", message=without_stop(message), remedy=remedy)
        super().__init__(message)
        self.message = message
        self.problem = problem
        self.path = str(path) if path is not None else None
        self.key = key
        self.remedy = remedy


class UnreadableCheckpointError(KVScopeError):
    """The path holds nothing that can be opened as a checkpoint (exit status 2)."""


class UsageError(KVScopeError):
    """An option has a value that does not exist, or two options contradict each other (exit status 2)."""


class ExportError(KVScopeError):
    """An export was refused or did not complete; the source is untouched (exit status 2)."""


class DeviceError(KVScopeError):
    """The loader could not run on the device asked for (exit status 2)."""


class CancelledError(KVScopeError):
    """The user stopped a job; whatever it had begun to write is gone."""

    def __init__(self, what: str = "") -> None:
        super().__init__(say("{what} was cancelled", what=what or say("the job")))
