from __future__ import annotations

from pathlib import Path

from tests.core.diagnosis.build import COMPRESSED, FP8, MODELOPT, Tensor, codes, finding, llama, look, scales
from tests.core.diagnosis.examples import EXAMPLES, GOOD, K0, K1, V0

ZP0 = "model.layers.0.self_attn.k_zero_point"


def test_v_alone_fails_where_k_is_asserted_and_runs_at_one_elsewhere(tmp_path: Path) -> None:
    asserted = finding(EXAMPLES["v-without-k"](tmp_path / "modelopt"), "v-without-k")
    assert (asserted.keys, asserted.layers, asserted.remedy) == ((V0,), (0,), "drop")
    assert "AssertionError in layer 0" in asserted.consequence
    lenient = look(tmp_path / "compressed", llama(COMPRESSED), scales([None, 0.04], [0.01, 0.02]))
    assert finding(lenient, "v-without-k").consequence == "Layer 0 ends with k = 1.0 (the engine's default), v = 0.01."


def test_k_alone_is_copied_or_left_alone(tmp_path: Path) -> None:
    copied = finding(EXAMPLES["k-without-v"](tmp_path / "modelopt"), "k-without-v")
    assert (copied.keys, copied.layers, copied.remedy) == ((K0,), (0,), "duplicate")
    assert copied.consequence == "Layer 0 ends with k = 0.030029, v = 0.030029 (copied from the other role)."
    lenient = look(tmp_path / "compressed", llama(COMPRESSED), scales([0.03, 0.04], [None, 0.02]))
    assert finding(lenient, "k-without-v").consequence == "Layer 0 ends with k = 0.03, v = 1.0 (the engine's default)."


def test_a_layer_without_scales_and_the_list_that_says_why(tmp_path: Path) -> None:
    ignoring = MODELOPT | {"ignore": ["lm_head", "model.layers.0.self_attn.k_proj"]}
    found = finding(look(tmp_path, llama(ignoring), scales([None, 0.04], [None, 0.02])), "missing-scale")
    assert found.layers == (0,)
    assert found.evidence == (
        "1 of 2 attention layers has no k and no v scale: model.layers.0.self_attn.attn; the ignore list names layer 0."
    )


def test_one_scale_for_both_roles_leaves_nothing_missing(tmp_path: Path) -> None:
    shared = {f"model.layers.{layer}.self_attn.kv_scale": 0.03 for layer in range(2)}
    inspection = look(tmp_path, llama(FP8), shared, kv_cache_dtype="fp8")
    assert codes(inspection, "error", "warning") == []
    assert finding(inspection, "k-equals-v").evidence == "2 scales for k and v together."


def test_one_scale_for_both_roles_where_v_is_left_alone(tmp_path: Path) -> None:
    inspection = EXAMPLES["kv-not-shared"](tmp_path)
    found = finding(inspection, "kv-not-shared")
    assert found.layers == (0, 1)
    assert found.consequence == "Both attention layers end with k = 0.03, v = 1.0 (the engine's default)."
    assert inspection.verdict.text == (
        "Both attention layers run at 1.0 for v in vLLM 0.33.0: the stored scales cannot be used there."
    )


def test_a_cache_in_the_model_dtype_uses_no_scale(tmp_path: Path) -> None:
    found = finding(EXAMPLES["cache-not-quantized"](tmp_path / "auto"), "cache-not-quantized")
    assert found.evidence == (
        "config.json declares FP8, one scale per tensor, static; vLLM 0.33.0 keeps the cache in bfloat16 "
        "for --kv-cache-dtype auto and method fp8."
    )
    assert found.consequence == (
        "Both attention layers end with k = 1.0 (set by the engine), v = 1.0 (set by the engine)."
    )
    chosen = look(tmp_path / "chosen", llama(COMPRESSED), GOOD, kv_cache_dtype="bfloat16")
    assert finding(chosen, "cache-not-quantized").evidence.endswith("for --kv-cache-dtype bfloat16.")


def test_an_fp8_cache_uses_scales_that_nobody_declared(tmp_path: Path) -> None:
    undeclared = {name: value for name, value in COMPRESSED.items() if name != "kv_cache_scheme"}
    inspection = look(tmp_path, llama(undeclared), GOOD, kv_cache_dtype="fp8")
    assert codes(inspection, "error", "warning") == []
    assert inspection.verdict.outcome == "ok"


def test_q_scales_missing_in_some_layers(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(COMPRESSED), scales([0.03, 0.04], [0.01, 0.02], q=[0.05]))
    found = finding(inspection, "q-missing")
    assert found.layers == (1,)
    assert found.evidence == "1 of 2 attention layers has a q scale."
    assert found.consequence == "Layer 1 ends with q = 1.0 (the engine's default)."


def test_q_takes_effect_without_a_quantized_cache(tmp_path: Path) -> None:
    found = finding(EXAMPLES["q-applied"](tmp_path), "q-applied")
    assert found.consequence == (
        "Both attention layers end with q = 0.1001 to 0.2002, prob = 1.0 (the engine's default)."
    )


def test_encoder_scales_are_not_accused(tmp_path: Path) -> None:
    inspection = EXAMPLES["not-needed"](tmp_path)
    found = finding(inspection, "not-needed")
    assert all(".encoder." in key for key in found.keys)
    assert found.evidence == "2 scales on model.encoder.layers.N.self_attn; 2 of them are uninitialised."
    assert not any(".encoder." in key for key in finding(inspection, "uninitialised").keys)


def test_zero_points_matter_only_when_they_are_not_zero(tmp_path: Path) -> None:
    zeros = look(tmp_path / "zeros", llama(COMPRESSED), GOOD | {ZP0: Tensor([0.0], [1])})
    assert codes(zeros, "error", "warning") == []
    assert finding(zeros, "zero-points").keys == (ZP0,)
    offsets = look(tmp_path / "offsets", llama(COMPRESSED), GOOD | {ZP0: Tensor([3.0], [1])})
    assert codes(offsets, "error", "warning") == ["offsets-lost"]
    assert offsets.verdict.outcome == "degraded"
    assert "(layer 0)" in offsets.verdict.text


def test_scales_that_a_broken_shard_may_hold_are_not_missing(tmp_path: Path) -> None:
    for code in ("broken-file", "shard-missing"):
        inspection = EXAMPLES[code](tmp_path / code)
        assert codes(inspection, "error", "warning") == [code]
        assert K1 in finding(inspection, code).keys
