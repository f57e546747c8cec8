"""Which kind of layer stands at each index of a model, from its config.

Hybrid models mix attention with linear attention, Mamba and MLP layers; the last layers of some models share the
KV cache of earlier ones. torch-free and vLLM-free, so that the survey of an engine's models uses the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KV_SHARED = "+kv_shared"
"""Appended to the kind of a layer that reads another layer's KV cache (Gemma 3n, Gemma 4)."""

_HYBRID_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config")


def text_config_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that describes the language model."""
    for name in _TEXT_CONFIGS:
        nested = config.get(name)
        if isinstance(nested, Mapping):
            return text_config_of(nested) if name == "thinker_config" else nested
    return config


def positive(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that holds a positive whole number."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def layer_kinds(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The kind of every decoder layer, in order; an empty tuple when the config does not say how many there are.

    Read from, in this order: ``layers_block_type``, ``hybrid_override_pattern`` (NemotronH's letters),
    ``layer_types``, ``full_attention_interval`` (Qwen3-Next), and otherwise all layers are "attention".
    """
    text = text_config_of(config)
    count = positive(text, "num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers")
    kinds = _declared_kinds(text, count)
    if count is not None and len(kinds) > count:
        kinds = kinds[:count]
    shared = positive(text, "num_kv_shared_layers") or 0
    first_shared = len(kinds) - shared if 0 < shared < len(kinds) else len(kinds)
    return tuple(kind + KV_SHARED if index >= first_shared else kind for index, kind in enumerate(kinds))


def _declared_kinds(text: Mapping[str, Any], count: int | None) -> list[str]:
    blocks = text.get("layers_block_type")
    if isinstance(blocks, list) and blocks:
        return [str(kind) for kind in blocks]
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str) and pattern:
        return [_HYBRID_LETTERS.get(letter, letter) for letter in pattern if letter != "|"]
    types = text.get("layer_types")
    if isinstance(types, list) and types and (count is None or len(types) >= count):
        return [str(kind) for kind in types]
    if count is None:
        return []
    interval = positive(text, "full_attention_interval")
    if interval is not None:
        return ["linear_attention" if (index + 1) % interval else "full_attention" for index in range(count)]
    return ["attention"] * count
