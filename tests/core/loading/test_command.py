"""``python -m core.loading``, and what it needs to be installed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.loading.command import main
from tests.core.loading.writing import LLAMA, MODELOPT, NOVEL, kv, write_checkpoint
from tests.places import REPOSITORY, SAMPLES


def test_one_line_for_each_checkpoint_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_checkpoint(tmp_path / "good", kv(0.25, 0.5), quantization=MODELOPT)
    assert main([str(good), str(SAMPLES / "modelopt" / "qwen3-36layers-fp8-kvfp8"), "--json", "--weights", "all"]) == 0
    first, second, total = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["path"], first["agreed"], first["layers_agreed"]) == (str(good), True, 2)
    assert (second["layers_agreed"], second["weights"]["equal"], "layers" in second) == (36, 903, False)
    assert (total["checkpoints"], total["agreed"], total["layers_agreed"], total["layers_total"]) == (2, 2, 38, 38)
    assert total["values"] == first["values"] + second["values"]
    assert total["text"].startswith("2 of 2 checkpoints agree on cpu (")


def test_the_text_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = write_checkpoint(tmp_path / "good", kv(0.25, 0.5), quantization=MODELOPT)
    assert main([str(good), "--fnuz"]) == 0
    out = capsys.readouterr().out
    assert f"{good}: Observed on cpu" in out
    assert "k 0.5 / 0.5, v 1 / 1" in out
    assert "1 of 1 checkpoints agree" in out


def test_what_cannot_be_verified_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {**LLAMA, "architectures": ["NovelForCausalLM"]}
    assert main([str(write_checkpoint(tmp_path / "a", NOVEL, config=config))]) == 1
    assert "Not verified" in capsys.readouterr().out


def test_an_unreadable_checkpoint_is_status_2_and_the_others_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write_checkpoint(tmp_path / "good", kv(0.25, 0.5), quantization=MODELOPT)
    assert main([str(tmp_path / "nowhere"), str(good), "--json"]) == 2
    captured = capsys.readouterr()
    assert "nowhere" in captured.err
    assert json.loads(captured.out.splitlines()[-1])["unreadable"] == 1
    assert json.loads(captured.out.splitlines()[0])["agreed"] is True


@pytest.mark.parametrize("options", [["--device", "tpu"], ["--method", "novel"], ["--engine", "novel-1.0"]])
def test_usage_errors_are_status_2(tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    good = write_checkpoint(tmp_path / "good", kv(0.25, 0.5), quantization=MODELOPT)
    assert main([str(good), *options]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert options[1] in captured.err


_BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"PySide6", "shiboken6", "pyqtgraph", "safetensors", "msgspec", "pytest", "app"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from core.loading.command import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_runs_where_only_torch_and_numpy_are(tmp_path: Path) -> None:
    good = write_checkpoint(tmp_path / "good", kv(0.25, 0.5), quantization=MODELOPT)
    done = subprocess.run(
        [sys.executable, "-c", _BARE, str(good), "--json"],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.splitlines()[-1])["agreed"] == 1


def shell(line: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash, in which ``load`` is this command."""
    script = f'load() {{ {shlex.quote(sys.executable)} -m core.loading "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(
        ["bash", "-c", script, "bash", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, timeout=120, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    good = write_checkpoint(tmp_path / "good", kv(0.25, 0.5), quantization=MODELOPT)
    done = shell('load "$@" | true', *[good] * 40)
    assert (done.returncode, done.stdout, done.stderr) == (141, b"", b"")


def test_no_name_steers_the_terminal_or_begins_a_line(tmp_path: Path) -> None:
    nasty = "\x1b[31m\x9b\u202e\x7f\nOK: all fine"
    key = f"model.layers.0.self_attn.{nasty}.k_scale"
    folder = write_checkpoint(tmp_path / nasty, {key: torch.tensor(0.5)}, quantization=MODELOPT)
    done = shell('load "$1" "$1/none"', folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    for told in (done.stdout.decode("ascii"), done.stderr.decode("ascii")):
        assert "\\x1b[31m" in told
        assert all(line.isprintable() and not line.startswith("OK:") for line in told.split("\n"))


def test_streams_that_are_closed_or_full(tmp_path: Path) -> None:
    good = write_checkpoint(tmp_path / "good", kv(0.25, 0.5), quantization=MODELOPT)
    for line, reason in (
        ('load "$1" > /dev/full', "No space left on device"),
        ("load --help > /dev/full", "No space left on device"),
        ('load "$1" >&-', "Bad file descriptor"),
    ):
        done = shell(line, good)
        told = f"the output cannot be written: {reason}. Write it to a file or pipe with room\n"
        assert (done.returncode, done.stderr.decode()) == (2, told)
    assert shell('load "$1" 2>&-', good).returncode == 0
    assert shell('load "$1/none" 2>&-', good).returncode == 2
