"""Which kind of layer stands at each index of a model, from its config.

Hybrid models mix attention with linear attention, Mamba, convolutions and MLP layers; the last layers of some models
share the KV cache of earlier ones. torch-free and vLLM-free, so that the survey of an engine's models uses the same
function. Names are those of transformers' ``layer_types``; older names are translated as transformers 5.20
(``configuration_utils.py``, ``_LEGACY_LAYER_TYPE_REMAP``) translates them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from core.architectures.config_classes import default_of
from core.naming.conventions import MOST_LAYERS

KV_SHARED = "+kv_shared"
"""Appended to the kind of a layer that reads another layer's KV cache (Gemma 3n, Gemma 4)."""

FULL, LINEAR, NONE = "full_attention", "linear_attention", "no_attention"

_HYBRID_LETTERS = {"M": LINEAR, "*": FULL, "-": "mlp", "E": "moe"}
_OLDER_NAMES = {
    "mamba": LINEAR,
    "attention": FULL,
    "deepseek_sparse_attention": "indexed_attention",
    "qwen_sparse_attention": "indexed_attention",
}
_INTERVALS = {
    "qwen3_next": 4, "qwen3_5_text": 4, "qwen3_5_moe_text": 4, "qwen4_exp_text": 4, "olmo_hybrid": 4,
    "glm5_next_text": 4,
}  # fmt: skip
"""Every how many layers one has full attention where the config class decides (transformers 5.20)."""

_CHOOSES_PERIOD = "embedding_gemma2_text"
_GEMMA4 = ("gemma4_text", "gemma4_unified_text", "diffusion_gemma_text", _CHOOSES_PERIOD)

_TEXT_CONFIGS = ("text_config", "llm_config", "language_config", "thinker_config", "vlm_config")
_NESTING = ("thinker_config", "vlm_config")

LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers")
DRAFTS = ("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")
HEADS = ("num_attention_heads", "n_head", "decoder_attention_heads", "num_heads", "n_heads")
KV_HEADS = (
    "n_head_kv", "num_kv_heads", "num_key_value_heads", "multi_query_group_num", "num_attention_groups", "n_kv_heads",
)  # fmt: skip
"""The names of these numbers, of which the first that is there counts."""


def text_config_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of config.json that describes the language model."""
    for name in _TEXT_CONFIGS:
        nested = config.get(name)
        if isinstance(nested, Mapping):
            return text_config_of(nested) if name in _NESTING else nested
    nested = config.get("config")  # Moondream keeps everything one level down
    if isinstance(nested, Mapping) and isinstance(nested.get("text"), Mapping):
        return cast("Mapping[str, Any]", nested["text"])
    return config


def positive(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of these fields that holds a positive whole number."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def believed(config: Mapping[str, Any], *names: str) -> int | None:
    """:func:`positive` for a number of layers or heads; None also for one that no model has. Whoever counts up to it
    would run out of memory.
    """
    count = positive(config, *names)
    return count if count is not None and count <= MOST_LAYERS else None


def not_believed(config: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The fields of a config.json whose numbers of layers or heads no model has, with the number."""
    text = text_config_of(config)
    for name in (*LAYERS, *DRAFTS, *HEADS, *KV_HEADS):
        count = positive(text, name)
        if count is not None and count > MOST_LAYERS:
            yield name, count


