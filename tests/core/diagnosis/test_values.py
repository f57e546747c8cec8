from __future__ import annotations

from pathlib import Path

from core.inspection import inspect
from tests.core.diagnosis.build import COMPRESSED, MODELOPT, Tensor, codes, finding, llama, look, scales
from tests.core.diagnosis.examples import EXAMPLES, GOOD, K0, K1, V0, V1
from tests.places import CHECKPOINTS, SAMPLES


def test_garbage_is_one_finding_with_its_ranges() -> None:
    inspection = inspect(SAMPLES / "llmcompressor" / "llama-attn_fp8_tensor")
    assert codes(inspection, "error", "warning") == ["uninitialised"]
    found = finding(inspection, "uninitialised")
    assert [key.rpartition(".")[2] for key in found.keys] == ["q_scale", "q_scale"]
    assert found.evidence == (
        "q: 2 of 2, 2.9646e-21 to 4.8355e-17. llm-compressor registers q_scale and never calibrates it."
    )
    assert found.consequence == "Both attention layers end with q = 2.9646e-21 to 4.8355e-17."
    assert found.remedy == "drop"


def test_garbage_in_a_layer_that_the_tool_ignored(tmp_path: Path) -> None:
    ignoring = COMPRESSED | {"ignore": ["model.layers.0.self_attn.k_proj"]}
    inspection = look(tmp_path, llama(ignoring), scales([0.0, 0.04], [2.5e-21, 0.02]))
    found = finding(inspection, "uninitialised")
    assert found.keys == (K0, V0)
    assert found.evidence == "k: 1 of 2, 0.0; v: 1 of 2, 2.5e-21. The ignore list names layer 0."
    assert found.consequence == "Layer 0 ends with k = 0.0, v = 2.5e-21."
    assert found.remedy == "set-scale"


def test_nan_from_a_real_tool() -> None:
    inspection = inspect(CHECKPOINTS / "llmcompressor" / "llama-nan-kvonly")
    found = finding(inspection, "not-finite")
    assert (found.keys, found.layers) == (("model.layers.1.self_attn.k_scale",), (1,))
    assert found.consequence == "Layer 1 ends with k = NaN."


def test_an_engines_empty_parameters_are_recognised(tmp_path: Path) -> None:
    found = finding(EXAMPLES["negative"](tmp_path / "sentinel"), "negative")
    assert found.remedy == "drop"
    other = look(tmp_path / "other", llama(MODELOPT), scales([-0.5, 0.04], [0.01, 0.02]))
    assert finding(other, "negative").remedy == "set-scale"


def test_a_zero_v_takes_the_value_of_k() -> None:
    inspection = inspect(CHECKPOINTS / "modelopt" / "llama-fp8-kvfp8-zero")
    assert codes(inspection, "error", "warning") == ["zero"]
    assert finding(inspection, "zero").consequence == "Layer 1 ends with v = 0.023071 (copied from the other role)."


def test_amax_and_reciprocal_name_their_cure(tmp_path: Path) -> None:
    amax = finding(EXAMPLES["amax-stored"](tmp_path / "amax"), "amax-stored")
    assert (amax.keys, amax.remedy) == ((K0, V0, K1, V1), "amax-to-scale")
    assert amax.evidence == "k: 2 of 2, 15.0 to 40.0; v: 2 of 2, 6.0 to 20.0; k is not below v, as in real amaxes."
    reciprocal = finding(EXAMPLES["reciprocal-stored"](tmp_path / "reciprocal"), "reciprocal-stored")
    assert reciprocal.remedy == "reciprocal"


def test_ones_count_by_role(tmp_path: Path) -> None:
    found = finding(EXAMPLES["exactly-one"](tmp_path), "exactly-one")
    assert found.keys == (K0, V0, K1)
    assert found.evidence == ("2 of 2 k scales and 1 of 2 v scales are exactly 1.0. Written by modelopt 0.47.0.")


def test_an_outlier_is_told_with_its_ratio(tmp_path: Path) -> None:
    inspection = EXAMPLES["outlier"](tmp_path)
    found = finding(inspection, "outlier")
    assert found.layers == (3,)
    assert found.evidence == "k 2.0 in layer 3 is 67 times the median 0.03 (limit 30)."
    assert "large" not in codes(inspection)


