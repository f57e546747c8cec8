"""Bytes from one file into another, by every way there is."""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path

import pytest

from core.errors import CancelledError, ExportError
from core.export import copying
from core.export.copying import Copier
from core.export.safetensors_writer import BLOCK
from core.export.system import System
from core.progress import Progress

RANGES = [(0, 10_000, 0), (5, 9_001, 4_101), (5, 9_001, 0), (4096, 8192, 0), (100, 20_000, 8_292)]


class Sharing(System):
    """Clones by writing, with every rule of the real call: whole blocks, or up to the source's end."""

    def clone(self, source: FileIO, target: FileIO, *, begin: int, count: int, at: int) -> None:
        size = os.fstat(source.fileno()).st_size
        if begin % BLOCK or at % BLOCK or (count % BLOCK and begin + count != size):
            raise OSError(errno.EINVAL, "off a block's edge")
        target.seek(at)
        source.seek(begin)
        target.write(source.read(count))


class ByHand(System):
    def copy(self, source: FileIO, target: FileIO, *, begin: int, count: int, at: int) -> int:
        raise OSError(errno.EXDEV, "another file system")


class Nothing(ByHand):
    """A kernel that copies nothing and says no word, as some do on /proc; and that takes bytes one by one."""

    def copy(self, source: FileIO, target: FileIO, *, begin: int, count: int, at: int) -> int:
        return 0

    def write_at(self, file: FileIO, data: memoryview, at: int) -> int:
        return super().write_at(file, data[:97], at)


@pytest.mark.parametrize("system", [System(), ByHand(), Nothing(), Sharing()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(("begin", "end", "at"), RANGES)
def test_ranges_arrive_by_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: System, begin: int, end: int, at: int
) -> None:
    monkeypatch.setattr(copying, "_BUFFER", 777)
    monkeypatch.setattr(copying, "_CLONE_CHUNK", BLOCK)
    data = os.urandom(20_000)
    (tmp_path / "source").write_bytes(data)
    copier = Copier(system=system)
    with FileIO(tmp_path / "source") as source, FileIO(tmp_path / "target", "x+") as target:
        copier.copy_range(source, target, begin=begin, end=end, at=at)
    assert (tmp_path / "target").read_bytes() == bytes(at) + data[begin:end]
    assert copier.progress.done == copier.cloned + copier.copied == end - begin
    if isinstance(system, Sharing) and begin % BLOCK == at % BLOCK:
        assert copier.cloned >= min(end - begin, BLOCK)
        assert copier.copied < 2 * BLOCK
    else:
        assert copier.cloned == 0


def test_a_clone_that_fails_half_way_is_finished_by_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Once(Sharing):
        def clone(self, source: FileIO, target: FileIO, *, begin: int, count: int, at: int) -> None:
            if begin:
                raise OSError(errno.EOPNOTSUPP, "no more")
            super().clone(source, target, begin=begin, count=count, at=at)

    monkeypatch.setattr(copying, "_CLONE_CHUNK", BLOCK)
    data = os.urandom(20_000)
    (tmp_path / "source").write_bytes(data)
    copier = Copier(system=Once())
    copier.copy_file(tmp_path / "source", tmp_path / "target", size=20_000)
    assert (tmp_path / "target").read_bytes() == data
    assert (copier.cloned, copier.copied) == (BLOCK, 20_000 - BLOCK)


@pytest.mark.parametrize("call", ["clone", "copy"])
def test_a_disk_that_fails_is_not_mistaken_for_one_that_cannot(tmp_path: Path, call: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    (tmp_path / "source").write_bytes(bytes(10_000))
    system = System()
    setattr(system, call, fail)
    with pytest.raises(OSError, match="broken"):
        Copier(system=system).copy_file(tmp_path / "source", tmp_path / "target", size=10_000)


def test_a_disk_that_takes_no_byte_is_an_error(tmp_path: Path) -> None:
    class Deaf(System):
        def write_at(self, file: FileIO, data: memoryview, at: int) -> int:
            return 0

    with pytest.raises(OSError, match="the disk took no byte"):
        Copier(system=Deaf()).write_file(tmp_path / "target", b"text")


def test_a_source_that_ends_early_is_named(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"12345")
    with pytest.raises(
        ExportError, match=r"source: the file ended 5 bytes early while it was copied. It changed since"
    ):
        Copier().copy_file(tmp_path / "source", tmp_path / "target", size=10)


@pytest.mark.parametrize("system", [System(), ByHand(), Sharing()], ids=lambda each: type(each).__name__)
def test_copying_stops_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: System) -> None:
    monkeypatch.setattr(copying, "_BUFFER", 4096)
    monkeypatch.setattr(copying, "_KERNEL_CHUNK", 4096)
    monkeypatch.setattr(copying, "_CLONE_CHUNK", 4096)
    (tmp_path / "source").write_bytes(bytes(10_000))
    progress = Progress("Copying")
    progress.cancel()
    with pytest.raises(CancelledError, match="Copying was cancelled"):
        Copier(system=system, progress=progress).copy_file(tmp_path / "source", tmp_path / "target", size=10_000)
    assert (tmp_path / "target").stat().st_size == 4096


def test_long_copies_are_flushed_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_KERNEL_CHUNK", 1000)
    monkeypatch.setattr(copying, "_FLUSH_EVERY", 3000)
    flushed: list[int] = []

    class Watched(System):
        def flush(self, file: FileIO) -> None:
            super().flush(file)
            flushed.append(os.fstat(file.fileno()).st_size)

    (tmp_path / "source").write_bytes(bytes(10_000))
    Copier(system=Watched()).copy_file(tmp_path / "source", tmp_path / "target", size=10_000)
    assert flushed == [3000, 6000, 9000, 10_000]
