"""The registry of backends and what each gives an attention layer."""

from __future__ import annotations

import pytest

from core.backends import BACKENDS, get_backend
from core.errors import UsageError
from core.naming.mapper import WeightsMapper
from core.naming.patterns import SlowPatternError
from core.quantization.declaration import Declaration, Source

PATH = "model.layers.0.self_attn.attn"
OUTPUT_SCALE_METHODS = {"fp8", "quark", "deepseek_v4_fp8"}


def test_all_thirty_methods_of_vllm_are_there() -> None:
    assert len(BACKENDS) == 30
    assert all(method == backend.method and backend.title and backend.source for method, backend in BACKENDS.items())


def test_three_methods_add_output_scales_and_all_others_share_one_mapper() -> None:
    base = get_backend("awq").get_cache_scale_mapper()
    for method, backend in BACKENDS.items():
        mapper = backend.get_cache_scale_mapper()
        assert isinstance(mapper, WeightsMapper)
        renamed = mapper.map_name("model.layers.0.self_attn.k_proj.output_scale")
        if method in OUTPUT_SCALE_METHODS:
            assert renamed == "model.layers.0.self_attn.attn.k_scale"
        else:
            assert mapper == base
            assert renamed == "model.layers.0.self_attn.k_proj.output_scale"


@pytest.mark.parametrize("method", BACKENDS)
def test_which_layers_get_scales(method: str) -> None:
    backend = get_backend(method)
    names = {kind: backend.kv_method(kind, PATH, Declaration()) for kind in ("Attention", "MLAAttention")}
    expected = {
        "fp8": ("Fp8KVCacheMethod", None),
        "deepseek_v4_fp8": ("Fp8KVCacheMethod", None),
        "quark": ("QuarkKVCacheMethod", None),
        "compressed-tensors": ("CompressedTensorsKVCacheMethod", None),
        "modelopt": ("ModelOptKVCacheMethod",) * 2,
        "modelopt_fp4": ("ModelOptKVCacheMethod",) * 2,
        "modelopt_mxfp8": ("ModelOptKVCacheMethod",) * 2,
        "mxfp8": ("ModelOptKVCacheMethod",) * 2,
    }.get(method, (None, None))
    assert tuple(found.name if found is not None else None for found in names.values()) == expected


def test_mixed_precision_needs_a_declared_cache_algorithm() -> None:
    backend = get_backend("modelopt_mixed")
    declared = Declaration(
        method="modelopt_mixed", config={"quantization": {"kv_cache_quant_algo": "FP8"}, "quantized_layers": {}}
    )
    assert backend.kv_method("Attention", PATH, declared) is not None
    assert backend.kv_method("MLAAttention", PATH, declared) is None


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [(PATH, True), ("re:model.layers.*attn$", True), ("re:[", False), ("model.layers.0.self_attn.k_proj", False)],
)
def test_quarks_exclude_list_can_take_a_layers_scales_away(pattern: str, taken: bool) -> None:
    method = get_backend("quark").kv_method("Attention", PATH, Declaration(config={"exclude": [pattern, 7]}))
    assert (method is None) is taken


def test_an_exclude_entry_that_never_ends_is_named() -> None:
    declared = Declaration(
        config={"exclude": [r"re:(\w|[a-z]|\.)+\d$"]},
        config_source=Source("config.json", "quantization_config", {}),
    )
    with pytest.raises(SlowPatternError) as caught:
        get_backend("quark").kv_method("Attention", PATH, declared)
    assert str(caught.value).startswith(
        r"config.json, key 'quantization_config.exclude': the pattern '(\\w|[a-z]|\\.)+\\d$' did not come to an end"
    )


def test_an_unknown_method_names_the_choices() -> None:
    with pytest.raises(UsageError, match=r"no quantization method is called 'fp9'\. Choose one of auto_awq, .*quark"):
        get_backend("fp9")
