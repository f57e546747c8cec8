"""Range requests over HTTP, with the client of huggingface_hub: its proxies, certificates and factories hold here too.

A server is believed nothing: an answer must hold exactly the bytes that were asked for, and no more are read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from core.checkpoint.faults import BrokenFileError
from core.checkpoint.remote.place import Part, Traffic
from core.checkpoint.remote.trouble import NotNowError, NotThereError, RemoteError, patiently
from core.errors import KVScopeError
from core.wording import plural, say

if TYPE_CHECKING:
    from types import ModuleType

TIMEOUT = 30.0
"""Seconds without a byte, after which an attempt is given up."""

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18})")
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_NETWORK = say("Check the address, the network and the proxy settings, then try again.")
_LATER = say("Try again later.")
DOWNLOAD = say("Download the checkpoint and open the folder.")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Status, headers of an answer that is no success, for whoever can say more about it than the number."""

    status: int
    headers: Mapping[str, str]


class RefusedError(Exception):
    """The server said no, for good."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal.status))
        self.refusal = refusal


class Http:
    """One client for one job; ``where`` is what its errors name."""

    def __init__(self, where: str, traffic: Traffic) -> None:
        self._where = where
        self._traffic = traffic
        self._client: Any = None
        self._library: ModuleType | None = None
        self.ended_at: dict[str, str] = {}
        """Where redirects led, by the URL that was asked for."""

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """The connections are open inside of this."""
        from huggingface_hub.utils import get_async_session

        async with get_async_session() as client:
            self._client = client
            self._library = _library_of(client)
            yield
        self._client = None

    async def read(self, url: str, begin: int, end: int, headers: Mapping[str, str], tag: str = "") -> Part:
        """Bytes ``begin`` to ``end`` of what lies at a URL, fewer only where it ends before.

        Raises:
            NotThereError, RefusedError, RemoteError: see there.
            BrokenFileError: the answer holds other bytes than were asked for.
        """
        asked = {**headers, "Range": f"bytes={begin}-{end - 1}", **({"If-None-Match": tag} if tag else {})}
        return await patiently(lambda: self._attempt(url, asked, (begin, end), end - begin), self._where)

    async def read_whole(self, url: str, largest: int, headers: Mapping[str, str], tag: str = "") -> Part:
        """All that lies at a URL. Raises as :meth:`read`, and BrokenFileError where it is larger than ``largest``."""
        asked = {**headers, **({"If-None-Match": tag} if tag else {})}
        return await patiently(lambda: self._attempt(url, asked, None, largest), self._where)

    async def _attempt(self, url: str, headers: Mapping[str, str], span: tuple[int, int] | None, limit: int) -> Part:
        library = self._library
        if library is None:
            raise RuntimeError("not connected")
        self._traffic.requests += 1
        try:
            async with self._client.stream(
                "GET", url, headers={**headers, "Accept-Encoding": "identity"}, timeout=TIMEOUT, follow_redirects=True
            ) as response:
                if response.history:
                    self.ended_at[url] = str(response.url)
                return await self._answer(response, span, limit, may_be_unchanged="If-None-Match" in headers)
        except library.TimeoutException as error:
            raise NotNowError(say("did not answer for {seconds:g} seconds", seconds=TIMEOUT), _NETWORK) from error
        except library.TooManyRedirects as error:
            raise RemoteError(say("leads in circles: each address redirects to another"), path=self._where) from error
        except (library.InvalidURL, library.UnsupportedProtocol, ExceptionGroup, OverflowError) as error:
            raise RemoteError(
                say("leads to no web address: {reason}", reason=str(_first(error))), path=self._where, remedy=_NETWORK
            ) from error
        except library.RemoteProtocolError as error:
            raise NotNowError(say("broke off its answer: {reason}", reason=str(error)), _LATER) from error
        except library.TransportError as error:
            reason = str(error) or type(error).__name__
            raise NotNowError(say("cannot be reached: {reason}", reason=reason), _NETWORK) from error
        except ConnectionError as error:  # huggingface_hub in offline mode
            raise RemoteError(
                say("was not asked: HF_HUB_OFFLINE is set"), path=self._where, remedy=say("Unset it.")
            ) from error

    async def _answer(self, response: Any, span: tuple[int, int] | None, limit: int, *, may_be_unchanged: bool) -> Part:
        status, headers = response.status_code, response.headers
        tag = headers.get("ETag") or headers.get("Last-Modified") or ""
        if status == 304 and may_be_unchanged:
            return Part(size=0, tag=tag, unchanged=True)
        if status in _PASSING:
            raise _passing(status, headers)
        if status in (404, 410):
            raise NotThereError(headers.get("X-Error-Code", ""))
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        if status == 416 and span is not None and found and not found[1] and int(found[3]) <= span[0]:
            return Part(size=int(found[3]), tag=tag)
        if status not in (200, 206):
            raise RefusedError(Refusal(status, headers))
        if headers.get("Content-Encoding", "identity") != "identity":
            problem = say("answers with compressed bytes, which were not asked for")
            raise RemoteError(problem, path=self._where, remedy=DOWNLOAD)
        if span is None:
            return await self._whole(response, status, limit, tag)
        if status == 200:
            return await self._all_of_a_small_one(response, span, tag)
        if found is None or not found[1]:
            problem = say("does not say which bytes it sends, and of how many")
            raise RemoteError(problem, path=self._where, remedy=DOWNLOAD)
        first, last, size = int(found[1]), int(found[2]), int(found[3])
        if first != span[0] or last + 1 != min(span[1], size) or last < first:
            problem = say(
                "sends bytes {first:,} to {last:,} where {begin:,} to {end:,} were asked for",
                first=first,
                last=last,
                begin=span[0],
                end=span[1] - 1,
            )
            raise RemoteError(problem, path=self._where, remedy=DOWNLOAD)
        data = await self._body(response, last + 1 - first)
        if len(data) != last + 1 - first:
            raise _odd_length(len(data), last + 1 - first)
        return Part(data=data, size=size, tag=tag)

    async def _whole(self, response: Any, status: int, limit: int, tag: str) -> Part:
        if status != 200:
            raise RemoteError(say("answers with a part where all was asked for"), path=self._where, remedy=_LATER)
        length = response.headers.get("Content-Length", "")
        promised = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        if promised is None or promised <= limit:
            data = await self._body(response, limit)
            if promised is not None and len(data) != promised:
                raise _odd_length(len(data), promised)
            if len(data) <= limit:
                return Part(data=data, size=len(data), tag=tag)
        if promised is None:
            problem = say("is more than the {largest:,} that KVScope reads of such a file", largest=limit)
        else:
            problem = say(
                "is {size} long, more than the {largest:,} that KVScope reads of such a file",
                size=plural(promised, "byte"),
                largest=limit,
            )
        raise BrokenFileError(
            problem,
            remedy=say("Check that it is the file it claims to be."),
        )

    async def _all_of_a_small_one(self, response: Any, span: tuple[int, int], tag: str) -> Part:
        """A server without ranges sends everything: good enough where that is no more than was asked for."""
        length = response.headers.get("Content-Length", "")
        if span[0] == 0 and re.fullmatch(r"[0-9]{1,18}", length) and int(length) <= span[1]:
            data = await self._body(response, int(length))
            if len(data) != int(length):
                raise _odd_length(len(data), int(length))
            return Part(data=data, size=len(data), tag=tag)
        problem = say("does not serve parts of files (it ignores Range), so that headers cannot be read alone")
        raise RemoteError(problem, path=self._where, remedy=DOWNLOAD)

    async def _body(self, response: Any, limit: int) -> bytes:
        """The body, given up one piece after ``limit`` bytes."""
        pieces: list[bytes] = []
        length = 0
        async for piece in response.aiter_raw():
            pieces.append(piece)
            length += len(piece)
            if length > limit:
                break
        self._traffic.bytes += length
        return b"".join(pieces)


def _first(error: Exception) -> Exception:
    """What happened: a port beyond 65535 comes in groups of errors."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


