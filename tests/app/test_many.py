"""``kvscope check`` over many checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from app.cli import main

HTML = "--html is the report of one checkpoint. Write a table with --table FILE.html"
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


def test_a_tree_gives_a_line_each_and_a_sum(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--recursive", str(samples), "--jobs", "1"]) == 1
    *lines, told = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert sorted(line.split()[0] for line in lines) == ["DEGRADED", "DEGRADED", "FAILS", "OK", "OK"]
    assert told.startswith("vLLM 0.33.0: 5 checkpoints: 2 OK, 2 DEGRADED, 1 FAILS (")


def test_json_lines_a_record_and_a_table(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(samples / QWEN, tmp_path / "zoo" / "qwen3")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'zoo' / 'qwen3'}\n{tmp_path / 'none'}\n")
    command = ["check", "--list", str(tmp_path / "list.txt"), "--json", "--resume", str(tmp_path / "zoo.jsonl")]
    assert main([*command, "--table", str(tmp_path / "zoo.md"), "--jobs", "1"]) == 2
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    assert [entry["schema"] for entry in found] == ["kvscope.zoo/1"] * 2
    assert [entry["error"] is None for entry in found] == [True, False]
    assert found[0]["reports"][0]["verdict"]["outcome"] == "ok"
    assert "2 checkpoints: 1 OK, 1 UNREAD" in printed.err
    assert (tmp_path / "zoo.md").read_text().count("\n| ") == 2
    file = tmp_path / "zoo.jsonl"
    line = "OK as recorded"  # proves that it is not judged again
    data = [json.loads(each) for each in file.read_text().splitlines()]
    found[0]["line"] = data[0]["line"] = line
    other = {**data[0], "path": "other", "place": "/other"}  # which this run does not ask for
    file.write_text("".join(f"{json.dumps(each)}\n" for each in (*data, other)))
    assert main([*command, "--table", str(tmp_path / "zoo.html"), "--jobs", "1"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[0]) == found[0]
    assert ", 1 read from the record" in printed.err
    assert (tmp_path / "zoo.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["check"], "no checkpoint is named. Give a PATH, or --list FILE"),
        (["check", "--jobs", "1"], "no checkpoint is named. Give a PATH, or --list FILE"),
        (["check", "-r", "x", "--html", "y"], HTML),
        (["check", "-r", "x", "--table", "y.csv"], "y.csv: is no name of a table. Give it the ending .md or .html"),
        (["check", "-r", "nowhere"], "nowhere: does not exist. Check the path."),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"kvscope: {sentence}\n"


def test_no_processes_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "x", "--jobs", "0"])
    assert "argument --jobs: invalid positive value: '0'" in capsys.readouterr().err


def test_a_table_that_cannot_be_written(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "zoo.md"
    table.mkdir()
    assert main(["check", str(samples / QWEN), "--table", str(table)]) == 2
    told = "cannot be written: Is a directory. Choose a file in a folder you may write to"
    assert capsys.readouterr().err == f"kvscope: {table}: {told}\n"


def test_a_table_in_no_folder_is_told_before_the_work(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(samples / QWEN), "--table", str(tmp_path / "none" / "zoo.md")]) == 2
    printed = capsys.readouterr()
    told = "is no folder, and the table would be written there. Create it first"
    assert (printed.out, printed.err) == ("", f"kvscope: {tmp_path / 'none'}: {told}\n")
