from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
import torch

from core.backends import kv_method
from core.backends.kv_method import AttentionShape, CacheSetup, EngineError
from core.loading.kv_cache import BaseKVCacheMethod, CompressedTensorsKVCacheMethod, kv_cache_method, rank_heads
from core.loading.parameters import KVCacheScaleParameter, weight_loader_of
from tests.core.loading.running import attention, equal, post_process, scales

NAN, INF = math.nan, math.inf
GROUPED = AttentionShape(num_heads=4, num_kv_heads=2, total_num_heads=4, total_num_kv_heads=2)


def _per_tensor() -> CompressedTensorsKVCacheMethod:
    return CompressedTensorsKVCacheMethod(kv_method.CompressedTensorsKVCacheMethod(per_head=False))


def _per_head() -> CompressedTensorsKVCacheMethod:
    return CompressedTensorsKVCacheMethod(kv_method.CompressedTensorsKVCacheMethod(per_head=True))


def _load(layer: torch.nn.Module, **values: torch.Tensor | float) -> None:
    for name, value in values.items():
        parameter = layer.get_parameter(name)
        weight_loader_of(parameter)(parameter, torch.as_tensor(value, dtype=torch.float32))


# ------------------------------------------------------------------------------------------------ BaseKVCacheMethod


def test_create_weights_gives_four_scalar_sentinels_in_the_engines_dtype() -> None:
    layer = attention(BaseKVCacheMethod())
    found = dict(layer.named_parameters())
    assert sorted(found) == ["k_scale", "prob_scale", "q_scale", "v_scale"]
    for parameter in found.values():
        assert isinstance(parameter, KVCacheScaleParameter)
        assert (parameter.item(), parameter.dtype) == (-1.0, torch.bfloat16)


def test_a_layer_without_a_method_has_no_parameters_and_runs_at_1() -> None:
    layer = attention(None)
    assert not dict(layer.named_parameters())
    layer.get_buffer("_k_scale").fill_(0.5)  # what loading a tensor named _k_scale would do
    layer.process_weights_after_loading()
    assert scales(layer) == {"k": 1.0, "v": 1.0, "q": 1.0, "prob": 1.0}


def test_k_and_v_are_used_and_the_parameters_go() -> None:
    layer = attention(BaseKVCacheMethod())
    _load(layer, k_scale=0.25, v_scale=0.5)
    layer.process_weights_after_loading()
    assert scales(layer) == {"k": 0.25, "v": 0.5, "q": 1.0, "prob": 1.0}
    assert (layer._k_scale_float, layer._v_scale_float, layer._q_scale_float) == (0.25, 0.5, 1.0)
    assert layer.get_buffer("_k_scale").dtype == torch.float32
    assert not dict(layer.named_parameters())


def test_nothing_loaded_means_1() -> None:
    layer = attention(BaseKVCacheMethod())
    layer.process_weights_after_loading()
    assert scales(layer) == {"k": 1.0, "v": 1.0, "q": 1.0, "prob": 1.0}


@pytest.mark.parametrize("v", [-1.0, 0.0, NAN, -3.0])
def test_a_v_that_is_no_scale_takes_ks(v: float) -> None:
    layer = attention(BaseKVCacheMethod())
    _load(layer, k_scale=0.25, v_scale=v)
    layer.process_weights_after_loading()
    assert (scales(layer)["k"], scales(layer)["v"]) == (0.25, 0.25)


@pytest.mark.parametrize(("k", "v"), [(-1.0, 0.5), (0.0, 0.5), (NAN, 0.5), (0.0, 0.0), (NAN, NAN), (0.0, -1.0)])
def test_a_k_that_is_no_scale_is_a_bare_assertion_error(k: float, v: float) -> None:
    layer = attention(BaseKVCacheMethod())
    _load(layer, k_scale=k, v_scale=v)
    with pytest.raises(AssertionError) as caught:
        layer.process_weights_after_loading()
    assert not str(caught.value)


def test_infinity_passes() -> None:
    layer = attention(BaseKVCacheMethod())
    _load(layer, k_scale=INF, v_scale=0.5)
    layer.process_weights_after_loading()
    assert scales(layer)["k"] == INF


def test_a_cache_that_is_not_quantized_runs_at_1_but_keeps_q_and_prob() -> None:
    layer = attention(BaseKVCacheMethod(), quantized=False)
    _load(layer, k_scale=0.25, v_scale=0.5, q_scale=0.125, prob_scale=0.0625)
    layer.process_weights_after_loading()
    assert scales(layer) == {"k": 1.0, "v": 1.0, "q": 0.125, "prob": 0.0625}


def test_scales_per_token_and_head_drop_everything_that_was_loaded() -> None:
    layer = attention(BaseKVCacheMethod(), per_token_head=True)
    _load(layer, k_scale=0.0, v_scale=0.5, q_scale=0.125)
    layer.process_weights_after_loading()
    assert scales(layer) == {"k": 1.0, "v": 1.0, "q": 1.0, "prob": 1.0}
    assert not dict(layer.named_parameters())


