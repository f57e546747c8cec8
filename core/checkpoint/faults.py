"""What is wrong with one file: raised while it is read, kept as a :class:`Fault` where the rest stays usable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.errors import KVScopeError, UnreadableCheckpointError
from core.wording import say


@dataclass(frozen=True, slots=True)
class Fault:
    """One file that could not be used, or only in part.

    ``file`` is relative to the checkpoint's root; ``offset`` is the byte of the file at which reading failed, None
    where no single byte is to blame. ``problem`` continues the file's name ("..., which is empty" without the
    "which"); ``remedy`` is a sentence.
    """

    file: str
    offset: int | None
    problem: str
    remedy: str

    @property
    def message(self) -> str:
        """File, problem and remedy."""
        problem = with_offset(self.problem, self.offset)
        return say("{file}: {problem}. {remedy}", file=self.file, problem=problem, remedy=self.remedy)

    def __str__(self) -> str:
        return str(self.message)


class BrokenFileError(KVScopeError):
    """A file that cannot be read as what it should be. ``offset`` is the byte at which that shows, if there is one."""

    def __init__(self, problem: str, *, remedy: str, offset: int | None = None, path: Path | str | None = None) -> None:
        super().__init__(with_offset(problem, offset), path=path, remedy=remedy)
        self.detail = problem
        self.offset = offset

    def fault(self, file: str) -> Fault:
        return Fault(file=file, offset=self.offset, problem=self.detail, remedy=self.remedy)

    def unreadable(self, path: Path) -> UnreadableCheckpointError:
        """The same, as the reason why ``path`` cannot be opened at all."""
        return UnreadableCheckpointError(self.problem, path=path, remedy=self.remedy)


def with_offset(problem: str, offset: int | None) -> str:
    """A problem and the byte at which it shows."""
    return problem if offset is None else say("{problem} (at byte {offset})", problem=problem, offset=offset)


def shown(name: str) -> str:
    """A file's name as text that can be written anywhere: bytes that are no UTF-8 are replaced."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def quoted(text: str, longest: int = 120) -> str:
    """``text`` for use inside a message: quoted, control characters escaped, cut in the middle when it is long."""
    if len(text) > longest:
        text = f"{text[: longest - 40]}...{text[-37:]}"
    return repr(text)
