"""Inference engines: what each does with KV-cache scales, version by version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

from core.engines.installed import INSTALLED, Installed, installed_engine
from core.engines.profile import EngineProfile, Fed, Wish
from core.engines.sglang.engine import Sglang
from core.engines.tensorrt_llm.engine import TensorrtLlm
from core.engines.vllm.engine import Vllm
from core.engines.vllm.releases import RELEASES, release_for, version_of
from core.errors import KVScopeError, UsageError
from core.wording import joined, say

DEFAULT_ENGINE = "vllm-0.33.0"

_PROFILES: tuple[EngineProfile, ...] = (
    *(Vllm(release) for release in RELEASES),
    Sglang(
        "0.5.23",
        source="SGLang 0.5.23's Python sources, model class by model class",
        how_checked=say(
            "compared with what SGLang 0.5.23 itself did on CPU: 8,370 names, 825 cases, 107 checkpoints, and 65,586 "
            "names through the load loops of 77 of its models"
        ),
    ),
    TensorrtLlm(),
)


class _Engines(Mapping[str, EngineProfile]):
    """The built-in profiles, and "installed" for as long as a probed vLLM is kept."""

    def __init__(self) -> None:
        self._built_in = {profile.id: profile for profile in _PROFILES}

    def __getitem__(self, engine: str) -> EngineProfile:
        if engine == INSTALLED and (found := self._installed()) is not None:
            return found
        return self._built_in[engine]

    def __iter__(self) -> Iterator[str]:
        yield from self._built_in
        if self._installed() is not None:
            yield INSTALLED

    def __len__(self) -> int:
        return len(self._built_in) + (self._installed() is not None)

    @staticmethod
    def _installed() -> Installed | None:
        with suppress(KVScopeError):  # a file that cannot be read is named when that engine is asked for
            return installed_engine()
        return None


ENGINES: Mapping[str, EngineProfile] = _Engines()
"""Every engine profile, by id; ``how_checked`` says how each was compared with its engine."""


def get_engine(engine: str) -> EngineProfile:
    """The profile of that id; raises UsageError when there is none.

    For a version of vLLM that was not run, the nearest one before it answers; ``how_checked`` and every result say so.
    "installed" is the vLLM that was probed on this machine; raises KVScopeError when what is kept of it is unreadable.
    """
    if engine == INSTALLED:
        installed = installed_engine()
        if installed is None:
            raise UsageError(
                say("no vLLM of this machine was probed yet"),
                remedy=say("Run `kvscope probe --python PATH` with its Python"),
            )
        return installed
    if (known := ENGINES.get(engine)) is not None:
        return known
    name, _, number = engine.partition("-")
    if name == "vllm" and (version := version_of(number)) is not None:
        return Vllm(release_for(version), number)
    raise UsageError(
        say("no engine is called {engine!r}", engine=engine),
        remedy=say("Choose one of {choices}, or another version of vLLM", choices=joined(", ", ENGINES)),
    )


__all__ = ["DEFAULT_ENGINE", "ENGINES", "INSTALLED", "EngineProfile", "Fed", "Wish", "get_engine"]
