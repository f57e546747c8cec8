"""From an address to a checkpoint's layout: configs, index and headers fetched into the mirror; values later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from core.checkpoint.configs import LARGEST_CONFIG, MOST_CONFIGS
from core.checkpoint.faults import BrokenFileError
from core.checkpoint.header import LARGEST_HEADER
from core.checkpoint.index import LARGEST_INDEX, is_inside
from core.checkpoint.layout import INDEX, PICKLED, SAFETENSORS, Layout, folder_layout
from core.checkpoint.remote.address import Address, parse_address
from core.checkpoint.remote.guess import Guess, guess
from core.checkpoint.remote.mirror import Mirror, Spans
from core.checkpoint.remote.place import CONFIGS, Listing, Part, Place, Traffic
from core.checkpoint.remote.trouble import NotThereError, RemoteError
from core.errors import KVScopeError, UnreadableCheckpointError
from core.progress import Progress
from core.wording import say

T = TypeVar("T")
State = tuple[tuple[str, int, str], ...]

PARALLEL = 16
"""Requests under way at a time."""
GAP = 4096
"""Bytes between two values that are fetched along rather than asked for apart."""

_CONFIGS = ("config.json", "hf_quant_config.json")
_USUAL_INDEX, _USUAL_FILE = "model.safetensors.index.json", "model.safetensors"
_ENDINGS = (SAFETENSORS, *PICKLED, ".json")
_RECOGNIZED = 512  # bytes from which the reader of headers says what a file is instead
_INSTALL = say("Install the extra: pip install 'kvscope[remote]'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """What opening needs: where the checkpoint's files lie on this disk, their sizes at home, and what is broken."""

    path: Path
    layout: Layout
    sizes: Mapping[str, int]
    faults: Mapping[str, BrokenFileError]
    remote: Remote


def bring(text: str, progress: Progress, wanted: Collection[str] = ()) -> Brought:
    """Fetch what opening the checkpoint at an address needs. ``wanted``: how the names of tensors end whose values will
    be read next; they come along where they lie close behind a header.

    Raises:
        UsageError: that is no address.
        UnreadableCheckpointError: nothing there can be opened, or the server, the network or the account is in the way.
        CancelledError: ``progress`` was told to stop.
    """
    address = parse_address(text)
    remote = Remote(_place(address), address, wanted)
    return _run(remote.bring(progress), progress)


def bring_json(address: Address, progress: Progress) -> Path:
    """Fetch one JSON file (:func:`core.checkpoint.remote.address.json_address`), of the size of a config at most; where
    it lies on this disk then.

    Raises:
        UnreadableCheckpointError: there is none, it is too large, or the server, the network or the account is in the
            way.
        CancelledError: ``progress`` was told to stop.
    """
    remote = Remote(_place(address), address)
    return _run(remote.bring_json(progress), progress)


def state_of(text: str, asked: Collection[str], progress: Progress) -> State | None:
    """What :attr:`Remote.state` would be now, for ``asked``, the files of an earlier one. Where the place lists its
    files with tags that costs one request, else one for each file, most of which are answered by "not modified".

    Raises:
        See :func:`bring`.
    """
    address = parse_address(text)
    remote = Remote(_place(address), address)
    return _run(remote.look(asked, progress), progress)


def _place(address: Address) -> Place:
    try:
        if address.kind == "bucket":
            import fsspec  # noqa: F401

            from core.checkpoint.remote.bucket import Bucket

            return Bucket(address)
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        problem = say("needs {package}, which is not installed", package=error.name or say("packages"))
        raise KVScopeError(problem, path=address.shown, remedy=_INSTALL) from error
    if address.kind == "hub":
        from core.checkpoint.remote.hub import Hub

        return Hub(address)
    from core.checkpoint.remote.web import Web

    return Web(address)


