"""compressed-tensors (llm-compressor, AutoRound's llm_compressor format)."""

from __future__ import annotations

from core.backends.base import AttentionKind, Backend, Declared
from core.backends.kv_method import CompressedTensorsKVCacheMethod, KVMethod


class CompressedTensors(Backend):
    """Scalar or per-head scales in float32; MLA layers get none."""

    method = "compressed-tensors"
    config_class = "CompressedTensorsConfig"
    title = "compressed-tensors (llm-compressor, AutoRound)"
    source = "vLLM 0.33.0, layers/quantization/compressed_tensors/compressed_tensors.py, CompressedTensorsConfig"

    def kv_method(self, kind: AttentionKind, path: str, declared: Declared) -> KVMethod | None:
        if kind != "Attention":
            return None
        scheme = declared.config.get("kv_cache_scheme")
        strategy = scheme.get("strategy") if isinstance(scheme, dict) else None
        return CompressedTensorsKVCacheMethod(per_head=strategy == "attn_head")


BACKENDS = (CompressedTensors(),)
