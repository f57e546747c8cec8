"""Exports that change the checkpoint itself: headers that fit and nothing else, or everything as it was."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from pathlib import Path
from random import Random

import pytest

from app.cli import main
from core.errors import CancelledError, ExportError
from core.export import ConfigEdit, export_in_place, prepare_in_place, recover, write_export
from core.export.journal import Journal
from core.export.plan import TensorEdit
from core.export.safetensors_writer import read_header
from core.export.system import System
from tests.core.export.crash_server import Crashing
from tests.core.export.exporting import Interrupted, bytes_of, plan_of, tensors_of
from tests.core.export.faults import KINDS, MOVES_BYTES, Faulty

JOURNAL, RECORD = "kvscope-in-place.journal", "kvscope-export.json"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"  # its names become shorter
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
FULL = os.environ.get("KVSCOPE_FULL") == "1"
REMEDY = "Export to a new folder instead."


@pytest.fixture
def source(samples: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(samples / GEMMA, tmp_path / "source", copy_function=shutil.copyfile))


@pytest.fixture
def sharded(samples: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(samples / QWEN, tmp_path / "sharded", copy_function=shutil.copyfile))


def test_only_the_header_changes(source: Path, tmp_path: Path) -> None:
    plan = plan_of(source)
    before, shard = bytes_of(source), source / "model.safetensors"
    was, header = shard.stat(), read_header(shard)
    write_export(plan, tmp_path / "out")
    result = export_in_place(plan)
    assert result.verdict_after == plan.verdict_predicted
    assert (result.out, result.after.checkpoint.path) == (source, source)
    now = bytes_of(source)
    assert set(now) == {*before, RECORD}
    assert {name for name in before if now[name] != before[name]} == {"model.safetensors"}
    data = now["model.safetensors"]
    assert data[header.data_begin :] == before["model.safetensors"][header.data_begin :]
    assert len(data) == was.st_size
    assert shard.stat().st_ino == was.st_ino
    assert tensors_of(shard) == tensors_of(tmp_path / "out" / "model.safetensors")
    record = json.loads(now[RECORD])
    assert record["writing"]["mode"] == "in-place"
    assert len(record["tensors"]) == 52
    assert result.bytes_written == header.data_begin + len(now[RECORD])


def test_shards_and_their_index_change_together(sharded: Path, tmp_path: Path) -> None:
    result = export_in_place(plan_of(sharded, names="portable"))
    assert result.verdict_after.outcome == "ok"
    assert result.after.checkpoint.index is not None
    assert result.after.checkpoint.index.agrees
    write_export(plan_of(sharded), tmp_path / "copy")  # the result can be exported as any other
    assert tensors_of(tmp_path / "copy" / "model-00001-of-00003.safetensors") == tensors_of(
        sharded / "model-00001-of-00003.safetensors"
    )


def test_small_files_change_and_come(sharded: Path) -> None:
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    mended = json.dumps(index | {"metadata": {"mended": True}})
    edits = tuple(
        ConfigEdit(file=file, changes=(), text=text, diff="", reason="a test")
        for file, text in (("model.safetensors.index.json", mended), ("new.json", "{}"))
    )
    before = bytes_of(sharded)
    plan = replace(plan_of(sharded, names="portable"), config_edits=edits)
    progress = Interrupted(phase="Rewriting headers", at=5)
    progress.action = progress.cancel
    with pytest.raises(CancelledError):
        export_in_place(plan, progress=progress)
    assert bytes_of(sharded) == before
    export_in_place(replace(plan_of(sharded, names="portable"), config_edits=edits))
    assert (sharded / "new.json").read_text() == "{}"
    now = json.loads((sharded / "model.safetensors.index.json").read_text())
    assert now["metadata"] == {"mended": True}
    assert "model.layers.0.self_attn.k_scale" in now["weight_map"]


def refused(folder: Path, message: str, names: str | None = None) -> None:
    plan, before = plan_of(folder, names=names), bytes_of(folder)
    with pytest.raises(ExportError) as error:
        prepare_in_place(plan)
    assert str(error.value) == message
    with pytest.raises(ExportError):
        export_in_place(plan)
    assert bytes_of(folder) == before


def test_a_header_that_does_not_fit_is_refused(source: Path) -> None:
    export_in_place(plan_of(source))
    room = read_header(source / "model.safetensors").size
    plan = plan_of(source, names="modelopt")
    edits = tuple(replace(edit, new_key=f"{edit.new_key}{'x' * 50}") for edit in plan.changes)
    before = bytes_of(source)
    with pytest.raises(ExportError) as error:
        export_in_place(replace(plan, edits=edits))
    assert str(error.value).startswith(f"{source / 'model.safetensors'}: the new header is ")
    assert str(error.value).endswith(f" bytes longer than the room of the old one. {REMEDY}")
    assert bytes_of(source) == before
    export_in_place(plan)  # without them it fits where the first names stood
    assert read_header(source / "model.safetensors").size == room


def test_a_shard_that_others_share_is_refused(source: Path, tmp_path: Path) -> None:
    shard = source / "model.safetensors"
    os.link(shard, tmp_path / "other")
    refused(source, f"{shard}: is shared with another folder by a hard link. {REMEDY}")
    shard.unlink()
    shard.symlink_to(tmp_path / "other")
    refused(source, f"{shard}: is a link, and what it leads to may be shared with others. {REMEDY}")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", RECORD])
def test_a_small_file_that_is_a_link_is_refused(sharded: Path, tmp_path: Path, name: str) -> None:
    path = sharded / name
    if name == RECORD:
        (tmp_path / "blob").write_text("{}")
    else:
        path.rename(tmp_path / "blob")
    path.symlink_to(tmp_path / "blob")
    edit = ConfigEdit(file="config.json", changes=(), text="{}", diff="", reason="a test")
    plan, before = replace(plan_of(sharded, names="portable"), config_edits=(edit,)), bytes_of(sharded)
    for export in (prepare_in_place, export_in_place):
        with pytest.raises(ExportError) as error:
            export(plan)
        assert str(error.value) == f"{path}: is a link, and what it leads to may be shared with others. {REMEDY}"
    assert bytes_of(sharded) == before
    assert path.is_symlink()


def test_a_single_file_is_judged_without_what_lies_beside_it(source: Path) -> None:
    (source / "other.safetensors").write_bytes(b"broken")
    shard = source / "model.safetensors"
    result = export_in_place(plan_of(shard))
    assert result.after.checkpoint.path == shard
    assert len(result.after.checkpoint.shards) == 1


def test_a_single_shard_of_an_index_is_refused(sharded: Path) -> None:
    shard, before = sharded / "model-00002-of-00003.safetensors", bytes_of(sharded)
    plan = plan_of(shard, names="portable")
    assert plan.changes
    with pytest.raises(ExportError) as error:
        export_in_place(plan)
    assert str(error.value) == (
        f"{shard}: model.safetensors.index.json names this shard, and would go on listing the old keys. "
        "Open the folder that holds it."
    )
    assert bytes_of(sharded) == before


def test_bytes_that_would_change_are_refused(source: Path) -> None:
    plan = plan_of(source)
    edits = tuple(replace(edit, values=(1.0,), new_dtype="F32") for edit in plan.edits)
    with pytest.raises(ExportError) as error:
        export_in_place(replace(plan, edits=edits))
    assert str(error.value) == (
        f"{source / 'model.safetensors'}: tensors' bytes would change or move, which in place cannot be. {REMEDY}"
    )


def test_a_dropped_tensor_at_the_end_leaves_bytes_that_no_header_covers(source: Path) -> None:
    shard = source / "model.safetensors"
    last = max(read_header(shard).tensors, key=lambda tensor: tensor.begin)
    edit = TensorEdit(key=last.name, file=shard.name, action="dropped", reason="a test")
    before = bytes_of(source)
    with pytest.raises(ExportError) as error:
        prepare_in_place(replace(plan_of(source), edits=(edit,)))
    assert str(error.value) == (f"{shard}: tensors' bytes would change or move, which in place cannot be. {REMEDY}")
    assert bytes_of(source) == before


def test_a_cancelled_export_puts_everything_back(sharded: Path) -> None:
    before = bytes_of(sharded)
    progress = Interrupted(phase="Rewriting headers", at=2)
    progress.action = progress.cancel
    with pytest.raises(CancelledError):
        export_in_place(plan_of(sharded, names="portable"), progress=progress)
    assert bytes_of(sharded) == before


def test_every_system_call_may_fail(sharded: Path, tmp_path: Path) -> None:
    before, plan = bytes_of(sharded), plan_of(sharded, names="portable")
    clean = Faulty()
    export_in_place(plan, system=clean)
    wanted = bytes_of(sharded)
    ended: Counter[str] = Counter()
    every = [
        (at, kind) for at, name in enumerate(clean.calls) for kind in KINDS if kind != "short" or name in MOVES_BYTES
    ]
    for at, kind in every if FULL else Random(7).sample(every, 25):  # noqa: S311
        restore(sharded, before)
        plan = plan_of(sharded, names="portable")
        message = None
        try:
            export_in_place(plan, system=Faulty(at=at, kind=kind))
        except ExportError as error:
            message = str(error)
        if message is not None:
            assert bytes_of(sharded) == before, (at, kind)
            assert f"{sharded}: the checkpoint could not be changed (" in message or "cannot be read: " in message
            ended["put back"] += 1
        else:
            assert left(sharded) == left_of(wanted), (at, kind)
            ended["went on"] += 1
    print(f"\nin place: {len(clean.calls)} calls, {sum(ended.values())} faults: {dict(ended)}")
    assert ended["put back"] > ended["went on"]


def test_an_export_that_is_killed_is_put_back_by_the_next(sharded: Path) -> None:
    before, plan = bytes_of(sharded), plan_of(sharded, names="portable")
    crashing = Crashing([(sharded, "portable")])
    count = int(crashing.export(0, sharded, in_place=True)["told"])
    wanted = left(sharded)
    calls = range(count) if FULL else sorted(Random(3).sample(range(count), 12))  # noqa: S311
    found: Counter[str] = Counter()
    for at in calls:
        restore(sharded, before)
        assert crashing.export(0, sharded, in_place=True, call=at, later=at % 2 == 0)["status"] == -signal.SIGKILL
        if (sharded / JOURNAL).exists():
            with pytest.raises(ExportError, match=r"an export in place did not end here. Run kvscope"):
                write_export(plan, sharded.with_name("out"))
            assert recover(sharded)
            assert bytes_of(sharded) == before, at
            found["put back"] += 1
        else:
            assert not recover(sharded)
            ended = bytes_of(sharded) == before
            assert ended or left(sharded) == wanted, at
            found["not begun" if ended else "finished"] += 1
    crashing.process.communicate()
    print(f"\nin place: {len(calls)} kills: {dict(found)}")
    assert found["put back"] > len(calls) // 2


def restore(folder: Path, wanted: dict[str, bytes]) -> None:
    for name in bytes_of(folder):
        (folder / name).unlink()
    for name, data in wanted.items():
        (folder / name).write_bytes(data)


def left(folder: Path) -> dict[str, bytes]:
    return left_of(bytes_of(folder))


def left_of(files: dict[str, bytes]) -> dict[str, bytes]:
    """Without the record, which says when the source was made."""
    return {name: data for name, data in files.items() if name != RECORD}


class Meanwhile(System):
    """Lets something happen while a header is written, then fails."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action

    def overwrite(self, path: Path) -> FileIO:
        if path.suffix == ".safetensors":
            self.action()
        return super().overwrite(path)