class Remote:
    """The files of one checkpoint far away. What was fetched is kept; what was not asked for stays where it is."""

    def __init__(self, place: Place, address: Address, wanted: Collection[str] = ()) -> None:
        self._place = place
        self._wanted = wanted
        self._address = address
        self._mirror: Mirror | None = None
        self._listing: Listing | None = None
        self._brought: set[str] = set()
        self._asked: set[str] = set()
        self._values: dict[str, Spans] = {}
        self._permits = asyncio.Semaphore(PARALLEL)

    @property
    def address(self) -> str:
        """The address, without passwords and signatures."""
        return self._place.shown

    @property
    def traffic(self) -> Traffic:
        """What was asked and received so far."""
        return self._place.traffic

    @property
    def state(self) -> State | None:
        """What changes when a file does that was asked for: name, size and tag of each, the size -1 where there is
        none. None where the place gives no tags.
        """
        if (told := self._told()) is not None:
            return told
        mirror = self.mirror
        held = {name: mirror.held(name) > 0 for name in sorted(self._asked)}
        if not all(mirror.tag(name) for name in held if held[name]):
            return None
        return tuple((name, mirror.size(name), mirror.tag(name)) if held[name] else (name, -1, "") for name in held)

    @property
    def mirror(self) -> Mirror:
        """What is kept on this disk."""
        if self._mirror is None:
            self._mirror = Mirror(self._place.identity(), self._address.name)
        return self._mirror

    def json_names(self) -> tuple[str, ...]:
        """The JSON files in the folder, sorted; where it cannot be listed, those that were found."""
        names = self._brought if self._listing is None else self._listing
        return tuple(sorted(name for name in names if name.endswith(".json") and "/" not in name)[:MOST_CONFIGS])

    def fetch_config(self, name: str) -> None:
        """Have ``name`` in the mirror, or know that it is not there. Raises BrokenFileError, RemoteError."""
        if name not in self._brought and is_inside(name):
            _run(self._connected(lambda: self._config(name)), Progress())
            self.mirror.save()

    def size(self, name: str) -> int:
        """Bytes of a tensor file at home. Raises BrokenFileError where its header was not fetched."""
        if not self.mirror.held(name):
            raise BrokenFileError(say("was not fetched"), remedy=say("Open it by its own address."))
        return self.mirror.size(name)

    def fetch_values(self, wanted: Mapping[str, Sequence[tuple[int, int]]], progress: Progress | None = None) -> None:
        """Fetch spans of files, at once; those known already are not asked for again. Raises RemoteError."""
        missing = {name: self._unknown(name, spans) for name, spans in wanted.items()}
        ranges = [(name, one) for name, spans in missing.items() for one in coalesced(spans)]
        if ranges:
            _run(self._fetch_ranges(missing, ranges), progress or Progress())

    def read_spans(self, name: str, spans: Iterable[tuple[int, int]]) -> list[bytes]:
        """The bytes from each begin to its end. Raises RemoteError."""
        spans = list(spans)
        self.fetch_values({name: spans})
        found, held = self._values[name], self.mirror.held(name)
        longest = max((end for _, end in spans if end <= held), default=0)
        beginning = self.mirror.beginning(name, longest)
        return [
            beginning[begin:end] if end <= held else found[begin, end] if begin < end else b"" for begin, end in spans
        ]

    # ------------------------------------------------------------------------------------------------- inside the loop

    async def bring(self, progress: Progress) -> Brought:
        """See :func:`bring`."""
        try:
            layout, faults, missing = await self._connected(lambda: self._fetched(progress))
        except NotThereError as error:
            raise self._nothing() from error
        self.mirror.save()
        if missing and len(missing) == len(layout.shards) and layout.index is None:
            raise self._nothing()
        layout = replace(layout, missing=layout.missing | missing)
        sizes = {name: self.mirror.size(name) for name in layout.shards if self.mirror.held(name)}
        file = self._address.file
        return Brought(
            path=layout.root / file if file else layout.root, layout=layout, sizes=sizes, faults=faults, remote=self
        )

    async def bring_json(self, progress: Progress) -> Path:
        """See :func:`bring_json`."""
        progress.start(say("asking {address}", address=self.address))
        file = self._address.file
        try:
            await self._connected(lambda: self._alone(file))
        except NotThereError as error:
            raise self._nothing() from error
        except BrokenFileError as error:
            raise UnreadableCheckpointError(error.problem, path=self.address, remedy=error.remedy) from error
        self.mirror.save()
        return self.mirror.root / file

    async def look(self, asked: Collection[str], progress: Progress) -> State | None:
        """See :func:`state_of`."""
        try:
            self._listing = await self._connected(self._place.listing)
        except NotThereError as error:
            raise self._nothing() from error
        if (told := self._told()) is not None:
            return told
        await self.bring(progress)
        others = [name for name in asked if name not in self._asked and is_inside(name)]
        await self._connected(lambda: together([self._config(name) for name in others]))
        return self.state

    def _told(self) -> State | None:
        """The state as the place lists it; None where it does not, or without tags."""
        found = sorted((self._listing or {}).items())
        files = [(name, file) for name, file in found if name.lower().endswith(_ENDINGS)]
        if not files or not all(file.tag for _, file in files):
            return None
        return tuple((name, -1 if file.size is None else file.size, file.tag) for name, file in files)

    async def _connected(self, work: Callable[[], Awaitable[T]]) -> T:
        self._permits = asyncio.Semaphore(PARALLEL)
        async with self._place.connected():
            return await work()

    async def _fetched(self, progress: Progress) -> tuple[Layout, dict[str, BrokenFileError], frozenset[str]]:
        progress.start(say("asking {address}", address=self.address))
        layout = await self._layout()
        self._refuse_pickled(layout)
        progress.start(say("fetching headers"), total=len(layout.shards), unit=say("shards"))
        return (layout, *await self._headers(layout, progress))

    async def _layout(self) -> Layout:
        self._listing = await self._place.listing()
        file = self._address.file
        if self._listing is None:
            return await self._unlisted(file or _USUAL_INDEX)
        names = set(self._listing)
        if file and file not in names:
            raise NotThereError
        indexes = [name for name in names if name.endswith(INDEX) and "/" not in name and (not file or name == file)]
        configs = [name for name in CONFIGS if name in names]
        await together([*(self._small(name, LARGEST_INDEX) for name in indexes), *map(self._config, configs)])
        if file and not file.endswith(INDEX):
            return self._single(file)
        return self._folder(names, file)

    async def _unlisted(self, file: str) -> Layout:
        """Where nothing is listed, the usual names are tried."""
        if not file.endswith(INDEX):
            await together([self._config(name) for name in _CONFIGS])
            return self._single(file)
        try:
            await together([self._small(file, LARGEST_INDEX), *(self._config(name) for name in _CONFIGS)])
        except NotThereError:
            if self._address.file:
                raise
            return self._single(_USUAL_FILE)
        layout = self._folder({file}, file)
        return layout if layout.index is None else replace(layout, missing=frozenset())

    async def _alone(self, file: str) -> None:
        """One small file, whatever lies beside it."""
        self._listing = await self._place.listing()
        if self._listing is not None and file not in self._listing:
            raise NotThereError
        await self._small(file, LARGEST_CONFIG)

    def _single(self, file: str) -> Layout:
        family = "pytorch" if file.lower().endswith(PICKLED) else "safetensors"
        return Layout(root=self.mirror.root, family=family, sharded=False, shards=(file,))

    def _folder(self, names: set[str], index: str) -> Layout:
        try:
            return folder_layout(self.mirror.root, names, index or None, listed=self._listing is not None)
        except UnreadableCheckpointError as error:
            raise UnreadableCheckpointError(error.problem, path=self.address, remedy=error.remedy) from error

    def _refuse_pickled(self, layout: Layout) -> None:
        if layout.family == "pytorch":
            raise UnreadableCheckpointError(
                say("holds pickled PyTorch files, which cannot be read in part"),
                path=self.address,
                remedy=say("Download the checkpoint and open the folder, or choose one in safetensors."),
            )

    def _nothing(self) -> RemoteError:
        if self._address.file:
            return RemoteError(say("there is no such file"), path=self.address, remedy=say("Check the address."))
        return RemoteError(
            say("there is no such folder, or no safetensors file in it"),
            path=self.address,
            remedy=say("Check the address."),
        )

    async def _config(self, name: str) -> None:
        """A config, where there is one; a broken one is told by whoever reads it."""
        if self._listing is not None and name not in self._listing:
            self._brought.add(name)
            return
        try:
            await self._small(name, LARGEST_CONFIG)
        except NotThereError:
            self.mirror.drop(name)

    async def _small(self, name: str, largest: int) -> None:
        """Have a whole small file in the mirror."""
        listed = self._listing.get(name) if self._listing is not None else None
        tag = self.mirror.tag(name)
        if not (listed and listed.tag and listed.tag == tag):
            try:
                async with self._permits:
                    part = await self._place.read_whole(name, largest, tag if listed is None or not listed.tag else "")
            except NotThereError:
                self._asked.add(name)
                raise
            if not part.unchanged:
                self.mirror.keep(name, part.data, part.size, (listed.tag if listed else "") or part.tag)
        self._asked.add(name)
        self._brought.add(name)

    async def _headers(self, layout: Layout, progress: Progress) -> tuple[dict[str, BrokenFileError], frozenset[str]]:
        expected = guess(layout.index, self._wanted)
        faults: dict[str, BrokenFileError] = {}
        missing: set[str] = set()

        async def one(name: str) -> None:
            try:
                await self._header(name, expected)
            except BrokenFileError as error:
                faults[name] = error
            except NotThereError:
                missing.add(name)
            progress.advance()

        others = [name for name in layout.unindexed if not name.startswith("consolidated")]
        names = [name for name in (*layout.shards, *others) if name not in layout.missing]
        first = expected.teacher(names)
        if first is not None:
            await one(first)
        await together([one(name) for name in names if name != first])
        return faults, frozenset(missing)

    async def _header(self, name: str, expected: Guess) -> None:
        self._asked.add(name)
        listed = self._listing.get(name) if self._listing is not None else None
        mirror = self.mirror
        tag = mirror.tag(name)
        if listed and listed.tag and listed.tag == tag:
            expected.learn(name, mirror.beginning(name, mirror.held(name)))
            return
        async with self._permits:
            known = tag if listed is None or not listed.tag else ""
            behind = expected.behind(name)
            part = await self._place.read(name, 0, expected.header(name) + behind, known)
            if part.unchanged:
                expected.learn(name, mirror.beginning(name, mirror.held(name)))
                return
            data, size = part.data, part.size
            if listed is not None and listed.size is not None and listed.size != size:
                problem = say("is {size:,} bytes long, but was listed with {listed:,}", size=size, listed=listed.size)
                raise BrokenFileError(problem, remedy=say("Try again later: it may be changing."))
            needed = _header_end(data, size)
            if len(data) < needed:
                more = await self._place.read(name, len(data), min(needed + behind, size))
                if more.size != size or more.tag != part.tag:
                    raise RemoteError(
                        say("{name} changed while it was read", name=name), path=self.address, remedy=say("Try again.")
                    )
                data += more.data
        expected.learn(name, data)
        mirror.keep(name, data, size, (listed.tag if listed else "") or part.tag)
        self._brought.add(name)

    async def _fetch_ranges(
        self, missing: Mapping[str, Sequence[tuple[int, int]]], ranges: Sequence[tuple[str, tuple[int, int]]]
    ) -> None:
        async def one(name: str, begin: int, end: int) -> tuple[str, int, bytes]:
            async with self._permits:
                part = await self._place.read(name, begin, end)
            if part.size != self.mirror.size(name) or len(part.data) != end - begin or self._is_another(name, part):
                raise NotThereError
            return name, begin, part.data

        try:
            parts = await self._connected(lambda: together([one(name, begin, end) for name, (begin, end) in ranges]))
        except (NotThereError, BrokenFileError) as error:
            problem, remedy = say("changed since it was opened"), say("Open it again.")
            raise RemoteError(problem, path=self.address, remedy=remedy) from error
        found: dict[str, Spans] = {}
        by_file: dict[str, list[tuple[int, bytes]]] = {}
        for name, begin, data in parts:
            by_file.setdefault(name, []).append((begin, data))
        for name, spans in missing.items():
            at_hand = by_file.get(name, [])
            found[name] = {
                (begin, end): data[begin - start : end - start]
                for begin, end in spans
                for start, data in at_hand
                if start <= begin and end <= start + len(data)
            }
            self._values[name] |= found[name]
        self.mirror.keep_values(found)

    def _is_another(self, name: str, part: Part) -> bool:
        """Whether the server's tag tells that the file is not the one of which the header was read. Where a listing has
        tags, those are of another kind, and what they name does not change.
        """
        listed = self._listing.get(name) if self._listing is not None else None
        known = "" if listed is not None and listed.tag else self.mirror.tag(name)
        return bool(known and part.tag) and part.tag != known

    def _unknown(self, name: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        known = self._values.get(name)
        if known is None:
            known = self._values[name] = self.mirror.values(name)
        held = self.mirror.held(name)
        return [span for span in spans if span[0] < span[1] > held and span not in known]


def coalesced(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges to ask for: spans whose gaps are small are one."""
    ranges: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if ranges and begin - ranges[-1][1] <= GAP:
            ranges[-1] = ranges[-1][0], max(end, ranges[-1][1])
        else:
            ranges.append((begin, end))
    return ranges


def _header_end(data: bytes, size: int) -> int:
    """How many bytes of a file must be there so that its header can be judged."""
    length = int.from_bytes(data[:8], "little") if len(data) >= 8 else 0
    if not 2 <= length <= min(LARGEST_HEADER, size - 8):
        return min(size, _RECOGNIZED)
    return max(8 + length, min(size, 16))


async def together(works: Iterable[Awaitable[T]]) -> list[T]:
    """All results; the first failure stops the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _run(work: Coroutine[object, object, T], progress: Progress) -> T:
    """Run to the end, in a loop of its own; a cancelled ``progress`` ends it within a tenth of a second."""

    async def watched() -> T:
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=0.05)
                if progress.cancelled and not task.done():
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                    progress.check()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        return task.result()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(watched())
    with ThreadPoolExecutor(max_workers=1) as pool:  # a notebook, whose own loop runs in this thread
        return pool.submit(asyncio.run, watched()).result()
