"""An architecture that nobody surveyed (custom code, newer than the profile), derived from the names of its scales.

vLLM runs a model that it does not register through its Transformers backend, which keeps the checkpoint's own module
names, fuses ``q_proj``, ``k_proj`` and ``v_proj``, and puts an ``Attention`` called ``attn`` beside them (seen in vLLM
0.33.0 with an architecture of transformers that it does not register, Helium). So the parents of ``k_proj.k_scale``,
``k_scale``, ``attn.k_scale``, ``k_cache.scale`` and their kin are the attention modules; config.json says how many
layers repeat them. Whether the backend can run the model at all, the names do not tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from core.architectures.layers import LINEAR, NONE, layer_kinds
from core.architectures.modules import AutoLoader, FusedLinearLoader, ModuleNode
from core.naming.mapper import Rule, RuleKind, WeightsMapper

_PROJECTIONS = (
    "q_proj", "k_proj", "v_proj", "qkv_proj", "qkqkv_proj", "kv_proj", "query_key_value", "c_attn", "Wqkv", "in_proj",
    "wq", "wk", "wv", "query", "key", "value", "k_cache", "v_cache", "q", "k_bmm_quantizer", "v_bmm_quantizer",
)  # fmt: skip
_SOURCE = "vLLM 0.33.0, models/transformers: the backend for models that vLLM does not register"
_TOWERS = re.compile(r"(?:^|\.)[^.]*(?:vision|visual|audio|image|encoder)[^.]*\.")
_NUMBER = re.compile(r"(?<=\.)[0-9]{1,4}(?=\.)")


@dataclass(frozen=True, slots=True)
class Derived:
    """The module tree, and the places of its attention modules with ``{i}`` for the number of the layer."""

    root: ModuleNode
    places: tuple[str, ...]


@dataclass(slots=True)
class _Branch:
    children: dict[str, _Branch] = field(default_factory=dict)
    attends: bool = False

    def at(self, path: str) -> _Branch:
        branch = self
        for name in path.split("."):
            branch = branch.children.setdefault(name, _Branch())
        return branch

    def node(self, cls: str, *, root: bool = False) -> ModuleNode:
        children = {name: child.node("Module") for name, child in self.children.items()}
        if self.attends:
            children["qkv_proj"] = ModuleNode(
                cls="QKVParallelLinear",
                parameters=frozenset({"weight"}),
                quant_config=True,
                loader=FusedLinearLoader(),
            )
            children["attn"] = ModuleNode(cls="Attention", attention="Attention")
        if root:
            loader = AutoLoader(WeightsMapper(tuple(self._fused(""))))
            return ModuleNode(cls=cls, children=children, quant_config=True, loader=loader)
        return ModuleNode(cls=cls, children=children)

    def _fused(self, path: str) -> Iterator[Rule]:
        """The rules by which the backend fuses the three projections of every attention module."""
        if self.attends:
            for letter in "qkv":
                new = f"{path}.qkv_proj"
                yield Rule(RuleKind.STACKED, f"{path}.{letter}_proj", new, shard=letter, source=_SOURCE)
        for name, child in self.children.items():
            yield from child._fused(f"{path}.{name}" if path else name)  # noqa: SLF001  (its own kind)


def derive_model(architecture: str, config: Mapping[str, Any], names: Iterable[str]) -> Derived | None:
    """The model that the names of these scales point at; None where none of them points at an attention module.

    ``config`` is a whole config.json: every layer of a kind that has a KV cache gets the modules that were seen in any
    layer. Without a number of layers there, layers up to the highest seen get them.
    """
    modules = {module for name in names if (module := attention_module(name)) is not None}
    if not modules:
        return None
    kinds = layer_kinds(config)
    seen = [int(found.group()) for module in modules if (found := _NUMBER.search(f"{module}."))]
    attending = [
        index
        for index, kind in enumerate(kinds or ("full_attention",) * (1 + max(seen, default=-1)))
        if "attention" in kind and kind.partition("+")[0] not in (LINEAR, NONE)
    ]
    tree = _Branch()
    places: dict[str, None] = {}
    for module in sorted(modules):
        found = _NUMBER.search(f"{module}.")
        if found is None:
            tree.at(module).attends = True
            places[module] = None
            continue
        before, after = module[: found.start()], module[found.end() :]
        places[f"{before}{{i}}{after}"] = None
        for index in {*attending, int(found.group())}:
            tree.at(f"{before}{index}{after}").attends = True
    return Derived(tree.node(architecture, root=True), tuple(places))


def attention_module(name: str) -> str | None:
    """The attention module that the name of a KV scale points at: ``model.layers.0.self_attn`` of
    ``model.layers.0.self_attn.k_proj.k_scale``. None for vision and audio towers, whose attention has no KV cache, and
    for a scale at the top.
    """
    module, _, _ = name.rpartition(".")
    if _TOWERS.search(f"{module}."):
        return None
    above, _, last = module.rpartition(".")
    if last == "mla_attn":
        above, _, last = above.rpartition(".")
        return above or None
    if last in _PROJECTIONS or (last == "attn" and not above.rpartition(".")[2].isdigit()):
        return above or None
    return module or None


__all__ = ["Derived", "attention_module", "derive_model"]
