"""What SGLang's KV methods do on an attention layer (SGLang 0.5.23, layers/quantization/kv_cache.py)."""

from __future__ import annotations

from collections.abc import Mapping

from core.backends.kv_method import (
    AttentionShape,
    CacheSetup,
    EngineError,
    KVMethod,
    Processed,
    ScaleParameter,
)
from core.engines.outcome import ValueSource


class SglangKVCacheMethod(KVMethod):
    """One float32 scalar for k and one for v, both starting at -1.0; nothing for queries and probabilities.

    After loading, whatever the type of the cache: both above 0.0 are used; both at or below 0.0 become 1.0; otherwise k
    must be above 0.0 (NaN is not) and the larger of the two serves for both. FNUZ hardware doubles what was loaded.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def parameters(self, shape: AttentionShape) -> dict[str, ScaleParameter]:
        return {
            f"{role}_scale": ScaleParameter(
                name=f"{role}_scale", shape=(), initial=-1.0, dtype="float32", taking="default"
            )
            for role in ("k", "v")
        }

    def process(self, held: Mapping[str, tuple[float, ...]], loaded: frozenset[str], cache: CacheSetup) -> Processed:
        k, v = held["k_scale"][0], held["v_scale"][0]
        factor = 2.0 if cache.fnuz else 1.0
        final = {"k": 1.0, "v": 1.0, "q": 1.0, "prob": 1.0}
        source: dict[str, ValueSource] = dict.fromkeys(final, "default")
        if k > 0.0 and v > 0.0:
            final["k"], final["v"] = k * factor, v * factor
            source["k"] = source["v"] = "checkpoint"
        elif k <= 0.0 and v <= 0.0:
            source["k"], source["v"] = ("forced" if f"{role}_scale" in loaded else "default" for role in ("k", "v"))
        else:
            if not k > 0.0:
                raise EngineError("AssertionError")
            # Python's max(k, v): v only where it compares greater, so a NaN v leaves k.
            final["k"] = final["v"] = max(k, v) * factor
            source["k"], source["v"] = "checkpoint", "duplicated"
        return Processed(final=final, source=source, per_head={})
