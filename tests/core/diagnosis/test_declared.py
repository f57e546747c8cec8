from __future__ import annotations

from pathlib import Path

from core.inspection import inspect
from tests.core.diagnosis.build import COMPRESSED, Folder, codes, finding, llama, look, scales
from tests.core.diagnosis.examples import EXAMPLES, GOOD


def test_declared_and_absent(tmp_path: Path) -> None:
    inspection = EXAMPLES["declared-absent"](tmp_path)
    found = finding(inspection, "declared-absent")
    assert found.layers == (0, 1)
    assert found.evidence == "config.json: quantization_config.kv_cache_scheme says FP8, one scale per tensor, static."
    assert codes(inspection, "error", "warning") == ["declared-absent"]


def test_a_dynamic_scheme_is_not_an_error(tmp_path: Path) -> None:
    assert codes(EXAMPLES["dynamic-scheme"](tmp_path), "error", "warning") == ["dynamic-scheme"]


def test_scales_that_nobody_declared(tmp_path: Path) -> None:
    found = finding(EXAMPLES["undeclared"](tmp_path), "undeclared")
    assert found.evidence == "Method compressed-tensors declares no KV-cache scheme; 4 k and v scales are stored."
    assert found.remedy == "declare"


def test_a_broken_config_is_told(tmp_path: Path) -> None:
    Folder(tmp_path, llama(COMPRESSED), {"model.safetensors": GOOD}).write()
    (tmp_path / "hf_quant_config.json").write_text("{")
    found = finding(inspect(tmp_path), "declaration-note")
    assert "hf_quant_config.json" in found.evidence
    assert found.consequence == "vLLM 0.33.0 goes by what it reads: compressed-tensors, KV cache in fp8."


def test_a_method_chosen_against_the_declaration(tmp_path: Path) -> None:
    found = finding(EXAMPLES["method-chosen"](tmp_path / "other"), "method-chosen")
    assert found.evidence == "modelopt was chosen; the checkpoint declares compressed-tensors."
    same = look(tmp_path / "same", llama(COMPRESSED), scales([0.03, 0.04], [0.01, 0.02]), method="compressed-tensors")
    assert "method-chosen" not in codes(same)
