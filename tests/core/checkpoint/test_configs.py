from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from core.checkpoint import Checkpoint, open_checkpoint
from core.checkpoint.configs import LARGEST_CONFIG
from core.errors import KVScopeError
from tests.core.checkpoint.writing import write


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    write(tmp_path / "model.safetensors", {"a": ("U8", (1,))})
    return open_checkpoint(tmp_path)


def test_a_config_is_parsed_once(checkpoint: Checkpoint) -> None:
    path = checkpoint.root / "config.json"
    path.write_text('{"architectures": ["LlamaForCausalLM"]}')
    first = checkpoint.config("config.json")
    assert first == {"architectures": ["LlamaForCausalLM"]}
    path.unlink()
    assert checkpoint.config("config.json") is first
    assert checkpoint.config_fault("config.json") is None


def test_an_absent_config_is_none(checkpoint: Checkpoint) -> None:
    for name in ("config.json", "sub/config.json", "../config.json", "/etc/hosts", "a\0b", ""):
        assert checkpoint.config(name) is None
        assert checkpoint.config_fault(name) is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'{"a": "x\\u0000"}', {"a": "x\0"}),
        (b'{"a": "x\0\ty"}', {"a": "x\0\ty"}),
        (b'{"a": Infinity}', {"a": math.inf}),
        (b'{"a": "\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ],
)
def test_what_tools_write_and_engines_read_is_tolerated(
    checkpoint: Checkpoint, content: bytes, expected: object
) -> None:
    (checkpoint.root / "config.json").write_bytes(content)
    assert checkpoint.config("config.json") == expected


@pytest.mark.parametrize(
    ("content", "problem", "offset"),
    [
        (b"", "is empty", 0),
        (b'{"a": }', "is not valid JSON: Expecting value, line 1, column 7", 6),
        ('{"é": }'.encode(), "is not valid JSON: Expecting value, line 1, column 7", 7),
        (b'\xef\xbb\xbf{"a"\n: }', "is not valid JSON: Expecting value, line 2, column 3", 10),
        (b'{"a": 1} x', "is not valid JSON: Extra data, line 1, column 10", 9),
        (b"[1]", "holds no JSON object", 0),
        (b'{"a": "\xff"}', "is not UTF-8 text", 7),
        (b'{"a": ' + b"[" * 200_000, "is nested too deeply", None),
        (b'{"a": ' + b"9" * 5000 + b"}", "holds a number that is too long", None),
        (b'{"a": "\\ud800"}', "holds half of a surrogate pair, which is no text", None),
        (b"<html>", "is a web page, saved in place of the file", 0),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer; the tensors themselves", 0),
        (b"\x01\x02", "is not JSON", 0),
    ],
)
def test_a_broken_config_is_one_clear_error(
    checkpoint: Checkpoint, content: bytes, problem: str, offset: int | None
) -> None:
    path = checkpoint.root / "config.json"
    path.write_bytes(content)
    for _ in range(2):  # the second is answered from memory
        with pytest.raises(KVScopeError) as refusal:
            checkpoint.config("config.json")
        assert str(refusal.value).startswith(f"{path}: {problem}")
        assert refusal.value.remedy
    fault = checkpoint.config_fault("config.json")
    assert fault is not None
    assert (fault.file, fault.offset) == ("config.json", offset)
    assert fault.problem.startswith(problem)


def test_a_config_of_absurd_size_is_not_read(checkpoint: Checkpoint) -> None:
    with (checkpoint.root / "config.json").open("wb") as file:
        file.truncate(LARGEST_CONFIG + 1)
    with pytest.raises(KVScopeError, match="is 33,554,433 bytes long, more than the 33,554,432 that KVScope reads"):
        checkpoint.config("config.json")


def test_a_folder_in_place_of_a_config(checkpoint: Checkpoint) -> None:
    (checkpoint.root / "config.json").mkdir()
    with pytest.raises(KVScopeError, match="is a folder, not a file"):
        checkpoint.config("config.json")


def test_a_config_name_that_no_file_can_have(checkpoint: Checkpoint) -> None:
    fault = checkpoint.config_fault("x" * 300)
    assert fault is not None
    assert fault.problem == "has too long a name"


def test_a_folder_that_is_gone_has_no_configs(checkpoint: Checkpoint) -> None:
    shutil.rmtree(checkpoint.root)
    assert checkpoint.config_names() == ()
    assert checkpoint.config("config.json") is None


def test_the_names_of_configs(checkpoint: Checkpoint) -> None:
    assert checkpoint.config_names() == ()
    for name in ("hf_quant_config.json", "config.json", "x.txt"):
        (checkpoint.root / name).write_text("{}")
    (checkpoint.root / "folder.json").mkdir()
    assert checkpoint.config_names() == ("config.json", "hf_quant_config.json")
    for number in range(1100):
        (checkpoint.root / f"{number}.json").touch()
    assert len(checkpoint.config_names()) == 1000
