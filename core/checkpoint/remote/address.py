"""What an address such as ``hf://ORG/NAME@REV`` stands for. Nothing is fetched here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from core.checkpoint.index import is_inside
from core.checkpoint.layout import INDEX, PICKLED, SAFETENSORS
from core.errors import UsageError
from core.wording import say

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+(?:::|://)", re.IGNORECASE)
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_VIEWS = ("tree", "blob", "resolve", "raw")
_NAME = re.compile(r"(?!.*(?:--|\.\.|\.git$))(?=.{1,96}$)[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_EXAMPLE = say("Write hf://ORG/NAME, or hf://ORG/NAME@REVISION")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A checkpoint's place.

    Attributes:
        shown: the address without passwords and signatures, fit for a report.
        kind: who serves it.
        base: the folder: ORG/NAME on the hub, otherwise a URL without a slash at its end.
        file: the file in it that was named; "" for the folder as a whole.
        revision: branch, tag or commit on the hub.
        below: the folder inside the repository, "" or "a/b/".
        query: what follows the ``?`` of a web address; sent with each request.
    """

    shown: str
    kind: Literal["hub", "web", "bucket"]
    base: str
    file: str = ""
    revision: str = ""
    below: str = ""
    query: str = ""

    @property
    def name(self) -> str:
        """What the checkpoint is called: the last part of its folder."""
        return (self.below or self.base).rstrip("/").rpartition("/")[2]


def is_address(text: str) -> bool:
    """Whether a path given by the user is an address and no path of this machine."""
    return _SCHEME.match(text) is not None and "://" in text


def json_address(text: str) -> Address | None:
    """The JSON file that an address names, None where it names anything else: a folder, tensors, an index.

    Raises:
        UsageError: see :func:`parse_address`; or the file stands in a chain of file systems.
    """
    address = parse_address(text)
    path = address.below if address.kind == "hub" else address.base.partition("::")[0]
    folder, _, file = path.rstrip("/").rpartition("/")
    if address.file or not file.lower().endswith(".json"):
        return None
    if "::" in address.base:
        raise UsageError(
            say("is a file in a chain of file systems, of which checkpoints alone are read"),
            path=address.shown,
            remedy=say("Download the file and name it."),
        )
    if address.kind == "hub":
        return replace(address, file=file, below=f"{folder}/" if folder else "")
    return replace(address, base=folder, file=_own_name(file, address.shown) if address.kind == "web" else file)


def parse_address(text: str) -> Address:
    """Take an address apart.

    Raises:
        UsageError: it names no repository, or no server.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    if scheme == "hf":
        return _hub(rest, text)
    if scheme not in ("http", "https"):
        return _bucket(text)
    try:
        split = urlsplit(text)
        host, port = split.hostname, split.port
    except ValueError:
        split, host, port = SplitResult("", "", "", "", ""), None, None
    if not host:
        raise UsageError(
            say("names no server"), path=repr(text), remedy=say("Write https://host/path/model.safetensors")
        )
    hub = os.environ.get("HF_ENDPOINT", "")
    own = bool(hub) and host == urlsplit(hub).hostname and port == urlsplit(hub).port
    if host in _HUB_HOSTS or own:
        found = _hub_page(split.path.strip("/"), text)
        if found is not None:
            return found
        if not own:
            raise UsageError(say("is a page of the hub that holds no model's files"), path=text, remedy=_EXAMPLE)
    return _web(split)


def _hub(rest: str, text: str) -> Address:
    parts = [unquote(part) for part in rest.partition("?")[0].split("/") if part]
    if parts[:1] == ["models"]:
        parts = parts[1:]
    if parts[:1] in (["datasets"], ["spaces"]):
        problem = say("is a dataset, not a model" if parts[0] == "datasets" else "is a space, not a model")
        raise UsageError(problem, path=text, remedy=_EXAMPLE)
    single = len(parts) < 2 or "@" in parts[0]
    owner, parts = ([], parts) if single else (parts[:1], parts[1:])
    name, at, revision = (parts[0] if parts else "").partition("@")
    parts = parts[1:]
    if at and revision == "refs" and len(parts) >= 2:  # refs/pr/7, refs/convert/parquet
        revision, parts = "/".join((revision, *parts[:2])), parts[2:]
    return _repository([*owner, name], revision, parts, text, at=bool(at))


def _hub_page(path: str, text: str) -> Address | None:
    """A page of the hub, as copied from a browser: the model's own, a folder's, or a file's; None for others."""
    parts = [unquote(part) for part in path.split("/")]
    if len(parts) >= 4 and parts[2] in _VIEWS:
        return _repository(parts[:2], parts[3], parts[4:], text)
    return _repository(parts, "", [], text) if len(parts) <= 2 else None


def _repository(names: list[str], revision: str, parts: list[str], text: str, *, at: bool = False) -> Address:
    names = [*names[:-1], names[-1].removesuffix(".git")]  # as an address to clone from
    wrong = not all(map(_NAME.fullmatch, names)) or (at and not revision)
    if wrong or not revision.isprintable() or {".", ".."}.intersection(parts):
        raise UsageError(say("is no address of a model"), path=repr(text), remedy=_EXAMPLE)
    file = parts.pop() if parts and parts[-1].lower().endswith(_FILES) else ""
    below = "".join(f"{part}/" for part in parts)
    repository = "/".join(names)
    at_revision = f"@{quote(revision, safe='/' if revision.startswith('refs/') else '')}" if revision else ""
    shown = f"hf://{repository}{at_revision}{f'/{below}{file}'.rstrip('/')}"
    return Address(shown=shown, kind="hub", base=repository, file=file, revision=revision, below=below)


def _web(split: SplitResult) -> Address:
    folder, file = _folder_and_file(split.path)
    netloc = split.netloc.rpartition("@")[2]
    shown = urlunsplit((split.scheme, netloc, split.path.rstrip("/"), "", ""))
    base = urlunsplit((split.scheme, split.netloc, folder, "", ""))
    return Address(shown=shown, kind="web", base=base, file=_own_name(file, shown), query=split.query)


def _bucket(text: str) -> Address:
    """Anything that fsspec opens; a chain ``a::b`` is one folder or one file to it."""
    folder, file = _folder_and_file(text.partition("::")[0]) if "::" not in text else (text, "")
    shown = re.sub(r"//[^/@]*@", "//", text.rstrip("/"))
    return Address(shown=shown, kind="bucket", base=folder, file=file)


def _folder_and_file(path: str) -> tuple[str, str]:
    path = path.rstrip("/")
    if path.lower().endswith(_FILES):
        folder, _, file = path.rpartition("/")
        return folder, file
    return path, ""


def _own_name(file: str, shown: str) -> str:
    """A file's name, as it is kept on this disk: a server may have folders in it (``..%2F``), and then it is none."""
    name = unquote(file)
    if name and ("/" in name or not is_inside(name)):
        raise UsageError(
            say("names no file in a folder"), path=shown, remedy=say("Write https://host/path/model.safetensors")
        )
    return name


_FILES = (SAFETENSORS, INDEX, *PICKLED)
