from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.checkpoint import Checkpoint, IndexReport, open_checkpoint
from core.errors import UnreadableCheckpointError
from tests.core.checkpoint.writing import write, write_index

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-1.safetensors", "model-2.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / ONE, {"a": ("U8", (1,)), "b": ("U8", (1,))})
    write(tmp_path / TWO, {"c": ("U8", (1,)), "d": ("U8", (1,))})
    return tmp_path


def report(folder: Path, weight_map: dict[str, str]) -> tuple[Checkpoint, IndexReport]:
    write_index(folder, weight_map)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.index is not None
    return checkpoint, checkpoint.index


def test_agreement(folder: Path) -> None:
    checkpoint, found = report(folder, {"a": ONE, "b": ONE, "c": TWO, "d": TWO})
    assert found.agrees
    assert found.file == INDEX
    assert found.total_size == 1
    assert checkpoint.faults == ()


def test_a_key_in_the_index_and_in_no_shard(folder: Path) -> None:
    checkpoint, found = report(folder, {"a": ONE, "b": ONE, "c": TWO, "d": TWO, "e": TWO})
    assert not found.agrees
    assert found.missing_keys == (("e", TWO),)
    assert (found.missing_shards, found.unindexed_keys, found.moved_keys) == ((), (), ())
    assert checkpoint.read(["e"])["e"].fault == "no readable shard holds this key"


def test_a_key_in_a_shard_and_not_in_the_index(folder: Path) -> None:
    _, found = report(folder, {"a": ONE, "c": TWO})
    assert found.unindexed_keys == ("b", "d")
    assert (found.missing_shards, found.missing_keys, found.moved_keys) == ((), (), ())


def test_a_key_in_another_shard_than_the_index_says(folder: Path) -> None:
    _, found = report(folder, {"a": ONE, "b": TWO, "c": TWO, "d": TWO})
    assert found.moved_keys == (("b", TWO, ONE),)
    assert (found.missing_shards, found.missing_keys, found.unindexed_keys) == ((), (), ())


def test_a_key_in_two_shards_is_where_the_index_says_if_it_is_in_one_of_them(folder: Path) -> None:
    write(folder / TWO, {"c": ("U8", (1,)), "b": ("U8", (1,))})
    for shard in (ONE, TWO):
        checkpoint, found = report(folder, {"a": ONE, "b": shard, "c": TWO})
        assert found.agrees
        assert checkpoint.catalog.duplicates == (("b", (ONE, TWO)),)


def test_a_shard_that_is_not_there(folder: Path) -> None:
    (folder / TWO).unlink()
    checkpoint, found = report(folder, {"a": ONE, "b": ONE, "c": TWO, "d": TWO})
    assert found.missing_shards == (TWO,)
    assert found.missing_keys == (("c", TWO), ("d", TWO))
    [fault] = checkpoint.faults
    assert (fault.file, fault.offset) == (TWO, None)
    assert (fault.problem, fault.remedy) == ("is named by the index, but is not there", "Download it into this folder.")
    assert [(shard.name, shard.size, shard.tensors, shard.fault) for shard in checkpoint.shards[1:]] == [
        (TWO, 0, 0, fault)
    ]
    reason = f"the index says it is in {TWO}, which was not read: {fault.problem}"
    assert checkpoint.read(["c"])["c"].fault == reason


def test_an_index_of_other_shards_is_passed_over(folder: Path) -> None:
    checkpoint, found = report(folder, {"a": "old-1.safetensors", "x": "old-2.safetensors"})
    assert found.missing_shards == ("old-1.safetensors", "old-2.safetensors")
    assert found.unindexed_files == (ONE, TWO)
    assert found.moved_keys == (("a", "old-1.safetensors", ONE),)
    assert found.missing_keys == (("x", "old-2.safetensors"),)
    assert found.unindexed_keys == ("b", "c", "d")
    assert checkpoint.catalog.names == ["a", "b", "c", "d"]
    first = checkpoint.faults[0]
    assert first.file == INDEX
    assert first.problem == "names 2 shards, none of which is there; the folder's tensor files were read without it"
    assert len(checkpoint.faults) == 3


