from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from core.engines import ENGINES
from core.inspection import inspect
from tests.core.diagnosis.build import COMPRESSED, FP8, MODELOPT, Folder, Tensor, Tensors, codes, llama, look, scales
from tests.core.diagnosis.examples import EXAMPLES, GOOD, K0, V0
from tests.places import CHECKPOINTS, SAMPLES

ENGINE = "vLLM 0.33.0"


@pytest.mark.parametrize(
    ("name", "outcome", "text"),
    [
        (
            "modelopt/qwen3-36layers-fp8-kvfp8",
            "ok",
            f"All 72 k and v scales reach the 36 attention layers of {ENGINE}.",
        ),
        (
            "llmcompressor/llama-32layers-kv_attn_head",
            "ok",
            f"All 64 k and v scales reach the 32 attention layers of {ENGINE}.",
        ),
        (
            "modelopt/deepseekv3-30layers-fp8-kvfp8",
            "degraded",
            (
                f"None of the 60 k and v scales reaches an attention layer of {ENGINE}: "
                "all 30 attention layers run at 1.0."
            ),
        ),
        (
            "quark/gemma3-26layers-fp8-kvfp8",
            "fails",
            (
                f"{ENGINE} stops while loading at model.layers.0.self_attn.k_proj.output_scale: "
                "AttributeError: 'QKVParallelLinear' object has no attribute 'data'."
            ),
        ),
        (
            "llmcompressor/llama-attn_fp8_tensor",
            "degraded",
            (
                f"All 4 k and v scales reach the 2 attention layers of {ENGINE}, but both layers run on doubtful q "
                "values (uninitialised memory in place of scales)."
            ),
        ),
    ],
)
def test_the_samples(name: str, outcome: str, text: str) -> None:
    verdict = inspect(SAMPLES / name).verdict
    assert (verdict.outcome, verdict.text) == (outcome, text)


CASES: Mapping[str, tuple[str, str]] = {
    "load-refused": (
        "fails",
        (
            f"{ENGINE} refuses this model: NotImplementedError: Currently supported kv cache quantization is "
            "num_bits=8, type=float, however received num_bits=8, type=int."
        ),
    ),
    "v-without-k": (
        "fails",
        (
            f"{ENGINE} stops after loading: AssertionError at model.layers.0.self_attn.attn; "
            "1 of 2 attention layers fails."
        ),
    ),
    "k-without-v": (
        "degraded",
        f"1 of 2 attention layers of {ENGINE} runs on one scale for k and v, as v has none that can be used (layer 0).",
    ),
    "missing-scale": (
        "degraded",
        f"1 of 2 attention layers runs at 1.0 (layer 0) in {ENGINE}: no such scale is stored there.",
    ),
    "negative": (
        "degraded",
        f"1 of 2 attention layers runs at 1.0 (layer 0) in {ENGINE}: the stored scales cannot be used there.",
    ),
    "cache-not-quantized": (
        "degraded",
        f"All 4 k and v scales load, but {ENGINE} keeps the KV cache in bfloat16, so none is used.",
    ),
    "run-time-scales": (
        "degraded",
        "All 4 k and v scales load, but the int8_per_token_head cache computes its own.",
    ),
    "declared-absent": (
        "degraded",
        (
            "config.json declares a quantized KV cache (FP8, one scale per tensor, static), but no k or v scale is "
            f"stored for its layers: both attention layers of {ENGINE} run at 1.0."
        ),
    ),
    "outlier": (
        "degraded",
        (
            f"All 8 k and v scales reach the 4 attention layers of {ENGINE}, but 1 of 4 layers (layer 3) runs on "
            "doubtful k values (scales far above the other layers')."
        ),
    ),
    "broken-file": ("unknown", "b.safetensors cannot be read, so 2 KV scales in it are not known."),
    "shard-missing": ("unknown", "b.safetensors is missing, so 2 KV scales in it are not known."),
    "index-disagrees": ("ok", f"All 4 k and v scales reach the 2 attention layers of {ENGINE}."),
}


