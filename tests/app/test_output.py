"""What the command line writes where: names that would steer a terminal, encodings, streams that are closed or full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.checkpoint.writing import write

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
NASTY = "\x1b[31m\x9b\u202e\u2028\x7f\nOK: all fine"
KEY = f"model.layers.0.self_attn.k_proj.{NASTY}.k_scale"


def shell(line: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash, in which ``kvscope`` is the command line of this checkout."""
    script = f'kvscope() {{ "{sys.executable}" -m app "$@"; }}; set -o pipefail; {line}'
    return subprocess.run(
        ["bash", "-c", script, "bash", *map(str, arguments)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.fixture
def nasty(tmp_path: Path) -> Path:
    """A checkpoint whose folder and tensors have names that would steer a terminal."""
    folder = tmp_path / NASTY
    write(folder / "model.safetensors", {KEY: ("F32", ())})
    config = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": NASTY}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "line",
    [
        'kvscope check "$1"',
        'kvscope check "$1" --engine all',
        'kvscope check "$1" "$1"/none',
        'kvscope check -r "$1"',
        'kvscope check -r "$1" --json',
        'kvscope check "$1" --json',
        'kvscope check "$1/none"',
        'kvscope check "$1" --engine "$1"',
        'kvscope verify "$1" --method fp8',
        'kvscope map --method fp8 "$1"',
        'kvscope diff "$1" "$2"',
        'kvscope export "$1" /nowhere --dry-run --method fp8',
        'kvscope probe --python "$1"',
        'kvscope "$1" --nothing "$1"',
    ],
)
def test_no_name_steers_the_terminal(line: str, nasty: Path, samples: Path) -> None:
    answer = shell(line, nasty, samples / QWEN, DISPLAY="", WAYLAND_DISPLAY="", QT_QPA_PLATFORM="")
    for told in (answer.stdout.decode(), answer.stderr.decode()):
        assert all(part.isprintable() for part in told.split("\n")), told
        assert "unexpected" not in told
    assert answer.stdout or answer.stderr


@pytest.mark.parametrize(
    "line",
    [
        'kvscope check "$1"',
        'kvscope check -r "$1"',
        'kvscope check "$1" "$1"',
        'kvscope check "$1/none"',
        'kvscope check "$1" --engine all',
        'kvscope diff "$1" "$2"',
        'kvscope map --method fp8 "$1"',
    ],
)
def test_a_name_does_not_begin_a_line(line: str, nasty: Path, samples: Path) -> None:
    answer = shell(line, nasty, samples / QWEN)
    assert not any(told.startswith(b"OK: all") for told in (answer.stdout + answer.stderr).split(b"\n"))


def test_a_name_that_ends_the_load_does_not_begin_a_line(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a"
    write(folder / "model.safetensors", {f"model.layers.0.self_attn.k_proj.{NASTY}.output_scale": ("F32", ())})
    config = json.loads((samples / QWEN / "config.json").read_text())
    quantization = {"quant_method": "fp8", "activation_scheme": "static"}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": quantization}))
    for line, status in (('kvscope verify "$1"', 1), ('kvscope export "$1" "$2" --dry-run', 0)):
        answer = shell(line, folder, tmp_path / "out")
        assert answer.returncode == status, answer.stderr
        assert b"OK: all fine" in answer.stdout
        assert not any(told.lstrip().startswith(b"OK: all") for told in answer.stdout.split(b"\n"))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("how", ["", "--json"])
def test_other_encodings(encoding: str, how: str, tmp_path: Path) -> None:
    folder = tmp_path / "模型"
    write(folder / "model.safetensors", {"层.k_scale": ("F32", ())})
    answer = shell(f'kvscope check "$1" {how}', folder, PYTHONIOENCODING=encoding)
    assert answer.stderr == b""
    assert rb"\u6a21\u578b" in answer.stdout
    if how:
        assert json.loads(answer.stdout)["checkpoint"]["path"] == str(folder)


def test_a_folder_that_is_not_utf_8(samples: Path, tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")
    shutil.copytree(samples / QWEN, folder)
    out = tmp_path / "out"
    out.mkdir()
    answer = shell('kvscope check "$1" --json --html "$2/a.html"', folder, out)
    assert (answer.returncode, answer.stderr) == (0, b"")
    assert json.loads(answer.stdout)["checkpoint"]["path"] == folder
    assert b"bad\\udcff" in (out / "a.html").read_bytes()
    for table in ("a.md", "b.html"):
        many = shell('kvscope check -r "$1" --json --table "$2/$3" --resume "$2/record"', folder, out, table)
        assert many.returncode == 0, many.stderr
        assert json.loads(many.stdout)["path"] == folder
        assert b"udcff" in (out / table).read_bytes()
        assert (b"1 read from the record" in many.stderr) is (table == "b.html")


def test_a_reader_that_leaves_does_not_change_the_status(samples: Path) -> None:
    bad = samples / "quark/gemma3-26layers-fp8-kvfp8"
    assert shell('kvscope check "$1" --json | head -1', bad).returncode == 1
    assert shell('kvscope check "$1" | true', bad).returncode == 1
    assert shell('kvscope check "$1" --json | head -1', samples / QWEN).returncode == 0
    left = shell('kvscope check -r "$1" --jobs 1 --json | head -c 10', samples)
    assert (left.returncode, left.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ('kvscope check "$1" 2>&-', 0, b""),
        ('kvscope check "$1/none" 2>&-', 2, b""),
        ('kvscope check "$1" <&-', 0, b""),
        ('kvscope check "$1" > /dev/full', 2, b"the output cannot be written: No space left on device. Write it"),
        ("kvscope --help > /dev/full", 2, b"the output cannot be written: No space left on device. Write it"),
        ('kvscope check -r "$1" > /dev/full', 2, b"the output cannot be written: No space left on device. Write it"),
        ('kvscope check "$1/none" 2> /dev/full', 2, b""),
        ('kvscope check "$1" >&-', 2, b"the output cannot be written: Bad file descriptor. Write it"),
        ("kvscope map --method fp8 <&-", 2, b"there are no names: stdin is closed. Give a NAME, or names on stdin"),
        ("kvscope map --method fp8 --json <&-", 2, b"there are no names: stdin is closed. Give a NAME"),
        ("kvscope check --list - <&-", 2, b"stdin is closed"),
    ],
)
def test_streams_that_are_closed_or_full(line: str, status: int, told: bytes, samples: Path) -> None:
    answer = shell(line, samples / QWEN)
    assert answer.returncode == status
    assert answer.stderr.startswith(b"kvscope: ") if told else answer.stderr == b""
    assert told in answer.stderr
    assert answer.stderr.count(b"\n") <= 1


@pytest.mark.parametrize("names", [b'["\\ud800.k_scale"]', b"[" * 100_000, b"\xff"])
def test_map_answers_in_one_way_or_refuses(names: bytes, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(names)
    answer = shell('kvscope map --method fp8 --json < "$1"', tmp_path / "names")
    assert b"unexpected" not in answer.stderr
    if answer.returncode == 0:
        assert "\ud800.k_scale" in json.loads(answer.stdout)["names"]
    else:
        assert answer.returncode == 2
        assert answer.stderr.count(b"\n") == 1
