"""The module tree of an engine's model, built from the survey data and a checkpoint's config.

Nodes are immutable and shared between equal layers, so that a model of 200 layers costs as much as one of each kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.architectures.layers import DRAFTS, FULL, LINEAR, NONE, believed, layer_kinds, of_each_layer, text_config_of
from core.architectures.loops import LoopLoader
from core.architectures.surveys import loops, own_loaders, survey
from core.backends.base import AttentionKind
from core.naming.conventions import MOST_LAYERS
from core.naming.mapper import Rule, RuleKind, WeightsMapper

UNCOUNTED = 128
"""How many layers a tower is given whose config does not say (its attention has no KV cache)."""


@dataclass(frozen=True, slots=True)
class AutoLoader:
    """The module loads itself through AutoWeightsLoader. Before vLLM 0.33 it could leave names out by itself
    (``skip_prefixes``, ``skip_containing``); since then rules of the mapper do. ``before`` renames ahead of the mapper,
    where regular expressions cannot say how.
    """

    mapper: WeightsMapper
    ignore_prefixes: tuple[str, ...] = ()
    ignore_suffixes: tuple[str, ...] = ()
    skip_prefixes: tuple[str, ...] = ()
    skip_containing: tuple[str, ...] = ()
    before: LoopLoader | None = None


@dataclass(frozen=True, slots=True)
class FusedLinearLoader:
    """A fused projection (QKVParallelLinear, MergedColumnParallelLinear) that takes parts by shard."""


@dataclass(frozen=True, slots=True)
class StackedName:
    """One entry of a hand-written loader's stacked loop; ``optional`` ones are skipped where the target is absent,
    ones with ``where`` in a model that has no parameter with that part in its name.
    """

    old: str
    new: str
    optional: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnLoader:
    """A hand-written loop over names; see ``own_loaders.json``. ``lacks`` is an attribute that the loop asks its class
    for, and that this class has not; ``at_end`` is what it raises after the last tensor, for this model's config.
    """

    source: str
    mapper: WeightsMapper = field(default_factory=WeightsMapper)
    hands_to: str = ""
    stacked: tuple[StackedName, ...] = ()
    stacked_skips_containing: tuple[str, ...] = ()
    keep_scale_names_in: str = ""
    skip_containing: tuple[str, ...] = ()
    skip_draft_layers: bool = False
    only_draft_layers: bool = False
    remap: Literal["first", "stacked", "others", "both", "never"] = "never"
    remap_if: tuple[str, ...] = ("scale", "zero_point")
    absent: Literal["raise", "skip", "expert"] = "raise"
    lacks: str = ""
    at_end: str = ""


Loader = AutoLoader | FusedLinearLoader | OwnLoader | LoopLoader


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ModuleNode:
    """One module: what a loader sees of it.

    ``quant_config`` is True where the module's attribute holds the quantization config, False where the attribute is
    there but None, None where it has no such attribute. ``attention`` is set for a layer with a KV cache;
    ``cache_config`` is False where that layer is not told the engine's ``--kv-cache-dtype``.
    """

    cls: str
    children: Mapping[str, ModuleNode] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()
    attention: AttentionKind | None = None
    quantized: bool = True
    cache_config: bool = True
    quant_config: bool | None = None
    loader: Loader | None = None
    _known: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    """What was found below this module: layers of one kind share it, and a prediction asks for it again and again."""

    def attention_layers(self, prefix: str = "") -> Iterator[tuple[str, ModuleNode]]:
        """Every attention layer with a KV cache below this module, with its path, in module order."""
        for path, node in self._attention_below():
            yield f"{prefix}.{path}".strip("."), node

    def parameter_names(self) -> frozenset[str]:
        """The names of all parameters below this module, but for those that a KV-cache method adds."""
        if "parameters" not in self._known:
            below = (f"{path}.{name}" for path, child in self.children.items() for name in child.parameter_names())
            self._known["parameters"] = self.parameters.union(below)
        found: frozenset[str] = self._known["parameters"]
        return found

    def has_loops(self) -> bool:
        """Whether a loader at or below this module is described by steps, which may ask for the backend's name."""
        if "loops" not in self._known:
            here = isinstance(self.loader, LoopLoader) or (
                isinstance(self.loader, AutoLoader) and self.loader.before is not None
            )
            self._known["loops"] = here or any(child.has_loops() for child in self.children.values())
        return bool(self._known["loops"])

    def stops_at_any(self) -> bool:
        """Whether a loader at or below this module ends the load at the first tensor that reaches it, whichever."""
        if "stops" not in self._known:
            here = isinstance(self.loader, OwnLoader) and bool(self.loader.lacks)
            self._known["stops"] = here or any(child.stops_at_any() for child in self.children.values())
        return bool(self._known["stops"])

    def _attention_below(self) -> tuple[tuple[str, ModuleNode], ...]:
        if "attention" not in self._known:
            here = () if self.attention is None else (("", self),)
            below = (
                (f"{name}.{path}".rstrip("."), node)
                for name, child in self.children.items()
                for path, node in child._attention_below()  # noqa: SLF001 - its own kind
            )
            self._known["attention"] = (*here, *below)
        found: tuple[tuple[str, ModuleNode], ...] = self._known["attention"]
        return found

    def descend(self, path: str) -> ModuleNode | None:
        """The module at ``path``, or None."""
        node: ModuleNode | None = self
        for name in path.split(".") if path else ():
            node = node.children.get(name) if node is not None else None
        return node


