"""Regular expressions that somebody else wrote, matched with a time limit.

A few characters can keep a search busy for years ("(a|a)+$"), and the standard library's module can neither be stopped
nor lets another thread run meanwhile. The ``regex`` library does both; vLLM 0.33.0 compiles its mappers' rules with it
(``model_executor/models/utils.py``). It is imported when the first such pattern is matched. A machine on which the
core runs from a copy, without its dependencies, may lack it: Python's own module then matches, without a limit.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

from core.errors import KVScopeError
from core.wording import say

LIMIT_S = 1.0
"""Seconds of processor time for one name; the rules of every engine take microseconds."""

_SHOWN = 80
_Result = TypeVar("_Result")


class SlowPatternError(KVScopeError):
    """A pattern that did not come to an end with a name in :data:`LIMIT_S`."""


def check_pattern(pattern: str) -> None:
    """Raises ValueError with the reason why this is no pattern."""
    _compiled(pattern)


def found_in(pattern: str, name: str, *, source: str = "") -> bool:
    """Whether the pattern matches anywhere in the name.

    Raises:
        SlowPatternError: not known after :data:`LIMIT_S`. ``source`` says where the pattern stands.
    """
    compiled, limits = _compiled(pattern)
    return _timed(lambda: compiled.search(name, **limits) is not None, pattern, name, source)


def begins(pattern: str, name: str, *, source: str = "") -> bool:
    """Whether the pattern matches at the name's beginning; raises as :func:`found_in` does."""
    compiled, limits = _compiled(pattern)
    return _timed(lambda: compiled.match(name, **limits) is not None, pattern, name, source)


def replaced(pattern: str, replacement: str, name: str, *, count: int = 0, source: str = "") -> str:
    """The name with each match replaced, or the first ``count``; raises as :func:`found_in` does."""
    compiled, limits = _compiled(pattern)
    return _timed(lambda: str(compiled.sub(replacement, name, count=count, **limits)), pattern, name, source)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> tuple[Any, dict[str, Any]]:
    """The pattern, and how its methods are told the limit."""
    limits: dict[str, Any] = {"concurrent": True, "timeout": LIMIT_S}
    module: Any
    try:
        import regex as module
    except ImportError:
        module, limits = re, {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of brackets that may mean something else one day
            return module.compile(pattern), limits
    except (module.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _timed(matched: Callable[[], _Result], pattern: str, name: str, source: str) -> _Result:
    try:
        return matched()
    except TimeoutError as error:
        raise SlowPatternError(
            say(
                "the pattern {pattern!r} did not come to an end with the name {name!r} in {limit:g} s",
                pattern=_short(pattern),
                name=_short(name),
                limit=LIMIT_S,
            ),
            path=source or None,
            remedy=say("Write it without a repetition inside a repetition"),
        ) from error


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 20]}...{text[-17:]}"
