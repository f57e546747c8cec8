"""How many heads a model has whose config.json does not say so: what the engine's config class says then.

A file written for an older or a nested config class leaves out what equals the class's own numbers (Gemma 3's
``text_config`` names neither its heads nor its KV heads). Source: ``resources/architectures/survey_defaults.py``, which
asked every class of transformers and vLLM 0.33.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from core.architectures.layers import HEADS, KV_HEADS, believed, text_config_of
from resources import resource


def head_counts(config: Mapping[str, Any]) -> tuple[int, int]:
    """Heads and KV heads of the language model of a whole config.json; 1 where nothing tells them."""
    return _heads(config) or 1, told_kv_heads(config) or 1


def told_kv_heads(config: Mapping[str, Any]) -> int | None:
    """The KV heads of :func:`head_counts`; None where nothing tells them."""
    text = text_config_of(config)
    if text.get("multi_query") is True and not text.get("new_decoder_architecture"):
        return 1
    kv_heads = believed(text, *KV_HEADS)
    if kv_heads is None and not any(name in text for name in KV_HEADS):
        kv_heads = _number(_known(config, text).get("kv_heads"))
    return kv_heads or _heads(config)


def _heads(config: Mapping[str, Any]) -> int | None:
    text = text_config_of(config)
    return believed(text, *HEADS) or _number(_known(config, text).get("heads"))


def _known(config: Mapping[str, Any], text: Mapping[str, Any]) -> Mapping[str, int | str]:
    """The numbers of the language model's config class: by its own model type, else by that of the model around it."""
    known = _defaults()
    for part in (text, config):
        entry = known.get(str(part.get("model_type")), {})
        entry = known.get(str(entry["text"]), {}) if "text" in entry else entry
        if entry:
            return entry
    return {}


def _number(value: int | str | None) -> int | None:
    """None for "heads" too: as many as the model has heads."""
    return value if isinstance(value, int) else None


@cache
def _defaults() -> Mapping[str, Mapping[str, int | str]]:
    found: dict[str, dict[str, int | str]] = json.loads(
        resource("architectures", "config_defaults.json").read_text(encoding="utf-8")
    )["defaults"]
    return found
