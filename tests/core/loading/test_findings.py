"""A prediction that is wrong on purpose is caught by the loader, and is the first thing told."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from app.cli import main
from core.backends import kv_method
from core.backends.kv_method import BaseKVCacheMethod, CacheSetup, Processed
from core.engines.vllm import predict as predict_module
from core.inspection import inspect
from core.loading.findings import CONTRADICTED, contradiction, with_observation
from core.loading.verify import verify
from core.naming.mapper import RuleKind, WeightsMapper, rules
from tests.core.diagnosis.test_catalog import check_form
from tests.core.loading.writing import MODELOPT, kv, write_checkpoint
from tests.places import REPOSITORY


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", kv(0.3, 0.5), quantization=MODELOPT)


def _v_is_k(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that believes that v always takes k's value."""
    right = BaseKVCacheMethod.process

    def wrong(
        self: BaseKVCacheMethod, held: Mapping[str, tuple[float, ...]], loaded: frozenset[str], cache: CacheSetup
    ) -> Processed:
        done = right(self, held, loaded, cache)
        return replace(done, final={**done.final, "v": done.final["k"]})

    monkeypatch.setattr(BaseKVCacheMethod, "process", wrong)


def _no_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that does not know that parameters are of the engine's dtype."""
    monkeypatch.setattr(kv_method, "round_to", lambda _dtype, value: value)


def _other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that believes that k's scale goes where v's goes."""
    crossed = WeightsMapper(rules(RuleKind.REGEX, ((r"\.k_proj\.k_scale$", ".attn.v_scale"),), source="a test"))
    walk = predict_module.Setup.walk

    def wrong(self: predict_module.Setup) -> object:
        assert self.backend is not None
        own, backend = self.backend.get_cache_scale_mapper(), self.backend

        class Crossed(type(backend)):  # type: ignore[misc]
            def get_cache_scale_mapper(self) -> WeightsMapper:
                return crossed | own

        return walk(replace(self, backend=Crossed()))

    monkeypatch.setattr(predict_module.Setup, "walk", wrong)


def test_a_wrong_profile_is_the_first_finding(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _v_is_k(monkeypatch)
    inspection = inspect(path)
    found = verify(inspection)
    first, *others = with_observation(inspection.findings, found, inspection.deliveries)
    assert tuple(others) == inspection.findings
    assert (first.code, first.severity, first.layers) == (CONTRADICTED, "error", (0, 1))
    assert first.keys == ("model.layers.0.self_attn.v_proj.v_scale", "model.layers.1.self_attn.v_proj.v_scale")
    assert first.evidence == (
        "model.layers.0.self_attn.attn, v: _v_scale holds 0.5, and 0.30078125 was predicted (parted at: post-process); "
        "model.layers.0.self_attn.attn, v: _v_scale_float holds 0.5, and 0.30078125 was predicted (parted at: "
        "post-process); model.layers.1.self_attn.attn, v: _v_scale holds 0.25, and 0.150390625 was predicted (parted "
        "at: post-process); and 1 more."
    )
    assert first.consequence.endswith("They parted at: post-process.")
    assert first.source == f"the loader of vLLM 0.33.0, run on {found.where}"
    for text in (first.evidence, first.consequence, first.fix):
        assert text.endswith(".")
        assert "  " not in text


def test_a_profile_that_does_not_round_is_caught(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _no_rounding(monkeypatch)
    found = contradiction(verify(inspection := inspect(path)), inspection.deliveries)
    assert found is not None
    assert "_k_scale holds 0.30078125, and 0.30000001192092896 was predicted" in found.evidence


def test_a_profile_with_other_rules_is_caught(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _other_rules(monkeypatch)
    inspection = inspect(path)
    found = contradiction(verify(inspection), inspection.deliveries)
    assert found is not None
    assert "model.layers.0.self_attn.attn.k_scale was written, and no tensor should reach it" in found.evidence
    assert "load" in found.consequence


def test_on_several_ranks_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranks' processes load with the real rules; the prediction for each of them is the wrong one."""
    _v_is_k(monkeypatch)
    inspection = inspect(path)
    found = verify(inspection, tensor_parallel=2)
    assert {wrong.rank for wrong in found.disagreements} == {0, 1}
    assert any(str(wrong).startswith("rank 1: model.layers.0.self_attn.attn, v: ") for wrong in found.disagreements)
    assert contradiction(found, inspection.deliveries) is not None


def test_a_load_that_ends_elsewhere_names_its_tensor(tmp_path: Path) -> None:
    tensors = {**kv(0.25, 0.5), "model.layers.1.self_attn.q_proj.output_scale": 0.5}
    inspection = inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT))
    load = replace(inspection.deliveries.load, outcome="loads", error=None, key=None)
    wrong = replace(inspection.deliveries, load=load)
    found = contradiction(verify(replace(inspection, deliveries=wrong)), wrong)
    assert found is not None
    assert found.keys == ("model.layers.1.self_attn.q_proj.output_scale",)


def test_without_a_contradiction_the_findings_stay_as_they_are(path: Path) -> None:
    inspection = inspect(path)
    assert contradiction(verify(inspection), inspection.deliveries) is None
    assert with_observation(inspection.findings, verify(inspection), inspection.deliveries) == inspection.findings
    assert with_observation(inspection.findings, None, inspection.deliveries) == inspection.findings
    for finding in inspection.findings:
        check_form(finding)


def test_the_command_line_tells_it_first(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _v_is_k(monkeypatch)
    assert main(["verify", str(path), "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["findings"][0]["code"] == CONTRADICTED
    wrong = data["disagreements"][0]
    assert (wrong["layer"], wrong["role"], wrong["step"]) == ("model.layers.0.self_attn.attn", "v", "post-process")
    assert (wrong["expected"], wrong["held"]) == ([0.30078125], [0.5])
    assert main(["verify", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("Findings:")
    assert lines[at + 1] == f"  error: The loader did not do what was predicted ({CONTRADICTED})"


def test_the_command_lines_options(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(path), "--json", "--forward", "--fnuz", "--seed", "3"]) in (0, 1)
    data = json.loads(capsys.readouterr().out)
    assert (data["forward"]["seed"], data["forward"]["format"]) == (3, "float8_e4m3fnuz")
    assert data["device"]["fnuz"] is True
    assert main(["verify", str(path), "--json", "--tensor-parallel", "2"]) in (0, 1)
    data = json.loads(capsys.readouterr().out)
    assert (data["tensor_parallel"], len(data["ranks"]), data["forward"]) == (2, 2, None)
    assert main(["verify", str(path), "--tensor-parallel", "2", "--forward"]) == 2
    assert "Leave out --forward or --tensor-parallel" in capsys.readouterr().err
    assert not math.isnan(data["layers"][0]["values"][0]["held"][0])


def test_the_readme_names_the_fields_of_the_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = readme.partition("`verify --json` prints")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    main(["verify", str(path), "--json", "--forward"])
    data = json.loads(capsys.readouterr().out)
    assert len(named) > 10
    assert named <= data.keys()
    inside = re.findall(r"`(\w+)`", section.partition("| `forward`")[2].partition("\n")[0])
    assert {name for name in inside if name in ("format", "tokens", "queries", "seed", "text", "layers")} == (
        {"format", "tokens", "queries", "seed", "text", "layers"} & data["forward"].keys()
    )
    layer = data["forward"]["layers"][0]
    assert {"errors", "losses", "data", "milliseconds", "worse", "note"} <= set(inside) & layer.keys()
