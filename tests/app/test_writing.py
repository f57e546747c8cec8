"""The arguments of ``kvscope export`` that say how it is written, and the line that says how far it is."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from app.writing import Line

GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
LLAMA = "llmcompressor/llama-32layers-kv_attn_head"
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def llama(samples: Path, tmp_path: Path) -> Path:
    """A copy that may be linked to."""
    folder = tmp_path / "llama"
    shutil.copytree(samples / LLAMA, folder, copy_function=shutil.copyfile)
    return folder


def export(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    status = main(["export", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_dry_run_prints_the_plan_that_runs(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = (llama, out, "--names", "modelopt", "--link", "--verify", "sample")
    status, dry = export(capsys, *arguments, "--dry-run")
    assert status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama"]
    status, run = export(capsys, *arguments)
    assert status == 0
    assert {key: run[key] for key in dry} == dry
    record = json.loads((out / "kvscope-export.json").read_text())
    assert record["plan_digest"] == dry["plan_digest"]
    assert record["writing"] == dry["writing"]
    assert (dry["writing"]["mode"], dry["writing"]["verify"]) == ("link", "sample")


@pytest.mark.parametrize(("way", "linked"), [("--link", True), ("--copy", False), (None, False)])
def test_ways_of_writing(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], way: str | None, linked: bool
) -> None:
    status, run = export(capsys, llama, tmp_path / "out", *([way] if way else []))
    assert status == 0
    shard = "model-00001-of-00003.safetensors"
    assert (tmp_path / "out" / shard).samefile(llama / shard) == linked
    assert (run["linked"] > 0) == linked
    assert run["linked"] + run["cloned"] + run["copied"] == run["bytes_written"]


def test_a_finished_export_is_found_by_resume(llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(capsys, llama, tmp_path / "out", "--resume")[1]["resumed"] == []
    status, again = export(capsys, llama, tmp_path / "out", "--resume")
    assert status == 0
    assert again["result_notes"] == ["The export was finished already; nothing was written."]
    assert again["bytes_written"] == 0


def test_the_text_says_how_it_is_written_and_proven(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(samples / GEMMA), str(tmp_path / "out"), "--copy", "--verify", "none"]) == 0
    told = capsys.readouterr().out
    assert (
        "  writing: Every byte is copied, as asked.\n  proof: Nothing is compared with the source, as asked.\n" in told
    )
    assert "  nothing was compared with the source\n" in told


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--link", "--copy"], "argument --copy: not allowed with argument --link"),
        (["--verify", "some"], "argument --verify: invalid choice: 'some'"),
    ],
)
def test_arguments_that_contradict(
    samples: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", str(samples / GEMMA), "out", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_dry_run_refuses_what_the_run_would_refuse(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert main(["export", str(samples / GEMMA), str(tmp_path / "out"), "--dry-run"]) == 2
    out = tmp_path / "out"
    assert capsys.readouterr().err == (
        f"kvscope: {out}: is not empty. Choose a folder that does not exist yet, or empty it.\n"
    )
    assert main(["export", str(samples / GEMMA), str(tmp_path / "new"), "--dry-run", "--overlay"]) == 2
    assert "an overlay leaves the key in its shard. Export without --overlay." in capsys.readouterr().err


def test_the_line_says_how_many_bytes_are_done() -> None:
    stream = io.StringIO()
    line = Line(stream=stream)
    line.start("Copying", total=4_000_000_000, unit="bytes")
    line.advance(1_000_000_000)
    line.advance(1)  # too soon to be told
    assert stream.getvalue() == "\r\x1b[KCopying: 1.0 GB of 4.0 GB (25 %)"
    line.start("reading headers", total=4, unit="shards")
    line._next = 0
    line.advance(2)
    assert stream.getvalue().endswith("\r\x1b[Kreading headers: 2 of 4 shards (50 %)")
    line.clear()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_progress_is_shown_on_a_terminal_alone(samples: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app.cli", "export", str(samples / GEMMA)]
    done = subprocess.run([*command, str(tmp_path / "out")], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    here, terminal = pty.openpty()
    with os.fdopen(here, "rb", buffering=0) as screen:
        subprocess.run(
            [*command, str(tmp_path / "again")], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=terminal, check=True
        )
        shown = screen.read(65536).decode()
        os.close(terminal)
    assert "reading headers: " in shown or "Copying: " in shown
    assert shown.endswith("\r\x1b[K")


def test_a_reader_that_leaves_does_not_stop_the_export(samples: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "app.cli", "export", str(samples / GEMMA), str(tmp_path / "out")]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "kvscope-export.json").is_file()
