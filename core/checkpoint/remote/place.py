"""What every place with files can do, whoever serves them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

CONFIGS = ("config.json", "hf_quant_config.json", "quantization_config.json", "params.json")
"""Where a checkpoint usually says what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """A file as a listing names it: bytes (None where not told), and a tag that changes with its content ("" where
    there is none, so that nothing of it may be kept).
    """

    size: int | None = None
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Bytes of a file, with the size and the tag of the whole; ``unchanged`` instead of bytes where the tag is still
    the one that was sent along.
    """

    data: bytes = b""
    size: int
    tag: str = ""
    unchanged: bool = False


Listing = Mapping[str, RemoteFile]


@dataclass(slots=True)
class Traffic:
    """What was asked and received: requests (redirects count as part of one), and bytes of bodies."""

    requests: int = 0
    bytes: int = 0


class Place(Protocol):
    """A folder of files somewhere else. Its methods raise NotThereError for a file that does not exist, RemoteError for
    whatever else is in the way, BrokenFileError where a file is not what was expected.
    """

    shown: str
    traffic: Traffic

    def connected(self) -> AbstractAsyncContextManager[object]:
        """Everything below happens inside of this."""

    async def listing(self) -> Listing | None:
        """The files, by name relative to the folder; None where the place cannot tell."""

    def identity(self) -> str:
        """What names this content on this disk: known after :meth:`listing`."""

    async def read(self, name: str, begin: int, end: int, tag: str = "") -> Part:
        """The bytes from ``begin`` to ``end``, fewer only where the file ends before.

        ``tag`` is one seen before: a place may answer that nothing changed.
        """

    async def read_whole(self, name: str, largest: int, tag: str = "") -> Part:
        """A whole file of at most ``largest`` bytes. Raises BrokenFileError for a larger one."""
