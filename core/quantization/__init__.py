"""What a checkpoint declares about its quantization, and what vLLM makes of it before any tensor is read."""

from core.quantization.cache_dtype import KV_CACHE_DTYPES, CacheDtype, is_quantized, resolve_kv_cache_dtype
from core.quantization.config_files import ConfigSource
from core.quantization.declaration import Declaration, KVScheme, Producer, Source
from core.quantization.reader import read_declaration
from core.quantization.refusals import Refusal, kv_method_layers, refusal

__all__ = [
    "KV_CACHE_DTYPES",
    "CacheDtype",
    "ConfigSource",
    "Declaration",
    "KVScheme",
    "Producer",
    "Refusal",
    "Source",
    "is_quantized",
    "kv_method_layers",
    "read_declaration",
    "refusal",
    "resolve_kv_cache_dtype",
]
