"""A model on the Hugging Face Hub, or what HF_ENDPOINT names: huggingface_hub's token, endpoint, client and cache."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import quote, urlsplit

from core import __version__
from core.checkpoint.faults import BrokenFileError
from core.checkpoint.files import read_spans
from core.checkpoint.index import is_inside
from core.checkpoint.remote.address import Address
from core.checkpoint.remote.http import Http, RefusedError
from core.checkpoint.remote.place import Listing, Part, RemoteFile, Traffic
from core.checkpoint.remote.trouble import NotThereError, RemoteError
from core.wording import say

T = TypeVar("T")

_LARGEST_LISTING = 64 << 20
_COMMIT = re.compile(r"[0-9A-Za-z._-]+")
_LOGIN = say("log in with `hf auth login` or set HF_TOKEN")


class Hub:
    """See :class:`core.checkpoint.remote.place.Place`. Everything is read at the commit that the listing named."""

    def __init__(self, address: Address) -> None:
        from huggingface_hub import constants
        from huggingface_hub.utils import build_hf_headers

        self.shown = address.shown
        self.traffic = Traffic()
        self._address = address
        self._endpoint = constants.ENDPOINT.rstrip("/")
        self._headers = {
            name: str(value)
            for name, value in build_hf_headers(library_name="kvscope", library_version=__version__).items()
        }
        self._http = Http(address.shown, self.traffic)
        self._commit = ""

    def connected(self) -> AbstractAsyncContextManager[object]:
        return self._http.connected()

    def identity(self) -> str:
        return f"hub {self._endpoint} {self._address.base} {self._commit} {self._address.below}"

    async def listing(self) -> Listing:
        revision = quote(self._address.revision or "main", safe="")
        url = f"{self._endpoint}/api/models/{self._address.base}/revision/{revision}?blobs=true"
        try:
            answer = await self._http.read_whole(url, _LARGEST_LISTING, self._headers)
            found = json.loads(answer.data)
            self._commit, files = _commit(found["sha"]), _files(found["siblings"])
        except NotThereError as error:
            if error.code == "RevisionNotFound":
                problem, remedy = (
                    say("has no revision {revision!r}", revision=self._address.revision),
                    say("Check what follows the @."),
                )
                raise RemoteError(problem, path=self.shown, remedy=remedy) from error
            raise self._nowhere() from error
        except RefusedError as error:
            self._refused(error)
        except (BrokenFileError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise RemoteError(
                say("{hub} answers with no list of files", hub=self._endpoint),
                path=self.shown,
                remedy=say("Check HF_ENDPOINT, which names the hub's address."),
            ) from error
        below = self._address.below
        return {
            name.removeprefix(below): file for name, file in files.items() if name.startswith(below) and is_inside(name)
        }

    async def read(self, name: str, begin: int, end: int, tag: str = "") -> Part:
        path = self._downloaded(name)
        if path is not None:
            size = path.stat().st_size
            span = min(begin, size), min(end, size)
            [data] = await asyncio.to_thread(read_spans, path, size, [span])
            return Part(data=data, size=size)
        url = self._url(name)
        direct = self._http.ended_at.get(url)
        if direct is not None and urlsplit(direct).netloc != urlsplit(url).netloc:
            try:  # where the last request ended: one hop less, until its signature expires
                return await self._http.read(direct, begin, end, {})
            except (RefusedError, NotThereError):
                self._http.ended_at.pop(url, None)
        try:
            return await self._http.read(url, begin, end, self._headers)
        except RefusedError as error:
            self._refused(error)

    async def read_whole(self, name: str, largest: int, tag: str = "") -> Part:
        path = self._downloaded(name)
        if path is not None and path.stat().st_size <= largest:
            data = await asyncio.to_thread(path.read_bytes)
            return Part(data=data, size=len(data))
        try:
            return await self._http.read_whole(self._url(name), largest, self._headers)
        except RefusedError as error:
            self._refused(error)

    def _url(self, name: str) -> str:
        path = quote(f"{self._address.below}{name}")
        return f"{self._endpoint}/{self._address.base}/resolve/{quote(self._commit, safe='')}/{path}"

    def _downloaded(self, name: str) -> Path | None:
        """The file in huggingface_hub's own cache, where this commit of it has been downloaded."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self._address.base, f"{self._address.below}{name}", revision=self._commit)
        path = Path(found) if isinstance(found, str) else None
        return path if path is not None and path.is_file() else None

    def _nowhere(self) -> RemoteError:
        return RemoteError(
            say("{hub} has no such model, or it is private", hub=self._endpoint),
            path=self.shown,
            remedy=say("Check its name; for a private one, {login}.", login=_LOGIN),
        )

    def _refused(self, error: RefusedError) -> NoReturn:
        """Why the hub said no: it puts the reason into headers of its own."""
        refusal, base = error.refusal, self._address.base
        code, said = (refusal.headers.get(name, "") for name in ("X-Error-Code", "X-Error-Message"))
        has_token = "authorization" in {name.lower() for name in self._headers}
        page = f"{self._endpoint}/{base}"
        if code == "GatedRepo":
            if has_token and refusal.status == 403:
                problem, remedy = (
                    say("is gated, and your account has no access yet"),
                    say("Ask for it on {page}.", page=page),
                )
            else:
                problem = say("is gated: its owner asks for consent first")
                remedy = say("Accept the terms on {page}, then {login}.", page=page, login=_LOGIN)
        elif code == "RepoNotFound" or (refusal.status == 401 and not has_token):
            raise self._nowhere() from error
        elif refusal.status == 401:
            problem, remedy = say("the hub does not accept your token (401)"), say("Renew it: {login}.", login=_LOGIN)
        elif refusal.status == 403:
            problem = say(
                "the hub refuses access (403): {reason}"
                if said.isprintable() and said
                else "the hub refuses access (403)",
                reason=said,
            )
            remedy = say("Check what your token is allowed to read.")
        else:
            problem, remedy = (
                say("the hub answers with status {status}", status=refusal.status),
                say("Try again later."),
            )
        raise RemoteError(problem, path=self.shown, remedy=remedy) from error


def _commit(sha: object) -> str:
    if not isinstance(sha, str) or not _COMMIT.fullmatch(sha):
        raise ValueError("no commit")
    return sha


def _files(siblings: object) -> dict[str, RemoteFile]:
    """The hub's list of files; the tag is the content's own digest. Raises LookupError, TypeError for another thing."""
    files = {}
    for entry in _of_type(list, siblings):
        described = _of_type(dict, entry)
        lfs = _of_type(dict, described.get("lfs") or {})
        size = described.get("size")
        tag = lfs.get("sha256") or described.get("blobId") or ""
        name = _of_type(str, described["rfilename"])
        files[name] = RemoteFile(size=size if type(size) is int else None, tag=str(tag))
    return files


def _of_type(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise TypeError(kind.__name__)
    return value
