"""What is predicted from config files against what the real vLLM 0.33.0 did with the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.quantization import Declaration, kv_method_layers, read_declaration, refusal, resolve_kv_cache_dtype
from tests.core.quantization.folder import Files

RECORDED = json.loads((Path(__file__).parent / "vllm-0.33.0.json").read_bytes())
OUTCOMES = [
    pytest.param(case, dtype, outcome, id=f"{name}-{dtype}")
    for name, case in RECORDED["cases"].items()
    for dtype, outcome in case["outcomes"].items()
]
# vLLM prints the folder, an open file or a set whose order differs from run to run.
VARYING = ("Unrecognized model", "Unsupported quantization config found for", "currently only support")


def declaration_of(case: dict[str, Any]) -> Declaration:
    files = dict(case["files"])
    if "base" in case:
        files["config.json"] = {**RECORDED["bases"][case["base"]], **files["config.json"]}
    source = Files(**{name.removesuffix(".json"): content for name, content in files.items()})
    return read_declaration(source, tensor_names=case.get("tensor_names", ()), platform="cpu")


def layers_of(declaration: Declaration) -> tuple[str, ...]:
    return ("MLAAttention",) if declaration.model_type == "deepseek_v3" else ("Attention",)


@pytest.mark.parametrize(("case", "dtype", "outcome"), OUTCOMES)
def test_prediction_is_what_vllm_did(case: dict[str, Any], dtype: str, outcome: dict[str, Any]) -> None:
    declaration = declaration_of(case)
    layers = layers_of(declaration)
    found = refusal(declaration, kv_cache_dtype=dtype, dtype="bfloat16", attention_layers=layers)
    if "refused" in outcome:
        assert found is not None
        real = outcome["refused"]
        for phrase in VARYING:
            real = real.split(phrase)[0]
        assert found.error.strip().startswith(real.strip())
        assert found.reason
        return
    assert found is None
    assert declaration.method == outcome["method"]
    cache = resolve_kv_cache_dtype(dtype, declaration, attention_layers=layers)
    assert cache.configured == outcome["configured"]
    assert [cache.resolved] == outcome["resolved"]
    has_kv_method = bool(kv_method_layers(declaration) & set(layers))
    assert has_kv_method == (outcome["kv_method"] != ["None"])


def test_every_recorded_refusal_names_its_field() -> None:
    faults = [
        found
        for case in RECORDED["cases"].values()
        for dtype, outcome in case["outcomes"].items()
        if "refused" in outcome
        and (found := refusal(declaration_of(case), kv_cache_dtype=dtype, dtype="bfloat16"))
        and found.stage in ("quantization config", "attention layer")
    ]
    assert len(faults) > 60
    assert [fault.error for fault in faults if fault.source is None] == []
