"""Which model vLLM takes for the architectures that config.json names, or does not name.

Of several the first that it registers counts. A name that it does not register may ask for a pooling model: vLLM then
takes the generating one of the same family and converts it (``Qwen3ForSequenceClassification`` is ``Qwen3ForCausalLM``
with another head). Source: vLLM 0.33.0, ``models/registry.py`` (``_normalize_arch``, ``resolve_model_cls``),
``config/model.py`` (``_SUFFIX_TO_DEFAULTS``), ``models/adapters.py``, ``transformers_utils/config.py``; the same in the
four releases before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from core.architectures import AutoLoader, ModuleNode, OwnLoader
from core.architectures.config_classes import config_classes
from core.engines.outcome import LoadResult
from core.naming.mapper import Rule, RuleKind, WeightsMapper
from core.quantization.declaration import Declaration
from core.wording import say

_GENERATING = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
_POOLING = (
    "ForTextEncoding", "EmbeddingModel", "ForSequenceClassification", "ForTokenClassification",
    "ForAudioClassification", "ForImageClassification", "ForVideoClassification", "ClassificationModel",
    "ForRewardModeling", "RewardModel", "Model",
)  # fmt: skip
"""The ends of names, in the order in which vLLM tries them."""

_WHOLE = "model."
_HEAD = "lm_head."
_SOURCE = "vLLM 0.33.0, models/adapters.py, _load_pooling_model_weights"


def converted_from(architecture: str, registers: Callable[[str], bool]) -> str:
    """The registered model that vLLM converts to that pooling architecture; "" where it converts none."""
    if registers(architecture):
        return ""
    end = next((end for end in (*_GENERATING, *_POOLING) if architecture.endswith(end)), "")
    if end not in _POOLING:
        return ""
    names = (architecture.replace(end, other) for other in (*_GENERATING, *_POOLING))
    return next((name for name in names if registers(name)), "")


def unnamed(config: Mapping[str, Any]) -> str:
    """The architecture of a config.json that names none: its type's base model; "" for a type that has none."""
    kind = config.get("model_type")
    return str(config_classes()["models"].get(kind, "")) if isinstance(kind, str) else ""


def becomes_embedding(root: ModuleNode) -> bool:
    """Whether vLLM makes an embedding model of that one where it is asked to: one that generates."""
    return root.cls.endswith(_GENERATING)


def refused_as_unnamed(declaration: Declaration) -> LoadResult | None:
    """The refusal of a config.json that names no architecture, and whose type has no base model."""
    if declaration.dialect != "huggingface" or "speculators_config" in declaration.hf_config:
        return None
    error = "ValidationError: 1 validation error for ModelConfig Value error, No model architectures are specified"
    reason = say("config.json names no architecture, and its model_type does not tell which one is meant")
    return LoadResult("refused", error, "config.json: architectures", reason)


def converted(root: ModuleNode, architecture: str, names: Iterable[str], parameters: Iterable[str]) -> ModuleNode:
    """The pooling model made of ``root``. Its loader looks for the first name of the checkpoint that is a parameter as
    it stands, or with ``model.`` before it, and puts that before all names if so; ``parameters`` are those that the
    KV-cache methods add.
    """
    loader = root.loader
    if not isinstance(loader, AutoLoader | OwnLoader):
        return replace(root, cls=architecture)
    known = root.parameter_names().union(parameters)
    for name in names:
        found = loader.mapper.trace(name, by=root.cls).result
        if found is None or name.startswith(_HEAD):
            continue
        if found in known:
            break
        if _WHOLE + found in known:
            rule = Rule(RuleKind.REGEX, "^", _WHOLE, source=_SOURCE)
            mapper = WeightsMapper((rule, *loader.mapper.rules))
            return replace(root, cls=architecture, loader=replace(loader, mapper=mapper))
    return replace(root, cls=architecture)
