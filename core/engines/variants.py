"""What can be chosen in an engine: its quantization methods, its KV-cache dtypes, and what a checkpoint is tried under.

vLLM and SGLang decide by the quantization method what becomes of scales; TensorRT-LLM by the dtype of the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.engines.profile import EngineProfile, Wish
from core.engines.sglang.engine import Sglang
from core.engines.sglang.quantization import ALIASES
from core.engines.sglang.quantization import KV_CACHE_DTYPES as SGLANG_CACHES
from core.engines.sglang.quantization import METHODS as SGLANG_METHODS
from core.engines.tensorrt_llm.engine import KV_CACHE_DTYPES as TENSORRT_LLM_CACHES
from core.engines.tensorrt_llm.engine import TensorrtLlm
from core.engines.vllm.engine import Vllm
from core.settings import Settings

Option = Literal["method", "kv_cache_dtype"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One choice of an engine: the option and its value, None for a checkpoint without quantization."""

    option: Option
    value: str | None

    def of(self, wish: Wish) -> Wish:
        """The wish with this choice in it."""
        if self.option == "method":
            return replace(wish, method=self.value)
        return replace(wish, kv_cache_dtype=self.value or "auto")


def methods_of(engine: EngineProfile) -> tuple[str, ...]:
    """The engine's own quantization methods, sorted; none for an engine that does not ask for one."""
    match engine:
        case Vllm():
            return tuple(sorted(engine.release.backends))
        case Sglang():
            return tuple(sorted(SGLANG_METHODS))
        case _:
            return ()


def cache_dtypes_of(engine: EngineProfile) -> tuple[str, ...]:
    """The KV-cache dtypes that the engine takes, in its own order, "auto" among them."""
    match engine:
        case Vllm():
            return engine.release.kv_cache_dtypes
        case Sglang():
            return SGLANG_CACHES
        case TensorrtLlm():
            return TENSORRT_LLM_CACHES
        case _:
            return ("auto",)


def variants_of(engine: EngineProfile, settings: Settings) -> tuple[Variant, ...]:
    """What a checkpoint is compared under in this engine; the one in force comes first."""
    if isinstance(engine, TensorrtLlm):
        option: Option = "kv_cache_dtype"
        values: Sequence[str] = [dtype for dtype in cache_dtypes_of(engine) if dtype not in ("auto", "float16")]
        current: str | None = _cache_in_force(settings)
    else:
        option, values, current = "method", methods_of(engine), settings.method.value
    return tuple(Variant(option, value) for value in dict.fromkeys((current, *values)))


def _cache_in_force(settings: Settings) -> str:
    resolved = settings.kv_cache_dtype_resolved
    return "bfloat16" if resolved in ("auto", "float16") else resolved


def kept_by(engine: EngineProfile, wish: Wish) -> Wish:
    """The wish without the choices that this engine does not know, so that it can be asked at all."""
    methods, dtypes = methods_of(engine), cache_dtypes_of(engine)
    method = wish.method
    if isinstance(engine, Sglang):
        method = ALIASES.get(method or "", method)
    known = method in methods
    architecture = wish.architecture if wish.architecture in engine.known_architectures() else None
    cache = wish.kv_cache_dtype if wish.kv_cache_dtype in (*dtypes, "fp8", "fp8_e4m3") else "auto"
    return replace(wish, method=method if known else None, architecture=architecture, kv_cache_dtype=cache)
