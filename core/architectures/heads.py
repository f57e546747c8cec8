"""How many attention heads a model has, and how many key/value heads each of its layers.

Both count for per-head scales: a layer's parameters have its own size, while a quantization config is told of the whole
model alone (vLLM 0.33.0, ``transformers_utils/model_arch_config_convertor.py``, ``model_loader/weight_utils.py``). What
config.json does not say the config's class does; ``config_classes.json`` holds what they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.architectures.config_classes import default_of, type_of
from core.architectures.layers import HEADS, KV_HEADS, believed, may_differ, of_each_layer, text_config_of

_FALCON = ("falcon", "RefinedWeb", "RefinedWebModel")
_MULTI_QUERY = (*_FALCON, "gpt_bigcode")
"""Whose config classes have one key/value head for all unless told otherwise."""

_MIMO = ("mimo_v2", "mimo_v2_flash", "mimo_v2_omni", "mimo_v2_mtp")
_BY_LAYER = ("minicpm3", "step3_text", "step1", "step3p5", "chatglm", "whisper", "nemotron-nas", *_MIMO)
"""Whose layers are not built with the heads that the whole model counts as having, or not all of them."""


@dataclass(frozen=True, slots=True)
class Heads:
    """Query heads, and key/value heads."""

    query: int
    kv: int


class HeadCounts:
    """The heads of one model: ``model`` as a whole, and of each layer; (1, 1) where neither the config nor its class
    says, and ``known`` is False.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._text = _text(config)
        self._kind = self._text.get("model_type")
        self._own = _default(self._text, config)
        self._layers = of_each_layer(config) if may_differ(self._text) else ()
        """The layers' parts of the config, where they may differ."""
        self.uniform = not self._layers and self._kind not in _BY_LAYER
        """Whether every layer has the heads of the whole model."""
        model = self._of_model()
        self.known = model is not None
        self.model = model or Heads(1, 1)

    def _of_model(self) -> Heads | None:
        text, own = self._text, self._own
        heads = believed(text, *HEADS) or own[0]
        match self._kind:
            case "cohere_asr":
                heads = believed(_below(text, "transf_decoder", "config_dict"), "num_attention_heads") or heads
                return Heads(heads, heads) if heads else None
            case "whisper":
                heads = believed(text, "encoder_attention_heads") or own[0]
                return Heads(heads, believed(text, *KV_HEADS) or heads) if heads else None
            case "nemotron-nas":
                shared = next((each for each in map(_in_block, _blocks(text)) if each), None)
                return Heads(heads, max(heads // shared, 1)) if heads and shared else None
            case "dbrx":
                stored = believed(_below(text, "attn_config"), "kv_n_heads")
                kv = stored or (own[1] if "attn_config" not in text else None)
                return Heads(heads, kv or heads) if heads else None
            case _:
                pass
        if heads is None:
            return None
        # vLLM sizes the whole model for its largest layer.
        return Heads(heads, max(_kv_heads(layer, own, heads) for layer in self._layers or (text,)))

    def of(self, layer: int | None) -> Heads:
        """The heads of one decoder layer."""
        text, model = self._text, self.model
        match self._kind:
            case _ if self.uniform:
                return model
            case "minicpm3":
                return replace(model, kv=model.query)
            case "step3_text":
                return replace(model, kv=1)
            case "step1" | "step3p5":
                return replace(model, kv=believed(text, "num_attention_groups") or self._own[1] or 1)
            case "chatglm":
                groups = believed(text, "multi_query_group_num") or self._own[1]
                asked = text.get("multi_query_attention") is True
                return replace(model, kv=(groups if asked else None) or model.query)
            case "whisper":
                heads = believed(text, "decoder_attention_heads") or self._own[0] or model.query
                return Heads(heads, heads)
            case "nemotron-nas":
                shared = _in_block(_blocks(text)[layer]) if layer is not None and layer < len(_blocks(text)) else None
                return replace(model, kv=max(model.query // shared, 1)) if shared else model
            case _:
                return self._sliding(layer) if self._kind in _MIMO else self._of_its_own(layer)

    def _sliding(self, layer: int | None) -> Heads:
        """MiMo: layers with a sliding window have heads of their own."""
        pattern, model = self._text.get("hybrid_layer_pattern"), self.model
        if layer is None or not isinstance(pattern, list) or layer >= len(pattern) or pattern[layer] != 1:
            return model
        query, kv = (believed(self._text, f"swa_num_{name}_heads") for name in ("attention", "key_value"))
        return Heads(query or model.query, kv or model.kv)

    def _of_its_own(self, layer: int | None) -> Heads:
        """What the layer's part of the config says."""
        if layer is None or layer >= len(self._layers):
            return self.model
        heads = believed(self._layers[layer], *HEADS) or self.model.query
        return Heads(heads, _kv_heads(self._layers[layer], self._own, heads))


def _kv_heads(text: Mapping[str, Any], own: tuple[int | None, int | None], heads: int) -> int:
    """As one part of a config has them: null stands for as many as heads, what is missing for the class's own."""
    found = believed(text, *KV_HEADS)
    shared = text.get("multi_query", text.get("model_type") in _MULTI_QUERY) is True
    falcon = text.get("model_type") in _FALCON
    if shared and (falcon or found is None) and not text.get("new_decoder_architecture"):
        return 1
    if found is not None:
        return found
    silent = not any(name in text for name in KV_HEADS) and text.get("model_type") not in _MULTI_QUERY
    return (own[1] if silent else None) or heads


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part, with its type where the parts of such a model are known not to name theirs."""
    text = text_config_of(config)
    if "model_type" in text or text is config:
        return text
    inner = type_of(text, config)
    return {**text, "model_type": inner} if inner != config.get("model_type") else text


def _default(text: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """What the config's class says of heads and of key/value heads."""
    heads, kv_heads = default_of("heads", text, config) or (None, None)
    return heads, kv_heads


def _below(text: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    found: Any = text
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _blocks(text: Mapping[str, Any]) -> list[Any]:
    blocks = text.get("block_configs")
    return blocks if isinstance(blocks, list) else []


def _in_block(block: Any) -> int | None:
    """How many heads of a pruned layer share one key/value head; None for a layer without attention."""
    attention = block.get("attention") if isinstance(block, Mapping) else None
    if not isinstance(attention, Mapping) or attention.get("no_op"):
        return None
    return believed(attention, "n_heads_in_group")
