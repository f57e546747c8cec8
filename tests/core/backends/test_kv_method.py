"""The arithmetic of the KV methods, without torch."""

from __future__ import annotations

import math

import pytest

from core.backends.kv_method import (
    AttentionShape,
    BaseKVCacheMethod,
    CacheSetup,
    CompressedTensorsKVCacheMethod,
    EngineError,
    Processed,
)

SHAPE = AttentionShape(num_heads=8, num_kv_heads=2, total_num_heads=8, total_num_kv_heads=2)
FP8 = CacheSetup(dtype="fp8", quantized=True)
BF16 = CacheSetup(dtype="auto", quantized=False)


def processed(cache: CacheSetup = FP8, **given: float) -> Processed:
    held = {f"{role}_scale": (given.get(role, -1.0),) for role in ("q", "k", "v", "prob")}
    return BaseKVCacheMethod().process(held, frozenset(f"{role}_scale" for role in given), cache)


def test_both_are_used() -> None:
    result = processed(k=0.5, v=0.25)
    assert (result.final["k"], result.final["v"], result.final["q"]) == (0.5, 0.25, 1.0)
    assert (result.source["k"], result.source["v"], result.source["q"]) == ("checkpoint", "checkpoint", "default")


def test_neither_gives_one() -> None:
    result = processed()
    assert (result.final["k"], result.final["v"]) == (1.0, 1.0)
    assert result.source["k"] == "default"


@pytest.mark.parametrize("v", [-1.0, 0.0, math.nan])
def test_v_that_is_missing_or_useless_takes_ks_value(v: float) -> None:
    result = processed(k=0.5, v=v)
    assert (result.final["k"], result.final["v"]) == (0.5, 0.5)
    assert result.source["v"] == "duplicated"


@pytest.mark.parametrize("k", [-1.0, 0.0, math.nan])
def test_k_that_is_missing_or_useless_beside_a_v_fails(k: float) -> None:
    with pytest.raises(EngineError) as failure:
        processed(k=k, v=0.5)
    assert failure.value.kind == "AssertionError"


def test_infinity_passes() -> None:
    assert processed(k=math.inf, v=0.5).final["k"] == math.inf


def test_fnuz_doubles() -> None:
    result = processed(CacheSetup(dtype="fp8", quantized=True, fnuz=True), k=0.5, v=0.25, q=0.125)
    assert (result.final["k"], result.final["v"], result.final["q"]) == (1.0, 0.5, 0.25)


def test_a_cache_that_is_not_quantized_forces_one_but_keeps_q() -> None:
    result = processed(BF16, k=0.5, v=0.25, q=0.125)
    assert (result.final["k"], result.final["v"], result.final["q"]) == (1.0, 1.0, 0.125)
    assert (result.source["k"], result.source["q"]) == ("forced", "checkpoint")


def test_per_token_head_scales_are_made_at_run_time() -> None:
    cache = CacheSetup(dtype="fp8_per_token_head", quantized=True, per_token_head=True)
    assert processed(cache, k=0.5, v=0.25, q=0.1).final == {"k": 1.0, "v": 1.0, "q": 1.0, "prob": 1.0}


def test_a_scalar_parameter_takes_one_element_in_the_engines_dtype() -> None:
    method = BaseKVCacheMethod()
    parameter = method.parameters(SHAPE)["k_scale"]
    assert (parameter.shape, parameter.initial) == ((), -1.0)
    for shape in ((), (1,), (1, 1, 1)):
        assert method.take(parameter, (0.3,), shape, SHAPE, "bfloat16") == (0.30078125,)
    with pytest.raises(EngineError, match=r"ValueError: KV-cache scale expects a scalar weight, got shape \(2,\)"):
        method.take(parameter, (0.3, 0.4), (2,), SHAPE, "bfloat16")


