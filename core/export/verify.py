"""What was written, held against what it was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from random import Random

from core.errors import ExportError
from core.export.options import Level
from core.export.safetensors_writer import NewTensor, ShardHeader, StoredTensor, read_header
from core.export.shards import ShardJob
from core.export.system import System
from core.progress import Progress
from core.wording import say

_BUFFER = 1 << 20
_SAMPLES = 256
"""Tensors of a shard, or places of another file, that a sample looks at."""
_SAMPLE = 4096
_REMEDY = say("Check the disk and the memory of this machine, then export again.")

Run = tuple[int, int, int]
"""Bytes that two files should share: where they begin in the source, where in the written file, how many."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a comparison looked at: so many tensors; ``sha256`` is that of the written file where all of it was read."""

    tensors: int
    sha256: str | None = None


@dataclass(slots=True, kw_only=True)
class Verifier:
    """Compares written files with the source's, byte by byte, at one level.

    Headers are read from both files anew, and bytes that come from the source are compared with the source itself,
    which proves more than equal digests would. "sample" compares a block in each of up to 256 tensors of a shard, and
    every tensor that the export changed; "none" compares nothing.
    """

    level: Level = "all"
    system: System = field(default_factory=System)
    progress: Progress = field(default_factory=Progress)

    def shard(self, source: Path, written: Path, *, job: ShardJob, name: str) -> Checked:
        """Compare a rewritten shard with its source, tensor by tensor.

        Raises:
            ExportError: a tensor is missing, there is one too many, or one differs; the key is named.
            OSError: a file cannot be read.
        """
        if self.level == "none":
            return Checked(0)
        old_header, new_header = read_header(source), read_header(written)
        with self._open(source) as old, self._open(written) as new:
            same = self._match(old_header, new_header, job, new, name)
            runs = _runs(same, old_header, new_header, name, joined=self.level == "all")
            if self.level == "sample":
                runs = _sampled(runs)
            keys = [(new_header.data_begin + got.begin, new_header.data_begin + got.end, got.name) for _, got in same]
            sha256 = self._compare(old, new, runs, name, keys)
        count = len(new_header.tensors) if self.level == "all" else len(new_header.tensors) - len(same) + len(runs)
        return Checked(count, sha256)

    def file(self, source: Path, written: Path, *, size: int, name: str, tensors: int = 0) -> Checked:
        """Check that a file of ``tensors`` tensors was copied byte for byte. Raises as :meth:`shard`."""
        if self.level == "none":
            return Checked(0)
        with self._open(source) as old, self._open(written) as new:
            length = new.seek(0, 2)
            if length != size:
                raise ExportError(
                    say("the copy has {length} bytes and not {size}", length=length, size=size),
                    path=name,
                    remedy=_REMEDY,
                )
            runs: list[Run] = [(0, 0, size)]
            if self.level == "sample":
                step = max(_SAMPLE, size // _SAMPLES)
                runs = [(at, at, min(_SAMPLE, size - at)) for at in range(0, size, step)]
                runs.append((max(0, size - _SAMPLE), max(0, size - _SAMPLE), min(_SAMPLE, size)))
            sha256 = self._compare(old, new, runs, name, ())
        return Checked(min(tensors, len(runs)) if self.level == "sample" else tensors, sha256)

    def text(self, written: Path, text: bytes, *, name: str) -> Checked:
        """Check a small file that was written anew, at every level. Raises as :meth:`shard`."""
        with self._open(written) as file:
            got = bytearray(file.seek(0, 2))
            self._fill(file, memoryview(got), 0)
        if got != text:
            raise ExportError(say("the written text is not the planned one"), path=name, remedy=_REMEDY)
        return Checked(0, hashlib.sha256(text).hexdigest())

    def digest(self, path: Path) -> str:
        """The SHA-256 of a file. Raises OSError."""
        digest = hashlib.sha256()
        with self._open(path) as file:
            self._hash(file, digest, 0, file.seek(0, 2), told=True)
        return digest.hexdigest()

    def _match(
        self, old: ShardHeader, new: ShardHeader, job: ShardJob, file: FileIO, name: str
    ) -> list[tuple[StoredTensor, StoredTensor]]:
        """Every tensor that should be there, in the order of the written file; those that bring data are checked."""
        found = {tensor.name: tensor for tensor in new.tensors}
        same: list[tuple[StoredTensor, StoredTensor]] = []
        for tensor in old.tensors:
            for wanted in job.replaced.get(tensor.name, (NewTensor(tensor.name, tensor.dtype, tensor.shape),)):
                got = _take(found, wanted, name)
                if wanted.data is None:
                    same.append((tensor, got))
                else:
                    self._check_data(file, new.data_begin + got.begin, wanted, name)
        for wanted in job.added:
            self._check_data(file, new.data_begin + _take(found, wanted, name).begin, wanted, name)
        if found:
            raise ExportError(
                say("the written shard holds a tensor too many"), path=name, key=min(found), remedy=_REMEDY
            )
        return sorted(same, key=lambda pair: pair[1].begin)

    def _check_data(self, file: FileIO, at: int, wanted: NewTensor, name: str) -> None:
        got = bytearray(len(wanted.data or b""))
        self._fill(file, memoryview(got), at)
        if wanted.data is None or got != wanted.data:
            raise ExportError(
                say("the written values are not those planned"), path=name, key=wanted.name, remedy=_REMEDY
            )

    def _compare(
        self, old: FileIO, new: FileIO, runs: Iterable[Run], name: str, keys: Sequence[tuple[int, int, str]]
    ) -> str | None:
        """Compare; the digest of the whole written file where all is compared."""
        digest = hashlib.sha256() if self.level == "all" else None
        ours, theirs = bytearray(), bytearray()
        ended = 0
        for begin, at, length in runs:
            if digest is not None:
                self._hash(new, digest, ended, at)
            for done in range(0, length, _BUFFER):
                count = min(length - done, _BUFFER)
                if len(ours) != count:  # whole bytearrays compare at the speed of memory
                    ours, theirs = bytearray(count), bytearray(count)
                self._fill(old, memoryview(ours), begin + done)
                self._fill(new, memoryview(theirs), at + done)
                if ours != theirs:
                    differs = at + done + next(n for n in range(count) if ours[n] != theirs[n])
                    key = next((key for first, last, key in keys if first <= differs < last), None)
                    raise ExportError(
                        say("the written bytes differ from the source's at byte {byte}", byte=differs),
                        path=name, key=key, remedy=_REMEDY,
                    )  # fmt: skip
                if digest is not None:
                    digest.update(theirs)
                self.progress.advance(count)
            ended = at + length
        if digest is None:
            return None
        self._hash(new, digest, ended, new.seek(0, 2))
        return digest.hexdigest()

    def _hash(self, file: FileIO, digest: hashlib._Hash, begin: int, end: int, *, told: bool = False) -> None:
        buffer = bytearray(min(_BUFFER, max(0, end - begin)))
        for at in range(begin, end, _BUFFER):
            view = memoryview(buffer)[: min(_BUFFER, end - at)]
            self._fill(file, view, at)
            digest.update(view)
            self.progress.advance(len(view) if told else 0)

    def _fill(self, file: FileIO, view: memoryview, at: int) -> None:
        while view:
            count = self.system.read_at(file, view, at)
            if count == 0:
                raise ExportError(
                    say("the file ended early while it was compared"), path=str(file.name), remedy=_REMEDY
                )
            view, at = view[count:], at + count

    @contextmanager
    def _open(self, path: Path) -> Iterator[FileIO]:
        file = self.system.open(path)
        try:
            yield file
        finally:
            file.close()


def _take(found: dict[str, StoredTensor], wanted: NewTensor, name: str) -> StoredTensor:
    got = found.pop(wanted.name, None)
    if got is None:
        raise ExportError(say("the written shard lacks a tensor"), path=name, key=wanted.name, remedy=_REMEDY)
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        raise ExportError(
            say(
                "the written tensor is {dtype} {shape} and not {planned_dtype} {planned_shape}",
                dtype=got.dtype,
                shape=list(got.shape),
                planned_dtype=wanted.dtype,
                planned_shape=list(wanted.shape),
            ),
            path=name,
            key=wanted.name,
            remedy=_REMEDY,
        )
    return got


def _runs(
    same: Iterable[tuple[StoredTensor, StoredTensor]], old: ShardHeader, new: ShardHeader, name: str, *, joined: bool
) -> list[Run]:
    """Where the bytes of each tensor stand in both files; neighbours in both become one run where ``joined``."""
    runs: list[Run] = []
    for tensor, got in same:
        begin, at, length = old.data_begin + tensor.begin, new.data_begin + got.begin, got.end - got.begin
        if length != tensor.end - tensor.begin:
            raise ExportError(say("a written tensor has another length"), path=name, key=got.name, remedy=_REMEDY)
        if joined and runs and runs[-1][0] + runs[-1][2] == begin and runs[-1][1] + runs[-1][2] == at:
            runs[-1] = (*runs[-1][:2], runs[-1][2] + length)
        else:
            runs.append((begin, at, length))
    return runs


def _sampled(runs: Sequence[Run]) -> list[Run]:
    """One block at a random place in each of some tensors: the first, the last, and some between."""
    random = Random(len(runs))  # noqa: S311 the same places each time
    chosen = [0, len(runs) - 1, *random.sample(range(len(runs)), min(len(runs), _SAMPLES))] if runs else []
    sample = []
    for number in sorted(set(chosen)):
        begin, at, length = runs[number]
        count = min(length, _SAMPLE)
        skipped = random.randint(0, length - count)
        sample.append((begin + skipped, at + skipped, count))
    return sample