@pytest.mark.parametrize("code", CASES)
def test_verdicts(code: str, tmp_path: Path) -> None:
    verdict = EXAMPLES[code](tmp_path).verdict
    assert (verdict.outcome, verdict.text) == CASES[code]


def test_scales_that_end_nowhere_although_every_layer_has_its_own(tmp_path: Path) -> None:
    doubled = GOOD | {key.replace("self_attn.", "self_attn.attn."): value for key, value in GOOD.items()}
    folder = look(tmp_path, llama(FP8), doubled).checkpoint.path
    inspection = inspect(folder, engine="sglang-0.5.23", kv_cache_dtype="fp8_e4m3")
    assert codes(inspection, "error") == ["dropped-scale"]
    assert inspection.verdict.outcome == "degraded"
    assert inspection.verdict.text == (
        "4 of 8 k and v scales reach the 2 attention layers of SGLang 0.5.23, but the other 4 end nowhere."
    )


def test_no_scale_arrives_because_the_cache_needs_none() -> None:
    verdict = inspect(
        SAMPLES / "modelopt" / "qwen3-36layers-fp8-kvfp8", engine="tensorrt-llm", kv_cache_dtype="bfloat16"
    ).verdict
    told = "TensorRT-LLM (PyTorch backend) keeps the KV cache in bfloat16, so none of the 72 k and v scales is used."
    assert (verdict.outcome, verdict.text) == ("degraded", told)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_sound_verdict_has_no_error_beside_it(engine: str, tmp_path: Path) -> None:
    """But bad values of q, where the engine has no parameter for q: then "nothing changes"."""
    for code, example in EXAMPLES.items():
        inspection = inspect(example(tmp_path / code).checkpoint.path, engine=engine)
        if inspection.verdict.outcome == "ok":
            assert set(codes(inspection, "error")) <= {"uninitialised"}, code


def test_nothing_stored_and_nothing_declared(tmp_path: Path) -> None:
    unquantized = look(tmp_path / "plain", llama(None), {"model.norm.weight": 1.0}).verdict
    assert unquantized.outcome == "ok"
    assert unquantized.text == (
        "There are no KV-cache scales here and none are declared; an FP8 cache would run at 1.0."
    )


def test_nothing_but_q(tmp_path: Path) -> None:
    without = {name: value for name, value in COMPRESSED.items() if name != "kv_cache_scheme"}
    fine = look(tmp_path / "fine", llama(without), scales([], [], q=[0.01, 0.02])).verdict
    assert fine.outcome == "ok"
    assert fine.text.endswith("2 q or prob scales reach the attention layers.")
    garbage = look(tmp_path / "garbage", llama(without), scales([], [], q=[1e20, 1e-20])).verdict
    assert garbage.outcome == "degraded"
    assert garbage.text == "Both layers run on doubtful q values (uninitialised memory in place of scales)."


def test_one_scale_for_k_and_v_is_enough(tmp_path: Path) -> None:
    shared: Tensors = {f"model.layers.{layer}.self_attn.kv_scale": 0.03 for layer in range(3)}
    verdict = look(tmp_path, llama(FP8, layers=3), shared, kv_cache_dtype="fp8").verdict
    assert verdict.outcome == "ok"
    assert verdict.text == f"All 3 kv scales reach the 3 attention layers of {ENGINE}, for k and v alike."


def test_a_model_of_one_layer_reads_well(tmp_path: Path) -> None:
    verdict = look(tmp_path, llama(MODELOPT, layers=1), {K0: 0.03, V0: 0.01}).verdict
    assert verdict.text == f"Both k and v scales reach the only attention layer of {ENGINE}."


