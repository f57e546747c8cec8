"""A folder in a bucket, or anywhere else that fsspec opens: with fsspec's own credentials, endpoints and settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

from core.checkpoint.faults import BrokenFileError
from core.checkpoint.index import is_inside
from core.checkpoint.layout import INDEX
from core.checkpoint.remote.address import Address
from core.checkpoint.remote.place import CONFIGS, Listing, Part, RemoteFile, Traffic
from core.checkpoint.remote.trouble import NotNowError, NotThereError, RemoteError, patiently
from core.wording import plural, say

T = TypeVar("T")

_TAGS = ("ETag", "etag", "md5Hash", "generation", "VersionId", "LastModified", "last_modified", "updated", "mtime")
_NETWORK = say("Check the address, the network and the endpoint that is configured.")


class Bucket:
    """See :class:`core.checkpoint.remote.place.Place`. fsspec's calls block, so each runs in a thread."""

    def __init__(self, address: Address) -> None:
        self.shown = address.shown
        self.traffic = Traffic()
        self._address = address
        self._system: Any = None
        self._folder = ""
        self._listing: dict[str, RemoteFile] = {}

    def identity(self) -> str:
        return f"bucket {self._address.base}"

    def connected(self) -> AbstractAsyncContextManager[object]:
        return self._opened()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        if self._system is None:
            try:
                self._system, self._folder = await asyncio.to_thread(_open, self._address.base)
            except Exception as error:  # noqa: BLE001 - whatever a file system of anybody's raises
                self._failed(error)
        yield

    async def listing(self) -> Listing:
        try:
            entries = await self._call(partial(self._system.ls, self._folder, detail=True))
        except (RemoteError, NotThereError):
            if not self._address.file or self._address.file.lower().endswith(INDEX):
                raise
            entries = await self._unlisted(self._address.file)
        found: dict[str, RemoteFile] = {}
        for entry in entries:
            name = str(entry["name"]).rstrip("/").rpartition("/")[2]
            if entry.get("type") == "file" and is_inside(name):
                size = entry.get("size")
                tag = " ".join(str(entry[key]) for key in _TAGS if entry.get(key))
                found[name] = RemoteFile(size=int(size) if size is not None else None, tag=tag)
        self._listing = found
        return found

    async def _unlisted(self, file: str) -> list[Mapping[str, Any]]:
        """The file, and the usual configs beside it that there are, where the folder may not be listed."""
        entries: list[Mapping[str, Any]] = [await self._call(self._system.info, self._path(file))]
        for name in CONFIGS:
            with suppress(RemoteError, NotThereError):
                entries.append(await self._call(self._system.info, self._path(name)))
        return entries

    async def read(self, name: str, begin: int, end: int, tag: str = "") -> Part:
        size = await self._size(name)
        first, last = min(begin, size), min(end, size)
        data = await self._bytes(name, first, last) if first < last else b""
        return Part(data=data, size=size)

    async def read_whole(self, name: str, largest: int, tag: str = "") -> Part:
        size = await self._size(name)
        if size > largest:
            raise BrokenFileError(
                say(
                    "is {size} long, more than the {largest:,} that KVScope reads of such a file",
                    size=plural(size, "byte"),
                    largest=largest,
                ),
                remedy=say("Check that it is the file it claims to be."),
            )
        return Part(data=await self._bytes(name, 0, size) if size else b"", size=size)

    async def _size(self, name: str) -> int:
        known = self._listing.get(name)
        if known is not None and known.size is not None:
            return known.size
        found: Mapping[str, Any] = await self._call(self._system.info, self._path(name))
        if found.get("size") is None:
            raise RemoteError(
                say("does not say how long {file} is", file=name),
                path=self.shown,
                remedy=say("Download the checkpoint."),
            )
        return int(found["size"])

    async def _bytes(self, name: str, begin: int, end: int) -> bytes:
        async def attempt() -> bytes:
            data: bytes = await self._once(partial(self._system.cat_file, self._path(name), start=begin, end=end))
            if len(data) > end - begin:
                raise RemoteError(
                    say("does not serve parts of files, so that headers cannot be read alone"),
                    path=self.shown,
                    remedy=say("Download the checkpoint and open the folder."),
                )
            if len(data) != end - begin:
                problem = say(
                    "sends {got} of {file} where {asked:,} were asked for",
                    got=plural(len(data), "byte"),
                    file=name,
                    asked=end - begin,
                )
                raise NotNowError(problem, say("Try again later."))
            return data

        data = await patiently(attempt, self.shown)
        self.traffic.bytes += len(data)
        return data

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        return await patiently(lambda: self._once(partial(function, *arguments)), self.shown)

    async def _once(self, function: Callable[[], T]) -> T:
        self.traffic.requests += 1
        try:
            return await asyncio.to_thread(function)
        except (TimeoutError, ConnectionError) as error:
            raise NotNowError(
                say("cannot be reached: {reason}", reason=str(error) or type(error).__name__), _NETWORK
            ) from error
        except Exception as error:  # noqa: BLE001 - whatever a file system of anybody's raises
            self._failed(error)

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    def _failed(self, error: Exception) -> NoReturn:
        """What went wrong, in one sentence."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotThereError from error
        if isinstance(error, ImportError):
            problem, remedy = (
                say("needs a package that is not installed: {reason}", reason=reason),
                say("Install it beside kvscope[remote]."),
            )
        elif isinstance(error, PermissionError):
            problem, remedy = (
                say("refuses access: {reason}", reason=reason),
                say("Check the credentials and what they may read."),
            )
        elif "Credentials" in type(error).__name__ or "credential" in reason.lower():
            problem, remedy = (
                say("no credentials were found: {reason}", reason=reason),
                say("Configure them as for the service's own tools."),
            )
        elif isinstance(error, ValueError) and "rotocol" in reason:
            problem = say("is of a kind that is not known: {reason}", reason=reason)
            remedy = say("Known are hf://, https://, s3://, gs:// and whatever else fsspec opens.")
        else:
            problem, remedy = say("cannot be read: {reason}", reason=reason), _NETWORK
        raise RemoteError(problem, path=self.shown, remedy=remedy) from error


def _open(base: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, folder = url_to_fs(base)
    return system, str(folder)
