"""Follows one tensor name through vLLM's nested loaders, over the torch-free module tree.

Every name is independent of the others: loaders keep no state between tensors that matters for scales. The walk ends
at a parameter, at a loader that ignores the name, at a rule that drops it, or at the exception vLLM raises.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from core.architectures.loops import LoopLoader
from core.architectures.modules import AutoLoader, FusedLinearLoader, ModuleNode, OwnLoader
from core.backends.base import Backend
from core.backends.kv_method import EngineError, ScaleParameter
from core.backends.older import OUTPUT_SCALES
from core.engines.vllm.experts import no_parameter
from core.engines.vllm.loop import Given, LoopRun
from core.engines.vllm.releases import NEWEST, Release
from core.engines.vllm.remap import maybe_remap_kv_scale_name
from core.naming.mapper import Rule, RuleKind, Step, WeightsMapper, rules
from core.wording import say

ROTARY_DROPPER = WeightsMapper(
    rules(
        RuleKind.SUBSTR,
        (
            ("rotary_pos_emb.inv_freq", None),
            ("rotary_emb.inv_freq", None),
            ("rotary_emb.cos_cached", None),
            ("rotary_emb.sin_cached", None),
        ),
        source="vLLM 0.33.0, models/utils.py, AutoWeightsLoader.REMOVE_UNUSED_ROTARY_EMBEDS_MAPPER",
    )
)

_LOADER_SOURCE = "vLLM 0.33.0, models/utils.py, AutoWeightsLoader"


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a name ended. ``parameter`` is the full name of the parameter it reached, ``name`` the last full name
    looked for; ``ignored`` means that a loader skipped it without a word, ``dropped`` that a rule or a helper did.
    ``shape`` is the tensor's shape as the parameter gets it: a loop may hand on only the first element. ``wraps`` is
    the exception a loop makes of one that the parameter raises.
    """

    parameter: str | None
    name: str | None
    steps: tuple[Step, ...]
    ignored: bool = False
    dropped: bool = False
    error: EngineError | None = None
    reason: str = ""
    shape: tuple[int, ...] = ()
    wraps: str = ""


class Lacking(EngineError):
    """What a loader raises that asks its class for an attribute which that has not: at any tensor that reaches it."""


class _Stop(Exception):
    """The walk ended without a parameter."""

    def __init__(self, reason: str, *, ignored: bool = False, name: str | None = None) -> None:
        self.reason, self.ignored, self.name = reason, ignored, name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Around:
    """What a hand-written loop sees of its module and the engine; names are relative to the module."""

    walk: Walk
    node: ModuleNode
    prefix: str
    parameters: frozenset[str]

    @property
    def cls(self) -> str:
        return self.node.cls

    @property
    def quantized(self) -> bool | None:
        return self.node.quant_config and self.walk.backend is not None if self.node.quant_config is not None else None

    @property
    def method(self) -> str | None:
        return self.walk.backend.method if self.walk.backend is not None else None

    @property
    def knows_output_scales(self) -> bool:
        return self.walk.release.asks_cache_scale and self.method in OUTPUT_SCALES

    @property
    def guarded(self) -> bool:
        return self.walk.release.guarded

    @property
    def has_mla(self) -> bool:
        return self.walk.has_mla

    def scale(self, name: str) -> ScaleParameter | None:
        path, _, leaf = f"{self.prefix}.{name}".lstrip(".").rpartition(".")
        return self.walk.scales.get(path, {}).get(leaf)

    def config(self, field: str) -> Any:
        return self.walk.config.get(field)

    def is_draft(self, name: str) -> bool:
        return self.walk.is_draft(name)


_Arrivals = dict[tuple[str, tuple[int, ...]], Arrival]
_MOST_WALKS, _MOST_NAMES = 32, 1 << 13
_arrivals_of: dict[Hashable, _Arrivals] = {}


