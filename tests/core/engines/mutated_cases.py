"""Real checkpoints, changed from a seed as other tools, older versions and hands change them: fields that the config's
class knows, other places and layouts of the quantization config, other shapes, types, values and names of the scales.
"""

from __future__ import annotations

import copy
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from core.checkpoint import open_checkpoint
from core.naming.conventions import recognise
from tests.core.engines.random_cases import RandomCase
from tests.places import checkpoint_folders

_FIELDS = (
    "architectures", "attention_bias", "dtype", "head_dim", "hidden_act", "layer_types", "max_position_embeddings",
    "num_attention_heads", "num_hidden_layers", "num_key_value_heads", "q_lora_rank", "rope_parameters",
    "sliding_window", "tie_word_embeddings",
)  # fmt: skip
_SIBLINGS = {
    "LlamaForCausalLM": (
        "MistralForCausalLM", "LlamaModel", "LlamaForSequenceClassification", "Qwen2ForCausalLM", "GraniteForCausalLM",
        "LlamaForTokenClassification", "AquilaForCausalLM",
    ),
    "Qwen2ForCausalLM": ("LlamaForCausalLM", "Qwen2Model", "Qwen2ForSequenceClassification", "Qwen2ForRewardModel"),
    "Qwen3ForCausalLM": ("Qwen3ForSequenceClassification", "Qwen3Model", "Qwen2ForCausalLM"),
}  # fmt: skip
_CONFIGS: tuple[dict[str, Any], ...] = (
    {"quant_method": "fp8", "activation_scheme": "static"},
    {"quant_method": "compressed-tensors"},
    {"quant_method": "compressed-tensors", "config_groups": {}},
    {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True},
    {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
    {"quant_method": "modelopt", "quantization": {"quant_algo": "FP8", "exclude_modules": ["lm_head"]}},
    {
        "producer": {"name": "modelopt", "version": "0.23.0"},
        "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16, "exclude_modules": []},
    },
    {},
)
_SCHEMES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("strategy", ("tensor", "attn_head", "channel", "token", "TENSOR", None)),
    ("dynamic", (True, "local", None)),
    ("num_bits", (4, "8", 8.0, None)),
    ("type", ("int", "FLOAT", None)),
    ("symmetric", (False, None, 1)),
)
_IGNORED: tuple[Any, ...] = (
    ["re:.*self_attn.*", "lm_head"], ["model.layers.0.self_attn"], ["*self_attn*"], ["model.layers.1.self_attn.attn"],
    ["model.layers.0.self_attn.k_proj", "model.layers.0.self_attn.v_proj"], ["*.attn"], ["*"], ["model.layers.0*"],
    ["self_attn"], ["Attention"], None,
)  # fmt: skip
_SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (1, 1), (1, 1, 1), (2,), (2, 1), (2, 1, 1), (4, 1, 1), (3,), (1, 4))
_VALUES = (0.0, -1.0, math.nan, math.inf, -math.inf, 1e-30, 3e38, 448.0, 65536.0)
_SCALE = re.compile(r"self_attn\.(?:[kvq]_proj\.)?([kvq])_scale$")
_NAMES: tuple[tuple[str, str], ...] = (
    (_SCALE.pattern, r"self_attn.\1_proj.\1_scale"),
    (_SCALE.pattern, r"self_attn.\1_proj.output_scale"),
    (_SCALE.pattern, r"self_attn.attn.\1_scale"),
    (_SCALE.pattern, r"self_attn.attn.impl.\1_scale"),
    (_SCALE.pattern, r"self_attn.qkv_proj.\1_scale"),
    (_SCALE.pattern, r"self_attn.\1_cache.scale"),
    (_SCALE.pattern, r"self_attn.\1_scale"),
    (r"(?:k_proj\.)?k_scale$|k_proj\.output_scale$", "kv_scale"),
    (r"^model\.", ""),
    (r"^model\.", "language_model.model."),
    (r"^model\.", "model.language_model."),
    (r"^", "module."),
    (r"self_attn", "mixer"),
    (r"layers\.0\.", "layers.9."),
    (r"([kv])_scale$", r"\1_global_scale"),
)
_ADDED = (
    "q_scale", "attn.q_scale", "q_proj.q_scale", "attn.prob_scale", "k_zero_point", "q_zero_point", "kv_scale",
    "k_proj.output_zero_point", "prob_output_scale", "o_proj.output_scale", "k_proj.k_bias", "attn.k_scale",
)  # fmt: skip


