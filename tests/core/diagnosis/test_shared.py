"""Every real checkpoint at hand: none surprises the rules, and the telling ones are judged as they should be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.inspection import inspect
from tests.core.diagnosis.build import Tensor, Value, codes, look
from tests.core.diagnosis.test_catalog import check_form

UNUSED: tuple[str, list[str]] = ("degraded", ["cache-not-quantized"])
CLEAN: tuple[str, list[str]] = ("ok", [])

# name -> what vLLM 0.33.0 makes of it with --kv-cache-dtype auto: the outcome, and all findings above information
AUTO: Mapping[str, tuple[str, list[str]]] = {
    "llmcompressor/ar-llama-fp8static-kv": CLEAN,
    "llmcompressor/ar-llama-w4a16-kv": ("degraded", ["dropped-scale"]),
    "llmcompressor/deepseekv3-fp8-kv": ("degraded", ["dropped-scale"]),
    "llmcompressor/gemma3text-fp8-kv": CLEAN,
    "llmcompressor/gemma4-kvonly-allow": CLEAN,
    "llmcompressor/llama-attn_fp8_head": ("degraded", ["uninitialised"]),
    "llmcompressor/llama-attn_int8_asym": ("fails", ["load-refused", "uninitialised"]),
    "llmcompressor/llama-fp8-kv-sharded": CLEAN,
    "llmcompressor/llama-fp8-kv_ignore_l0": ("degraded", ["uninitialised"]),
    "llmcompressor/llama-kv_dynamic": ("degraded", ["dynamic-scheme"]),
    "llmcompressor/llama-kv_fp8_asym": ("fails", ["load-refused"]),
    "llmcompressor/llama-kv_int8_sym": ("fails", ["load-refused"]),
    "llmcompressor/llama-kvonly-mha": CLEAN,
    "llmcompressor/llama-output_act-fp8": ("fails", ["load-raises", "undeclared"]),
    "llmcompressor/llama-zero_v-kvonly": ("degraded", ["dtype-epsilon"]),
    "llmcompressor/qwen3next-fp8-kv": CLEAN,
    "llmcompressor/v0122-llama-attn_fp8_tensor": CLEAN,
    "modelopt/falcon-fp8-kvfp8": CLEAN,
    "modelopt/gemma3mm-fp8-kvfp8": CLEAN,
    "modelopt/llama-bf16-kvfp8": ("fails", ["load-refused"]),
    "modelopt/llama-fp8-kvfp8-layer0off": ("degraded", ["missing-scale"]),
    "modelopt/llama-fp8-kvfp8affine": ("fails", ["load-raises"]),
    "modelopt/llama-fp8-kvfp8cast": ("degraded", ["declared-absent"]),
    "modelopt/llama-w8a8mixed-kvfp8": CLEAN,
    "modelopt/qwen3moe-fp8-kvfp8": CLEAN,
    "modelopt/qwen3next-fp8-kvfp8": CLEAN,
    "modelopt/t5-fp8-kvfp8": ("fails", ["load-refused"]),
    "modelopt/trtllm-llama-fp8-kvfp8-outlier": ("fails", ["load-refused", "exactly-one", "large"]),
    "quark/deepseekv3-fp8-kvfp8": ("fails", ["load-raises", "cache-not-quantized"]),
    "quark/llama-fp8-alloutputs": ("fails", ["load-raises", "cache-not-quantized"]),
    "quark/llama-fp8-attnfp8": CLEAN,
    "quark/llama-fp8-kvfp8-min1": ("degraded", ["cache-not-quantized", "exactly-one"]),
    "quark/llama-fp8-kvfp8dynamic": ("degraded", ["dynamic-scheme"]),
    "quark/llama-fp8-kvint8sym": ("fails", ["load-refused"]),
    "quark/llama-fp8-nokv": CLEAN,
    "quark/mixtral-fp8-kvfp8": UNUSED,
}

FP8: Mapping[str, tuple[str, list[str]]] = {
    "quark/llama-fp8-kvfp8": CLEAN,
    "quark/llama-fp8-kvfp8-nogroup": CLEAN,
    "quark/llama-fp8-kvfp8-fp8mode": CLEAN,
    "quark/llama-fp8-kvfp8-min1": ("degraded", ["exactly-one"]),
    "quark/llama-fp8-kvfp8-outlier": ("degraded", ["large"]),
    "quark/mixtral-fp8-kvfp8": CLEAN,
    "quark/gemma3-fp8-kvfp8": ("fails", ["load-raises"]),
    "modelopt/llama-fp8-kvfp8": CLEAN,
    "llmcompressor/llama-fp8-kv_tensor": CLEAN,
}


@pytest.mark.parametrize(
    ("kv_cache_dtype", "name"), [*(("auto", name) for name in AUTO), *(("fp8", name) for name in FP8)]
)
def test_telling_checkpoints(kv_cache_dtype: str, name: str, shared: Path) -> None:
    inspection = inspect(shared / "checkpoints" / name, kv_cache_dtype=kv_cache_dtype)
    outcome, expected = (AUTO if kv_cache_dtype == "auto" else FP8)[name]
    assert codes(inspection, "error", "warning") == expected
    assert inspection.verdict.outcome == outcome, inspection.verdict.text


def test_the_verdict_fails_exactly_where_the_real_engine_did(shared: Path, tmp_path: Path) -> None:
    golden = json.loads((shared / "golden" / "vllm-0.33.0" / "cases.json").read_text())
    for name, case in list(golden["cases"].items())[::9]:
        tensors: dict[str, Value] = {
            key: Tensor([float(value) for value in tensor["values"]], tensor["shape"], tensor["dtype"])
            for key, tensor in case["tensors"].items()
        }
        config = golden["configs"][case["config"]]
        inspection = look(tmp_path / name, config, tensors, kv_cache_dtype=case["kv_cache_dtype"])
        outcome = case["outcome"]
        ends = [(layer.get("final") or {}).get("error") for layer in outcome.get("attention", {}).values()]
        failed = "refused" in outcome or outcome["load_error"] is not None or any(ends)
        assert (inspection.verdict.outcome == "fails") == failed, (name, inspection.verdict)
        for found in inspection.findings:
            check_form(found)
        assert bool(codes(inspection, "error", "warning")) >= (inspection.verdict.outcome != "ok"), name


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8"])
def test_every_checkpoint_is_judged_in_good_form(checkpoint_folder: Path, kv_cache_dtype: str) -> None:
    inspection = inspect(checkpoint_folder, kv_cache_dtype=kv_cache_dtype)
    stored = set(inspection.checkpoint.catalog.names)
    for found in inspection.findings:
        check_form(found)
        assert set(found.keys) <= stored
    assert inspection.verdict.text.endswith(".")
    assert (inspection.deliveries.load.outcome in ("raises", "refused")) <= (inspection.verdict.outcome == "fails")
    if inspection.verdict.outcome == "fails":
        assert codes(inspection, "error")
    if inspection.verdict.outcome == "degraded":
        assert codes(inspection, "error", "warning")
    if inspection.verdict.outcome == "ok":
        assert not codes(inspection, "error")
