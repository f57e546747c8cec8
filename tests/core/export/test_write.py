"""Writing an export: all of it and verified, or nothing; the source never touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core import __version__
from core.errors import CancelledError, ExportError
from core.export import ConfigEdit, FieldChange, TensorEdit, write_export
from core.export.system import System
from tests.core.export.exporting import Interrupted, bytes_of, left_in, plan_of, tensors_of

QUARK = "quark/gemma3-26layers-fp8-kvfp8"
SHARDED = "llmcompressor/llama-32layers-kv_attn_head"
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def source(samples: Path, tmp_path: Path) -> Path:
    """A copy of the Quark sample that tests may spoil."""
    folder = tmp_path / "source"
    shutil.copytree(samples / QUARK, folder, copy_function=shutil.copyfile)
    return folder


def test_quark_gemma_fails_before_and_is_ok_after(samples: Path, tmp_path: Path) -> None:
    source, out = samples / QUARK, tmp_path / "out"
    before = bytes_of(source)
    plan = plan_of(source)
    assert plan.verdict_before.outcome == "fails"
    result = write_export(plan, out)

    assert result.verdict_after.outcome == "ok"
    assert result.verdict_after == plan.verdict_predicted
    assert result.after.deliveries.load.outcome == "loads"
    assert result.after.checkpoint.path == result.after.checkpoint.root == result.out == out
    assert [shard.path for shard in result.after.checkpoint.shards] == [out / "model.safetensors"]
    old, new = tensors_of(source / "model.safetensors"), tensors_of(out / "model.safetensors")
    renamed = {
        f"model.layers.{n}.self_attn.{role}_proj.output_scale": f"model.layers.{n}.self_attn.{role}_scale"
        for n in range(26)
        for role in "kv"
    }
    assert {renamed.get(name, name): tensor for name, tensor in old.items()} == new
    assert result.verified == len(old)
    assert bytes_of(source) == before
    for name in ("config.json", "generation_config.json"):
        assert (out / name).read_bytes() == before[name]
    assert left_in(tmp_path) == ["out"]
    assert left_in(out) == ["config.json", "generation_config.json", "kvscope-export.json", "model.safetensors"]
    assert result.bytes_written == sum(map(len, bytes_of(out).values()))
    assert 0 < result.bytes_written < plan.space_needed


def test_a_checkpoint_that_loads_is_copied_byte_for_byte(samples: Path, tmp_path: Path) -> None:
    plan = plan_of(samples / SHARDED)
    result = write_export(plan, tmp_path / "out")
    copied = bytes_of(tmp_path / "out")
    copied.pop("kvscope-export.json")
    assert copied == bytes_of(samples / SHARDED)
    assert result.verified == 354
    assert result.verdict_after == plan.verdict_before


def test_a_sharded_export_rebuilds_the_index_and_changes_only_names(samples: Path, tmp_path: Path) -> None:
    source, out = samples / SHARDED, tmp_path / "out"
    result = write_export(plan_of(source, names="modelopt"), out)
    assert result.after.deliveries.load.outcome == "loads"

    def moved(name: str) -> str:
        return name.replace(".k_scale", ".k_proj.k_scale").replace(".v_scale", ".v_proj.v_scale")

    index = "model.safetensors.index.json"
    old, new = json.loads((source / index).read_text()), json.loads((out / index).read_text())
    assert list(new["weight_map"].items()) == [(moved(name), shard) for name, shard in old["weight_map"].items()]
    assert new["metadata"] == old["metadata"]
    assert result.after.checkpoint.index is not None
    assert result.after.checkpoint.index.agrees
    for shard in set(new["weight_map"].values()):
        old_tensors = tensors_of(source / shard)
        assert {moved(name): tensor for name, tensor in old_tensors.items()} == tensors_of(out / shard)
    assert sum(moved(name) != name for name in old["weight_map"]) == 64


@pytest.mark.parametrize("odd", ["mark", "control", "line ends"])
def test_an_index_that_opens_is_rebuilt(samples: Path, tmp_path: Path, odd: str) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(samples / "modelopt/qwen3-36layers-fp8-kvfp8", source, copy_function=shutil.copyfile)
    index = source / "model.safetensors.index.json"
    text = index.read_text()
    old = {
        "mark": "\ufeff" + text,
        "control": text.replace("{", '{"by": "a\x01tab\t",', 1),
        "line ends": text.replace("\n", "\r\n"),
    }
    index.write_text(old[odd], newline="")
    plan = plan_of(source, names="portable")
    result = write_export(plan, out)
    assert result.after.checkpoint.index is not None
    assert result.after.checkpoint.index.agrees
    new = (out / index.name).read_bytes()
    assert json.loads(new).get("by") == ("a\x01tab\t" if odd == "control" else None)
    assert new.count(b"\r\n") == (new.count(b"\n") if odd == "line ends" else 0)


def test_shards_without_a_change_are_copied_byte_for_byte(samples: Path, tmp_path: Path) -> None:
    plan = plan_of(samples / SHARDED, names="modelopt")
    first = plan.edits[0].file
    plan = replace(plan, edits=tuple(edit for edit in plan.edits if edit.file == first))
    write_export(plan, tmp_path / "out")
    differing = {
        name for name, data in bytes_of(samples / SHARDED).items() if data != (tmp_path / "out" / name).read_bytes()
    }
    assert differing == {first, "model.safetensors.index.json"}
    assert first not in plan.files_copied
    assert "recipe.yaml" in plan.files_copied


def test_dropping_adding_and_changing_tensors_keeps_the_index_and_its_size_right(samples: Path, tmp_path: Path) -> None:
    plan = plan_of(samples / SHARDED)
    file, key = plan.edits[0].file, "model.layers.0.self_attn.k_scale"
    last = next(edit.file for edit in plan.edits if edit.file != file)
    edits = (
        TensorEdit(key=key, file=file, action="dropped", reason="a test"),
        TensorEdit(
            key="", file=last, action="added", reason="a test", new_key="added.k_scale", new_shape=(2,),
            new_dtype="BF16", values=(0.5, 2.0),
        ),
        TensorEdit(
            key="model.layers.0.self_attn.v_scale", file=file, action="renamed", reason="a test", new_key="v",
            new_shape=(), new_dtype="F32", values=(0.25,),
        ),
    )  # fmt: skip
    result = write_export(replace(plan, edits=edits), tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert key not in index["weight_map"]
    assert index["weight_map"]["added.k_scale"] == last
    assert index["weight_map"]["v"] == file
    tensors = tensors_of(tmp_path / "out" / file) | tensors_of(tmp_path / "out" / last)
    assert tensors["added.k_scale"] == ("BF16", (2,), b"\x00\x3f\x00\x40")
    assert tensors["v"] == ("F32", (), b"\x00\x00\x80\x3e")
    old = json.loads((samples / SHARDED / "model.safetensors.index.json").read_text())["metadata"]["total_size"]
    per_head = 2 * len(plan.before.scales[0].values)  # bfloat16
    assert index["metadata"]["total_size"] == old - 2 * per_head + 4 + 4
    assert result.verified == 354


def test_config_edits_are_written(samples: Path, tmp_path: Path) -> None:
    edit = ConfigEdit(
        file="config.json",
        changes=(FieldChange("quantization_config.kv_cache_scheme", None, "static"),),
        text='{"architectures": ["Gemma3ForCausalLM"]}\n',
        diff="",
        reason="a test",
    )
    write_export(replace(plan_of(samples / QUARK), config_edits=(edit,)), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == edit.text
    record = json.loads((tmp_path / "out" / "kvscope-export.json").read_text())
    assert record["fields"] == [
        {"file": "config.json", "field": "quantization_config.kv_cache_scheme", "before": None, "after": "static"}
    ]


def test_the_record_says_what_was_done_and_names_no_path(samples: Path, tmp_path: Path) -> None:
    plan = plan_of(samples / QUARK)
    write_export(plan, tmp_path / "out")
    text = (tmp_path / "out" / "kvscope-export.json").read_text()
    record = json.loads(text)
    assert record["schema"] == "kvscope.export-record/1"
    assert record["kvscope"] == __version__
    assert (record["source"], record["engine"], record["names"]) == (QUARK.split("/")[1], "vllm-0.33.0", "portable")
    assert (record["verdict_before"]["outcome"], record["verdict_after"]["outcome"]) == ("fails", "ok")
    assert len(record["tensors"]) == 52
    assert record["tensors"][0]["new_key"] == "model.layers.0.self_attn.k_scale"
    assert len(record["tensors"][0]["blake2b"]) == 64
    assert list(record["headers"]) == ["model.safetensors"]
    assert str(tmp_path) not in text
    assert str(samples) not in text

    again = write_export(plan_of(tmp_path / "out"), tmp_path / "again")
    second = json.loads((tmp_path / "again" / "kvscope-export.json").read_text())
    assert second["previous"] == record
    assert second["tensors"] == []
    assert again.verdict_after.outcome == "ok"


def test_a_hub_snapshot_of_links_becomes_files(samples: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "0123abcd"
    (cache / "blobs").mkdir(parents=True)
    (snapshot / "extra").mkdir(parents=True)
    for number, path in enumerate(sorted((samples / QUARK).iterdir())):
        shutil.copyfile(path, cache / "blobs" / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    (snapshot / "extra" / "note.txt").symlink_to("../../../blobs/0")
    (snapshot / "gone.txt").symlink_to("../../blobs/gone")
    os.mkfifo(snapshot / "pipe")
    plan = plan_of(snapshot)
    assert "gone.txt is a link to a file that is not there, and is left out." in plan.notes
    assert "pipe is no regular file, and is left out." in plan.notes
    write_export(plan, tmp_path / "out")
    written = [path for path in (tmp_path / "out").rglob("*") if not path.is_dir()]
    assert not any(path.is_symlink() for path in written)
    assert (tmp_path / "out" / "extra" / "note.txt").read_bytes() == (cache / "blobs" / "0").read_bytes()
    assert not (tmp_path / "out" / "gone.txt").exists()


def test_an_empty_folder_is_taken(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_export(plan_of(source), tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("phase", ["Copying", "Verifying"])
def test_a_cancelled_export_leaves_nothing(source: Path, tmp_path: Path, phase: str) -> None:
    before = bytes_of(source)
    progress = Interrupted(phase=phase, at=1000)
    progress.action = progress.cancel
    with pytest.raises(CancelledError, match=f"{phase} was cancelled"):
        write_export(plan_of(source), tmp_path / "out", progress=progress)
    assert progress.happened
    assert left_in(tmp_path) == ["source"]
    assert bytes_of(source) == before


def test_an_interrupt_leaves_nothing(source: Path, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_export(plan_of(source), tmp_path / "out", progress=Interrupted(at=1000, action=interrupt))
    assert left_in(tmp_path) == ["source"]


@pytest.mark.parametrize("phase", ["Copying", "Verifying"])
def test_progress_counts_every_byte(source: Path, tmp_path: Path, phase: str) -> None:
    seen: list[tuple[int, int, str]] = []
    write_export(plan_of(source), tmp_path / "out")
    total = sum(len(data) for name, data in bytes_of(tmp_path / "out").items() if name != "kvscope-export.json")
    progress = Interrupted(phase=phase, at=total)
    progress.action = lambda: seen.append((progress.done, progress.total, progress.unit))
    write_export(plan_of(source), tmp_path / "again", progress=progress)
    assert seen == [(total, total, "bytes")]


def test_a_bit_that_flips_on_the_disk_is_found(source: Path, tmp_path: Path) -> None:
    def spoil() -> None:
        with (tmp_path / "out.kvscope-unfinished" / "files" / "model.safetensors").open("r+b") as file:
            file.seek(-100, os.SEEK_END)
            file.write(b"\xff")

    with pytest.raises(
        ExportError, match=r"model.safetensors, key '[\w.]+': the written bytes differ from the source's at byte \d+. C"
    ):
        write_export(plan_of(source), tmp_path / "out", progress=Interrupted(phase="Verifying", at=1, action=spoil))
    assert left_in(tmp_path) == ["source"]


def test_a_source_that_changes_meanwhile_is_found(source: Path, tmp_path: Path) -> None:
    def touch() -> None:
        os.utime(source / "config.json", ns=(1, 1))

    with pytest.raises(ExportError, match=r"config.json: the file changed since the checkpoint was opened. Wait until"):
        write_export(plan_of(source), tmp_path / "out", progress=Interrupted(phase="Verifying", at=1, action=touch))
    assert left_in(tmp_path) == ["source"]


def test_a_target_that_fills_meanwhile_is_kept(source: Path, tmp_path: Path) -> None:
    def fill() -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine").write_text("mine")

    with pytest.raises(ExportError, match=r"out: the folder could not be written \(Directory not empty\), and nothing"):
        write_export(plan_of(source), tmp_path / "out", progress=Interrupted(at=1, action=fill))
    assert bytes_of(tmp_path / "out") == {"mine": b"mine"}
    assert left_in(tmp_path) == ["out", "source"]


SCRIPT = """
import os, resource, signal, sys
from pathlib import Path
from tests.core.export.exporting import Interrupted, plan_of
from core.errors import KVScopeError
from core.export import write_export

