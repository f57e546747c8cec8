"""The command line's words for what an export changes: targets, conventions, repairs, sources of scales."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main
from tests.core.diagnosis.build import COMPRESSED, MODELOPT, Folder, llama, scales
from tests.places import CHECKPOINTS

GEMMA = "quark/gemma3-26layers-fp8-kvfp8"


@pytest.fixture
def made(tmp_path: Path) -> Path:
    tensors = scales([0.03, 0.0, None], [0.01, 0.02, None])
    return Folder(tmp_path / "made", llama(MODELOPT, layers=3), {"model.safetensors": tensors}).write()


def export(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    status = main(["export", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_check_names_the_repairs(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(made), "--html", str(tmp_path / "report.html")]) == 1
    page = (tmp_path / "report.html").read_text()
    assert "On export: <code>--fix zero=median|other|NUMBER|PATH|drop</code>" in page
    told = capsys.readouterr().out
    assert "          on export: --fix zero=median|other|NUMBER|PATH|drop\n" in told
    assert "          on export: --fix missing-scale=median|NUMBER|PATH\n" in told
    main(["check", str(made), "--json"])
    findings = {found["code"]: found["repair"] for found in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["zero"] == "--fix zero=median|other|NUMBER|PATH|drop"
    assert findings["q-missing"] == ""


def test_repairs_are_shown_then_written_then_recorded(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = (made, out, "--fix", "zero=median", "--fix", "missing-scale=0.05")
    status, told, _ = export(capsys, *arguments, "--dry-run")
    assert (status, out.exists()) == (0, False)
    assert (
        "  repair zero=median: Scales of exactly zero: the median of the same role in the other layers. (1 tensor)"
        in told
    )
    assert "  added      model.layers.2.self_attn.k_scale as [] = 0.05\n" in told
    assert "predicted: OK: All 6 k and v scales reach the 3 attention layers of vLLM 0.33.0.\n" in told
    status, told, _ = export(capsys, *arguments)
    assert status == 0
    assert "after:  OK: All 6 k and v scales" in told
    record = json.loads((out / "kvscope-export.json").read_text())
    assert [(fix["code"], fix["value"]) for fix in record["fixes"]] == [("zero", "median"), ("missing-scale", "0.05")]
    assert {tuple(row["fixes"]) for row in record["tensors"]} == {("zero",), ("missing-scale",)}
    assert main(["check", str(out)]) == 0


def test_without_a_repair_nothing_is_mended(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told, _ = export(capsys, made, tmp_path / "out")
    assert status == 1
    assert "can be mended: Scales of exactly zero: --fix zero=median|other|NUMBER|PATH|drop" in told
    assert "after:  FAILS" in told


def test_one_convention_or_one_engine(samples: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told, _ = export(capsys, samples / GEMMA, tmp_path / "out", "--for", "sglang-0.5.23", "--dry-run", "--json")
    plan = json.loads(told)
    assert (status, plan["engine"], plan["names"], plan["names_asked"]) == (0, "sglang-0.5.23", "as-is", False)
    status, told, _ = export(capsys, samples / GEMMA, tmp_path / "out", "--names", "modelopt", "--dry-run", "--json")
    plan = json.loads(told)
    assert (plan["names"], plan["names_asked"]) == ("modelopt", True)
    assert plan["verdict_predicted"]["outcome"] == "ok"
    with pytest.raises(SystemExit) as stop:
        main(["export", str(samples / GEMMA), "out", "--names", "modelopt", "--for", "vllm-0.33.0"])
    assert stop.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err
    status, _, complaint = export(capsys, samples / GEMMA, tmp_path / "out", "--for", "nothing")
    assert (status, complaint.startswith("kvscope: no engine is called 'nothing'")) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fix", "zero"), "--fix zero needs a value. Choose --fix zero=median|other|NUMBER|PATH|drop"),
        (("--fix", "zero=1", "--fix", "zero=2"), "--fix zero was given twice, as '1' and '2'. Give it once"),
        (("--fix", "per-head"), "--fix per-head finds nothing to change. Leave it out"),
        (("--scales-from", "absent.json"), "absent.json: "),
        (
            ("--names", "nonsense"),
            (
                "scales cannot be renamed to the convention 'nonsense'. Choose one of portable, modelopt, "
                "compressed-tensors, vllm-runtime, quark, or as-is."
            ),
        ),
    ],
)
def test_wrong_choices_are_one_sentence(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    status, told, complaint = export(capsys, made, tmp_path / "out", *arguments)
    assert (status, told) == (2, "")
    assert complaint.startswith(f"kvscope: {said}")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_scales_come_from_a_side_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Folder(tmp_path / "made", llama(COMPRESSED), {"model.safetensors": scales([0.03, 0.04], [0.01, 0.02])})
    side = tmp_path / "kv_cache_scales.json"
    side.write_text(json.dumps({"kv_cache": {"scaling_factor": {"0": {"0": 0.5, "1": 0.25}}}}))
    status, told, _ = export(capsys, source.write(), tmp_path / "out", "--scales-from", side, "--json")
    assert status == 0
    answer = json.loads(told)
    assert answer["fixes"][0]["code"] == "scales-from"
    assert {tuple(edit["values"]) for edit in answer["edits"]} == {(0.5,), (0.25,)}


def test_a_declaration_is_shown_as_a_diff(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = CHECKPOINTS / "modelopt/llama-fp8-kvfp8-hfsave"
    arguments = (source, tmp_path / "out", "--fix", "amax-stored", "--fix", "declare", "--fix", "leftovers")
    _, told, _ = export(capsys, *arguments, "--dry-run")
    assert '    +    "quant_method": "compressed-tensors",' in told
    status, told, _ = export(capsys, *arguments)
    assert status == 0
    assert "after:  OK: All 4 k and v scales reach the 2 attention layers of vLLM 0.33.0." in told


@pytest.mark.parametrize("name", ["with a space", "Ω-模型"])
def test_odd_folders_and_outs_in_the_way(
    made: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = made.rename(tmp_path / name)
    before = sorted(path.name for path in odd.iterdir())
    assert export(capsys, odd, odd / "inside")[0] == 2
    assert export(capsys, odd, odd)[0] == 2
    full = tmp_path / "full"
    full.mkdir()
    (full / "holiday.jpg").write_bytes(b"x")
    status, _, complaint = export(capsys, odd, full)
    assert (status, "is not empty" in complaint) == (2, True)
    assert sorted(path.name for path in odd.iterdir()) == before
    status, _, _ = export(capsys, odd, tmp_path / f"{name} out", "--fix", "zero=other", "--fix", "missing-scale=median")
    assert status == 0
