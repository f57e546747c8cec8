"""Sources and targets as they are met: links, other folders' hard links, read-only files, names of every kind."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from app.cli import main
from core.checkpoint import open_checkpoint
from core.errors import ExportError
from core.export import WriteOptions, write_export
from core.export.options import Mode
from core.export.system import System
from tests.core.export.exporting import bytes_of, left_in, plan_of
from tests.core.export.faults import whole

SHARDED = "llmcompressor/llama-32layers-kv_attn_head"
QUARK = "quark/gemma3-26layers-fp8-kvfp8"
MODES: list[Mode | None] = [None, "link", "copy"]


def copied(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, copy_function=shutil.copyfile)
    return folder


def snapshot_of(folder: Path, cache: Path) -> Path:
    """A folder as huggingface_hub keeps it: a snapshot of links to read-only blobs."""
    snapshot = cache / "models--org--name" / "snapshots" / "0123abcd"
    blobs = cache / "models--org--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(path, blobs / f"{number:064x}")
        (blobs / f"{number:064x}").chmod(0o444)
        (snapshot / path.name).symlink_to(f"../../blobs/{number:064x}")
    return snapshot


@pytest.mark.parametrize("mode", MODES)
def test_a_snapshot_of_links_becomes_files_that_need_no_cache(samples: Path, tmp_path: Path, mode: Mode | None) -> None:
    snapshot = snapshot_of(samples / SHARDED, tmp_path / "hub")
    out = tmp_path / "out"
    write_export(plan_of(snapshot), out, options=WriteOptions(mode=mode))
    assert not any(path.is_symlink() for path in out.rglob("*"))
    shards = [path for path in out.iterdir() if path.name.endswith(".safetensors")]
    for path in shards:
        assert path.samefile(snapshot / path.name) == (mode == "link")
    shutil.rmtree(tmp_path / "hub")
    copy = whole(out)
    assert copy == bytes_of(samples / SHARDED)


@pytest.mark.parametrize("mode", MODES)
def test_shards_that_another_folder_shares_are_never_modified(samples: Path, tmp_path: Path, mode: Mode | None) -> None:
    source, other = copied(samples / SHARDED, tmp_path / "source"), tmp_path / "other"
    other.mkdir()
    for path in source.iterdir():
        os.link(path, other / path.name)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in other.iterdir()}
    write_export(plan_of(source, names="modelopt"), tmp_path / "renamed", options=WriteOptions(mode=mode))
    write_export(plan_of(source), tmp_path / "same", options=WriteOptions(mode=mode))
    plan = plan_of(tmp_path / "same", names="modelopt")  # of a folder that holds links itself
    write_export(plan, tmp_path / "again", options=WriteOptions(mode=mode))
    for folder in (source, other):
        now = {path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.iterdir()}
        assert now == before


@pytest.mark.parametrize("mode", MODES)
def test_a_source_that_may_only_be_read(samples: Path, mode: Mode | None) -> None:
    with tempfile.TemporaryDirectory() as name:  # unlike tmp_path, below folders that everybody may enter
        top = Path(name)
        source = copied(samples / QUARK, top / "source")
        for path in source.iterdir():
            path.chmod(0o444)
        source.chmod(0o555)
        (top / "mine").mkdir()
        plan = plan_of(source)
        if os.geteuid() == 0:
            top.chmod(0o755)
            os.chown(top / "mine", 65534, 65534)
            os.seteuid(65534)
        try:
            write_export(plan, top / "mine" / "out", options=WriteOptions(mode=mode))
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
        for path in (top / "mine" / "out").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600, path
        source.chmod(0o755)


@pytest.mark.parametrize(
    "name",
    ["with spaces and 'quotes'", "экспорт 模型 🚀", "ends with .safetensors", "-n", "a\nb", os.fsdecode(b"\xff\xfe")],
)
def test_folders_of_every_name(samples: Path, tmp_path: Path, name: str) -> None:
    source, out = copied(samples / QUARK, tmp_path / "in" / name), tmp_path / "out" / name
    out.parent.mkdir()
    result = write_export(plan_of(source), out, options=WriteOptions(resume=True))
    assert result.verdict_after.outcome == "ok"
    assert left_in(out.parent) == [name]
    record = json.loads((out / "kvscope-export.json").read_text(encoding="utf-8"))
    assert record["source"] == name


@pytest.mark.parametrize("name", ["model 1 von 2.safetensors", "模型-00001.safetensors", "sub folder/ü.safetensors"])
def test_shards_of_every_name(samples: Path, tmp_path: Path, name: str) -> None:
    source, out = copied(samples / SHARDED, tmp_path / "source"), tmp_path / "out"
    old, index = "model-00001-of-00003.safetensors", source / "model.safetensors.index.json"
    (source / name).parent.mkdir(exist_ok=True)
    (source / old).rename(source / name)
    index.write_text(index.read_text().replace(old, name), encoding="utf-8")
    assert len(open_checkpoint(source).shards) == 3
    result = write_export(plan_of(source, names="modelopt"), out)
    assert result.after.deliveries.load.outcome == "loads"
    assert (out / name).is_file()
    assert set(bytes_of(out)) == {*bytes_of(source), "kvscope-export.json"}


@pytest.mark.parametrize(
    ("code", "words"), [(errno.EPERM, "Operation not permitted"), (errno.EXDEV, "Invalid cross-device link"),
                        (errno.EMLINK, "Too many links")]
)  # fmt: skip
def test_a_link_that_the_system_refuses_is_one_clear_sentence(
    samples: Path, tmp_path: Path, code: int, words: str
) -> None:
    class Refusing(System):  # other people's files, one file system mounted at two places, a file linked too often
        def link(self, source: Path, target: Path) -> None:
            raise OSError(code, os.strerror(code))

    source = samples / SHARDED
    with pytest.raises(ExportError) as error:
        write_export(plan_of(source), tmp_path / "out", options=WriteOptions(mode="link"), system=Refusing())
    assert str(error.value) == (
        f"{source / 'model-00001-of-00003.safetensors'}: the shard could not be linked ({words}). "
        "Leave --link away or use --copy."
    )
    assert left_in(tmp_path) == []


def test_a_shard_that_is_replaced_while_it_is_linked_is_noticed(samples: Path, tmp_path: Path) -> None:
    source = copied(samples / SHARDED, tmp_path / "source")
    shard = source / "model-00001-of-00003.safetensors"

    class Meanwhile(System):
        def link(self, source: Path, target: Path) -> None:
            super().link(source, target)
            if source == shard:
                shard.unlink()
                shutil.copyfile(target, shard)

    with pytest.raises(ExportError) as error:
        write_export(plan_of(source), tmp_path / "out", options=WriteOptions(mode="link"), system=Meanwhile())
    assert str(error.value) == (
        f"{shard}: the source's file was replaced while it was linked. Wait until nothing writes to it, open the "
        "checkpoint again and repeat the export."
    )


def test_pickled_shards_are_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    (tmp_path / "source").mkdir()
    torch.save({"model.layers.0.self_attn.k_scale": torch.tensor(0.5)}, tmp_path / "source" / "pytorch_model.bin")
    (tmp_path / "source" / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    assert main(["export", str(tmp_path / "source"), str(tmp_path / "out")]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        f"kvscope: {tmp_path / 'source'}: tensors in PyTorch's pickled files are not renamed yet. Convert the "
        "checkpoint to safetensors first, for example with transformers' save_pretrained.\n"
    )
    assert left_in(tmp_path) == ["source"]
