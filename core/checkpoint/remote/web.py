"""A folder on a web server: no listing but the links of a page, where it shows one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from html.parser import HTMLParser
from typing import NoReturn
from urllib.parse import quote, unquote, urlsplit

from core.checkpoint.faults import BrokenFileError
from core.checkpoint.index import is_inside
from core.checkpoint.layout import PICKLED, SAFETENSORS
from core.checkpoint.remote.address import Address
from core.checkpoint.remote.http import DOWNLOAD, Http, RefusedError
from core.checkpoint.remote.place import Listing, Part, RemoteFile, Traffic
from core.checkpoint.remote.trouble import NotThereError, RemoteError
from core.wording import say

_LARGEST_PAGE = 4 << 20


class Web:
    """See :class:`core.checkpoint.remote.place.Place`."""

    def __init__(self, address: Address) -> None:
        self.shown = address.shown
        self.traffic = Traffic()
        self._address = address
        self._http = Http(address.shown, self.traffic)

    def connected(self) -> AbstractAsyncContextManager[object]:
        return self._http.connected()

    def identity(self) -> str:
        return f"web {self._address.base}?{self._address.query}"

    async def listing(self) -> Listing | None:
        """For a folder: the files that its page links to, where there is one that does."""
        if self._address.file:
            return None
        try:
            page = await self._http.read_whole(self._url(""), _LARGEST_PAGE, {})
        except (NotThereError, RefusedError, BrokenFileError):
            return None
        names = [name for name in _links(page.data.decode("utf-8", "replace")) if is_inside(name)]
        if not any(name.lower().endswith((SAFETENSORS, *PICKLED)) for name in names):
            return None
        return {name: RemoteFile() for name in names}

    async def read(self, name: str, begin: int, end: int, tag: str = "") -> Part:
        try:
            return await self._http.read(self._url(name), begin, end, {}, tag)
        except RefusedError as error:
            self._refused(error, name)

    async def read_whole(self, name: str, largest: int, tag: str = "") -> Part:
        try:
            return await self._http.read_whole(self._url(name), largest, {}, tag)
        except RefusedError as error:
            self._refused(error, name)

    def _url(self, name: str) -> str:
        query = f"?{self._address.query}" if self._address.query else ""
        return f"{self._address.base}/{quote(name)}{query}"

    def _refused(self, error: RefusedError, name: str) -> NoReturn:
        status = error.refusal.status
        where = self.shown if name == self._address.file else f"{self.shown}: {name}"
        if status == 401:
            remedy = say("Use a signed address, or one with user and password (https://USER:PASSWORD@host/...).")
            raise RemoteError(say("asks for a login (401)"), path=where, remedy=remedy) from error
        if status == 403:
            remedy = say("Check that the address may be read and that its signature has not expired.")
            raise RemoteError(say("refuses access (403)"), path=where, remedy=remedy) from error
        raise RemoteError(say("answers with status {status}", status=status), path=where, remedy=DOWNLOAD) from error


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, None] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href") if tag == "a" else None
        if target:
            split = urlsplit(target)
            if not split.scheme and not split.netloc and "/" not in split.path.removeprefix("./"):
                self.found[unquote(split.path.removeprefix("./"))] = None


def _links(page: str) -> Mapping[str, None]:
    """The files beside a page that it links to."""
    parser = _Links()
    try:
        parser.feed(page)
    except ValueError:
        return {}
    return parser.found