def of_each_layer(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The text config as each decoder layer reads it: with what ``per_layer_config`` puts in its place there. Gemma 4's
    config class makes one for the layers with full attention where there is none (transformers 5.20,
    Gemma4TextConfig).
    """
    text, kinds = text_config_of(config), layer_kinds(config)
    own = text.get("per_layer_config")
    if not may_differ(text):
        return (text,) * len(kinds)
    if "per_layer_config" not in text:
        full = {**text, **_of_full_layers(text)}
        return tuple(full if kind.partition("+")[0] == FULL else text for kind in kinds)
    written = own.items() if isinstance(own, Mapping) else ()
    layers = {int(name): each for name, each in written if _is_index(name) and isinstance(each, Mapping)}
    return tuple({**text, **layers[index]} if index in layers else text for index in range(len(kinds)))


def _is_index(name: str) -> bool:
    return name.isdecimal() and len(name) <= len(str(MOST_LAYERS))


def _of_full_layers(text: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"head_dim": text.get("global_head_dim", 512)}
    if text.get("model_type") == _CHOOSES_PERIOD:
        found["num_key_value_heads"] = text.get("num_global_key_value_heads", 1)
    elif text.get("num_global_key_value_heads") is not None and (
        text.get("model_type") == "diffusion_gemma_text" or text.get("attention_k_eq_v")
    ):
        found["num_key_value_heads"] = text["num_global_key_value_heads"]
    return found


def may_differ(text: Mapping[str, Any]) -> bool:
    """Whether a text config's layers may read other values than it holds: :func:`of_each_layer` tells."""
    return text.get("model_type") in _GEMMA4


def layer_kinds(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The kind of every decoder layer, in order; an empty tuple when neither the config nor its class says how many
    there are, or the config claims more than :data:`core.naming.conventions.MOST_LAYERS`.

    The first source below that applies decides; where none does, every layer has full attention.
    """
    text = text_config_of(config)
    count = believed(text, *LAYERS) or 0
    kinds = _told(text, count)
    if not kinds and not any(name in text for name in LAYERS):
        own = default_of("layers", text, config) or 0
        kinds = _told(text, own) if isinstance(own, int) else list(own)
    if len(kinds) > MOST_LAYERS:
        return ()
    if kinds and may_differ(text):
        kinds[-1] = FULL  # whatever is listed (transformers 5.20, Gemma4TextConfig)
    kinds = [_OLDER_NAMES.get(kind, kind) for kind in kinds]
    shared = positive(text, "num_kv_shared_layers") or 0
    first_shared = len(kinds) - shared if 0 < shared < len(kinds) else len(kinds)
    return tuple(kind + KV_SHARED if index >= first_shared else kind for index, kind in enumerate(kinds))


def _told(text: Mapping[str, Any], count: int) -> list[str]:
    return next((found for source in _SOURCES if (found := source(text, count))), [FULL] * count)


# Each source reads a config in its own way: the kinds, or nothing where the config does not speak that way.


def _blocks(text: Mapping[str, Any], _count: int) -> list[str]:
    """``layers_block_type``: Zamba2, NemotronH, Granite hybrid; its length counts, whatever else the config says."""
    return _strings(text.get("layers_block_type"))


def _letters(text: Mapping[str, Any], _count: int) -> list[str]:
    """``hybrid_override_pattern``: NemotronH (``M`` Mamba, ``*`` attention, ``-`` MLP, ``E`` experts)."""
    pattern = text.get("hybrid_override_pattern")
    if not isinstance(pattern, str):
        return []
    return [_HYBRID_LETTERS.get(letter, letter) for letter in pattern if letter != "|"]


def _pairs(text: Mapping[str, Any], count: int) -> list[str]:
    """Cosmos3 Edge: attention and MLP are layers of their own (vLLM 0.33.0, ``cosmos3_edge._to_nemotron_h_config``)."""
    return [FULL, "mlp"] * count if text.get("model_type") == "cosmos3_edge_text" else []


def _types(text: Mapping[str, Any], count: int) -> list[str]:
    """``layer_types``, the common way; longer lists also name draft layers."""
    types = _strings(text.get("layer_types"))
    return types[:count] if count and len(types) >= count else types if not count else []


def _full_indexes(text: Mapping[str, Any], count: int) -> list[str]:
    """``full_attn_idxs``: LFM2, whose other layers are convolutions."""
    indexes = _whole_numbers(text.get("full_attn_idxs"))
    if indexes is None:
        return []
    return [FULL if index in indexes else "conv" for index in range(count)]


def _numbered(text: Mapping[str, Any], count: int) -> list[str]:
    """``linear_attn_config.kda_layers``, counted from 1 (vLLM 0.33.0, ``KimiLinearConfig.is_kda_layer``)."""
    linear = text.get("linear_attn_config")
    layers = _whole_numbers(linear.get("kda_layers")) if isinstance(linear, Mapping) else None
    if layers is None:
        return []
    return [LINEAR if index + 1 in layers else FULL for index in range(count)]


def _groups(text: Mapping[str, Any], count: int) -> list[str]:
    """``layer_group_size``: Bailing 2.5 and 3 end each group with full attention; in version 3 also the layers after
    the last whole group have it (vLLM 0.33.0, ``is_linear_layer`` and ``_is_kda_layer``).
    """
    size = positive(text, "layer_group_size")
    if size is None:
        return []
    grouped = count // size * size if "v3" in str(text.get("model_type", "")).lower() else count
    return [FULL if (index + 1) % size == 0 or index >= grouped else LINEAR for index in range(count)]


def _periods(text: Mapping[str, Any], count: int) -> list[str]:
    """``attn_layer_period`` and ``attn_layer_offset``: Jamba, by default 8 and 4 (transformers' ``JambaConfig``)."""
    jamba = text.get("model_type") == "jamba"
    period = positive(text, "attn_layer_period") or (8 if jamba else None)
    if period is None:
        return []
    offset = text.get("attn_layer_offset", 4)
    return [FULL if index % period == offset else LINEAR for index in range(count)]


def _no_ops(text: Mapping[str, Any], _count: int) -> list[str]:
    """``block_configs``: pruned models without attention in some layers (vLLM 0.33.0, ``nemotron_nas.py``)."""
    blocks = text.get("block_configs")
    if not isinstance(blocks, list) or not all(isinstance(block, Mapping) for block in blocks):
        return []
    attention = [block.get("attention") for block in blocks]
    return [NONE if isinstance(each, Mapping) and each.get("no_op") else FULL for each in attention]


def _sparse(text: Mapping[str, Any], count: int) -> list[str]:
    """``sparse_attention_config.sparse_attention_freq``: MiniMax M3 (vLLM 0.33.0, ``_sparse_attention_layer_ids``)."""
    sparse = text.get("sparse_attention_config")
    marks = sparse.get("sparse_attention_freq") if isinstance(sparse, Mapping) else None
    if not isinstance(marks, list):
        return []
    return ["sparse_attention" if index < len(marks) and marks[index] else FULL for index in range(count)]


def _interval(text: Mapping[str, Any], count: int) -> list[str]:
    """``full_attention_interval``, or the config class's own: Qwen3-Next, Qwen3.5, OLMo hybrid."""
    interval = positive(text, "full_attention_interval") or _INTERVALS.get(str(text.get("model_type")))
    if interval is None:
        return []
    return [LINEAR if (index + 1) % interval else FULL for index in range(count)]


def _five_to_one(text: Mapping[str, Any], count: int) -> list[str]:
    """Gemma 4 and its kin where nothing is listed: every sixth layer has full attention (their config classes)."""
    if not may_differ(text):
        return []
    period = (positive(text, "sliding_window_pattern") if text.get("model_type") == _CHOOSES_PERIOD else None) or 6
    return ["sliding_attention" if (index + 1) % period else FULL for index in range(count)]


def _all_linear(text: Mapping[str, Any], count: int) -> list[str]:
    """Models that have no attention unless the config says where."""
    return [LINEAR] * count if text.get("model_type") in ("granitemoehybrid", "mamba", "mamba2", "falcon_mamba") else []


_SOURCES: tuple[Callable[[Mapping[str, Any], int], list[str]], ...] = (
    _blocks, _letters, _pairs, _types, _full_indexes, _numbered, _groups, _periods, _no_ops, _sparse, _interval,
    _five_to_one, _all_linear,
)  # fmt: skip


def _whole_numbers(value: object) -> frozenset[int] | None:
    """Those in a JSON list; None for anything else."""
    return frozenset(each for each in value if isinstance(each, int)) if isinstance(value, list) else None


def _strings(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
