"""What can be chosen in each engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.backends import BACKENDS
from core.engines import ENGINES, Wish, get_engine
from core.engines.variants import Variant, cache_dtypes_of, kept_by, methods_of, variants_of
from core.errors import UsageError
from core.inspection import inspect, reinspect

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


def test_each_engine_has_methods_of_its_own() -> None:
    assert methods_of(get_engine("vllm-0.33.0")) == tuple(sorted(BACKENDS))
    assert "gguf" in methods_of(get_engine("vllm-0.22.1"))
    assert "gguf" not in methods_of(get_engine("vllm-0.33.0"))
    sglang = methods_of(get_engine("sglang-0.5.23"))
    assert {"modelopt_fp8", "w4afp8", "petit_nvfp4"} <= set(sglang)
    assert "mxfp4" in sglang
    assert "gpt_oss_mxfp4" not in sglang
    assert methods_of(get_engine("tensorrt-llm")) == ()


@pytest.mark.parametrize("engine", list(ENGINES))
def test_whatever_an_engine_offers_it_takes(samples: Path, engine: str) -> None:
    inspection = inspect(samples / QWEN, engine=engine)
    profile = get_engine(engine)
    for method in methods_of(profile):
        assert reinspect(inspection, wish=Wish(method=method)).settings.method.value == method
    for dtype in cache_dtypes_of(profile):
        found = reinspect(inspection, wish=Wish(kv_cache_dtype=dtype))
        assert found.settings.kv_cache_dtype.value == dtype


def test_the_variant_in_force_comes_first(samples: Path) -> None:
    def first(engine: str, kv_cache_dtype: str = "auto") -> Variant:
        inspection = inspect(samples / QWEN, engine=engine, kv_cache_dtype=kv_cache_dtype)
        return variants_of(get_engine(engine), inspection.settings)[0]

    assert first("vllm-0.33.0") == Variant("method", "modelopt")
    assert first("sglang-0.5.23") == Variant("method", "modelopt_fp8")
    assert first("tensorrt-llm") == Variant("kv_cache_dtype", "fp8")
    assert first("tensorrt-llm", kv_cache_dtype="bfloat16") == Variant("kv_cache_dtype", "bfloat16")
    assert Variant("method", None).of(Wish(method="awq")) == Wish()
    assert Variant("kv_cache_dtype", "nvfp4").of(Wish()) == Wish(kv_cache_dtype="nvfp4")


def test_tensorrt_llm_is_compared_by_the_dtype_of_its_cache(samples: Path) -> None:
    inspection = inspect(samples / QWEN, engine="tensorrt-llm")
    variants = variants_of(get_engine("tensorrt-llm"), inspection.settings)
    assert [variant.value for variant in variants] == ["fp8", "nvfp4", "int8", "bfloat16"]
    served = {
        variant.value: sum(
            layer.source["k"] == "checkpoint"
            for layer in reinspect(inspection, wish=variant.of(inspection.wish)).deliveries.attention
        )
        for variant in variants
    }
    assert served == {"fp8": 0, "nvfp4": 36, "int8": 0, "bfloat16": 0}


def test_choices_that_the_next_engine_does_not_know_are_left_behind() -> None:
    wish = Wish(method="gpt_oss_mxfp4", architecture="Qwen3ForCausalLM", kv_cache_dtype="int8_per_token_head")
    assert kept_by(get_engine("vllm-0.33.0"), wish) == wish
    assert kept_by(get_engine("sglang-0.5.23"), wish) == Wish(method="mxfp4", architecture="Qwen3ForCausalLM")
    assert kept_by(get_engine("tensorrt-llm"), wish) == Wish(architecture="Qwen3ForCausalLM")
    fp8 = Wish(kv_cache_dtype="fp8")
    for engine in ENGINES:
        assert kept_by(get_engine(engine), fp8) == fp8


def test_unknown_choices_are_refused_with_what_there_is(samples: Path) -> None:
    inspection = inspect(samples / QWEN, engine="sglang-0.5.23")
    with pytest.raises(UsageError, match=r"has no quantization method 'gpt_oss'.*Choose one of fp8, mxfp8"):
        reinspect(inspection, wish=Wish(method="gpt_oss"))
