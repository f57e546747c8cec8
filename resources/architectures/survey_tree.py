"""The module classes of one vLLM model and of many: what ``survey_vllm.py`` records of a model that was built."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from core.architectures.layers import layer_kinds

SCALES = ("q_scale", "k_scale", "v_scale", "prob_scale", "q_zero_point", "k_zero_point", "v_zero_point")
PROBES = (
    "layers.0.self_attn.k_proj.k_scale",
    "model.layers.0.self_attn.k_scale",
    "language_model.model.layers.1.x.weight",
    "layers.0.attention.wk.k_fake_quantizer.qscale_act",
    "transformer.h.0.attn.k_scale",
    "bert.encoder.layer.0.attention.self.k_scale",
    "roberta.encoder.layer.0.attention.self.k_scale",
)
COUNTED = {".mixer.attn": ["n_recurrent_loops"]}
"""Lists of attention layers that are counted by a field of the config: by the end of their path."""


def rules_of(mapper: Any) -> dict[str, Any]:
    """A WeightsMapper of vLLM as rows of pattern, replacement and, for stacked rules, shard; by kind."""
    if mapper is None:
        return {}
    found: dict[str, Any] = {}
    for kind in ("regex", "substr", "stacked", "prefix", "suffix"):
        pairs = []
        for pattern, new in getattr(mapper, f"orig_to_new_{kind}", {}).items():
            text = pattern.pattern if kind == "regex" else pattern
            pairs.append([text, *new] if kind == "stacked" else [text, new])
        if pairs:
            found[kind] = pairs
    renaming = getattr(mapper, "orig_to_new_renaming", None) or getattr(mapper, "orig_to_new_renamings", None)
    if renaming:
        found["renaming"] = [
            [source, target]
            for rule in renaming
            for source, target in zip(rule.source_patterns, rule.target_patterns, strict=True)
        ]
    return found


def by_kind(loader: dict[str, Any], kinds: tuple[str, ...]) -> dict[str, Any]:
    """Rules that name single layers, folded into one rule with ``{layer}`` for each kind of layer."""
    mapper = loader.get("mapper")
    if not mapper:
        return loader
    folded: dict[str, list[list[Any]]] = {}
    for kind, pairs in mapper.items():
        seen: list[list[Any]] = []
        for pattern, new, *shard in pairs:
            found = re.search(r"(?<![0-9A-Za-z_])layers\.(\d+)\.", pattern)
            row: list[Any] = [pattern, new, *shard]
            if found:
                number = f"layers.{found.group(1)}."
                index = int(found.group(1))
                row = [
                    pattern.replace(number, "layers.{layer}."),
                    new.replace(number, "layers.{layer}.") if new else new,
                    *shard,
                    {"kind": kinds[index] if index < len(kinds) else "draft"},
                ]
            if row not in seen:
                seen.append(row)
        folded[kind] = seen
    return {**loader, "mapper": folded}


def written_in(module: Any) -> str:
    """The file and class a loader is written in: ``llama4.Llama4Model``, ``kimi_k3.nvidia.linear.KimiModel``.

    vLLM's wrapper for pooling models only chooses a prefix, and hands on to the loader of the class it wraps.
    """
    written = [cls.__dict__["load_weights"] for cls in type(module).__mro__ if "load_weights" in cls.__dict__]
    function = next(each for each in (*written, module.load_weights) if "ModelForPooling" not in each.__qualname__)
    file = re.sub(r"^vllm\.(model_executor\.(models|layers)|models)\.", "", function.__module__)
    return f"{file}.{function.__qualname__.removesuffix('.load_weights')}"


class Tree:
    """The module classes of one model; equal structures share one entry."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.modules: dict[str, dict[str, Any]] = {}
        self._config = config
        self._kinds = layer_kinds(config)
        self._visited: set[int] = set()
        self._draft = "draft_of" in config

    def attention_below(self, key: str) -> tuple[str, ...]:
        """The paths of the attention layers in that module."""
        entry = self.modules[key]
        if "attention" in entry:
            return ("",)
        below = {**entry.get("children", {}), **entry.get("each", {})}
        return tuple(f"{name}.{path}" for name, child in below.items() for path in self.attention_below(child))

    def repeated(self, items: list[str], path: str) -> dict[str, Any]:
        """A list of layers as one entry for each kind, and how to count them from a config."""
        counted = len(self._kinds) == len(items)
        if any(self.attention_below(item) for item in items):
            hint = next((fields for place, fields in COUNTED.items() if path.endswith(place)), None)
            if hint is not None or not counted:
                if self._draft and hint is None and len(items) == 1:
                    return {"each": {"*": items[0]}, "count": "drafts"}
                if len(set(items)) > 1:
                    raise ValueError(f"{path}: {len(items)} unequal attention layers for {len(self._kinds)} layers")
                return {"each": {"*": items[-1]}, "count": hint or len(items)}
        elif "vision" in path or "visual" in path or "audio" in path or not counted:
            tower = "audio" if "audio" in path else "vision"
            return {"each": {"*": items[-1]}, "count": [f"{tower}_config.num_hidden_layers", f"{tower}_config.depth"]}
        each: dict[str, str] = {}
        for kind, item in zip(self._kinds, items, strict=True):
            # Dense and expert layers differ outside attention only: the last one stands for both.
            if kind in each and self.attention_below(each[kind]) != self.attention_below(item):
                raise ValueError(f"{path}: layers of the kind {kind!r} differ in their attention")
            each[kind] = item
        same = set(each.values())
        return {"each": {"*": same.pop()} if len(same) == 1 else each, "count": "layer_kinds"}

    def intern(self, node: dict[str, Any]) -> str:
        return intern(self.modules, node)

    def loader(self, module: Any) -> dict[str, Any] | None:
        from vllm.model_executor.layers.linear import LinearBase

        if not callable(getattr(module, "load_weights", None)):
            return None
        if isinstance(module, LinearBase):
            return {"kind": "fused_linear"}
        note = self._watch(module, ())
        if note is None:
            own: dict[str, Any] = {"kind": "own", "of": written_in(module)}
            if rules := rules_of(getattr(module, "hf_to_vllm_mapper", None)):
                own["mapper"] = rules
            return own
        names = note.pop("names")
        for probe in PROBES:
            if self._watch(module, (probe,)) != {**note, "names": [*names, probe]}:
                note["before"] = written_in(module)  # it renames, or chooses its mapper by the names it sees
                break
        if any(cls.__name__ == "ModelForPooling" for cls in type(module).__mro__) and hasattr(module, "model"):
            note.setdefault("before", "adapters.ModelForPooling")
        return note

    def _watch(self, module: Any, probes: tuple[str, ...]) -> dict[str, Any] | None:
        """What the module's loader hands to AutoWeightsLoader when it is given tensors of these names."""
        import torch
        from vllm.model_executor.models.utils import AutoWeightsLoader

        seen: list[dict[str, Any]] = []
        original = AutoWeightsLoader.load_weights

        def record(loader: Any, weights: Any, *, mapper: Any = None) -> set[str]:
            names: list[str] = []
            try:
                names.extend(name for name, _ in weights)
            except Exception as error:  # noqa: BLE001  (it misses tensors that a real checkpoint has)
                print(f"  {type(module).__name__}.load_weights on {len(probes)} probes: {error!r}", file=sys.stderr)
            if loader.module is module:
                note: dict[str, Any] = {"kind": "auto", "names": names}
                if rules := rules_of(mapper):
                    note["mapper"] = rules
                if loader.ignore_unexpected_prefixes:
                    note["ignore_prefixes"] = list(loader.ignore_unexpected_prefixes)
                if loader.ignore_unexpected_suffixes:
                    note["ignore_suffixes"] = list(loader.ignore_unexpected_suffixes)
                # vLLM before 0.33: names to leave out; every loader has the four rotary ones.
                if prefixes := getattr(loader, "skip_prefixes", ()):
                    note["skip_prefixes"] = list(prefixes)
                rotary = getattr(loader, "ROTARY_EMBEDS_UNUSED_WEIGHTS", ())
                if parts := [part for part in getattr(loader, "skip_substrs", ()) if part not in rotary]:
                    note["skip_containing"] = parts
                seen.append(note)
            return set()

        AutoWeightsLoader.load_weights = record
        try:
            module.load_weights(iter([(name, torch.ones(())) for name in probes]))
        except Exception as error:  # noqa: BLE001  (a loader that cannot run on such weights is one of its own kind)
            print(f"  {type(module).__name__}.load_weights on {len(probes)} probes: {error!r}", file=sys.stderr)
        finally:
            AutoWeightsLoader.load_weights = original
        return seen[0] if seen else None

    def node(self, module: Any, path: str = "") -> str | None:
        from torch import nn
        from vllm.model_executor.layers.attention import Attention, MLAAttention

        attends = any(isinstance(child, Attention | MLAAttention) for child in module.modules())
        if attends and id(module) in self._visited:  # layers under a second name: loaders reach them by the first
            return None
        self._visited.add(id(module))
        entry: dict[str, Any] = {"class": type(module).__name__}
        if isinstance(module, Attention | MLAAttention):
            entry["attention"] = "MLAAttention" if isinstance(module, MLAAttention) else "Attention"
            if getattr(module, "quant_config", None) is None and entry["attention"] == "Attention":
                entry["quantized"] = False
            if module.kv_cache_dtype == "auto":  # while the survey's engine asks for fp8
                entry["cache_config"] = False
            return self.intern(entry)
        entry |= self._facts(module)
        children: dict[str, Any] = {}
        named = list(module.named_children())
        if isinstance(module, nn.ModuleDict) and [name for name, _ in named] == [str(len(self._kinds))]:
            entry.update({"each": {"*": self.node(named[0][1], f"{path}.{named[0][0]}")}, "count": "draft_layers"})
        elif isinstance(module, nn.ModuleList) and named and all(name.isdigit() for name, _ in named):
            items = [self.node(child, f"{path}.{name}") for name, child in named]
            if any(items):
                entry.update(self.repeated([item for item in items if item is not None], path))
        else:
            for name, child in named:
                key = self.node(child, f"{path}.{name}" if path else name)
                if key is not None:
                    children[name] = key
        if children:
            entry["children"] = children
        return self.intern(entry)

    def _facts(self, module: Any) -> dict[str, Any]:
        """What an entry says of a module apart from its children."""
        facts: dict[str, Any] = {}
        if loader := self.loader(module):
            facts["loader"] = by_kind(loader, self._kinds)
        if getattr(module, "chosen_by_config", False):
            facts["chosen_by_config"] = True
        if hasattr(module, "quant_config"):
            facts["quant_config"] = module.quant_config is not None
        passing = getattr(module, "_non_persistent_buffers_set", ())
        names = [name for name, _ in module.named_parameters(recurse=False) if name not in SCALES]
        names += [name for name, _ in module.named_buffers(recurse=False) if name not in passing]
        if names:
            facts["parameters"] = sorted(names)
        return facts


def intern(modules: dict[str, dict[str, Any]], node: dict[str, Any]) -> str:
    """The key of that module entry, under which it now stands in ``modules``."""
    number = 1
    while True:
        key = node["class"] if number == 1 else f"{node['class']}#{number}"
        if modules.setdefault(key, node) == node:
            return key
        number += 1
