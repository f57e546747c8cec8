"""What of a text is English in every language: what is left when all that templates say is taken away."""

from __future__ import annotations

import errno
import inspect
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from string import Formatter
from typing import Any

from core.errors import KVScopeError
from core.wording import spoken

_WORDS = re.compile(r"(?<![\w./'-])[A-Za-z][a-z]*(?:,? [a-z]+){2,}(?![\w/'-]|\.\w)")
_QUOTED = re.compile(r"(?<!\w)'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|\b\w+(?:Error|Exception): [^|>]*")
"""Names, the words of other programs, and exceptions of engines, which are told as they are."""
_READERS = (
    *(os.strerror(number) for number in errno.errorcode),
    "Expecting property name enclosed in double quotes",
    "Invalid control character at",
    "Unterminated string starting at",
)
"""What the operating system and Python's reader of JSON say."""


def left_in_english(text: str, *, but: Iterable[str] = ()) -> list[str]:
    """Runs of three English words and more that no template says. ``but`` are the words of others, besides what stands
    in quotation marks or behind the name of an exception.
    """
    said = spoken(text, _places)
    for others in (*but, *_READERS):
        said = said.replace(others, "") if others else said
    return [found.group() for found in _WORDS.finditer(_QUOTED.sub("", said))]


def _places(template: str) -> str:
    """The bare places of a template, as a translation would have them: without those that hold grammar."""
    places = (
        f"{{{name}!{conversion}}}" if conversion else f"{{{name}}}"
        for _, name, _, conversion in Formatter().parse(template)
        if name is not None and not name.startswith("_")
    )
    return f"<{'|'.join(places)}>"


@contextmanager
def every_error_spoken(*, but: Iterable[str] = ()) -> Iterator[None]:
    """Every error that is made meanwhile says nothing that has no template. The words of an exception of others that
    was its cause do not count, nor do those of ``but``.
    """
    left: dict[str, list[str]] = {}
    make = KVScopeError.__init__

    def made(self: KVScopeError, problem: str, **keywords: Any) -> None:
        make(self, problem, **keywords)
        caller = inspect.currentframe()
        if caller is not None and caller.f_back is not None and caller.f_back.f_globals["__name__"].startswith("app."):
            return  # the command line's own
        found = left_in_english(self.message, but=(*but, *_causes()))
        if found:
            left[str(self.message)] = found

    KVScopeError.__init__ = made  # type: ignore[method-assign]
    try:
        yield
    finally:
        KVScopeError.__init__ = make  # type: ignore[method-assign]
    assert not left, left


def _causes() -> Iterator[str]:
    """What the exceptions say that are handled now, as far as they are not of the project's own."""
    error = sys.exception()
    while error is not None:
        if not type(error).__module__.startswith("core."):
            yield str(error).strip()
        error = error.__cause__ or error.__context__
