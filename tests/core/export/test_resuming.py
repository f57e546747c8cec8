"""Exports that are interrupted and taken up, and what is in the way of one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import CancelledError, ExportError
from core.export import ExportPlan, WriteOptions, prepare_export, write_export
from core.export.options import Level
from core.export.refusals import refuse_full_disk
from core.export.remainder import STATE
from core.export.system import System
from tests.core.export.exporting import Interrupted, bytes_of, left_in, plan_of
from tests.core.export.faults import whole

RESUME = WriteOptions(resume=True)


@pytest.fixture
def source(samples: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    shutil.copytree(samples / "modelopt/qwen3-36layers-fp8-kvfp8", folder, copy_function=shutil.copyfile)
    return folder


@pytest.fixture
def plan(source: Path) -> ExportPlan:
    return plan_of(source, names="portable")


def interrupted(plan: ExportPlan, out: Path, *, phase: str = "Verifying", level: Level | None = None) -> Path:
    """Cancels an export when all is written, or half of it; returns the files of its remainder."""
    progress = Interrupted(phase=phase, at=1 if phase == "Verifying" else sum(file.size for file in plan.files) // 2)
    progress.action = progress.cancel
    with pytest.raises(CancelledError):
        write_export(plan, out, options=replace(RESUME, verify=level), progress=progress)
    assert not out.exists()
    return out.with_name("out.kvscope-unfinished") / "files"


@pytest.mark.parametrize("phase", ["Copying", "Verifying"])
def test_a_cancelled_export_is_taken_up_and_finished_files_are_not_written_again(
    plan: ExportPlan, source: Path, tmp_path: Path, phase: str
) -> None:
    before = bytes_of(source)
    files = interrupted(plan, tmp_path / "out", phase=phase)
    finished = {path.name: path.stat() for path in files.iterdir()}
    assert ("config.json" in finished) == (phase == "Verifying")
    result = write_export(plan, tmp_path / "out", options=RESUME)
    assert set(result.resumed) == set(finished)
    for name, was in finished.items():
        now = (tmp_path / "out" / name).stat()
        assert (now.st_ino, now.st_mtime_ns) == (was.st_ino, was.st_mtime_ns)
    assert result.copied == result.bytes_written
    assert result.verdict_after == plan.verdict_predicted
    write_export(plan, tmp_path / "plain")
    assert whole(tmp_path / "out") == whole(tmp_path / "plain")
    assert left_in(tmp_path) == ["out", "plain", "source"]
    assert bytes_of(source) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_file_that_a_download_left_unfinished_is_a_file_like_any_other(
    source: Path, tmp_path: Path, resume: bool
) -> None:
    (source / "config.json.part").write_text("{")
    (source / "part").write_text("half")
    plan = plan_of(source, names="portable")
    if resume:
        interrupted(plan, tmp_path / "out", phase="Copying")
    write_export(plan, tmp_path / "out", options=WriteOptions(resume=resume))
    assert (tmp_path / "out" / "config.json.part").read_text() == "{"
    assert (tmp_path / "out" / "part").read_text() == "half"
    assert left_in(tmp_path) == ["out", "source"]


def spoil_byte(path: Path) -> None:
    was = path.stat()
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))  # the same size, the same time


def shorten(path: Path) -> None:
    os.truncate(path, 100)


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("spoil", [spoil_byte, shorten, Path.unlink, Path.touch])
def test_a_finished_shard_that_is_not_what_it_was_is_written_again(
    plan: ExportPlan, tmp_path: Path, spoil: Callable[[Path], None], checked: bool
) -> None:
    files = interrupted(plan, tmp_path / "out")
    state = files.with_name(STATE)
    if checked:  # as if it had been cancelled after the comparison
        write_export(plan, tmp_path / "other")
        digests = {
            each["file"]: each["sha256"]
            for each in json.loads((tmp_path / "other" / "kvscope-export.json").read_text())["files"]
        }
        lines = [json.loads(line) for line in state.read_text().splitlines()]
        more = [line | {"sha256": digests[line["name"]], "checked": 1} for line in lines[1:]]
        state.write_text("".join(json.dumps(line) + "\n" for line in [*lines, *more]))
    name = "model-00002-of-00003.safetensors"
    spoil(files / name)
    result = write_export(plan, tmp_path / "out", options=RESUME)
    assert name not in result.resumed
    assert len(result.resumed) == len(plan.files) - 1
    write_export(plan, tmp_path / "plain")
    assert whole(tmp_path / "out") == whole(tmp_path / "plain")


def test_without_resume_a_remainder_is_written_anew(plan: ExportPlan, tmp_path: Path) -> None:
    interrupted(plan, tmp_path / "out")
    result = write_export(plan, tmp_path / "out")
    assert result.resumed == ()
    assert left_in(tmp_path) == ["out", "source"]


def test_resuming_where_nothing_was_begun_is_an_export(plan: ExportPlan, tmp_path: Path) -> None:
    result = write_export(plan, tmp_path / "out", options=RESUME)
    assert result.resumed == ()
    again = write_export(plan, tmp_path / "out", options=RESUME)
    assert again.notes == ("The export was finished already; nothing was written.",)
    assert (again.bytes_written, again.verdict_after) == (0, plan.verdict_predicted)
    assert again.resumed == ()


def test_what_the_last_rename_left_is_cleared_by_resuming(plan: ExportPlan, tmp_path: Path) -> None:
    write_export(plan, tmp_path / "out")
    (tmp_path / "out.kvscope-unfinished").mkdir()
    (tmp_path / "out.kvscope-unfinished" / STATE).write_text("{}\n")
    write_export(plan, tmp_path / "out", options=RESUME)
    assert left_in(tmp_path) == ["out", "source"]


def refused(plan: ExportPlan, out: Path, message: str, options: WriteOptions = RESUME) -> None:
    before = bytes_of(out.parent)
    with pytest.raises(ExportError) as error:
        write_export(plan, out, options=options)
    assert str(error.value) == message
    assert bytes_of(out.parent) == before


@pytest.mark.parametrize("spoil", [spoil_byte, shorten, Path.unlink])
def test_a_finished_export_that_was_damaged_since_is_told(
    plan: ExportPlan, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    write_export(plan, tmp_path / "out")
    shard = tmp_path / "out" / "model-00002-of-00003.safetensors"
    spoil(shard)
    message = f"{shard}: is not what the export wrote. Choose a folder that does not exist yet, or empty it."
    refused(plan, tmp_path / "out", message)


def test_the_remainder_of_another_export_is_not_taken_up(plan: ExportPlan, source: Path, tmp_path: Path) -> None:
    interrupted(plan, tmp_path / "out")
    refused(
        plan_of(source, names="vllm-runtime"),
        tmp_path / "out",
        f"{tmp_path / 'out.kvscope-unfinished'}: holds the remainder of another export. Leave --resume away to remove"
        " it and write anew, or repeat the options that it was begun with.",
    )


def test_the_finished_result_of_another_export_is_not_taken_for_this_one(
    plan: ExportPlan, source: Path, tmp_path: Path
) -> None:
    write_export(plan_of(source, names="vllm-runtime"), tmp_path / "out")
    message = f"{tmp_path / 'out'}: is not empty. Choose a folder that does not exist yet, or empty it."
    with pytest.raises(ExportError) as error:
        prepare_export(plan, tmp_path / "out", RESUME)
    assert str(error.value) == message
    refused(plan, tmp_path / "out", message)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_no_export_left_is_never_removed(plan: ExportPlan, tmp_path: Path, kind: str, resume: bool) -> None:
    way = tmp_path / "out.kvscope-unfinished"
    if kind == "file":
        way.write_text("mine")
    elif kind == "folder":
        way.mkdir()
        (way / "mine").write_text("mine")
    else:
        (tmp_path / "mine").mkdir()
        way.symlink_to(tmp_path / "mine")
    message = f"{way}: is in the way, and no export left it there. Move it, or choose another folder."
    refused(plan, tmp_path / "out", message, WriteOptions(resume=resume))


@pytest.mark.parametrize("resume", [False, True])
def test_two_exports_to_one_folder_do_not_run_at_once(plan: ExportPlan, tmp_path: Path, resume: bool) -> None:
    files = interrupted(plan, tmp_path / "out")
    with files.with_name(STATE).open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        refused(
            plan,
            tmp_path / "out",
            f"{files.parent}: another export to this folder is running. Wait until it has ended.",
            WriteOptions(resume=resume),
        )


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_state_that_was_cut_off_while_it_was_written_is_taken_up_as_far_as_it_goes(
    plan: ExportPlan, tmp_path: Path, cut: int
) -> None:
    files = interrupted(plan, tmp_path / "out")
    state = files.with_name(STATE)
    data = state.read_bytes()
    state.write_bytes(data[:-cut])
    result = write_export(plan, tmp_path / "out", options=RESUME)
    assert len(result.resumed) == data[:-cut].count(b"\n") - 1
    assert left_in(tmp_path) == ["out", "source"]


def test_lines_of_a_state_that_are_not_ours_are_passed_over(plan: ExportPlan, tmp_path: Path) -> None:
    files = interrupted(plan, tmp_path / "out")
    (tmp_path / "mine").write_text("mine")
    with files.with_name(STATE).open("a") as state:
        for line in ({"name": "../../mine", "size": 4, "mtime_ns": 1}, {"some": "thing"}, {"name": 7, "size": 1}):
            state.write(json.dumps(line) + "\n")
    result = write_export(plan, tmp_path / "out", options=RESUME)
    assert len(result.resumed) == len(plan.files)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("left", [b"", b'{"schema"', None])
def test_a_remainder_that_hardly_began_is_begun_anew(plan: ExportPlan, tmp_path: Path, left: bytes | None) -> None:
    (tmp_path / "out.kvscope-unfinished").mkdir()
    if left is not None:
        (tmp_path / "out.kvscope-unfinished" / STATE).write_bytes(left)
    assert write_export(plan, tmp_path / "out", options=RESUME).resumed == ()
    assert left_in(tmp_path) == ["out", "source"]


def test_what_is_finished_counts_as_room(plan: ExportPlan, tmp_path: Path) -> None:
    class Tight(System):
        def free(self, folder: Path) -> int:
            return 200_000

    files = interrupted(plan, tmp_path / "out")
    held = sum(path.stat().st_size for path in files.iterdir())
    refuse_full_disk(tmp_path / "out", 200_000 + held - 5000, digest="", resume=True, system=Tight())
    with pytest.raises(ExportError, match="Free some space"):
        refuse_full_disk(tmp_path / "out", 200_000 + held + 5000, digest="", resume=True, system=Tight())


@pytest.mark.parametrize("level", ["sample", "none"])
def test_resuming_with_less_proof_trusts_size_and_time(plan: ExportPlan, tmp_path: Path, level: Level) -> None:
    files = interrupted(plan, tmp_path / "out", level=level)
    os.utime(files / "config.json", ns=(1, 1))
    result = write_export(plan, tmp_path / "out", options=replace(RESUME, verify=level))
    assert set(result.resumed) == {file.name for file in plan.files} - {"config.json"}