def test_a_running_export_in_place_is_left_alone(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = []

    def others() -> None:
        told.append((main(["export", str(source), "--in-place", "--dry-run"]), capsys.readouterr().err))
        told.append((main(["export", str(source), "--in-place"]), capsys.readouterr().err))
        with pytest.raises(ExportError, match="another export to this folder is running"):
            recover(source)

    result = export_in_place(plan_of(source), system=Meanwhile(others))
    message = f"kvscope: {source / JOURNAL}: another export to this folder is running. Wait until it has ended.\n"
    assert told == [(2, message)] * 2
    assert result.verdict_after.outcome == "ok"
    assert not (source / JOURNAL).exists()


def test_a_journal_that_went_meanwhile_is_told(source: Path) -> None:
    def fail() -> None:
        (source / JOURNAL).unlink()
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(ExportError) as error:
        export_in_place(plan_of(source), system=Meanwhile(fail))
    assert str(error.value) == (
        f"{source}: the checkpoint could not be changed (Input/output error), and the journal of how it was is gone. "
        "Look whether another program changed the folder; it may be as it was, or not."
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is no journal"),
        ("[]", "it is no journal"),
        ('{"schema": "x"}', "it is no journal"),
        (
            '{"schema": "kvscope.in-place-journal/1", "heads": {"model.safetensors": ""}, "texts": {}, "sizes": {}}',
            "it is no journal",
        ),
        (
            '{"schema": "kvscope.in-place-journal/1", "heads": {}, "texts": {}, "sizes": {"model.safetensors": 7}}',
            "model.safetensors has {size} bytes and not 7",
        ),
        (
            '{"schema": "kvscope.in-place-journal/1", "heads": {}, "texts": {}, "sizes": {"gone": 7}}',
            "gone: No such file or directory",
        ),
    ],
)
def test_a_journal_that_does_not_fit_is_kept(source: Path, text: str, why: str) -> None:
    (source / JOURNAL).write_text(text)
    before = bytes_of(source)
    with pytest.raises(ExportError) as error:
        recover(source)
    told = why.format(size=len(before["model.safetensors"]))
    assert str(error.value) == (
        f"{source / JOURNAL}: what an interrupted export in place changed could not be put back: {told}. "
        "Check the disk and its permissions, repeat kvscope export --in-place, and keep the journal until then."
    )
    assert bytes_of(source) == before


