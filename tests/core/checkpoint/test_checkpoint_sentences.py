"""What is told of a checkpoint that opens can be said in another language: faults, notes, unreadable values."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.checkpoint import open_checkpoint
from core.errors import CancelledError
from core.progress import Progress
from core.wording import Sentence
from tests.core.checkpoint.writing import write, write_index
from tests.core.spoken import left_in_english


def test_faults_of_indexes_and_shards(tmp_path: Path) -> None:
    write(tmp_path / "here.safetensors", {"a": ("U8", (1,))})
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for text in (
        '{"weight_map": {"a": "gone.safetensors"}}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": "here.safetensors", "b": "gone.safetensors", "a": "empty.safetensors"}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../x"}}',
        "{}",
        "{",
        "nothing",
    ):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        faults = open_checkpoint(tmp_path).faults
        assert faults, text
        for fault in faults:
            assert isinstance(fault.problem, Sentence)
            assert isinstance(fault.remedy, Sentence)
            assert left_in_english(fault.message) == []


def test_notes_about_files_passed_over(tmp_path: Path) -> None:
    for name in ("model.safetensors", "consolidated.00.safetensors"):
        write(tmp_path / name, {"a": ("U8", (1,))})
    for name in ("pytorch_model.bin", "one.pt", "two.pt", "three.pt", "four.pt"):
        (tmp_path / "pickled").mkdir(exist_ok=True)
        torch.save({"a": torch.zeros(1)}, tmp_path / "pickled" / name)
    (note,) = open_checkpoint(tmp_path).notes
    (other,) = open_checkpoint(tmp_path / "pickled").notes
    assert other == "four.pt, one.pt, three.pt and others not read: pytorch_model.bin comes first."
    assert left_in_english(note) == left_in_english(other) == []


def test_values_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path / "model-1.safetensors", {"packed": ("F4", (2,)), "large": ("U8", (9,)), "good": ("U8", (1,))})
    (tmp_path / "model-2.safetensors").write_bytes(b"<html>")
    shards = dict.fromkeys(("packed", "large", "good"), "model-1.safetensors")
    write_index(tmp_path, {**shards, "lost": "model-2.safetensors"})
    checkpoint = open_checkpoint(tmp_path)
    (tmp_path / "model-1.safetensors").write_bytes(b"shorter")
    values = checkpoint.read(["packed", "large", "good", "lost", "absent"], limit=4)
    for found in values.values():
        assert isinstance(found.fault, Sentence), found
        assert left_in_english(found.fault) == []
    assert values["lost"].fault == (
        "the index says it is in model-2.safetensors, which was not read: is a web page, saved in place of the file"
    )


def test_phases_of_opening(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"a": ("U8", (1,))})
    progress = Progress()
    open_checkpoint(tmp_path, progress=progress)
    assert (progress.what, progress.unit) == ("reading headers", "shards")
    assert isinstance(progress.what, Sentence)
    assert isinstance(progress.unit, Sentence)
    progress.cancel()
    with pytest.raises(CancelledError) as stopped:
        progress.check()
    assert str(stopped.value) == "reading headers was cancelled"
    assert left_in_english(stopped.value.message) == []
    stopped_job = CancelledError()
    assert str(stopped_job) == "the job was cancelled"
    assert left_in_english(stopped_job.message) == []
