"""Exports on real file systems: what clones, what links, what copies, and a disk that is full."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from core.errors import ExportError
from core.export import ExportResult, WriteOptions, write_export
from core.export.options import Mode
from core.export.safetensors_writer import read_header
from core.export.system import System
from tests.core.export.conftest import CLONING, KINDS, mounted
from tests.core.export.exporting import Stored, bytes_of, left_in, plan_of, shard_bytes, tensors_of

MIB = 1 << 20
on_all = pytest.mark.parametrize("file_system", KINDS, indirect=True)
on_cloning = pytest.mark.parametrize("file_system", CLONING, indirect=True)
on_copying = pytest.mark.parametrize("file_system", ["ext4", "tmpfs"], indirect=True)


def big(samples: Path, folder: Path, *, shards: int = 3) -> Path:
    """The Quark sample with ``shards`` shards more, of 4 MiB each and nothing to change in them."""
    shutil.copytree(samples / "quark/gemma3-26layers-fp8-kvfp8", folder, copy_function=shutil.copyfile)
    weight_map = dict.fromkeys(tensors_of(folder / "model.safetensors"), "model.safetensors")
    for number in range(shards):
        name = f"weights-{number}.safetensors"
        tensors = [Stored(f"more.{number}.{part}", "U8", (MIB,), os.urandom(MIB)) for part in range(4)]
        (folder / name).write_bytes(shard_bytes(tensors, metadata={"format": "pt"}))
        weight_map |= {tensor.name: name for tensor in tensors}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return folder


def export(source: Path, out: Path, mode: Mode | None = None, *, resume: bool = False) -> ExportResult:
    before = bytes_of(source)
    try:
        return write_export(plan_of(source), out, options=WriteOptions(mode=mode, resume=resume))
    finally:
        assert bytes_of(source) == before


def used(place: Path) -> int:
    os.sync()
    return shutil.disk_usage(place).used


@on_cloning
def test_blocks_are_shared_where_the_file_system_can(samples: Path, file_system: Path) -> None:
    source = big(samples, file_system / "source")
    before = used(file_system)
    result = export(source, file_system / "out")
    assert result.placement.mode == "clone"
    assert result.cloned >= 12 * MIB
    assert result.cloned + result.copied == result.bytes_written
    assert used(file_system) - before < MIB
    assert result.placement.room < MIB
    assert result.verdict_after.outcome == "ok"
    assert result.placement.verify == "all"
    wanted = tensors_of(source / "weights-1.safetensors")
    (source / "weights-1.safetensors").write_bytes(b"spoilt")  # both sides stay apart
    assert tensors_of(file_system / "out" / "weights-1.safetensors") == wanted


@on_cloning
def test_a_shard_with_a_new_header_shares_the_rest(samples: Path, file_system: Path) -> None:
    source = big(samples, file_system / "source", shards=0)
    shard = source / "model.safetensors"
    (source / "model.safetensors.index.json").unlink()
    stored = [Stored(name, *tensor) for name, tensor in tensors_of(shard).items()]
    stored.append(Stored("more", "U8", (8 * MIB,), os.urandom(8 * MIB)))
    shard.write_bytes(shard_bytes(stored, metadata={"format": "pt"}))
    result = export(source, file_system / "out")
    assert read_header(file_system / "out" / "model.safetensors").tensors != read_header(shard).tensors
    assert result.cloned > 8 * MIB
    assert result.copied < MIB


@on_cloning
def test_a_copy_that_was_asked_for_shares_nothing(samples: Path, file_system: Path) -> None:
    source = big(samples, file_system / "source")
    before = used(file_system)
    result = export(source, file_system / "out", "copy")
    assert (result.placement.mode, result.cloned) == ("copy", 0)
    assert used(file_system) - before > 11 * MIB


@on_copying
def test_bytes_are_copied_where_blocks_cannot_be_shared(samples: Path, file_system: Path) -> None:
    source = big(samples, file_system / "source")
    result = export(source, file_system / "out")
    assert (result.placement.mode, result.cloned) == ("copy", 0)
    assert result.copied == result.bytes_written
    with pytest.raises(ExportError) as error:
        export(source, file_system / "again", "clone")
    assert str(error.value) == (
        f"{file_system}: this file system cannot share blocks with the source. Use --copy or --link, or choose a folder"
        " on the source's own XFS or btrfs file system."
    )
    assert left_in(file_system) in (["out", "source"], ["lost+found", "out", "source"])


@on_all
def test_untouched_shards_become_hard_links_and_stay_as_they_are(samples: Path, file_system: Path) -> None:
    source = big(samples, file_system / "source")
    before = used(file_system)
    result = export(source, file_system / "out", "link")
    assert result.linked > 12 * MIB
    assert used(file_system) - before < 2 * MIB
    for name in left_in(source):
        same = (source / name).samefile(file_system / "out" / name)
        assert same == name.startswith("weights-"), name
    assert result.verdict_after.outcome == "ok"
    write_export(
        plan_of(file_system / "out", names="modelopt"), file_system / "third", options=WriteOptions(mode="link")
    )
    assert (file_system / "third" / "weights-0.safetensors").stat().st_nlink == 3


@on_all
def test_links_do_not_cross_file_systems_and_copies_do(samples: Path, tmp_path: Path, file_system: Path) -> None:
    source = big(samples, tmp_path / "source")
    with pytest.raises(ExportError) as error:
        export(source, file_system / "out", "link")
    assert str(error.value) == (
        f"{source / 'model.safetensors'}: lies on another file system than the target, and hard links cannot cross. "
        "Leave --link away or use --copy, or choose a folder on the source's file system."
    )
    assert "out" not in left_in(file_system)
    result = export(source, file_system / "out")
    assert (result.placement.mode, result.cloned, result.linked) == ("copy", 0, 0)
    assert result.verdict_after.outcome == "ok"


@on_all
def test_the_top_of_a_file_system_is_no_target(samples: Path, file_system: Path) -> None:
    for entry in file_system.iterdir():
        entry.rmdir()
    with pytest.raises(ExportError) as error:
        export(samples / "quark/gemma3-26layers-fp8-kvfp8", file_system)
    assert str(error.value) == (
        f"{file_system}: is the top of a file system, which cannot be replaced. Choose a folder below it."
    )


class Boundless(System):
    """Believes that there is room."""

    def free(self, folder: Path) -> int:
        return 1 << 50


@pytest.mark.parametrize("file_system", ["tmpfs"], indirect=True)
@pytest.mark.parametrize("resume", [False, True])
def test_a_disk_that_is_full(samples: Path, tmp_path: Path, file_system: Path, resume: bool) -> None:
    source = big(samples, tmp_path / "source", shards=2)
    with mounted("tmpfs", 6 * MIB) as small:
        with pytest.raises(ExportError, match=r"the disk has [\d.]+ MB free and the export needs 8.\d MB. Free some"):
            export(source, small / "out")
        assert left_in(small) == []
        with pytest.raises(ExportError) as error:
            write_export(plan_of(source), small / "out", options=WriteOptions(resume=resume), system=Boundless())
        what = "what is finished waits for --resume" if resume else "the export was taken back"
        assert str(error.value) == (
            f"weights-1.safetensors: there was no room to write the file (No space left on device), and {what}. "
            "Free some space, raise the limit on file sizes, or export to another disk."
        )
        assert left_in(small) == (["out.kvscope-unfinished"] if resume else [])
        if resume:
            os.system(f"mount -o remount,size={20 * MIB} {small}")  # noqa: S605
            result = export(source, small / "out", resume=True)
            assert "weights-0.safetensors" in result.resumed
            assert left_in(small) == ["out"]


@pytest.mark.parametrize("file_system", ["tmpfs"], indirect=True)
def test_a_target_on_a_disk_that_may_not_be_written(samples: Path, file_system: Path) -> None:
    os.system(f"mount -o remount,ro {file_system}")  # noqa: S605
    out = file_system / "out"
    with pytest.raises(ExportError) as error:
        export(samples / "quark/gemma3-26layers-fp8-kvfp8", out)
    assert str(error.value) == (
        f"{out}: the folder could not be written (Read-only file system), and nothing was left behind."
        " Choose a folder that you may write to."
    )
