from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from core.checkpoint import Checkpoint, Fault, open_checkpoint
from core.errors import CancelledError, UnreadableCheckpointError
from core.progress import Progress
from tests.core.checkpoint.writing import pack, write, write_index

A, B = {"a": ("F32", (1,))}, {"b": ("BF16", (2,))}


def shard_names(checkpoint: Checkpoint) -> list[str]:
    return [shard.name for shard in checkpoint.shards]


def test_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", {**A, **B}, metadata={"format": "pt"})
    checkpoint = open_checkpoint(str(path))
    [shard] = checkpoint.shards
    assert (checkpoint.path, checkpoint.root, checkpoint.format) == (path, tmp_path, "safetensors")
    assert (shard.name, shard.path, shard.tensors, shard.fault) == ("model.safetensors", path, 2, None)
    assert shard.metadata == {"format": "pt"}
    assert shard.size == checkpoint.total_bytes == path.stat().st_size == shard.header_size + 8
    assert (checkpoint.tensor_count, checkpoint.faults, checkpoint.index, checkpoint.notes) == (2, (), None, ())


def test_a_folder_with_one_file_is_opened_as_given(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", A)
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.path, checkpoint.root, checkpoint.format) == (tmp_path, tmp_path, "safetensors")


def test_shards_without_an_index_come_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 2, 1):
        write(tmp_path / f"model-{number}.safetensors", {f"z{number}": ("U8", (1,)), f"a{number}": ("U8", (1,))})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "safetensors-sharded"
    assert shard_names(checkpoint) == [f"model-{number}.safetensors" for number in (1, 2, 9, 10)]
    assert checkpoint.catalog.names == ["a1", "z1", "a2", "z2", "a9", "z9", "a10", "z10"]
    assert [checkpoint.catalog.shard(row) for row in (0, 7)] == ["model-1.safetensors", "model-10.safetensors"]


def test_an_index_decides_which_files_are_read(tmp_path: Path) -> None:
    write(tmp_path / "model-1.safetensors", A)
    write(tmp_path / "model-2.safetensors", B)
    write(tmp_path / "kv_scales.safetensors", {"k_scale": ("F32", ())})
    write_index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        checkpoint = open_checkpoint(path)
        assert checkpoint.format == "safetensors-sharded"
        assert shard_names(checkpoint) == ["model-1.safetensors", "model-2.safetensors"]
        assert checkpoint.index is not None
        assert checkpoint.index.agrees
        assert checkpoint.index.unindexed_files == ("kv_scales.safetensors",)
        assert checkpoint.faults == ()


def test_shards_may_lie_in_a_folder_below(tmp_path: Path) -> None:
    write(tmp_path / "part" / "one.safetensors", A)
    impossible = f"{'x' * 300}/three.safetensors"
    write_index(tmp_path, {"a": "part/one.safetensors", "b": "part/two.safetensors", "c": impossible})
    checkpoint = open_checkpoint(tmp_path)
    assert shard_names(checkpoint) == ["part/one.safetensors", "part/two.safetensors", impossible]
    assert [shard.fault is None for shard in checkpoint.shards] == [True, False, False]


def test_of_two_indexes_the_usual_one_counts(tmp_path: Path) -> None:
    write(tmp_path / "model-1.safetensors", A)
    write(tmp_path / "consolidated-1.safetensors", A)
    write_index(tmp_path, {"a": "consolidated-1.safetensors"}, "consolidated.safetensors.index.json")
    write_index(tmp_path, {"a": "model-1.safetensors"})
    assert shard_names(open_checkpoint(tmp_path)) == ["model-1.safetensors"]
    other = open_checkpoint(tmp_path / "consolidated.safetensors.index.json")
    assert shard_names(other) == ["consolidated-1.safetensors"]


def test_mistrals_second_copy_is_passed_over_and_noted(tmp_path: Path) -> None:
    write(tmp_path / "consolidated.safetensors", A)
    write(tmp_path / "model.safetensors", A)
    write(tmp_path / "adapter_model.safetensors", {"lora": ("U8", (1,))})
    checkpoint = open_checkpoint(tmp_path)
    assert shard_names(checkpoint) == ["adapter_model.safetensors", "model.safetensors"]
    assert checkpoint.notes == ("consolidated.safetensors not read: the model* files beside hold the same weights.",)
    (tmp_path / "model.safetensors").unlink()
    assert shard_names(open_checkpoint(tmp_path)) == ["adapter_model.safetensors", "consolidated.safetensors"]