def test_fnuz_doubles_all_four() -> None:
    layer = attention(BaseKVCacheMethod(), fnuz=True)
    _load(layer, k_scale=0.25, v_scale=0.5, q_scale=0.125, prob_scale=0.0625)
    layer.process_weights_after_loading()
    assert scales(layer) == {"k": 0.5, "v": 1.0, "q": 0.25, "prob": 0.125}
    assert (layer._k_scale_float, layer._q_scale_float) == (0.5, 0.25)


def test_fnuz_doubles_a_shared_scale_once_and_no_default() -> None:
    shared, default = attention(BaseKVCacheMethod(), fnuz=True), attention(BaseKVCacheMethod(), fnuz=True)
    _load(shared, k_scale=0.25)
    for layer in (shared, default):
        layer.process_weights_after_loading()
    assert (scales(shared)["k"], scales(shared)["v"]) == (0.5, 0.5)
    assert scales(default) == {"k": 1.0, "v": 1.0, "q": 1.0, "prob": 1.0}


def test_fnuz_doubles_q_in_the_models_dtype_and_k_beyond_it() -> None:
    layer = attention(BaseKVCacheMethod(), fnuz=True, dtype=torch.float16)
    _load(layer, k_scale=60000.0, v_scale=60000.0, q_scale=60000.0)
    layer.process_weights_after_loading()
    assert (scales(layer)["k"], scales(layer)["q"]) == (2 * torch.tensor(60000.0, dtype=torch.float16).item(), INF)


def _predicted(
    spec: kv_method.KVMethod, held: Mapping[str, tuple[float, ...]], cache: CacheSetup
) -> tuple[str | None, Mapping[str, float]]:
    try:
        return None, spec.process(held, frozenset(held), cache).final
    except EngineError as error:
        return error.kind, {}


VALUES = (-1.0, 0.0, NAN, INF, 0.25, 0.3, 1e-30, -2.0)


@pytest.mark.parametrize("fnuz", [False, True])
@pytest.mark.parametrize("quantized", [False, True])
def test_every_pair_of_values_ends_as_the_torch_free_method_says(quantized: bool, fnuz: bool) -> None:
    spec = kv_method.BaseKVCacheMethod()
    cache = CacheSetup(dtype="fp8", quantized=quantized, fnuz=fnuz)
    for k, v, q in itertools.product(VALUES, VALUES, VALUES):
        layer = attention(BaseKVCacheMethod(spec), quantized=quantized, fnuz=fnuz)
        _load(layer, k_scale=k, v_scale=v, q_scale=q)
        held = {name: (parameter.item(),) for name, parameter in layer.named_parameters()}
        raised, final = _predicted(spec, held, cache)
        assert post_process(layer) == raised
        if raised is None:
            assert equal(scales(layer).values(), [final[role] for role in ("k", "v", "q", "prob")])


# ----------------------------------------------------------------------------------- CompressedTensorsKVCacheMethod


def test_compressed_tensors_parameters_start_at_1_in_float32_without_prob() -> None:
    layer = attention(_per_tensor())
    found = {name: (parameter.tolist(), parameter.dtype) for name, parameter in layer.named_parameters()}
    assert found == {
        **{f"{role}_scale": ([1.0], torch.float32) for role in "kvq"},
        **{f"{role}_zero_point": ([0.0], torch.bfloat16) for role in "kvq"},
    }


@pytest.mark.parametrize("value", [0.3, 0.0, NAN, INF, -1.3e29])
def test_compressed_tensors_takes_any_number_whatever_the_cache_and_the_gpu(value: float) -> None:
    layer = attention(_per_tensor(), quantized=False, fnuz=True)
    _load(layer, k_scale=torch.tensor([value]), v_zero_point=torch.tensor([3.0]))
    layer.process_weights_after_loading()
    expected = torch.tensor(value, dtype=torch.float32).item()
    assert equal([scales(layer)["k"], layer._k_scale_float], [expected, expected])
    assert (scales(layer)["v"], scales(layer)["q"]) == (1.0, 1.0)
    assert not dict(layer.named_parameters())


def test_compressed_tensors_per_tensor_refuses_several_heads() -> None:
    layer = attention(_per_tensor())
    with pytest.raises(AssertionError, match=r"Attempted to load weight \(torch.Size\(\[2, 1, 1\]\)\) into parameter"):
        _load(layer, k_scale=torch.ones(2, 1, 1))


@pytest.mark.parametrize("shape", [(2,), (2, 1, 1)])
def test_heads_are_flattened_and_the_float_copy_is_their_maximum(shape: tuple[int, ...]) -> None:
    layer = attention(_per_head(), shape=GROUPED)
    _load(layer, k_scale=torch.tensor([0.25, 0.5]).reshape(shape), v_scale=torch.tensor([2.0, NAN]).reshape(shape))
    layer.process_weights_after_loading()
    assert layer.get_buffer("_k_scale").tolist() == [0.25, 0.5]
    assert (layer._k_scale_float, layer._q_scale_float) == (0.5, 1.0)
    assert math.isnan(layer._v_scale_float)
    assert layer.get_buffer("_q_scale").tolist() == [1.0, 1.0]