@dataclass
class _Draft:
    config: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
    files: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> dict[str, Any]:
        text: dict[str, Any] = self.config.get("text_config", self.config)
        return text

    @property
    def quantization(self) -> dict[str, Any]:
        found = self.config.get("quantization_config")
        return found if isinstance(found, dict) else {}


def mutated_cases(seed: int, count: int) -> Iterator[RandomCase]:
    """``count`` cases, the same for the same seed; families of which there are few checkpoints come as often."""
    chance = random.Random(seed)  # noqa: S311  (the same cases for the same seed)
    families: dict[str, list[str]] = {}
    for name in sorted(checkpoint_folders()):
        if (found := _real(name)) is not None:
            families.setdefault(found.config["architectures"][0], []).append(name)
    for number in range(count):
        chosen = chance.choice(sorted(families))
        name = chance.choice(families[chosen])
        draft = copy.deepcopy(_real(name))
        assert draft is not None
        for _ in range(chance.choice((1, 1, 2, 3))):
            chance.choice(_CHANGES)(chance, draft)
        yield RandomCase(
            name=f"{number:04}-{name.replace('/', '-')}",
            config=draft.config,
            tensors=draft.tensors,
            kv_cache_dtype=chance.choices(("fp8", "auto", "fp8_e5m2"), (6, 5, 1))[0],
            dtype=chance.choices(("bfloat16", "float16"), (5, 1))[0],
            files=draft.files,
        )


_known: dict[str, _Draft | None] = {}


def _real(name: str) -> _Draft | None:
    """A real checkpoint as it is; None for one that has no architecture or no scale."""
    if name not in _known:
        checkpoint = open_checkpoint(checkpoint_folders()[name])
        config = checkpoint.config("config.json") or {}
        scales = [key for key in checkpoint.catalog.names if recognise(key) is not None][:60]
        tensors = {
            key: {"shape": list(found.shape), "dtype": "F32", "values": list(found.values)}
            for key, found in checkpoint.read(scales, limit=64).items()
            if found.fault is None
        }
        listed = isinstance(config.get("architectures"), list)
        _known[name] = _Draft(dict(config), tensors) if listed and tensors else None
    return _known[name]


def _field_left_out(chance: random.Random, draft: _Draft) -> None:
    text = draft.text
    there = [name for name in _FIELDS if name in text and (name != "num_attention_heads" or "head_dim" in text)]
    text.pop(chance.choice(there or ["none"]), None)


def _sizes(chance: random.Random, draft: _Draft) -> None:
    text = draft.text
    if isinstance(text.get("num_hidden_layers"), int) and "per_layer_config" not in text:
        count = text["num_hidden_layers"] = chance.choice((1, 3, 4, 6))
        if isinstance(text.get("layer_types"), list):
            text["layer_types"] = (text["layer_types"] * count)[:count]
    if "num_key_value_heads" in text and chance.random() < 0.5:
        text["num_key_value_heads"] = chance.choice((1, 2, 4, 3))


def _scheme(chance: random.Random, draft: _Draft) -> None:
    quantization = draft.quantization
    scheme = quantization.get("kv_cache_scheme")
    if not isinstance(scheme, dict) or chance.random() < 0.2:
        if quantization:
            quantization["kv_cache_scheme"] = chance.choice((None, {}, "FP8", {"num_bits": 8, "type": "float"}))
        return
    name, values = chance.choice(_SCHEMES)
    scheme[name] = chance.choice(values)


