"""``kvscope probe`` and the engine that it leaves behind, from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.cli import main
from app.window import Window
from core.engines.saved import save
from resources import resource
from tests.core.engines.fake_vllm import environment, program
from tests.core.engines.installed_vllm import engine_of
from tests.places import REPOSITORY

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the probed engine, in a data folder of this test's own."""
    monkeypatch.setenv("KVSCOPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "engines" / "installed.json"


@pytest.fixture
def unchanged(tmp_path: Path) -> Path:
    """A program that answers as the real vLLM 0.33.0 does."""
    return program(tmp_path, f'exec cat "{resource("probe", "vllm-0.33.0.json")}"\n')


def test_no_difference(unchanged: Path, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--python", str(unchanged)]) == 0
    told, errors = capsys.readouterr()
    lines = told.splitlines()
    assert lines[0].startswith(f"vLLM 0.33.0, read with {unchanged} (Python 3.")
    assert lines[1] == "  30 quantization methods with 2 distinct mappers"
    assert lines[2] == "  408 of 415 architectures, 546 model classes"
    assert lines[3] == f"  kept in {kept}: choose it with --engine installed"
    assert (
        "  not read (1 architecture): KananaVForConditionalGeneration: ModuleNotFoundError: No module named 'timm'"
        in (lines)
    )
    assert lines[-1] == "No difference from the built-in profile of vLLM 0.33.0."
    assert errors == ""
    assert kept.is_file()


def test_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--python", str(environment(tmp_path))]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("It differs from the built-in profile of vLLM 0.33.0 in 31 quantization methods, 12 rules")
        for line in lines
    )
    assert "  not read (1 method): broken: RuntimeError: no rules today" in lines
    removed = lines.index(
        "  method removed: vLLM 0.33.0 has no such quantization method (a checkpoint that declares it is refused)"
    )
    assert lines[removed + 1].endswith(" and 23 more")
    rule = lines.index("  rule removed: cache-scale rule regex: \\.kv_scale$ -> .attn.k_scale (not applied)")
    assert lines[rule + 1] == "      fp8"
    assert "  rule: 4 more, which --all lists" in lines


def test_all_names_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--python", str(environment(tmp_path)), "--all"]) == 1
    told = capsys.readouterr().out
    assert "more" not in told
    assert "nvfp4_per_token" in told


def test_json(unchanged: Path, kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--python", str(unchanged), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["schema"] == "kvscope.probe-report/1"
    assert {name: told[name] for name in ("engine", "version", "file", "complete", "nearest", "differences")} == {
        "engine": "installed",
        "version": "0.33.0",
        "file": str(kept),
        "complete": True,
        "nearest": "vllm-0.33.0",
        "differences": [],
    }
    assert (told["methods"], told["mappers"], told["architectures"], told["classes"]) == (30, 2, 408, 546)
    assert len(told["unread"]["architectures"]) == 7


def test_json_of_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--python", str(environment(tmp_path)), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["differences"]
    assert {
        "kind": "method",
        "subject": "plugin",
        "change": "added",
        "detail": "vLLM 0.33.0 does not have PluginConfig",
        "consequence": "names are mapped by its rules, the values that layers end with are unknown",
    } in found


def test_what_was_not_read_in_time_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slow = {"vllm/model_executor/models/llama.py": "import time\ntime.sleep(60)\n"}
    assert main(["probe", "--python", str(environment(tmp_path, slow)), "--timeout", "2"]) == 1
    told = capsys.readouterr().out
    assert "  The time was over before everything was read: give it more with --timeout SECONDS." in told


def test_the_engine_is_used_and_listed(unchanged: Path, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = str(samples / QWEN)
    assert main(["check", "--engine", "installed", checkpoint]) == 2
    assert capsys.readouterr().err == (
        "kvscope: no vLLM of this machine was probed yet. Run `kvscope probe --python PATH` with its Python\n"
    )
    assert main(["probe", "--python", str(unchanged)]) == 0
    capsys.readouterr()
    assert main(["check", "--engine", "installed", "--json", checkpoint]) == 0
    installed = json.loads(capsys.readouterr().out)
    assert main(["check", "--json", checkpoint]) == 0
    built_in = json.loads(capsys.readouterr().out)
    assert installed["engine"].pop("id") == "installed"
    assert built_in["engine"].pop("id") == "vllm-0.33.0"
    assert installed == built_in
    assert main(["engines"]) == 0
    assert "installed: vLLM 0.33.0 (installed)\n" in capsys.readouterr().out
    assert main(["map", "--engine", "installed", "--method", "fp8", "a.self_attn.k_proj.k_scale"]) == 0
    assert "a.self_attn.attn.k_scale" in capsys.readouterr().out


def test_all_engines_count_the_installed_one(
    unchanged: Path, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["probe", "--python", str(unchanged)])
    capsys.readouterr()
    main(["check", "--engine", "all", "--json", str(samples / QWEN)])
    assert "installed" in capsys.readouterr().out


def test_errors_are_one_sentence_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "probe", "--python", str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"kvscope: {path}: there is no such Python. Name the environment's bin/python\n"


@pytest.mark.parametrize("timeout", ["0", "-3"])
def test_no_time(unchanged: Path, timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", "--python", str(unchanged), "--timeout", timeout]) == 2
    assert capsys.readouterr().err == f"kvscope: {timeout} s is no time limit. Give at least one second\n"


def test_the_window_offers_it_and_says_where_it_differs(
    window: Window, kept: Path, samples: Path, qtbot: QtBot
) -> None:
    picker = window.workspace.header.engine
    offered = [picker.box.itemData(row) for row in range(picker.box.count())]
    assert "installed" not in offered
    save(engine_of("0.33.0", lambda it: it["methods"].pop("awq")))
    window.open_path(str(samples / QWEN))
    qtbot.waitUntil(lambda: window.session.inspection is not None, timeout=60_000)
    assert picker.box.itemText(picker.box.findData("installed")) == "vLLM 0.33.0 (installed)"
    picker.pick("installed")
    qtbot.waitUntil(lambda: "differs from" in picker.toolTip(), timeout=60_000)
    assert "differs from the built-in profile of vLLM 0.33.0 in 1 quantization method" in picker.toolTip()
    kept.unlink()
    picker.pick("vllm-0.27.1")  # what is shown was predicted by a profile whose file is gone by now
    qtbot.waitUntil(lambda: "0.27.1" in picker.toolTip(), timeout=60_000)


def test_an_engine_that_is_not_there_is_told_before_any_window(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.display.why_no_window", lambda: None)
    assert main(["open", "--engine", "installed"]) == 2
    assert "no vLLM of this machine was probed yet" in capsys.readouterr().err
