"""The command line, as a user runs it: real processes where the process matters, real checkpoints everywhere."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli import main
from core.diagnosis.finding import Verdict
from core.report import SCHEMA

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"


def run(*arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Kvscope in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, Any]:
    """Exit status and parsed JSON of a command run in this process."""
    status = main([str(argument) for argument in arguments])
    return status, json.loads(capsys.readouterr().out)


def test_check_says_the_verdict_first(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(samples / QWEN)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("OK: ")
    assert any("72" in line for line in lines[:3])


def test_check_exit_status_and_json_contract(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, report = told(capsys, "check", samples / DEEPSEEK, "--json", "--kv-cache-dtype", "fp8")
    assert status == 1
    assert report["schema"] == SCHEMA
    assert set(report) >= {
        "schema", "checkpoint", "declaration", "engine", "load", "scales", "attention", "findings", "verdict",
    }  # fmt: skip
    assert set(report["checkpoint"]) >= {"path", "format", "files", "tensors", "bytes", "architectures", "producer"}
    assert set(report["declaration"]) >= {"method", "kv_scheme", "sources"}
    assert set(report["engine"]) >= {
        "name", "version", "method", "kv_cache_dtype", "kv_cache_dtype_resolved", "dtype",
    }  # fmt: skip
    assert set(report["load"]) >= {"outcome", "error", "key"}
    scale = report["scales"][0]
    assert set(scale) >= {
        "key", "file", "role", "kind", "layer", "module", "convention", "dtype", "shape", "values", "target", "outcome",
        "steps", "reason",
    }  # fmt: skip
    assert set(scale["steps"][0]) >= {"rule", "before", "after"}
    assert set(report["attention"][0]) >= {"path", "class", "parameters", "final", "source", "error"}
    assert set(report["findings"][0]) >= {
        "code", "severity", "title", "count", "keys", "layers", "evidence", "consequence", "fix",
    }  # fmt: skip
    assert set(report["verdict"]) == {"outcome", "text"}
    assert {layer["class"] for layer in report["attention"]} == {"MLAAttention"}
    assert {each["outcome"] for each in report["scales"]} == {"dropped"}


def test_check_several_prints_an_array_and_a_line_each(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, reports = told(capsys, "check", samples / QWEN, samples / GEMMA, "--json")
    assert status == 1
    assert [report["verdict"]["outcome"] for report in reports] == ["ok", "fails"]
    assert main(["check", str(samples / QWEN), str(samples / GEMMA)]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["OK", "FAILS"]


def test_one_unreadable_path_does_not_hide_the_others(
    samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["check", str(tmp_path / "none"), str(samples / QWEN), "--json"])
    out, err = capsys.readouterr()
    assert status == 2
    assert "error" in json.loads(out)[0]
    assert json.loads(out)[1]["verdict"]["outcome"] == "ok"
    assert err.count("\n") == 1
    assert str(tmp_path / "none") in err


def test_html_is_one_self_contained_file(samples: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main(["check", str(samples / DEEPSEEK), "--html", str(page)]) == 1
    text = page.read_text()
    assert "DEGRADED" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


def test_html_into_a_folder_that_is_not_there(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(samples / QWEN), "--html", "/nowhere/report.html"]) == 2
    assert (
        "/nowhere/report.html: cannot be written: No such file or directory. Choose a file" in capsys.readouterr().err
    )


def test_html_takes_one_checkpoint(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(samples / QWEN), str(samples / GEMMA), "--html", "x.html"]) == 2
    assert "--html takes one checkpoint and one engine. Run it once for each" in capsys.readouterr().err


def test_map_from_arguments_and_from_stdin() -> None:
    name = "model.layers.0.self_attn.k_proj.k_scale"
    text = run("map", "--method", "modelopt", name)
    assert text.returncode == 0
    assert text.stdout.splitlines()[0] == f"{name} -> model.layers.0.self_attn.attn.k_scale"
    answer = run("map", "--method", "quark", "--json", stdin=json.dumps([name, "a.g_idx"]))
    assert json.loads(answer.stdout) == {
        "engine": "vllm-0.33.0",
        "method": "quark",
        "names": {name: "model.layers.0.self_attn.attn.k_scale", "a.g_idx": None},
    }


def test_map_with_an_architecture_and_with_rules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = "model.layers.0.self_attn.k_proj.output_scale"
    _, answer = told(capsys, "map", "--method", "quark", "--architecture", "Gemma3ForCausalLM", "--json", key)
    assert answer["names"][key] == "model.layers.0.self_attn.qkv_proj.output_scale"
    rules = tmp_path / "acme.toml"
    rules.write_text('[[rule]]\nkind = "suffix"\npattern = ".cache_k"\nreplacement = ".attn.k_scale"\n')
    _, answer = told(capsys, "map", "--method", "fp8", "--rules", rules, "--json", "a.cache_k")
    assert answer["names"]["a.cache_k"] == "a.attn.k_scale"


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]"])
def test_map_refuses_what_is_no_list_of_names(text: str) -> None:
    answer = run("map", "--json", stdin=text)
    assert answer.returncode == 2
    assert "Give a list of names" in answer.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--engine", "vllm-9", "no engine is called 'vllm-9'. Choose one of vllm-0.33.0"),
        ("--method", "fp9", "no quantization method is called 'fp9'"),
        ("--architecture", "NoSuchModel", "the architecture 'NoSuchModel' is not known for vLLM 0.33.0"),
        ("--kv-cache-dtype", "fp9", "vLLM 0.33.0 has no KV-cache dtype 'fp9'. Choose one of auto"),
        ("--dtype", "int8", "'int8' is no model dtype. Choose one of float32"),
        ("--rules", "none.toml", "none.toml: does not exist"),
    ],
)
def test_an_option_that_does_not_exist(
    option: str, value: str, message: str, samples: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(samples / QWEN), option, value]) == 2
    assert message in capsys.readouterr().err


def test_debug_lets_the_traceback_through(tmp_path: Path) -> None:
    plain = run("check", tmp_path / "none")
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr
    assert plain.stderr.count("\n") == 1
    assert "Traceback" in run("check", tmp_path / "none", "--debug").stderr


def test_chosen_options_override_what_is_declared(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, report = told(capsys, "check", samples / GEMMA, "--method", "modelopt", "--dtype", "float16", "--json")
    assert report["engine"]["method"] == "modelopt"
    assert report["engine"]["origins"]["method"] == "chosen"
    assert report["engine"]["dtype"] == "float16"


def test_verify_on_the_cpu(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = told(capsys, "verify", samples / QWEN, "--json")
    assert status == 0
    assert answer["agreed"] is True
    assert answer["layers_agreed"] == answer["layers_total"] == 36


def test_export_then_check(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gemma"
    status, plan = told(capsys, "export", samples / GEMMA, out, "--dry-run", "--json")
    assert status == 0
    assert not out.exists()
    status, answer = told(capsys, "export", samples / GEMMA, out, "--json")
    assert status == 0
    assert answer["kv_cache_dtype"] == "fp8"
    assert plan["verdict_before"]["outcome"] == "fails"
    assert answer["verdict_after"]["outcome"] == "ok"
    status, report = told(capsys, "check", out, "--kv-cache-dtype", "fp8", "--json")
    assert (status, report["verdict"]["outcome"]) == (0, "ok")


def test_diff(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, answer = told(capsys, "diff", samples / QWEN, samples / QWEN, "--json")
    assert status == 0
    assert answer["equal_after_normalisation"] is True
    assert answer["counts"]["same"] == 72
    assert main(["diff", str(samples / QWEN), str(samples / DEEPSEEK)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith(("72", "132", "Every"))


@pytest.mark.parametrize("command", ["engines", "conventions"])
def test_listings(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, rows = told(capsys, command, "--json")
    assert status == 0
    assert rows
    assert main([command]) == 0
    text = capsys.readouterr().out
    assert all(row["id"] in text for row in rows)


def test_headless_commands_import_neither_qt_nor_torch(samples: Path) -> None:
    script = (
        "import sys; from app.cli import main; status = main(sys.argv[1:]); "
        "loaded = {name.partition('.')[0] for name in sys.modules}; "
        "print(sorted(loaded & {'PySide6', 'shiboken6', 'pyqtgraph', 'torch'}), file=sys.stderr); sys.exit(status)"
    )
    commands = (
        ["check", str(samples / QWEN)], ["map", "--method", "fp8", "a.k_scale"], ["engines"], ["conventions"],
        ["diff", str(samples / QWEN), str(samples / QWEN)], ["export", str(samples / GEMMA), "out", "--dry-run"],
    )  # fmt: skip
    for command in commands:
        answer = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=False)
        assert answer.stderr.splitlines()[-1] == "[]", command


def test_without_a_display_the_report_comes_as_text(samples: Path) -> None:
    headless = {"DISPLAY": "", "WAYLAND_DISPLAY": "", "QT_QPA_PLATFORM": ""}
    answer = run(samples / QWEN, **headless)
    assert answer.returncode == 0
    assert "no display" in answer.stderr
    assert answer.stdout.startswith("OK: ")
    nothing = run(**headless)
    assert nothing.returncode == 2
    assert "kvscope PATH" in nothing.stderr


def test_every_real_checkpoint_gets_an_answer(checkpoint_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 or 1 as the verdict says, never a traceback."""
    status, report = told(capsys, "check", checkpoint_folder, "--json")
    verdict = Verdict(**report["verdict"])
    worst = {finding["severity"] for finding in report["findings"]}
    assert status == (1 if verdict.outcome != "ok" or worst & {"error", "warning"} else 0)
    assert verdict.text
    assert main(["check", str(checkpoint_folder)]) == status
    assert "Traceback" not in capsys.readouterr().err