def build_model(
    architecture: str,
    config: Mapping[str, Any],
    *,
    method: str | None,
    engine: str = "vllm-0.33.0",
    layers: int | None = None,
    lent: bool = False,
) -> ModuleNode | None:
    """The module tree of ``architecture`` with the sizes ``config`` (a whole config.json) gives, or None when the
    architecture is not known. ``layers`` is used where the config does not say how many layers there are (an engine
    would take the config class's default there); ``method`` selects a hand-written loader's variant. ``lent``: the tree
    stands for another version's, whose classes may well have the attributes that some lack in this one.
    """
    known = survey(engine)["architectures"].get(architecture)
    if known is None:
        return None
    for variant in ("", method):
        recent = _recent.get((engine, architecture, variant, layers, lent))
        if recent is not None and recent[0] is config:
            return recent[1]
    kinds = layer_kinds(config) or (FULL,) * (layers or 0)
    try:
        builder = _Builder(engine, config, kinds, method, lent=lent)
        built = builder.build(known["root"])
    except _UnknownLanguageModelError:
        return None
    if len(_recent) >= _MOST_RECENT:
        _recent.clear()
    _recent[engine, architecture, method if builder.varies else "", layers, lent] = config, built
    return built


_DEEPSEEK_ATTENTION = ("DeepseekV2MLAAttention", "DeepseekAttention")
_LATENT_SIZES = ("qk_nope_head_dim", "qk_rope_head_dim")

_MOST_RECENT = 64
_recent: dict[tuple[str, str, str | None, int | None, bool], tuple[Mapping[str, Any], ModuleNode]] = {}
"""The models of a config, which is the same object for as long as one checkpoint is judged; under the method "" those
that are the same under every method.
"""


class _UnknownLanguageModelError(Exception):
    """The text config chooses a language model that was not surveyed."""


def _stand_in(kind: str, each: Mapping[str, str]) -> str:
    """A module for a kind of layer that the surveyed model did not have: an attention layer for a kind of attention
    that has a KV cache, any other layer for the rest (experts where only dense layers were seen).
    """
    attends = kind.partition("+")[0] not in (LINEAR, NONE) and "attention" in kind
    others = [key for name, key in each.items() if ("attention" in name and name not in (LINEAR, NONE)) == attends]
    return (each.get(FULL) if attends else None) or next(iter(others or each.values()))