@pytest.mark.parametrize("name", ["../outside", "/outside", "link", "folder/outside", "folder/../config.json"])
@pytest.mark.parametrize("part", ["heads", "texts"])
def test_a_journal_that_came_with_a_download_reaches_nothing_outside(
    source: Path, tmp_path: Path, name: str, part: str
) -> None:
    (tmp_path / "outside").write_text("mine")
    name = str(tmp_path / "outside") if name == "/outside" else name
    (source / "link").symlink_to(tmp_path / "outside")
    (source / "folder").symlink_to(tmp_path)
    journal = {"schema": "kvscope.in-place-journal/1", "heads": {}, "texts": {}, "sizes": {name: 4}}
    journal[part] = {name: base64.b85encode(b"evil").decode()}
    (source / JOURNAL).write_text(json.dumps(journal))
    with pytest.raises(ExportError, match=r"could not be put back: .* is no file of this folder's own. Check the disk"):
        recover(source)
    assert (tmp_path / "outside").read_text() == "mine"


def test_the_command_line(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = bytes_of(source)
    assert main(["export", str(source), "--in-place", "--dry-run"]) == 0
    assert (
        "  writing: The checkpoint itself is changed: new headers where the old ones stand" in capsys.readouterr().out
    )
    assert bytes_of(source) == before
    assert main(["export", str(source), "--in-place", "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert (run["writing"]["mode"], run["verdict_after"]["outcome"]) == ("in-place", "ok")
    assert main(["check", str(source), "--kv-cache-dtype", "fp8"]) == 0
    capsys.readouterr()
    for arguments, message in (
        (["out", "--in-place"], "--in-place takes no OUT. Leave one of them away"),
        (["--in-place", "--link"], "--in-place copies nothing. Leave --link, --clone, --copy, --overlay, --verify and"),
        ([], "OUT is missing. Name the folder to write, or give --in-place"),
    ):
        assert main(["export", str(source), *arguments]) == 2
        assert capsys.readouterr().err.startswith(f"kvscope: {message}")


def test_the_command_line_puts_back_first(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_in_place(plan_of(source))
    changed = bytes_of(source)
    heads = {"model.safetensors": changed["model.safetensors"][:9]}
    data = bytearray(changed["model.safetensors"])
    data[:9] = b"\xff" * 9
    (source / "model.safetensors").write_bytes(data)
    journal = Journal(root=source, heads=heads, texts={"new": None}, sizes={"model.safetensors": len(data)})
    journal.keep(System()).close()
    before = bytes_of(source)
    assert main(["export", str(source), "--in-place", "--dry-run"]) == 2
    assert "an export in place did not end here. Run kvscope export --in-place again" in capsys.readouterr().err
    assert bytes_of(source) == before
    assert main(["export", str(source), "--in-place"]) == 0
    assert "An export in place had not ended; what it had changed was put back." in capsys.readouterr().err
    assert left(source) == left_of(changed)