def test_a_tensorrt_llm_folder_has_the_same_keys_in_every_rank(tmp_path: Path) -> None:
    key = "transformer.layers.0.attention.kv_cache_scaling_factor"
    for rank in (0, 1, 10):
        write(tmp_path / f"rank{rank}.safetensors", {key: ("F32", (1,))})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "tensorrt-llm"
    assert shard_names(checkpoint) == ["rank0.safetensors", "rank1.safetensors", "rank10.safetensors"]
    assert checkpoint.catalog.duplicates == ()
    assert checkpoint.catalog.rows_of(key) == (0, 1, 2)


def test_a_key_in_two_shards_keeps_both_rows(tmp_path: Path) -> None:
    write(tmp_path / "model-1.safetensors", {"a": ("F32", (1,)), "c": ("U8", (1,))})
    write(tmp_path / "model-2.safetensors", {"b": ("U8", (2,)), "a": ("F32", (2,))})
    catalog = open_checkpoint(tmp_path).catalog
    assert catalog.names == ["a", "c", "a", "b"]
    assert catalog.duplicates == (("a", ("model-1.safetensors", "model-2.safetensors")),)
    assert catalog.index_of("a") == 0
    assert catalog.rows_of("a") == (0, 2)
    assert [catalog.entry(row).shape for row in catalog.rows_of("a")] == [(1,), (2,)]


def test_the_catalog_answers_by_name_and_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", {"w": ("BF16", (2, 3)), "s": ("F32", ())}, metadata={})
    catalog = open_checkpoint(path).catalog
    header_size = path.stat().st_size - 16
    assert len(catalog) == 2
    assert ("w" in catalog, "x" in catalog, 7 in catalog) == (True, False, False)
    assert (catalog.index_of("w"), catalog.index_of("x"), catalog.rows_of("x"), catalog.rows_of("s")) == (
        1,
        None,
        (),
        (0,),
    )
    found = catalog.entry(1)
    assert (found.key, found.shard, found.dtype, found.shape) == ("w", "model.safetensors", "BF16", (2, 3))
    assert (found.begin, found.end, found.nbytes) == (header_size, header_size + 12, 12)


def test_unknown_types_of_several_shards_keep_their_names(tmp_path: Path) -> None:
    for number, dtype in enumerate(("I3", "U5", "I3")):
        tree = {f"t{number}": {"dtype": dtype, "shape": [1], "data_offsets": [0, 1]}}
        (tmp_path / f"{number}.safetensors").write_bytes(pack(tree, b"\0"))
    catalog = open_checkpoint(tmp_path).catalog
    assert [catalog.dtype(row) for row in range(3)] == ["I3", "U5", "I3"]


