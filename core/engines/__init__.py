"""Inference engines: what each does with KV-cache scales, version by version."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from core.engines.profile import EngineProfile, Fed, Wish
from core.engines.sglang.engine import Sglang
from core.engines.tensorrt_llm.engine import TensorrtLlm
from core.engines.vllm.engine import Vllm
from core.errors import UsageError

DEFAULT_ENGINE = "vllm-0.33.0"

_PROFILES: tuple[EngineProfile, ...] = (
    Vllm(
        "0.33.0",
        source="vLLM 0.33.0's Python sources; module trees surveyed from its real models",
        how_checked="compared with what vLLM 0.33.0 itself did on CPU: 8,370 names, 863 cases, 116 checkpoints",
    ),
    Sglang(
        "0.5.23",
        source="SGLang 0.5.23's Python sources, model class by model class",
        how_checked="compared with what SGLang 0.5.23 itself did on CPU: 8,370 names, 825 cases, 107 checkpoints, and "
        "65,586 names through the load loops of 77 of its models",
    ),
    TensorrtLlm(),
)

ENGINES: Mapping[str, EngineProfile] = MappingProxyType({profile.id: profile for profile in _PROFILES})
"""Every engine profile, by id; ``how_checked`` says how each was compared with its engine."""


def get_engine(engine: str) -> EngineProfile:
    """The profile of that id; raises UsageError when there is none."""
    try:
        return ENGINES[engine]
    except KeyError:
        raise UsageError(f"no engine is called {engine!r}", remedy=f"Choose one of {', '.join(ENGINES)}") from None


__all__ = ["DEFAULT_ENGINE", "ENGINES", "EngineProfile", "Fed", "Wish", "get_engine"]