def _odd_length(received: int, promised: int) -> NotNowError:
    if received > promised:
        return NotNowError(say("sends more than the {promised:,} bytes that it promised", promised=promised), _LATER)
    return NotNowError(
        say(
            "broke off its answer after {received:,} of {promised}",
            received=received,
            promised=plural(promised, "byte"),
        ),
        _LATER,
    )


def _passing(status: int, headers: Mapping[str, str]) -> NotNowError:
    wait = _seconds(headers.get("Retry-After", ""))
    if status == 429:
        return NotNowError(
            say("asks to wait: too many requests (429)"), say("Wait some minutes, then try again."), wait
        )
    return NotNowError(say("fails to answer ({status})", status=status), _LATER, wait)


def _seconds(retry_after: str) -> float | None:
    """Retry-After, which is a number of seconds or a date."""
    if re.fullmatch(r"[0-9]{1,9}", retry_after):
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except (ValueError, IndexError, OverflowError):
        return None
    if date.tzinfo is None:
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _library_of(client: object) -> ModuleType:
    """httpx, or httpx2, which took its place in huggingface_hub 2: what is used of them is the same."""
    for ancestor in type(client).__mro__:
        root = ancestor.__module__.partition(".")[0]
        if root in ("httpx", "httpx2"):
            return sys.modules[root]
    raise KVScopeError(
        say("huggingface_hub makes connections of an unknown kind here"),
        remedy=say("Install the versions that go with KVScope: pip install 'kvscope[remote]'"),
    )