def test_compressed_tensors_keeps_float32_and_starts_at_one() -> None:
    method = CompressedTensorsKVCacheMethod(per_head=False)
    parameters = method.parameters(SHAPE)
    assert set(parameters) == {f"{role}_{kind}" for role in "kvq" for kind in ("scale", "zero_point")}
    k = parameters["k_scale"]
    assert (k.shape, k.initial) == ((1,), 1.0)
    assert method.take(k, (0.3,), (), SHAPE, "bfloat16") == (0.30000001192092896,)
    with pytest.raises(EngineError, match=r"AssertionError: Attempted to load weight \(torch.Size\(\[2\]\)\)"):
        method.take(k, (0.3, 0.4), (2,), SHAPE, "bfloat16")


@pytest.mark.parametrize("value", [0.0, -1.3e29, math.inf])
def test_compressed_tensors_checks_nothing(value: float) -> None:
    method = CompressedTensorsKVCacheMethod(per_head=False)
    held = {"k_scale": (value,), "v_scale": (1.0,), "q_scale": (1.0,)}
    result = method.process(held, frozenset({"k_scale"}), BF16)
    assert result.final["k"] == value
    assert result.source == {"prob": "default", "k": "checkpoint", "v": "default", "q": "default"}


def test_per_head_scales_keep_every_head_and_reduce_q_by_group() -> None:
    method = CompressedTensorsKVCacheMethod(per_head=True)
    parameters = method.parameters(SHAPE)
    assert parameters["k_scale"].shape == (2,)
    assert method.take(parameters["k_scale"], (0.5, 0.25), (2, 1, 1), SHAPE, "bfloat16") == (0.5, 0.25)
    q = tuple(float(value) for value in (1, 2, 3, 4, 8, 7, 6, 5))
    assert method.take(parameters["q_scale"], q, (8, 1, 1), SHAPE, "bfloat16") == (4.0, 8.0)
    assert method.take(parameters["k_scale"], (0.5,), (1,), SHAPE, "bfloat16") == (0.5, 0.5)
    assert method.take(parameters["k_zero_point"], (0.0, 0.0), (2, 1, 1), SHAPE, "bfloat16") is None
    result = method.process(
        {"k_scale": (0.5, 0.25), "v_scale": (math.nan, 1.0), "q_scale": (4.0, 8.0)}, frozenset(), FP8
    )
    assert result.final["k"] == 0.5
    assert math.isnan(result.final["v"])
    assert result.per_head["q"] == (4.0, 8.0)


def test_per_head_sizes_that_do_not_fit() -> None:
    method = CompressedTensorsKVCacheMethod(per_head=True)
    parameters = method.parameters(AttentionShape(num_heads=8, num_kv_heads=4, total_num_heads=8, total_num_kv_heads=4))
    shape = AttentionShape(num_heads=8, num_kv_heads=4, total_num_heads=8, total_num_kv_heads=4)
    with pytest.raises(EngineError, match=r"RuntimeError: The size of tensor a \(4\) must match the size of tensor b"):
        method.take(parameters["k_scale"], (1.0, 2.0), (2, 1, 1), shape, "bfloat16")
    with pytest.raises(EngineError, match=r"RuntimeError: shape '\[-1, 2\]' is invalid for input of size 3"):
        method.take(parameters["q_scale"], (1.0, 2.0, 3.0), (3,), shape, "bfloat16")


def test_per_head_without_config_groups_fails_as_the_engine_does() -> None:
    method = CompressedTensorsKVCacheMethod(per_head=True, knows_heads=False)
    parameters = method.parameters(SHAPE)
    with pytest.raises(EngineError) as failure:
        method.take(parameters["k_scale"], (0.5, 0.25), (2, 1, 1), SHAPE, "bfloat16")
    assert failure.value.kind == "AssertionError"
    with pytest.raises(EngineError, match=r"TypeError: unsupported operand type\(s\) for //: 'NoneType'"):
        method.take(parameters["q_scale"], (1.0,) * 8, (8, 1, 1), SHAPE, "bfloat16")
    single = AttentionShape(num_heads=8, num_kv_heads=1, total_num_heads=8, total_num_kv_heads=1)
    with pytest.raises(EngineError, match="TypeError: unsupported operand type"):
        method.take(method.parameters(single)["k_scale"], (0.5,), (1, 1, 1), single, "bfloat16")