def _shared_arrivals(walk: Walk) -> _Arrivals:
    """What walks of the same likeness have found. Loops may ask for the backend's name and its parameters' loaders:
    where there are any, each walk finds out for itself.
    """
    if walk.root.has_loops():
        return {}
    if len(_arrivals_of) >= _MOST_WALKS:
        _arrivals_of.clear()
    return _arrivals_of.setdefault(walk.likeness, {})


class Walk:
    """A model and a backend, ready to follow names. ``scales`` maps each attention path to its parameters, ``config``
    is the language model's part of config.json.
    """

    def __init__(
        self,
        root: ModuleNode,
        backend: Backend | None,
        scales: Mapping[str, Mapping[str, ScaleParameter]],
        *,
        hidden_layers: int = 0,
        draft_layers: int = 0,
        config: Mapping[str, Any] | None = None,
        release: Release = NEWEST,
    ) -> None:
        self.root = root
        self.backend = backend
        self.scales = scales
        self.config: Mapping[str, Any] = config or {}
        self.release = release
        self._hidden_layers = hidden_layers
        self._draft_layers = draft_layers
        self._mappers: dict[ModuleNode, tuple[WeightsMapper, tuple[str, ...]]] = {}
        self._parameters: dict[str, frozenset[str]] = {}
        self._shape: tuple[int, ...] = ()
        self._wraps = ""
        self._arrivals = _shared_arrivals(self)

    @property
    def likeness(self) -> Hashable:
        """Walks of which this is equal take every name the same way: most of an engine's backends have equal rules."""
        backend = self.backend
        return (
            self.root,
            (self.release.id, self.release.ignores_biases, self.release.skip_containing),
            self._hidden_layers,
            self._draft_layers,
            tuple((path, *parameters) for path, parameters in self.scales.items()),
            backend.get_cache_scale_mapper() if backend is not None else WeightsMapper(),
            backend.get_checkpoint_weight_mapper() if backend is not None else WeightsMapper(),
            backend.ignored_suffixes if backend is not None else (),
        )

    @cached_property
    def has_mla(self) -> bool:
        return any(node.attention == "MLAAttention" for _, node in self.root.attention_layers())

    def follow(self, name: str, shape: tuple[int, ...] = ()) -> Arrival:
        """Where a tensor of that name and shape ends."""
        found = self._arrivals.get((name, shape))
        if found is None:
            found = self._follow(name, shape)
            if len(self._arrivals) < _MOST_NAMES:
                self._arrivals[name, shape] = found
        return found

    def _follow(self, name: str, shape: tuple[int, ...]) -> Arrival:
        steps: list[Step] = []
        self._shape, self._wraps = shape, ""
        try:
            target = self._call(self.root, "", name, steps)
        except _Stop as stop:
            return Arrival(
                None, stop.name, tuple(steps), ignored=stop.ignored, dropped=not stop.ignored, reason=stop.reason
            )
        except EngineError as error:
            return Arrival(None, steps[-1].after if steps else name, tuple(steps), error=error, reason=str(error))
        return Arrival(target, target, tuple(steps), shape=self._shape, wraps=self._wraps)

    def mapper_of(self, node: ModuleNode) -> tuple[WeightsMapper, tuple[str, ...]]:
        """The mapper AutoWeightsLoader ends up with on that module, and the suffixes it ignores."""
        if node not in self._mappers:
            loader = node.loader
            mapper = loader.mapper if isinstance(loader, AutoLoader) else WeightsMapper()
            ignored = [*(loader.ignore_suffixes if isinstance(loader, AutoLoader) else ())]
            if self.release.ignores_biases:
                ignored.append(".bias")
            if self.backend is not None and self.sees_quant_config(node):
                mapper |= self.backend.get_cache_scale_mapper()
                mapper |= self.backend.get_checkpoint_weight_mapper()
                ignored.extend(self.backend.ignored_suffixes)
            if not self.release.skip_containing:
                mapper |= ROTARY_DROPPER
            self._mappers[node] = (mapper, tuple(ignored))
        return self._mappers[node]

    @staticmethod
    def sees_quant_config(node: ModuleNode) -> bool:
        """Whether a loader on ``node`` finds the quantization config: the first of the module and its direct children
        that has the attribute decides, also when it is None there.
        """
        for holder in (node, *node.children.values()):
            if holder.quant_config is not None:
                return holder.quant_config
        return False

    def _call(self, node: ModuleNode, prefix: str, name: str, steps: list[Step]) -> str:
        """``node.load_weights`` on one tensor: the full parameter name it ends at."""
        match node.loader:
            case AutoLoader():
                return self._auto(node, prefix, name, steps)
            case OwnLoader():
                return self._own(node, node.loader, prefix, name, steps)
            case LoopLoader():
                return self._loop(node, node.loader, prefix, name, steps)
            case FusedLinearLoader():
                return self._fused(node, prefix, name)
            case None:
                return self._descend(node, node, "", prefix, name, steps)

    def _auto(self, node: ModuleNode, prefix: str, name: str, steps: list[Step]) -> str:
        loader = node.loader
        if isinstance(loader, AutoLoader) and loader.before is not None:
            around = _Around(walk=self, node=node, prefix=prefix, parameters=self._parameters_below(node, prefix))
            renamed = LoopRun(loader.before, around, name, self._shape, steps).rename()
            if renamed is None:
                raise _Stop(_no_parameter(node), ignored=True, name=f"{prefix}.{name}")
            name = renamed
        name = self._renamed(self.mapper_of(node)[0], node, name, steps)
        skipped = isinstance(loader, AutoLoader) and (
            name.startswith(loader.skip_prefixes) or any(part in name for part in loader.skip_containing)
        )
        if skipped or any(part in name for part in self.release.skip_containing):
            full = f"{prefix}.{name}".lstrip(".")
            raise _Stop(say("{loader}'s loader skips it", loader=node.cls), ignored=True, name=full)
        return self._descend(node, node, "", prefix, name, steps)

    @staticmethod
    def _renamed(mapper: WeightsMapper, node: ModuleNode, name: str, steps: list[Step]) -> str:
        renaming = mapper.trace(name, by=node.cls)
        steps.extend(renaming.steps)
        if renaming.result is None:
            rule = renaming.steps[-1].rule
            raise _Stop(say("{loader}'s loader drops it by the rule {rule}", loader=node.cls, rule=str(rule)))
        return renaming.result

    def _descend(
        self, owner: ModuleNode, node: ModuleNode, base: str, prefix: str, name: str, steps: list[Step]
    ) -> str:
        """AutoWeightsLoader._load_module: ``base`` is the path below ``owner``, ``prefix`` the path of ``owner``."""
        first, dot, rest = name.partition(".")
        path = f"{base}.{first}" if base else first
        full = f"{prefix}.{path}" if prefix else path
        child = node.children.get(first)
        if child is not None:
            if not dot:
                # The tensor bears a module's own name: vLLM looks for a child with an empty name.
                rest = ""
            if child.loader is not None:
                return self._call(child, full, rest, steps)
            return self._descend(owner, child, path, prefix, rest, steps)
        if first in self._own_parameters(node, f"{prefix}.{base}".strip(".") if base else prefix):
            if not dot:
                return full
            if self._ignores(owner, f"{path}.{rest}"):
                reason = say("{loader}'s loader ignores {name}", loader=owner.cls, name=f"{path}.{rest}")
                raise _Stop(reason, ignored=True, name=f"{full}.{rest}")
            raise EngineError(
                "ValueError", f"Attempted to load nested weight '{path}.{rest}' into a single parameter '{path}'"
            )
        if self._ignores(owner, f"{path}.") or self._ignores(owner, path):
            reason = say(
                "nothing is called {name}, and {loader}'s loader ignores names that end so", name=full, loader=owner.cls
            )
            raise _Stop(reason, ignored=True, name=full)
        below = self._names_below(node, f"{prefix}.{base}".strip("."))
        available = as_set(f"{base}.{name}" if base else name for name in below)
        raise EngineError(
            "ValueError",
            f"There is no module or parameter named {path!r} in {owner.cls}. "
            f"The available parameters belonging to {base} ({node.cls}) are: {available}",
        )

    def _ignores(self, owner: ModuleNode, path: str) -> bool:
        loader = owner.loader
        prefixes = loader.ignore_prefixes if isinstance(loader, AutoLoader) else ()
        return path.startswith(prefixes) or path.endswith(self.mapper_of(owner)[1])

    def _own_parameters(self, node: ModuleNode, path: str) -> frozenset[str]:
        if node.attention is None:
            return node.parameters
        return node.parameters | frozenset(self.scales.get(path, ()))

    def _names_below(self, node: ModuleNode, prefix: str) -> frozenset[str]:
        """The names of all parameters below the module at ``prefix``, with those that the KV-cache method adds."""
        scales = (
            f"{path}.{name}".lstrip(".")
            for path, _ in node.attention_layers()
            for name in self.scales.get(f"{prefix}.{path}".strip("."), ())
        )
        return node.parameter_names().union(scales)

    def _fused(self, node: ModuleNode, prefix: str, name: str) -> str:
        """A fused projection's load_weights: a name that is none of its attributes is taken for the layer itself."""
        owner, dot, leaf = name.rpartition(".")
        if dot:
            found: ModuleNode | None = node
            for part in owner.split("."):
                found = found.children.get(part) if found is not None else None
                if found is None:
                    raise EngineError("AttributeError", f"{node.cls} has no attribute `{part}`")
        if not dot and leaf in node.parameters:
            return f"{prefix}.{leaf}"
        raise EngineError("AttributeError", f"'{node.cls}' object has no attribute 'data'")

    def _parameters_below(self, node: ModuleNode, prefix: str) -> frozenset[str]:
        if prefix not in self._parameters:
            self._parameters[prefix] = self._names_below(node, prefix)
        return self._parameters[prefix]

    def _loop(self, node: ModuleNode, loader: LoopLoader, prefix: str, name: str, steps: list[Step]) -> str:
        """A hand-written loop of an older version, as its steps describe it."""
        around = _Around(walk=self, node=node, prefix=prefix, parameters=self._parameters_below(node, prefix))
        end = LoopRun(loader, around, name, self._shape, steps).run()
        if isinstance(end, Given):
            self._shape, self._wraps = end.shape, end.wraps
            return f"{prefix}.{end.parameter}" if prefix else end.parameter
        full = f"{prefix}.{end.name}" if prefix and end.name is not None else end.name
        raise _Stop(end.reason, ignored=not end.warned, name=full)

    def _own(self, node: ModuleNode, loader: OwnLoader, prefix: str, name: str, steps: list[Step]) -> str:
        """A hand-written loop, as ``own_loaders.json`` describes it."""
        if loader.lacks:
            raise Lacking("AttributeError", f"{node.cls!r} object has no attribute {loader.lacks!r}")
        name = self._renamed(loader.mapper, node, name, steps)
        if loader.hands_to:
            return self._call(node.children[loader.hands_to], f"{prefix}.{loader.hands_to}".strip("."), name, steps)
        parameters = self._parameters_below(node, prefix)
        if any(part in name for part in loader.skip_containing):
            raise _Stop(say("{loader} skips it", loader=node.cls))
        if loader.skip_draft_layers and self.is_draft(name):
            raise _Stop(say("{loader} leaves the draft (MTP) layers to another model", loader=node.cls), ignored=True)
        if loader.only_draft_layers and not self.is_draft(name):
            raise _Stop(say("{loader} takes the draft (MTP) layers alone", loader=node.cls), ignored=True)
        if loader.remap == "first" and any(part in name for part in loader.remap_if):
            name = self._remap_or_stop(name, parameters, node, steps)
        name, stacked = self._own_stacked(node, loader, name, parameters, steps)
        if not stacked:
            name = self._own_others(node, loader, name, parameters, steps)
        if name not in parameters:
            if not stacked and loader.absent == "skip":
                raise _Stop(_no_parameter(node), ignored=True, name=f"{prefix}.{name}")
            if loader.absent == "expert" and (said := no_parameter(prefix, name)) is not None:
                raise EngineError("AttributeError", said)
            raise EngineError("KeyError", f"{name!r}")
        return f"{prefix}.{name}" if prefix else name

    def _own_stacked(
        self, node: ModuleNode, loader: OwnLoader, name: str, parameters: frozenset[str], steps: list[Step]
    ) -> tuple[str, bool]:
        """The loop over stacked names: the name so far, and whether an entry took the tensor."""
        for entry in loader.stacked:
            if entry.old not in name or not any(entry.where in parameter for parameter in parameters):
                continue
            if name not in parameters and any(part in name for part in loader.stacked_skips_containing):
                continue
            keeps = loader.keep_scale_names_in
            if not (keeps and keeps in name and name.endswith((".k_scale", ".v_scale"))):
                mapped = name.replace(entry.old, entry.new)
                if entry.optional and mapped not in parameters:
                    continue
                rule = Rule(RuleKind.STACKED, entry.old, entry.new, source=loader.source)
                steps.append(Step(rule, name, mapped, node.cls))
                name = mapped
            if loader.remap in ("stacked", "both") and name.endswith("scale"):
                remapped = self._remap(name, parameters, node, steps)
                if remapped is None:
                    continue
                name = remapped
            if name in parameters or not name.endswith(".bias"):
                return name, True
        return name, False

    def _own_others(
        self, node: ModuleNode, loader: OwnLoader, name: str, parameters: frozenset[str], steps: list[Step]
    ) -> str:
        """The branch for names no stacked entry took: the name to look up."""
        if name.endswith(".bias") and name not in parameters:
            raise _Stop(say("{loader} skips a bias it has no parameter for", loader=node.cls), ignored=True)
        if loader.remap in ("others", "both"):
            return self._remap_or_stop(name, parameters, node, steps)
        return name

    def _remap_or_stop(self, name: str, parameters: frozenset[str], node: ModuleNode, steps: list[Step]) -> str:
        remapped = self._remap(name, parameters, node, steps)
        if remapped is None:
            looked_for = steps[-1].after if steps else name
            raise _Stop(
                say(
                    "{loader} asks maybe_remap_kv_scale_name, whose answer {asked!r} is no parameter: skipped with one "
                    "warning",
                    loader=node.cls,
                    asked=looked_for,
                )
            )
        return remapped

    def _remap(self, name: str, parameters: frozenset[str], node: ModuleNode, steps: list[Step]) -> str | None:
        new, step = maybe_remap_kv_scale_name(name, parameters, mla=self.has_mla, by=node.cls)
        if step is not None:
            steps.append(step)
        return new

    def is_draft(self, name: str) -> bool:
        """Whether a name belongs to a layer of the draft (MTP) model."""
        found = re.match(r"(?:model\.|model\.language_model\.)?layers\.([0-9]{1,9})\.", name)
        first = self._hidden_layers
        return bool(found) and first <= int(found.group(1)) < first + self._draft_layers if found else False


def as_set(names: Iterable[str]) -> str:
    """Names as Python shows a set of them, in an order that is the same on every run."""
    found = sorted(set(names))
    return f"{{{', '.join(map(repr, found))}}}" if found else "set()"


def _no_parameter(node: ModuleNode) -> str:
    return say("{loader} skips names it has no parameter for", loader=node.cls)
