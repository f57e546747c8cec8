"""What can go wrong far away, and how long it is borne."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.errors import UnreadableCheckpointError
from core.wording import plural, say

T = TypeVar("T")

ATTEMPTS = 5
FIRST_WAIT = 0.5
"""Seconds before the second attempt; doubled before each further one."""
LONGEST_WAIT = 60.0
"""Seconds: a server that wants longer pauses than that is not waited for."""


class NotThereError(Exception):
    """The file does not exist. ``code`` is the hub's word for what is missing, "" elsewhere."""

    def __init__(self, code: str = "") -> None:
        super().__init__(code)
        self.code = code


class NotNowError(Exception):
    """An attempt failed in a way that may pass. ``wait`` is what the server asked for, in seconds."""

    def __init__(self, problem: str, remedy: str, wait: float | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.wait = wait


class RemoteError(UnreadableCheckpointError):
    """The server, the network or the account is in the way; the sentence names the address."""


async def patiently(attempt: Callable[[], Awaitable[T]], where: str) -> T:
    """What ``attempt`` gives, tried anew while it fails for reasons that may pass.

    Raises:
        RemoteError: it failed each time, or the server asks for more patience than there is.
    """
    wait, tried = FIRST_WAIT, 0
    while True:
        tried += 1
        try:
            return await attempt()
        except NotNowError as error:
            asked = error.wait or 0.0
            if asked > LONGEST_WAIT:
                raise RemoteError(
                    error.problem, path=where, remedy=say("Try again in {seconds:,.0f} seconds.", seconds=asked)
                ) from error
            if tried >= ATTEMPTS:
                problem = say("{problem} ({attempts})", problem=error.problem, attempts=plural(tried, "attempt"))
                raise RemoteError(problem, path=where, remedy=error.remedy) from error
            await asyncio.sleep(max(asked, wait * random.uniform(0.75, 1.25)))  # noqa: S311 - only to spread them
            wait *= 2