def test_an_index_without_entries_is_passed_over(folder: Path) -> None:
    checkpoint, found = report(folder, {})
    assert checkpoint.faults[0].problem == "names no shard; the folder's tensor files were read without it"
    assert found.unindexed_keys == ("a", "b", "c", "d")


def test_an_index_alone_is_no_checkpoint(tmp_path: Path) -> None:
    index = write_index(tmp_path, {"a": ONE, "b": TWO})
    for path in (tmp_path, index):
        with pytest.raises(UnreadableCheckpointError) as refusal:
            open_checkpoint(path)
        assert str(refusal.value) == (
            f"{tmp_path}: holds only an index, {INDEX}, and none of the 2 shards that it names. "
            "Download the shards into this folder."
        )
    write_index(tmp_path, {})
    with pytest.raises(UnreadableCheckpointError, match="and it names no shard"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "holds no JSON object"),
        ("{}", "has no weight_map that says which shard holds each tensor"),
        ('{"weight_map": ["a"]}', "has no weight_map that says which shard holds each tensor"),
        ('{"weight_map": {"a": 1}}', "names no file for 'a'"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "names '../x.safetensors', which is no file of this folder"),
        ('{"weight_map": {"a": "/etc/x.safetensors"}}', "names '/etc/x.safetensors', which is no file of this folder"),
        ('{"weight_map": {"a": "x\\u0000y"}}', "names 'x\\x00y', which is no file of this folder"),
        ('{"weight_map": {"a": ""}}', "names '', which is no file of this folder"),
        ('{"weight_map": {"a": "."}}', "names '.', which is no file of this folder"),
        ('{"weight_map": ', "is not valid JSON: Expecting value, line 1, column 16"),
        ("<html>", "is a web page, saved in place of the file"),
        ("", "is empty"),
    ],
)
def test_a_broken_index_is_a_fault_and_the_shards_are_read_without_it(folder: Path, content: str, problem: str) -> None:
    (folder / INDEX).write_text(content)
    checkpoint = open_checkpoint(folder)
    [fault] = checkpoint.faults
    assert (fault.file, fault.problem) == (INDEX, problem)
    assert fault.remedy
    assert checkpoint.index is None
    assert checkpoint.tensor_count == 4
    for shard in (ONE, TWO):
        (folder / shard).unlink()
    with pytest.raises(UnreadableCheckpointError) as refusal:
        open_checkpoint(folder)
    assert f"holds an index without shards, and the index {problem}" in str(refusal.value)
    (folder / ONE).touch()
    (folder / TWO).touch()


def test_a_key_that_the_index_names_twice_is_a_fault(folder: Path) -> None:
    pairs = [("a", TWO), ("a", ONE), ("b", ONE), ("c", TWO), ("d", TWO)]
    text = '{"weight_map": {' + ", ".join(f'"{key}": "{shard}"' for key, shard in pairs) + "}}"
    (folder / INDEX).write_text(text)
    checkpoint = open_checkpoint(folder)
    [fault] = checkpoint.faults
    assert fault.problem == "names 1 key twice, 'a' first; the last entry counts"
    assert checkpoint.index is not None
    assert checkpoint.index.agrees


@pytest.mark.parametrize(
    ("declared", "expected"),
    [(12, 12), (12.0, 12), (12.5, None), (-1, None), ("12", None), (True, None), (None, None)],
)
def test_the_declared_size(folder: Path, declared: Any, expected: int | None) -> None:
    weight_map = {"a": ONE, "b": ONE, "c": TWO, "d": TWO}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": declared}, "weight_map": weight_map}))
    found = open_checkpoint(folder).index
    assert found is not None
    assert found.total_size == expected
