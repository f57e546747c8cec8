"""fp8 (AutoFP8, Quark's fp8 mode, DeepSeek) and its kin."""

from __future__ import annotations

from core.backends.base import AttentionKind, Backend, output_scale_mapper
from core.backends.kv_method import BaseKVCacheMethod, KVMethod
from core.naming.mapper import WeightsMapper
from core.quantization.declaration import Declaration


class Fp8(Backend):
    """Output scales of the projections are renamed too; MLA layers get no scales."""

    method = "fp8"
    config_class = "Fp8Config"
    title = "FP8 (AutoFP8, Quark in fp8 mode)"
    source = "vLLM 0.33.0, layers/quantization/fp8.py, Fp8Config"

    def get_cache_scale_mapper(self) -> WeightsMapper:
        return output_scale_mapper(self.source) | super().get_cache_scale_mapper()

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        return BaseKVCacheMethod("Fp8KVCacheMethod") if kind == "Attention" else None


class DeepSeekV4Fp8(Fp8):
    """Fp8 with other expert weights; the same scales."""

    method = "deepseek_v4_fp8"
    config_class = "DeepseekV4FP8Config"
    title = "FP8 of DeepSeek V4"
    source = "vLLM 0.33.0, models/deepseek_v4/quant_config.py, DeepseekV4FP8Config (an Fp8Config)"


BACKENDS = (Fp8(), DeepSeekV4Fp8())
