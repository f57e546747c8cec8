"""The errors a user may see: one sentence that names the file, the key where there is one, and the remedy."""

from __future__ import annotations

from pathlib import Path


class KVScopeError(Exception):
    """Something the user can act on.

    ``str(error)`` is the whole message: what is wrong, where, and what to do about it. The command line prints it
    to stderr and exits with 2; the window shows it in a row or a dialog.
    """

    def __init__(
        self, problem: str, *, path: Path | str | None = None, key: str | None = None, remedy: str = ""
    ) -> None:
        where = ", ".join(
            part for part in (str(path) if path is not None else "", f"key {key!r}" if key else "") if part
        )
        message = f"{where}: {problem}" if where else problem
        super().__init__(f"{message.rstrip('.')}. {remedy}" if remedy else message)
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

    def __init__(self, what: str = "the job") -> None:
        super().__init__(f"{what} was cancelled")