source, out, phase, at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
plan = plan_of(source)
if phase == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))
    try:
        write_export(plan, out)
    except KVScopeError as error:
        sys.exit(str(error))
write_export(plan, out, progress=Interrupted(phase=phase, at=at, action=lambda: os.kill(os.getpid(), signal.SIGKILL)))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("phase", "at"), [("Copying", 1), ("Copying", 300_000), ("Verifying", 300_000)])
def test_a_killed_export_leaves_no_target_and_a_new_one_succeeds(
    source: Path, tmp_path: Path, phase: str, at: int
) -> None:
    before = bytes_of(source)
    assert run(str(source), str(tmp_path / "out"), phase, str(at)).returncode == -9
    assert left_in(tmp_path) == ["out.kvscope-unfinished", "source"]
    assert bytes_of(source) == before
    assert write_export(plan_of(source), tmp_path / "out").verdict_after.outcome == "ok"


def test_a_full_disk_takes_the_export_back(source: Path, tmp_path: Path) -> None:
    done = run(str(source), str(tmp_path / "out"), "limit", "100000")
    assert done.stderr == (
        "model.safetensors: there was no room to write the file (File too large), and the export was taken back. "
        "Free some space, raise the limit on file sizes, or export to another disk.\n"
    )
    assert left_in(tmp_path) == ["source"]