def test_epsilon_in_a_real_checkpoint_and_by_chance(shared: Path) -> None:
    zero_v = inspect(shared / "checkpoints" / "llmcompressor" / "llama-zero_v-kvonly")
    assert codes(zero_v, "error", "warning") == ["dtype-epsilon"]
    assert finding(zero_v, "dtype-epsilon").layers == (1,)
    chance = inspect(shared / "checkpoints" / "llmcompressor" / "llama-32layers-fp8-kv_tensor")
    assert any(scale.values == (2**-7,) for scale in chance.scales)
    assert codes(chance, "error", "warning") == []


def test_swapped_needs_many_layers_and_a_clear_ratio(tmp_path: Path) -> None:
    found = finding(EXAMPLES["swapped"](tmp_path / "swapped"), "swapped")
    assert found.evidence == "v is above k in 10 of 10 layers; the median of v / k is 5."
    assert found.remedy == "swap"
    for name, k, v in (("few", [0.01] * 5, [0.05] * 5), ("near", [0.01] * 10, [0.02] * 10)):
        assert codes(look(tmp_path / name, llama(MODELOPT, layers=len(k)), scales(k, v)), "error", "warning") == []


def test_a_layer_whose_pair_does_not_fit(tmp_path: Path) -> None:
    found = finding(EXAMPLES["pair-ratio"](tmp_path), "pair-ratio")
    assert found.layers == (3,)
    assert found.evidence == "k / v is 0.01 in layer 3, and 3 in the median of 4 layers."


def test_what_another_tensor_replaced_was_not_rounded(tmp_path: Path) -> None:
    assert "rounding" not in codes(
        look(tmp_path, llama(COMPRESSED), GOOD | {K0.replace("k_scale", "k_proj.k_scale"): 0.5})
    )


def test_rounding_is_information(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(MODELOPT, layers=1), {K0: 0.3, V0: 0.25})
    found = finding(inspection, "rounding")
    assert found.severity == "info"
    assert found.keys == (K0,)
    assert found.evidence == f"1 scale, by up to 0.26 % in bfloat16 ({K0})."
    assert found.consequence == "Layer 0 ends with k = 0.30078."


def test_a_coarse_type(tmp_path: Path) -> None:
    found = finding(EXAMPLES["odd-dtype"](tmp_path), "odd-dtype")
    assert (found.keys, found.evidence) == ((K1,), "1 scale in F8_E4M3.")


def test_int8_scales_are_measured_as_int8(tmp_path: Path) -> None:
    scheme = {"dynamic": False, "num_bits": 8, "symmetric": True, "type": "int", "strategy": "tensor"}
    inspection = look(tmp_path, llama(COMPRESSED | {"kv_cache_scheme": scheme}), scales([1.2, 1.3], [0.7, 0.8]))
    assert codes(inspection, "error", "warning") == ["load-refused"]


def test_each_scale_is_doubted_once(tmp_path: Path) -> None:
    k = [float("nan"), 0.0, -1.0, 1.0, 0.03, 0.03, 0.03, 0.03]
    v = [1e-5, 0.7, 2.0, 0.01, 0.01, 0.01, 0.01, 1e20]
    inspection = look(tmp_path, llama(COMPRESSED, layers=8), scales(k, v))
    doubting = [found for found in inspection.findings if found.severity != "info"]
    keys = [key for found in doubting for key in found.keys]
    assert len(keys) == len(set(keys)) == 8


def test_per_head_values_are_told_as_a_range(tmp_path: Path) -> None:
    heads = {K0: Tensor([0.1, float("inf")], [2]), V0: Tensor([0.1, 0.2], [2])}
    per_head = COMPRESSED | {"kv_cache_scheme": COMPRESSED["kv_cache_scheme"] | {"strategy": "attn_head"}}  # type: ignore[operator]
    found = finding(look(tmp_path, llama(per_head, layers=1), heads), "not-finite")
    assert found.evidence == "k: 1 of 1, 0.1 to inf."