class _Builder:
    def __init__(
        self, engine: str, config: Mapping[str, Any], kinds: tuple[str, ...], method: str | None, *, lent: bool
    ) -> None:
        self._lent = lent
        self._title = engine.replace("vllm-", "vLLM ")
        self._engine = engine
        self._modules = survey(engine)["modules"]
        self._loops = loops(engine)
        self._config = config
        self._kinds = kinds
        self._method = method
        self.varies = False
        """Whether the method chose a variant of a loader."""
        self._built: dict[str, ModuleNode] = {}

    def build(self, key: str) -> ModuleNode:
        if key not in self._built:
            entry = self._modules[key]
            self._built[key] = ModuleNode(
                cls=entry["class"],
                children=self._children(entry),
                parameters=frozenset(entry.get("parameters", ())),
                attention=entry.get("attention"),
                quantized=entry.get("quantized", True),
                cache_config=entry.get("cache_config", True),
                quant_config=entry.get("quant_config"),
                loader=self._loader(entry),
            )
        return self._built[key]

    def _children(self, entry: Mapping[str, Any]) -> Mapping[str, ModuleNode]:
        if "each" not in entry:
            return {name: self.build(self._chosen(key)) for name, key in entry.get("children", {}).items()}
        each = entry["each"]
        if entry["count"] == "layer_kinds":
            found = {}
            for index, kind in enumerate(self._kinds):
                key = each.get(kind) or each.get(kind.partition("+")[0]) or each.get("*")
                if key is None:
                    key = _stand_in(kind, each)
                found[str(index)] = self.build(key)
            return found
        if entry["count"] in ("draft_layers", "drafts"):
            first = len(self._kinds) if entry["count"] == "draft_layers" else 0
            return {str(first + index): self.build(each["*"]) for index in range(self._drafts())}
        if isinstance(entry["count"], int):
            count = entry["count"]
        else:
            count = next((number for name in entry["count"] if (number := self._number(name)) is not None), UNCOUNTED)
        return {str(index): self.build(each["*"]) for index in range(count)}

    def _chosen(self, key: str) -> str:
        """The module to build for ``key``: another one where the model takes the language model its text config names,
        and that is not the surveyed one (vLLM 0.33.0, ``init_vllm_registered_model``).
        """
        if self._modules[key]["class"] in _DEEPSEEK_ATTENTION:
            return self._deepseek_attention(key)
        if not self._modules[key].get("chosen_by_config"):
            return key
        data = survey(self._engine)
        text = text_config_of(self._config)
        if text is self._config:
            return key
        named = text.get("architectures") or [data.get("language_models", {}).get(text.get("model_type"))]
        name = named[0] if isinstance(named, list) else None
        if name is None or name == self._modules[key]["class"]:
            return key
        if name not in data["architectures"]:
            raise _UnknownLanguageModelError(name)
        return str(data["architectures"][name]["root"])

    def _deepseek_attention(self, key: str) -> str:
        """Latent attention, or the plain one that DeepSeek's first model has, and small ones of its later families
        (vLLM 0.33.0, ``deepseek_v2.DeepseekV2DecoderLayer``; the same in all five releases).
        """
        text = text_config_of(self._config)
        if "model_type" not in text and not any(name in text for name in _LATENT_SIZES):
            return key  # no config to choose by
        plain = text.get("model_type") == "deepseek" or all(text.get(name) == 0 for name in _LATENT_SIZES)
        latent, other = _DEEPSEEK_ATTENTION
        chosen = other if plain else latent
        return key if self._modules[key]["class"] == chosen or chosen not in self._modules else chosen

    def _drafts(self) -> int:
        """How many layers the draft (MTP) model has."""
        text = text_config_of(self._config)
        return believed(text, *DRAFTS) or believed(self._config, *DRAFTS) or 1

    def _number(self, dotted: str) -> int | None:
        value: Any = self._config
        for name in dotted.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            value = text_config_of(self._config).get(dotted)
        return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_LAYERS else None

    def _loader(self, entry: Mapping[str, Any]) -> Loader | None:
        loader = entry.get("loader")
        if loader is None:
            return None
        match loader["kind"]:
            case "auto":
                return AutoLoader(
                    mapper=self._mapper(loader, entry["class"]),
                    ignore_prefixes=tuple(loader.get("ignore_prefixes", ())),
                    ignore_suffixes=tuple(loader.get("ignore_suffixes", ())),
                    skip_prefixes=tuple(loader.get("skip_prefixes", ())),
                    skip_containing=tuple(loader.get("skip_containing", ())),
                    before=self._loop("before", loader.get("before", "")),
                )
            case "fused_linear":
                return FusedLinearLoader()
            case _:
                return self._own(loader, entry["class"])

    def _mapper(self, loader: Mapping[str, Any], cls: str) -> WeightsMapper:
        """The loader's rules. What it does to names before AutoWeightsLoader sees them stands first, as regexes: those
        are the first that a mapper applies.
        """
        by_hand = own_loaders()["before"].get(loader.get("before"), {})
        rules = () if by_hand.get("replaces_mapper") else self._rules(loader.get("mapper", {}), cls)
        return WeightsMapper((*_regexes(by_hand), *rules))

    def _rules(self, mapper: Mapping[str, Any], cls: str) -> Iterator[Rule]:
        for kind, rows in mapper.items():
            for row in rows:
                *plain, last = row
                layers: list[int | None] = [None]
                if isinstance(last, dict):
                    layers = self._layers_of(last["kind"])
                else:
                    plain = row
                for layer in layers:
                    pattern, new, *shard = (
                        part.replace("{layer}", str(layer)) if isinstance(part, str) and layer is not None else part
                        for part in plain
                    )
                    part = shard[0] if shard else None
                    yield Rule(
                        RuleKind(kind),
                        pattern,
                        new,
                        shard=str(part) if isinstance(part, list) else part,
                        source=f"{self._title}, {cls}'s own mapper",
                    )

    def _layers_of(self, kind: str) -> list[int | None]:
        if kind == "draft":
            first = len(self._kinds)
            return list(range(first, first + (believed(text_config_of(self._config), DRAFTS[0]) or 0)))
        return [index for index, name in enumerate(self._kinds) if name == kind]

    def _loop(self, part: str, of: str) -> LoopLoader | None:
        if self._loops is None or of not in self._loops[part]:
            return None
        file, _, written = of.rpartition(".")
        source = f"{self._title}, {file.replace('.', '/')}.py, {written}.load_weights"
        return LoopLoader(source=source, steps=self._loops[part][of])

    def _own(self, loader: Mapping[str, Any], cls: str) -> Loader:
        of = loader["of"]
        if (loop := self._loop("loops", of)) is not None:
            return loop
        entry = own_loaders()["loaders"].get(of)
        if entry is None:
            # Taken for the common form; whoever loads its attention so is called static, not executed.
            return OwnLoader(source=f"{of}.load_weights, not followed", remap="first", absent="skip")
        self.varies = self.varies or "by_method" in entry
        entry = {**entry, **entry.get("by_method", {}).get(self._method, {})}
        own_rules = self._rules(loader.get("mapper", {}), cls) if entry.get("maps") else ()
        mapper = WeightsMapper((*_regexes(entry), *own_rules))
        if entry.get("auto"):
            return AutoLoader(mapper=mapper, ignore_prefixes=tuple(entry.get("ignore_prefixes", ())))
        return OwnLoader(
            source=entry["source"],
            mapper=mapper,
            hands_to=entry.get("hands_to", ""),
            stacked=tuple(
                StackedName(row["from"], row["to"], row.get("optional", False), row.get("where", ""))
                for row in entry.get("stacked", ())
            ),
            stacked_skips_containing=tuple(entry.get("stacked_skips_containing", ())),
            keep_scale_names_in=entry.get("keep_scale_names_in", ""),
            skip_containing=tuple(entry.get("skip_containing", ())),
            skip_draft_layers=entry.get("skip_draft_layers", False),
            only_draft_layers=entry.get("only_draft_layers", False),
            remap=entry.get("remap", "never"),
            remap_if=tuple(entry.get("remap_if", ("scale", "zero_point"))),
            absent=entry.get("absent", "raise"),
            lacks="" if self._lent else entry.get("lacked_by", {}).get(cls, ""),
            at_end="" if self._lent else self._at_end(entry.get("at_end")),
        )

    def _at_end(self, written: Mapping[str, Any] | None) -> str:
        if written is None:
            return ""
        full = all(kind.partition("+")[0] == FULL for kind in self._kinds)
        asked = text_config_of(self._config).get(written["unless_full_attention_and"])
        if not (full and asked):
            return str(written["error"])
        equal = written["unless_equal"]
        sizes = [layer.get(equal["field"], equal["default"]) for layer in of_each_layer(self._config)]
        other = next((index for index, size in enumerate(sizes) if size != sizes[0]), None)
        return equal["error"].format(first=sizes[0], other=sizes[other], layer=other) if other is not None else ""


def _regexes(by_hand: Mapping[str, Any]) -> Iterator[Rule]:
    for pattern, new in by_hand.get("regex", ()):
        yield Rule(RuleKind.REGEX, pattern, new, source=by_hand["source"])