def test_query_heads_are_reduced_to_their_groups_maximum() -> None:
    layer = attention(_per_head(), shape=GROUPED)
    _load(layer, q_scale=torch.tensor([0.125, 0.5, 0.25, 0.0625]).reshape(4, 1, 1))
    assert layer.get_parameter("q_scale").tolist() == [0.5, 0.25]


def test_per_head_zero_points_are_read_and_forgotten() -> None:
    layer = attention(_per_head(), shape=GROUPED)
    _load(layer, k_zero_point=torch.full((7, 3), 9.0))
    assert layer.get_parameter("k_zero_point").tolist() == [0.0, 0.0]


def test_one_value_is_copied_to_all_heads_and_three_do_not_fit_two() -> None:
    four = AttentionShape(num_heads=4, num_kv_heads=4, total_num_heads=4, total_num_kv_heads=4)
    layer = attention(_per_head(), shape=four)
    _load(layer, k_scale=torch.tensor([0.5]))
    assert layer.get_parameter("k_scale").tolist() == [0.5] * 4
    message = r"The size of tensor a \(4\) must match the size of tensor b \(3\) at non-singleton dimension 0"
    with pytest.raises(RuntimeError, match=message):
        _load(layer, k_scale=torch.ones(3))


def test_query_heads_that_make_no_groups_do_not_fit() -> None:
    layer = attention(_per_head(), shape=GROUPED)
    with pytest.raises(RuntimeError, match=r"shape '\[-1, 2\]' is invalid for input of size 3"):
        _load(layer, q_scale=torch.ones(3))


def test_ranks_share_heads_evenly() -> None:
    shape = AttentionShape(num_heads=4, num_kv_heads=2, total_num_heads=8, total_num_kv_heads=4)
    stored = torch.tensor([0.1, 0.2, 0.3, 0.4])
    queries = torch.arange(8, dtype=torch.float32)
    for rank in (0, 1):
        layer = attention(_per_head(), shape=shape, tp=(rank, 2))
        _load(layer, k_scale=stored, q_scale=queries)
        assert torch.equal(layer.get_parameter("k_scale"), stored[2 * rank : 2 * rank + 2])
        assert layer.get_parameter("q_scale").tolist() == [4 * rank + 1, 4 * rank + 3]


def test_more_ranks_than_heads_hold_copies() -> None:
    shape = AttentionShape(num_heads=2, num_kv_heads=1, total_num_heads=8, total_num_kv_heads=2)
    assert [rank_heads(shape, rank, 4) for rank in range(4)] == [(0, 1), (0, 1), (1, 1), (1, 1)]


def test_heads_that_cannot_be_shared_are_an_assertion_error() -> None:
    shape = AttentionShape(num_heads=2, num_kv_heads=2, total_num_heads=6, total_num_kv_heads=6)
    with pytest.raises(AssertionError):
        rank_heads(shape, 0, 2)


# -------------------------------------------------------------------------------------------------- one truth for both


def test_the_torch_method_follows_the_backends() -> None:
    assert kv_cache_method(None) is None
    assert type(kv_cache_method(kv_method.BaseKVCacheMethod("ModelOptKVCacheMethod"))) is BaseKVCacheMethod
    per_head = kv_cache_method(kv_method.CompressedTensorsKVCacheMethod(per_head=True))
    assert type(per_head) is CompressedTensorsKVCacheMethod


def test_a_method_without_a_counterpart_is_named() -> None:
    class Elsewhere(kv_method.KVMethod):
        name = "Elsewhere"

        def parameters(self, shape: AttentionShape) -> dict[str, kv_method.ScaleParameter]:
            return {}

        def process(self, held: object, loaded: frozenset[str], cache: CacheSetup) -> kv_method.Processed:
            return kv_method.Processed(final={}, source={}, per_head={})

    with pytest.raises(NotImplementedError, match="does what Elsewhere predicts"):
        kv_cache_method(Elsewhere())


def test_a_parameter_the_backend_adds_is_created() -> None:
    class WithMore(kv_method.BaseKVCacheMethod):
        def parameters(self, shape: AttentionShape) -> dict[str, kv_method.ScaleParameter]:
            more = kv_method.ScaleParameter(
                name="out_scale", shape=(2,), initial=0.5, dtype="float32", taking="default"
            )
            return {**super().parameters(shape), "out_scale": more}

    method = kv_cache_method(WithMore())
    layer = attention(method)
    assert layer.get_parameter("out_scale").tolist() == [0.5, 0.5]
    layer.process_weights_after_loading()
    assert not dict(layer.named_parameters())