def test_one_role_at_one(tmp_path: Path) -> None:
    verdict = look(tmp_path, llama(COMPRESSED), scales([0.03, 0.04], [0.01, None])).verdict
    assert verdict.outcome == "degraded"
    assert verdict.text == (
        f"1 of 2 attention layers runs at 1.0 for v (layer 1) in {ENGINE}: no such scale is stored there."
    )


def test_several_faults_are_all_told(tmp_path: Path) -> None:
    tensors = scales([0.03, None, 5.0], [0.01, None, 0.02])
    verdict = look(tmp_path, llama(COMPRESSED, layers=3), tensors).verdict
    assert verdict.text == (
        f"1 of 3 attention layers runs at 1.0 (layer 1) in {ENGINE}: no such scale is stored there. "
        "1 of 3 layers (layer 2) runs on doubtful k values (scales above 1.0)."
    )


def test_values_that_nobody_uses_are_not_doubted(tmp_path: Path) -> None:
    tensors = scales([1.0, 1.0], [1.0, 1.0], q=[1e20, 0.01])
    verdict = look(tmp_path, llama(COMPRESSED), tensors, kv_cache_dtype="bfloat16").verdict
    assert verdict.text == (
        f"All 4 k and v scales load, but {ENGINE} keeps the KV cache in bfloat16, so none is used. "
        "1 of 2 layers (layer 0) runs on doubtful q values (uninitialised memory in place of scales)."
    )


def test_an_unknown_architecture_says_that_it_was_derived(tmp_path: Path) -> None:
    config = llama(MODELOPT) | {"architectures": ["BrandNewForCausalLM"], "model_type": "brand_new"}
    found = look(tmp_path, config, GOOD)
    assert found.verdict.outcome == "ok"
    assert found.verdict.text.endswith(" Not confirmed by execution.")
    assert "BrandNewForCausalLM" in found.deliveries.notes[0]


def test_two_broken_shards(tmp_path: Path) -> None:
    shards: dict[str, Tensors] = {f"{name}.safetensors": {f"{name}.weight": 1.0} for name in "abc"}
    weight_map = {f"{name}.weight": f"{name}.safetensors" for name in "abc"} | {K0: "c.safetensors"}
    folder = Folder(tmp_path, llama(MODELOPT), shards, weight_map).write()
    (folder / "b.safetensors").write_bytes(b"<html>")
    (folder / "c.safetensors").unlink()
    verdict = inspect(folder).verdict
    assert verdict.outcome == "unknown"
    assert verdict.text == "b.safetensors and c.safetensors cannot be read, so 1 KV scale in them is not known."


def test_values_that_cannot_be_read_are_unknown(tmp_path: Path) -> None:
    verdict = look(tmp_path, llama(COMPRESSED), GOOD | {K0: Tensor([0.0, 0.0], [2], "F4")}).verdict
    assert verdict.outcome == "unknown"
    assert verdict.text == f"The values of 1 of 4 KV scales cannot be read ({K0})."


def test_real_checkpoints_of_the_repository() -> None:
    outcomes = {
        "llmcompressor/ar-llama-fp8static-kv-arfmt": "fails",
        "llmcompressor/gemma3vlm-fp8-kv": "ok",
        "llmcompressor/llama-nan-kvonly": "degraded",
        "llmcompressor/llama-nvfp4-kv_tensor": "ok",
        "llmcompressor/whisper-kvonly": "degraded",
        "modelopt/llama-fp8-kvfp8-hfsave": "fails",
        "modelopt/llama-fp8-kvfp8-zero": "degraded",
        "modelopt/phi3-fp8-kvfp8": "ok",
        "modelopt/trtllm-llama-fp8-kvfp8": "fails",
        "quark/llama-fp8-kvfp8": "degraded",
        "quark/llama-fp8-kvfp8-fp8mode": "degraded",
        "quark/llama-fp8-kvfp8perchannel": "fails",
        "quark/qwen3-fp8-kvfp8": "degraded",
    }
    assert {name: inspect(CHECKPOINTS / name).verdict.outcome for name in outcomes} == outcomes