def test_help_names_the_exit_status() -> None:
    answer = run("--help")
    assert answer.returncode == 0
    assert "2 unreadable input or usage error" in " ".join(answer.stdout.split())
    assert run("check").returncode == 2


def test_a_check_leaves_the_collector_as_it_was(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = gc.get_threshold()
    assert main(["check", str(samples / "modelopt" / "qwen3-36layers-fp8-kvfp8")]) == 0
    assert capsys.readouterr().out.startswith("OK: ")
    assert gc.get_threshold() == usual


@pytest.mark.parametrize("seed", ["-1", str(2**63), "9" * 400])
def test_a_seed_that_cannot_be_drawn_from(seed: str, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(samples / QWEN), "--forward", "--seed", seed]) == 2
    told = f"the seed {seed} cannot be drawn from. Give --seed 0 to 9223372036854775807"
    assert capsys.readouterr().err == f"kvscope: {told}\n"


def test_a_refusal_ends_with_one_full_stop(samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(samples / QWEN), "--tensor-parallel", "3"]) == 1  # the engine does not start so
    told = capsys.readouterr().out.splitlines()[0]
    assert told.endswith("must be divisible by tensor parallel size (3).")


@pytest.mark.parametrize("limit", ["large=nan", "large=-NaN", "swapped_layers=nan", "large="])
def test_a_limit_that_is_no_number(limit: str, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(samples / QWEN), "--limit", limit]) == 2
    assert f"{limit!r} gives the limit no number. Write {limit.partition('=')[0]}=" in capsys.readouterr().err