def refused(source: Path, out: Path, message: str, **changes: int) -> None:
    before = bytes_of(source)
    plan = replace(plan_of(source), **changes)  # type: ignore[arg-type]
    with pytest.raises(ExportError) as error:
        write_export(plan, out)
    assert str(error.value) == message
    assert bytes_of(source) == before


def test_refuses_a_folder_that_is_not_empty(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    refused(source, out, f"{out}: is not empty. Choose a folder that does not exist yet, or empty it.")
    assert left_in(out) == ["mine"]


def test_refuses_a_file_and_a_link_to_nothing(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file, link = tmp_path / "file", tmp_path / "link"
    refused(source, file, f"{file}: is a file. Choose a folder that does not exist yet.")
    link.symlink_to("nowhere")
    refused(source, link, f"{link}: is a link to nothing. Choose another folder.")


@pytest.mark.parametrize("by_link", [False, True])
def test_refuses_the_source_its_inside_and_its_outside(source: Path, tmp_path: Path, by_link: bool) -> None:
    (tmp_path / "link").symlink_to(source)
    near = tmp_path / "link" if by_link else source
    refused(source, near, f"{source}: is the source itself. Choose a new folder: the source stays as it is.")
    refused(source, near / "out", f"{source / 'out'}: lies inside the source. Choose a folder outside the source.")
    refused(near, tmp_path, f"{tmp_path}: contains the source. Choose a folder that does not contain the source.")


def test_refuses_a_folder_below_nothing_or_below_a_file(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    refused(source, out, f"{out.parent}: does not exist. Create this folder first, or choose another.")
    out = source.parent / "file" / "out"
    out.parent.touch()
    refused(source, out, f"{out.parent}: does not exist. Create this folder first, or choose another.")


def test_refuses_a_disk_without_room(source: Path, tmp_path: Path) -> None:
    class Full(System):
        def free(self, folder: Path) -> int:
            return 1000

    with pytest.raises(ExportError, match=r"has 1.0 kB free and the export needs \d+.\d kB. Free some space,"):
        write_export(plan_of(source), tmp_path / "out", system=Full())
    assert left_in(tmp_path) == ["source"]


def test_refuses_a_source_that_changed_since_it_was_opened(source: Path, tmp_path: Path) -> None:
    plan = plan_of(source)
    with (source / "config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(ExportError) as error:
        write_export(plan, tmp_path / "out")
    assert str(error.value) == (
        f"{source / 'config.json'}: the file changed since the checkpoint was opened. Wait until nothing writes to it,"
        " open the checkpoint again and repeat the export."
    )
    assert left_in(tmp_path) == ["source"]


def test_a_shard_that_cannot_be_read_any_more_is_named(source: Path, tmp_path: Path) -> None:
    plan = plan_of(source)
    (source / "model.safetensors").unlink()
    with pytest.raises(ExportError) as error:
        write_export(plan, tmp_path / "out")
    assert str(error.value) == (
        f"{source / 'model.safetensors'}: cannot be read: No such file or directory. Check the disk and its"
        " permissions."
    )


def as_nobody(action: Callable[[], None]) -> None:
    """Run without the rights of root, whom no permission stops."""
    if os.geteuid() != 0:
        action()
        return
    os.seteuid(65534)
    try:
        action()
    finally:
        os.seteuid(0)


def test_refuses_a_folder_without_permission(samples: Path) -> None:
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, below folders that everybody may enter
        top, closed = Path(name), Path(name) / "closed"
        top.chmod(0o755)
        shutil.copytree(samples / QUARK, top / "source", copy_function=shutil.copyfile)
        closed.mkdir(mode=0o555)
        plan = plan_of(top / "source")

        def export() -> None:
            with pytest.raises(ExportError) as error:
                write_export(plan, closed / "out")
            assert str(error.value) == (
                f"{closed / 'out'}: the folder could not be written (Permission denied), and nothing was left behind."
                " Choose a folder that you may write to."
            )

        as_nobody(export)
        assert left_in(closed) == []


def test_two_tensors_of_one_name_in_two_shards_are_refused(samples: Path, tmp_path: Path) -> None:
    plan = plan_of(samples / SHARDED)
    first = plan.edits[0]
    other = next(edit for edit in plan.edits if edit.file != first.file)
    edit = TensorEdit(key=first.key, file=first.file, action="renamed", reason="a test", new_key=other.key)
    with pytest.raises(ExportError) as error:
        write_export(replace(plan, edits=(edit,)), tmp_path / "out")
    assert str(error.value) == (
        f"key '{other.key}': two tensors would have this name, one in {other.file} and one in {first.file}."
        " Drop one of them, or choose another naming convention."
    )
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            TensorEdit(key="gone", file="model.safetensors", action="dropped", reason=""),
            "model.safetensors, key 'gone': the shard has no such tensor. It changed since the checkpoint was opened",
        ),
        (
            TensorEdit(key="x", file="other.safetensors", action="dropped", reason=""),
            "other.safetensors, key 'x': the plan changes a tensor of a file that is not there",
        ),
        (
            TensorEdit(key="model.norm.weight", file="model.safetensors", action="reshaped", reason="", new_shape=(3,)),
            "model.safetensors, key 'model.norm.weight': the tensor is BF16 [32] and cannot become BF16 [3] without",
        ),
        (
            TensorEdit(key="", file="model.safetensors", action="added", reason="", new_key="a", new_dtype="F32"),
            "model.safetensors, key 'a': an added tensor needs a name, a type and a shape",
        ),
        (
            TensorEdit(
                key="",
                file="model.safetensors",
                action="added",
                reason="",
                new_key="a",
                new_dtype="F32",
                new_shape=(2,),
            ),
            "model.safetensors, key 'a': 0 values do not fill the shape [2]",
        ),
        (
            TensorEdit(
                key="", file="model.safetensors", action="added", reason="", new_key="a", new_dtype="I64",
                new_shape=(), values=(1.0,),
            ),
            "model.safetensors, key 'a': values are not written as type I64. Use F32.",
        ),
    ],
)  # fmt: skip
def test_edits_that_do_not_fit_are_refused(source: Path, tmp_path: Path, edit: TensorEdit, message: str) -> None:
    with pytest.raises(ExportError) as error:
        write_export(replace(plan_of(source), edits=(edit,)), tmp_path / "out")
    assert str(error.value).startswith(message)
    assert left_in(tmp_path) == ["source"]
