"""Standard output and standard error, as the commands write them.

What a checkpoint says of itself must not steer a terminal, and a stream that is closed, full or in another encoding
must not end in a traceback.
"""

from __future__ import annotations

import codecs
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from json.encoder import encode_basestring_ascii
from typing import Any, TextIO

from core.errors import KVScopeError
from core.wording import say

_OWN = "\r\x1b[K"  # how the line that says how far a job is begins anew
_ERRORS = "kvscope"


def plain(text: str) -> str:
    r"""``text`` with every character that cannot be printed, but line ends, as ``\xNN`` or ``\uNNNN``."""
    return "\n".join(
        line if line.isprintable() else "".join(char if char.isprintable() else _escaped(char) for char in line)
        for line in text.split("\n")
    )


def plain_line(text: str) -> str:
    """The same on one line, whatever a name holds."""
    return plain(text).replace("\n", "\\x0a")


def as_lines(lines: Iterable[str]) -> str:
    """Lines as one text, in which no name that holds a line feed begins a line of its own."""
    return "\n".join(line.replace("\n", "\\x0a") for line in lines)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """What an encoding has no byte for, as both JSON and people read it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return encode_basestring_ascii(error.object[error.start : error.end])[1:-1], error.end


class Output:
    """A stream that prints plain text only. A reader that leaves is remembered in ``left``, and written to no more;
    another failure is raised once, as a KVScopeError.
    """

    def __init__(self, stream: TextIO, *, own: bool) -> None:
        self.left = False
        self._stream = stream
        self._own = own
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text``, made plain."""
        begin = _OWN if self._own and text.startswith(_OWN) else ""
        with self._guarded():
            self._stream.write(begin + plain(text.removeprefix(begin)))
        return len(text)

    def flush(self) -> None:
        """Hand on what was written."""
        with self._guarded():
            self._stream.flush()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self.left = True
            self._discard()
        except OSError as error:
            self._discard()
            problem = say("the output cannot be written: {error}", error=error.strerror)
            raise KVScopeError(problem, remedy=say("Write it to a file or pipe with room")) from error

    def _discard(self) -> None:
        """Whatever is still to be written goes nowhere, so that the interpreter does not complain when it ends."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Make standard output and error plain for the time of a command."""
    codecs.register_error(_ERRORS, _replaced)
    before = sys.stdout, sys.stderr
    # What is written to a closed output is an error as on a full disk; there is nobody to tell on a closed stderr.
    opened = [
        open(os.open(os.devnull, flags), "w", encoding="utf-8") if stream is None else None  # noqa: PTH123, SIM115
        for stream, flags in ((sys.stdout, os.O_RDONLY), (sys.stderr, os.O_WRONLY))
    ]
    sys.stdout, sys.stderr = (
        Output(made or stream, own=own) for made, stream, own in zip(opened, before, (False, True), strict=True)
    )
    try:
        yield
    finally:
        for output in (sys.stdout, sys.stderr):
            with suppress(KVScopeError, ValueError):
                output.flush()
        sys.stdout, sys.stderr = before
        for made in opened:
            if made is not None:
                made.close()


def stop_without_reader() -> None:
    """Raise BrokenPipeError where whoever read our output has gone (``| head``): before more work is begun for it."""
    if getattr(sys.stdout, "left", False):
        raise BrokenPipeError
