"""Inference engines: what each does with KV-cache scales, version by version."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from core.engines.profile import EngineProfile, Fed, Wish
from core.engines.sglang.engine import Sglang
from core.engines.tensorrt_llm.engine import TensorrtLlm
from core.engines.vllm.engine import Vllm
from core.engines.vllm.releases import RELEASES, release_for, version_of
from core.errors import UsageError

DEFAULT_ENGINE = "vllm-0.33.0"

_PROFILES: tuple[EngineProfile, ...] = (
    *(Vllm(release) for release in RELEASES),
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
    """The profile of that id; raises UsageError when there is none.

    For a version of vLLM that was not run, the nearest one before it answers; ``how_checked`` and every result say so.
    """
    if (known := ENGINES.get(engine)) is not None:
        return known
    name, _, number = engine.partition("-")
    if name == "vllm" and (version := version_of(number)) is not None:
        return Vllm(release_for(version), number)
    raise UsageError(
        f"no engine is called {engine!r}", remedy=f"Choose one of {', '.join(ENGINES)}, or another version of vLLM"
    )


__all__ = ["DEFAULT_ENGINE", "ENGINES", "EngineProfile", "Fed", "Wish", "get_engine"]
