"""compressed-tensors (llm-compressor, AutoRound's llm_compressor format)."""

from __future__ import annotations

from core.backends.base import AttentionKind, Backend
from core.backends.kv_method import CompressedTensorsKVCacheMethod, KVMethod
from core.quantization.declaration import Declaration


class CompressedTensors(Backend):
    """Scalar or per-head scales in float32; MLA layers get none."""

    method = "compressed-tensors"
    config_class = "CompressedTensorsConfig"
    title = "compressed-tensors (llm-compressor, AutoRound)"
    source = "vLLM 0.33.0, layers/quantization/compressed_tensors/compressed_tensors.py, CompressedTensorsConfig"

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        if kind != "Attention":
            return None
        scheme = declared.config.get("kv_cache_scheme")
        strategy = scheme.get("strategy") if isinstance(scheme, dict) else None
        # vLLM notes the head counts only while it reads config_groups; without that key it never learns them.
        return CompressedTensorsKVCacheMethod(
            per_head=strategy == "attn_head", knows_heads="config_groups" in declared.config
        )


BACKENDS = (CompressedTensors(),)
