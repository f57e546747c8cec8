"""Random scale-only checkpoints from a seed: architectures, methods, conventions, shapes and values mixed as
nobody would on purpose, and as tools do by accident.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from core.architectures import AutoLoader, ModuleNode, build_model, how_surveyed
from core.architectures.heads import HeadCounts
from core.architectures.layers import layer_kinds
from core.checkpoint import open_checkpoint
from core.naming.conventions import layer_number, recognise
from core.naming.mapper import RuleKind
from resources import resource
from tests.golden_data import golden, write_case
from tests.places import checkpoint_folders

_STYLES: dict[str, tuple[str, ...]] = {
    "portable": ("{m}.k_scale", "{m}.v_scale", "{m}.q_scale"),
    "zero-points": ("{m}.k_scale", "{m}.v_scale", "{m}.k_zero_point", "{m}.v_zero_point", "{m}.q_zero_point"),
    "modelopt": ("{m}.k_proj.k_scale", "{m}.v_proj.v_scale"),
    "modelopt-q": ("{m}.k_proj.k_scale", "{m}.v_proj.v_scale", "{m}.q_proj.q_scale"),
    "quark": ("{m}.k_proj.output_scale", "{m}.v_proj.output_scale"),
    "quark-attention": (
        "{m}.k_proj.output_scale", "{m}.v_proj.output_scale", "{m}.q_proj.output_scale", "{m}.prob_output_scale",
    ),
    "kv": ("{m}.kv_scale",),
    "fused": ("{m}.qkv_proj.k_scale", "{m}.qkv_proj.v_scale"),
    "artefact": ("{m}.qkqkv_proj.k_scale", "{m}.qkqkv_proj.v_scale"),
    "runtime": ("{m}.attn.k_scale", "{m}.attn.v_scale", "{m}.attn.q_scale", "{m}.attn.prob_scale"),
    "mla-runtime": ("{m}.mla_attn.mla_attn.k_scale", "{m}.mla_attn.mla_attn.v_scale"),
    "hyv3": ("{m}.q.scale", "{m}.k_cache.scale", "{m}.v_cache.scale"),
    "stray": ("{m}.k_scale", "{m}.v_scale", "{m}.o_proj.output_scale"),
    "global": ("{m}.k_global_scale", "{m}.v_global_scale"),
    "zero-point-outputs": ("{m}.k_proj.output_scale", "{m}.k_proj.output_zero_point"),
}  # fmt: skip
_COMMON = ("portable", "modelopt", "kv", "runtime", "quark", "zero-points")
_SHAPES: tuple[tuple[tuple[int, ...], float], ...] = (
    ((), 1.0), ((1,), 0.4), ((1, 1, 1), 0.05), ((2,), 0.05), ((2, 1, 1), 0.1), ((4,), 0.05), ((4, 1, 1), 0.05),
)  # fmt: skip
_VALUES = (0.0, -1.0, 1.0, float("nan"), float("inf"), 1e-30, 3e38, -1.3e29, 0.3, 0.0078125)
_PARTS = (
    "layers", "self_attn", "attn", "mla_attn", "k_proj", "v_proj", "q_proj", "qkv_proj", "model", "kv_scale", "k_scale",
    "output_scale", "experts", "0", "1", "7", "mtp", "visual", "language_model", "layer", "mlp", "impl", "decoder",
)  # fmt: skip
_MODULES = {
    "GPT2LMHeadModel": "transformer.h.{i}.attn",
    "GptOssForCausalLM": "model.layers.{i}.self_attn",
    "NemotronHForCausalLM": "backbone.layers.{i}.mixer",
    "Qwen3_5ForConditionalGeneration": "model.language_model.layers.{i}.self_attn",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomCase:
    """One case: ``tensors`` as golden cases hold them (shape, dtype, values); ``files`` stand beside config.json."""

    name: str
    config: dict[str, Any]
    tensors: dict[str, dict[str, Any]]
    kv_cache_dtype: str
    dtype: str
    files: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """The case as a checkpoint."""
        written = write_case(folder, self.config, self.tensors)
        for name, content in self.files.items():
            (written / name).write_text(json.dumps(content))
        return written


def random_cases(seed: int, count: int) -> Iterator[RandomCase]:
    """``count`` cases, the same for the same seed."""
    chance = random.Random(seed)  # noqa: S311  (the same cases for the same seed)
    configs = golden("vllm-0.33.0", "cases")["configs"]
    names = sorted(configs)
    for number in range(count):
        chosen = chance.choice(names)
        config = configs[chosen]
        yield RandomCase(
            name=f"{number:04}-{chosen}",
            config=config,
            tensors=_tensors(chance, _modules(config)),
            kv_cache_dtype=chance.choices(("fp8", "auto", "fp8_e4m3", "bfloat16", "fp8_e5m2"), (6, 4, 1, 1, 1))[0],
            dtype=chance.choices(("bfloat16", "float16"), (4, 1))[0],
        )


def surveyed_cases(seed: int, count: int) -> Iterator[RandomCase]:
    """``count`` cases over every architecture that the survey built on a CPU, the same for the same seed.

    The scales lie where that model's attention layers are, spelled as vLLM spells them or as a checkpoint may.
    """
    chance = random.Random(seed)  # noqa: S311  (the same cases for the same seed)
    configs = {
        name: config
        for name, config in tiny_configs().items()
        if how_surveyed(name).startswith("executed") and "draft_of" not in config and "gpu" not in config
    }
    methods = {
        name.removeprefix("llama-"): config["quantization_config"]
        for name, config in golden("vllm-0.33.0", "cases")["configs"].items()
        if name.startswith("llama-") and "quantization_config" in config
    }
    names = sorted(configs)
    for number in range(count):
        chosen, method = chance.choice(names), chance.choice(sorted(methods))
        config = {**configs[chosen], "quantization_config": methods[method]}
        root = build_model(chosen, config, method=methods[method]["quant_method"])
        paths = [path for path, _ in root.attention_layers()] if root is not None else []
        shown = [chance.choice(_spellings(root, path)) for path in paths if root is not None]
        yield RandomCase(
            name=f"{number:04}-{chosen}-{method}",
            config=config,
            tensors=_tensors(chance, shown or ["model.layers.0.self_attn"]),
            kv_cache_dtype=chance.choices(("fp8", "auto"), (3, 1))[0],
            dtype="bfloat16",
        )


def per_head_cases(seed: int, count: int) -> Iterator[RandomCase]:
    """``count`` cases with a scale for each head: of models whose config names other heads, not all of them or none,
    and whose layers differ; in the shapes that tools write, and in wrong ones.
    """
    chance = random.Random(seed)  # noqa: S311  (the same cases for the same seed)
    known = golden("vllm-0.33.0", "cases")["configs"]
    quantization = known["llama-ct_head"]["quantization_config"]
    configs = {name: config for name, config in known.items() if name.endswith("-ct_head")} | {
        name: {**tiny_configs()[name], "quantization_config": quantization} for name in _DIFFERING
    }
    for number in range(count):
        chosen = chance.choice(sorted(configs))
        config = _with_heads(chance, json.loads(json.dumps(configs[chosen])))
        counts = HeadCounts(config)
        root = build_model(config["architectures"][0], config, method="compressed-tensors")
        paths = [path for path, _ in root.attention_layers()] if root is not None else []
        tensors: dict[str, dict[str, Any]] = {}
        for path in paths:
            layer = layer_number(path)
            module = chance.choice(_spellings(root, path)) if root is not None else path
            kv = counts.of(layer).kv if chance.random() < 0.9 else chance.choice((counts.model.kv, 1, 2, 3, 4, 8))
            for role in "kvq":
                heads = counts.model.query if role == "q" else kv
                shape = chance.choices(_of_heads(heads), (8, 4, 4, 2, 2, 1, 1))[0]
                if chance.random() < (0.4 if role == "q" else 0.95):
                    values = [_value(chance) for _ in range(math.prod(shape))]
                    tensors[f"{module}.{role}_scale"] = {"shape": list(shape), "dtype": "F32", "values": values}
        yield RandomCase(
            name=f"{number:04}-{chosen}",
            config=config,
            tensors=tensors or {f"{chosen}.k_scale": {"shape": [1], "dtype": "F32", "values": [0.5]}},
            kv_cache_dtype=chance.choice(("auto", "fp8")),
            dtype="bfloat16",
        )


_DIFFERING = (
    "Gemma4ForCausalLM", "Gemma4ForConditionalGeneration", "MiMoV2FlashForCausalLM", "DeciLMForCausalLM",
    "Step3p5ForCausalLM", "Step3TextForCausalLM", "MiniCPM3ForCausalLM", "DbrxForCausalLM", "GPTBigCodeForCausalLM",
    "ChatGLMForConditionalGeneration", "WhisperForConditionalGeneration", "FalconForCausalLM",
)  # fmt: skip
"""Models whose layers have heads of their own, or whose configs call them otherwise."""


def _with_heads(chance: random.Random, config: dict[str, Any]) -> dict[str, Any]:
    """The config with other numbers of heads, or without some that its class knows."""
    text = config.get("text_config", config)
    before = dict(text)
    heads, kv_heads = "num_attention_heads", "num_key_value_heads"
    match chance.choice(("as it is", "one", "all", "few", "no key/value heads", "none", "differing")):
        case "one" if kv_heads in text:
            text[kv_heads] = 1
        case "all" if kv_heads in text and heads in text:
            text[kv_heads] = text[heads]
        case "few" if kv_heads in text and heads in text:
            text[heads], text[kv_heads] = 8, chance.choice((2, 4))
        case "no key/value heads":
            text.pop(kv_heads, None)
        case "none":
            text.pop(kv_heads, None)
            text.pop(heads, None)
        case "differing":
            _differ(chance, text, len(layer_kinds(config)))
        case _:
            pass
    if not HeadCounts(config).known:
        text |= before
    return config


def _differ(chance: random.Random, text: dict[str, Any], layers: int) -> None:
    """Give some layers heads of their own, in the way that this model has."""
    count = chance.choice((1, 2, 4))
    if "swa_num_key_value_heads" in text:
        text["swa_num_key_value_heads"] = count
    elif "block_configs" in text:
        text["block_configs"][0]["attention"]["n_heads_in_group"] = count
    elif "num_attention_groups" in text:
        text["num_attention_groups"] = max(count, 2)
    elif str(text.get("model_type")).startswith("gemma4"):
        text |= {"attention_k_eq_v": chance.random() < 0.5, "num_global_key_value_heads": count}
        if chance.random() < 0.5:
            del text["per_layer_config"]
        else:
            own = [layer for layer in range(layers) if chance.random() < 0.5]
            text["per_layer_config"] = {str(layer): {"num_key_value_heads": chance.choice((1, 2, 4))} for layer in own}


def _of_heads(heads: int) -> tuple[tuple[int, ...], ...]:
    return (heads, 1, 1), (heads,), (1,), (), (heads, 1), (heads + 1,), (2 * heads,)


def renamed_cases(seed: int, count: int) -> Iterator[RandomCase]:
    """The scales of real checkpoints, some of them under names that lost a part, or got another one."""
    chance = random.Random(seed)  # noqa: S311  (the same cases for the same seed)
    for number in range(count):
        name = chance.choice([name for name in sorted(checkpoint_folders()) if _real(name) is not None])
        config, tensors = _real(name) or ({}, {})
        share = chance.choice((0.05, 0.25))
        yield RandomCase(
            name=f"{number:04d}-{name.replace('/', '-')}",
            config=config,
            tensors={_renamed(chance, key) if chance.random() < share else key: told for key, told in tensors.items()},
            kv_cache_dtype=chance.choice(("auto", "fp8")),
            dtype="bfloat16",
        )


@cache
def _real(name: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]] | None:
    """Config and float32 scales of a real checkpoint; None for one without."""
    checkpoint = open_checkpoint(checkpoint_folders()[name])
    scales = [key for key in checkpoint.catalog.names if recognise(key) is not None][:60]
    tensors = {
        key: {"shape": list(found.shape), "dtype": "F32", "values": found.values}
        for key, found in checkpoint.read(scales, limit=64).items()
        if found.fault is None
    }
    config = checkpoint.config("config.json")
    return (dict(config), tensors) if config and tensors else None


def _renamed(chance: random.Random, key: str) -> str:
    *parts, leaf = key.split(".")
    for _ in range(chance.choice((1, 1, 2))):
        place, part = chance.randrange(len(parts) + 1), chance.choice(_PARTS)
        match chance.choice(("replace", "insert", "drop", "lengthen")):
            case "insert":
                parts.insert(place, part)
            case "replace":
                parts[place : place + 1] = [part]
            case "drop":
                del parts[place : place + 1]
            case "lengthen":
                parts[place : place + 1] = [f"{kept}_{part}" for kept in parts[place : place + 1]]
    return ".".join((*parts, leaf))


@cache
def tiny_configs() -> dict[str, dict[str, Any]]:
    """The configs that the survey built its models from."""
    written: dict[str, dict[str, Any]] = json.loads(resource("architectures", "configs.json").read_text())["configs"]

    def whole(name: str) -> dict[str, Any]:
        entry = dict(written[name])
        return {**(whole(entry.pop("like")) if "like" in entry else {}), **entry}

    return {name: {**whole(name), "architectures": [name]} for name in written}


def _spellings(root: ModuleNode, path: str) -> list[str]:
    """The attention module of a layer, under the engine's name and under those that the model's own rules map to it."""
    module = path.removesuffix(".mla_attn.mla_attn").removesuffix(".attn")
    found = [module]
    if isinstance(root.loader, AutoLoader):
        for rule in root.loader.mapper.rules:
            new = rule.replacement
            if rule.kind is RuleKind.PREFIX and new and rule.pattern and module.startswith(new):
                found.append(rule.pattern + module.removeprefix(new))
    return found


def _modules(config: dict[str, Any]) -> list[str]:
    module = _MODULES.get(config["architectures"][0], "model.layers.{i}.self_attn")
    text = config.get("text_config", config)
    return [module.format(i=index) for index in range(text.get("num_hidden_layers") or text.get("n_layer") or 2)]


def _tensors(chance: random.Random, modules: Sequence[str]) -> dict[str, dict[str, Any]]:
    main = chance.choice(_COMMON) if chance.random() < 0.7 else chance.choice(sorted(_STYLES))
    shape = chance.choices([row for row, _ in _SHAPES], [weight for _, weight in _SHAPES])[0]
    tensors: dict[str, dict[str, Any]] = {}
    for module in modules:
        if chance.random() < 0.15:
            continue
        style = main if chance.random() < 0.9 else chance.choice(sorted(_STYLES))
        for template in _STYLES[style]:
            if chance.random() < 0.12:
                continue
            own = shape if chance.random() < 0.95 else chance.choice(_SHAPES)[0]
            size = 1
            for length in own:
                size *= length
            tensors[template.format(m=module)] = {
                "shape": list(own),
                "dtype": "F32",
                "values": [
                    chance.choice(_VALUES) if chance.random() < 0.15 else chance.uniform(0.001, 0.9)
                    for _ in range(size)
                ],
            }
    if not tensors:
        tensors[f"{modules[0]}.k_scale"] = {"shape": [], "dtype": "F32", "values": [0.5]}
    return tensors


def _value(chance: random.Random) -> float:
    return chance.choice(_VALUES) if chance.random() < 0.15 else chance.uniform(0.001, 0.9)
