"""Models of vLLM's Transformers backend, among them all that it does not register: which it refuses, what is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.architectures import derive_model, how_surveyed, why_not_surveyed, why_static
from core.engines.outcome import LoadResult
from core.engines.vllm.releases import NEWEST, UNIFIED, Release
from core.wording import joined, say

_UNREGISTERED = "are not supported for now"


def is_registered(architecture: str, release: Release) -> bool:
    """Whether that release, or the newest, has a model of that name."""
    engines = (release.id, NEWEST.id)
    return any(how_surveyed(architecture, each) or why_not_surveyed(architecture, each) for each in engines)


def borrowed(architecture: str, release: Release) -> str:
    """Why an older release that registers that architecture is answered with the newest one's modules: none of its own
    was built. "" where it has its own, does not register it, or loads otherwise (before 0.25 each model has a loop).
    """
    why = why_not_surveyed(architecture, release.id)
    same_loader = UNIFIED <= release.first < NEWEST.first
    lacking = not why or _UNREGISTERED in why
    return "" if lacking or not same_loader or not how_surveyed(architecture, NEWEST.id) else why


def refused_as_encoder_decoder(architecture: str, config: Mapping[str, Any], release: Release) -> LoadResult | None:
    """The refusal of an encoder-decoder model (T5, BART, Pegasus, M2M100, LongT5 were tried), or None for any other."""
    if config.get("is_encoder_decoder") is not True:
        return None
    reason = say(
        "vLLM {version} registers no {architecture}, and its Transformers backend runs no encoder-decoders",
        version=release.version,
        architecture=architecture,
    )
    error = (
        "ValidationError: 1 validation error for ModelConfig Value error, "
        f"Model architectures [{architecture!r}] are not supported for now."
    )
    if release is NEWEST:
        error = f"ValueError: Argument position_ids not found in the forward method of {architecture}'s layers"
    return LoadResult("refused", error, "config.json: architectures", reason)


def refused_as_mxfp4(cls: str, method: str | None, registered: bool) -> LoadResult | None:
    """The refusal of MXFP4 in that backend (the same in all five releases), or None; ``cls`` is the model's class."""
    if method not in ("mxfp4", "gpt_oss_mxfp4") or (registered and not cls.startswith("Transformers")):
        return None
    error = "NotImplementedError: Transformers modeling backend does not support MXFP4 quantization yet."
    reason = say("vLLM runs {model} through its Transformers backend, which has no MXFP4", model=cls)
    return LoadResult("refused", error, None, reason)


def doubt(architecture: str, config: Mapping[str, Any], release: Release, names: Iterable[str], known: bool) -> str:
    """Why no run confirms the modules of that architecture; "" where one does. ``known``: the engine registers it."""
    how, why = how_surveyed(architecture, release.id), why_static(architecture, release.id)
    if why:
        return say(
            "not confirmed by execution: the modules of {architecture} are read from vLLM {version}'s sources ({why})",
            architecture=architecture,
            version=release.version,
            why=why,
        )
    if borrowed(architecture, release):
        return say(
            "not confirmed by execution: the modules of {architecture} are taken to be nested in vLLM {version} as in "
            "vLLM {known}",
            architecture=architecture,
            version=release.version,
            known=NEWEST.version,
        )
    derived = None if how or known else derive_model(architecture, config, names)
    if derived is None:
        return ""
    return say(
        "not confirmed by execution: vLLM {version} registers no {architecture}; its attention layers are derived from "
        "the tensors' names ({places}), as its Transformers backend nests them; a model that neither transformers nor "
        "the checkpoint's own code (auto_map) knows is refused",
        version=release.version,
        architecture=architecture,
        places=joined(", ", derived.places),
    )