def _place(chance: random.Random, draft: _Draft) -> None:
    quantization = draft.config.get("quantization_config")
    match chance.choice(("file", "both", "nested", "compression", "other", "null", "none", "nameless")):
        case "file":
            draft.files["hf_quant_config.json"] = draft.config.pop("quantization_config", {})
        case "both":
            draft.files["hf_quant_config.json"] = chance.choice(_CONFIGS)
        case "nested" if draft.text is not draft.config:
            draft.text["quantization_config"] = draft.config.pop("quantization_config", {})
        case "compression":
            draft.config["compression_config"] = draft.config.pop("quantization_config", {})
        case "other":
            draft.config["quantization_config"] = chance.choice(_CONFIGS)
        case "null":
            draft.config["quantization_config"] = None
        case "none":
            draft.config.pop("quantization_config", None)
        case _ if isinstance(quantization, dict):
            quantization.pop("quant_method", None)
        case _:
            pass


def _ignored(chance: random.Random, draft: _Draft) -> None:
    names = ("ignore", "exclude", "exclude_modules", "ignored_layers")
    if draft.quantization:
        name = next((each for each in names if each in draft.quantization), "ignore")
        draft.quantization[name] = chance.choice(_IGNORED)


def _architecture(chance: random.Random, draft: _Draft) -> None:
    named = draft.config.get("architectures") or [""]
    if named[0] in _SIBLINGS:
        others = [chance.choice(_SIBLINGS[named[0]]), "BrandNewForCausalLM"]
        draft.config["architectures"] = [chance.choice(others), *chance.choice(([], named))]
        if draft.config["architectures"] == ["BrandNewForCausalLM"]:
            draft.config["architectures"] = named


def _types(chance: random.Random, draft: _Draft) -> None:
    share, dtype = chance.choice((0.3, 1.0)), chance.choice(("BF16", "F16", "F64", "I32"))
    for tensor in draft.tensors.values():
        if chance.random() < share:
            tensor["dtype"] = dtype


def _shape(chance: random.Random, draft: _Draft) -> None:
    share, shape = chance.choice((0.2, 1.0, 1.0)), chance.choice(_SHAPES)
    for tensor in draft.tensors.values():
        if chance.random() < share:
            first = (*tensor["values"], 0.5)[0]
            values = [first * (1 + index / 8) for index in range(math.prod(shape))]
            tensor |= {"shape": list(shape), "values": values}


def _value(chance: random.Random, draft: _Draft) -> None:
    share, value = chance.choice((0.1, 0.5)), chance.choice(_VALUES)
    for tensor in draft.tensors.values():
        if chance.random() < share:
            tensor["values"] = [value, *tensor["values"][1:]][: math.prod(tensor["shape"])]


def _some_left_out(chance: random.Random, draft: _Draft) -> None:
    role, share = chance.choice(("k", "v", "kv")), chance.choice((0.4, 1.0))
    gone = [
        name
        for name in draft.tensors
        if any(f"{each}_scale" in name or f"{each}_proj." in name for each in role) and chance.random() < share
    ]
    for name in gone[: len(draft.tensors) - 1]:
        del draft.tensors[name]


def _renamed(chance: random.Random, draft: _Draft) -> None:
    share, (pattern, new) = chance.choice((1.0, 1.0, 0.5)), chance.choice(_NAMES)
    draft.tensors = {
        re.sub(pattern, new, name, count=1) if chance.random() < share else name: tensor
        for name, tensor in draft.tensors.items()
    }


def _added(chance: random.Random, draft: _Draft) -> None:
    leaf = chance.choice(_ADDED)
    for module in sorted({re.sub(r"(\.[kvq]_proj)?\.[^.]+$", "", name) for name in draft.tensors}):
        if chance.random() < 0.7:
            shape = chance.choice(((), (1,), (1,), (2,), (4, 1, 1)))
            values = [chance.choice((0.25, 0.5, 2.0, -1.0, 0.0)) for _ in range(math.prod(shape))]
            draft.tensors[f"{module}.{leaf}"] = {"shape": list(shape), "dtype": "F32", "values": values}


_CHANGES: tuple[Callable[[random.Random, _Draft], None], ...] = (
    _field_left_out, _field_left_out, _sizes, _scheme, _scheme, _place, _place, _ignored, _architecture, _types, _shape,
    _value, _some_left_out, _renamed, _renamed, _added,
)  # fmt: skip