def test_a_broken_shard_is_a_fault_and_the_rest_stays_usable(tmp_path: Path) -> None:
    write(tmp_path / "model-1.safetensors", A)
    broken = write(tmp_path / "model-2.safetensors", B)
    broken.write_bytes(broken.read_bytes()[:-1])
    size = broken.stat().st_size
    write_index(tmp_path, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    checkpoint = open_checkpoint(tmp_path)
    [fault] = checkpoint.faults
    assert checkpoint.shards[1].fault == fault
    assert checkpoint.shards[1].size == size
    assert fault.file == "model-2.safetensors"
    assert fault.offset == size
    assert fault.problem == "was cut short: its tensors take 4 bytes, but only 3 follow its header"
    assert str(fault) == f"model-2.safetensors: {fault.problem} (at byte {fault.offset}). {fault.remedy}"
    assert checkpoint.catalog.names == ["a"]
    assert checkpoint.index is not None
    assert checkpoint.index.missing_keys == (("b", "model-2.safetensors"),)
    values = checkpoint.read(["a", "b"])
    assert values["a"].fault is None
    assert values["b"].fault == f"the index says it is in model-2.safetensors, which was not read: {fault.problem}"


def test_a_snapshot_of_links_into_blobs(tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    write(cache / "blobs" / "1234", A)
    for commit in ("aaaa", "bbbb"):
        (cache / "snapshots" / commit).mkdir(parents=True)
        (cache / "snapshots" / commit / "model.safetensors").symlink_to(cache / "blobs" / "1234")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("bbbb\n")
    checkpoint = open_checkpoint(cache)
    assert (checkpoint.path, checkpoint.root) == (cache, cache / "snapshots" / "bbbb")
    assert checkpoint.catalog.names == ["a"]
    assert open_checkpoint(cache / "snapshots" / "aaaa").root == cache / "snapshots" / "aaaa"
    blob = open_checkpoint(cache / "blobs" / "1234")
    assert (blob.format, shard_names(blob)) == ("safetensors", ["1234"])

    (cache / "refs" / "main").write_text("../../elsewhere")
    with pytest.raises(UnreadableCheckpointError, match="2 snapshots, and its refs/main names none of them") as refusal:
        open_checkpoint(cache)
    assert refusal.value.remedy == "Open one of them, for example snapshots/aaaa."

    shutil.rmtree(cache / "snapshots" / "bbbb")
    assert open_checkpoint(cache).root == cache / "snapshots" / "aaaa"
    (cache / "refs" / "main").unlink()
    assert open_checkpoint(cache).root == cache / "snapshots" / "aaaa"
    shutil.rmtree(cache / "snapshots" / "aaaa")
    with pytest.raises(UnreadableCheckpointError, match="cache folder without a snapshot"):
        open_checkpoint(cache)


def test_a_link_without_its_blob(tmp_path: Path) -> None:
    write(tmp_path / "model-1.safetensors", A)
    (tmp_path / "model-2.safetensors").symlink_to(tmp_path / "blobs" / "5678")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.faults == (
        Fault("model-2.safetensors", None, "is a link to a file that is not there", "Download the checkpoint again."),
    )


def test_hidden_files_and_files_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", A)
    for name in ("._model-2.safetensors", "tokenizer.json", "modelopt_state.pth", "README.md"):
        (tmp_path / name).write_bytes(b"\0" * 9)
    (tmp_path / "x.safetensors").mkdir()
    checkpoint = open_checkpoint(tmp_path)
    assert shard_names(checkpoint) == ["model.safetensors"]
    assert checkpoint.faults == ()


def test_progress_counts_shards_and_stops_when_asked(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.safetensors", A)
    progress = Progress()
    open_checkpoint(tmp_path, progress=progress)
    assert (progress.done, progress.total, progress.unit) == (3, 3, "shards")
    progress.cancel()
    with pytest.raises(CancelledError):
        open_checkpoint(tmp_path, progress=progress)


def test_every_real_checkpoint_lists_what_the_safetensors_package_lists(checkpoint_folder: Path) -> None:
    checkpoint = open_checkpoint(checkpoint_folder)
    catalog = checkpoint.catalog
    assert checkpoint.faults == ()
    assert catalog.duplicates == ()
    row = 0
    for shard in checkpoint.shards:
        with safe_open(shard.path, "np") as file:
            for key in file.keys():  # noqa: SIM118 - no mapping
                found, expected = catalog.entry(row), file.get_slice(key)
                assert (found.key, found.shard, found.dtype) == (key, shard.name, expected.get_dtype())
                assert list(found.shape) == expected.get_shape()
                row += 1
            assert dict(shard.metadata) == (file.metadata() or {})
    assert row == len(catalog) == checkpoint.tensor_count
    assert {shard.name for shard in checkpoint.shards} == {
        path.name for path in checkpoint_folder.glob("*.safetensors")
    }
    if checkpoint.index is not None:
        assert checkpoint.index.agrees
        assert checkpoint.index.unindexed_files == ()


def test_real_formats(checkpoint_folder: Path) -> None:
    expected = "safetensors"
    if (checkpoint_folder / "model.safetensors.index.json").exists():
        expected = "safetensors-sharded"
    elif (checkpoint_folder / "rank0.safetensors").exists():
        expected = "tensorrt-llm"
    checkpoint = open_checkpoint(checkpoint_folder)
    assert checkpoint.format == expected
    for name in checkpoint.config_names():
        assert checkpoint.config(name) == json.loads((checkpoint_folder / name).read_text())
