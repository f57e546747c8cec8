"""``Facts``: one case with the look-ups that several rules share, each made once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from core.architectures.heads import HeadCounts
from core.architectures.layers import layer_kinds
from core.diagnosis.case import Case
from core.diagnosis.marks import marks
from core.diagnosis.selection import Id, identity
from core.diagnosis.thresholds import LARGEST_NUMBER, Thresholds
from core.engines import get_engine
from core.engines.outcome import AttentionLayer, Delivery
from core.errors import UsageError
from core.naming.scales import KVScale
from core.wording import say

Place = Literal["layer", "draft", "no cache"]
KV_ROLES = ("k", "v")
_TOWER = re.compile(r"(?:^|\.)(?:encoder|\w*(?:vision|visual|audio|speech|image)\w*|\w*tower\w*)\.")
_DRAFT = re.compile(r"(?:^|\.)(?:mtp\w*|nextn\w*|draft\w*)\.")
_NUMBERED = re.compile(r"^(.*\.)?\d+(\.[^.]+)?(?=\.|$)")
_PLAIN_CACHE = ("auto", "half", "float", "float16", "bfloat16", "float32", "fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Facts:
    """A case, the thresholds, and what follows from both before any rule is asked."""

    case: Case
    thresholds: Thresholds

    # ------------------------------------------------------------------------------------------------------ the engine

    @cached_property
    def engine(self) -> str:
        """The engine for people: "vLLM 0.33.0"."""
        wanted = self.case.settings.engine.value or ""
        try:
            profile = get_engine(wanted)
        except UsageError:
            return wanted or say("the engine")
        return f"{profile.name} {profile.version}"

    @cached_property
    def fp8_option(self) -> str:
        """What asks this engine for an FP8 cache."""
        spelled = "fp8_e4m3" if self.engine.startswith("SGLang") else "fp8"
        return f"--kv-cache-dtype {spelled}"

    @cached_property
    def method(self) -> str:
        """The quantization method that the engine uses, for people."""
        return self.case.settings.method.value or say("no quantization")

    @property
    def loads(self) -> bool:
        return self.case.deliveries.load.outcome == "loads"

    @cached_property
    def cache_dtype(self) -> str:
        """The dtype of the KV cache as the engine resolves it; "auto" is said as the model dtype."""
        return self.model_dtype if self._cache == "auto" else self._cache

    @cached_property
    def model_dtype(self) -> str:
        """The engine's model dtype, for people."""
        return self.case.settings.dtype.value or say("the model dtype")

    @cached_property
    def cache_quantized(self) -> bool:
        return is_quantized_cache(self._cache)

    @cached_property
    def run_time_scales(self) -> bool:
        """Whether the cache's scales are computed while the engine runs, per token and head."""
        return has_run_time_scales(self._cache)

    @cached_property
    def _cache(self) -> str:
        """The engine's dtype for the KV cache; the layers' own where the model passes the engine's on to none."""
        own = {layer.own_cache for layer in self.receivers}
        only = next(iter(own)) if len(own) == 1 else None
        return only or self.case.settings.kv_cache_dtype_resolved

    @cached_property
    def unasked(self) -> tuple[AttentionLayer, ...]:
        """Layers that keep their KV cache in the model dtype, whatever ``--kv-cache-dtype`` the engine is given."""
        return tuple(layer for layer in self.receivers if layer.own_cache == "auto")

    # ------------------------------------------------------------------------------------------------------ the layers

    @cached_property
    def hidden_layers(self) -> int:
        """How many decoder layers the config declares; 0 when it does not say."""
        return len(layer_kinds(self.case.declaration.hf_config))

    @cached_property
    def kv_heads(self) -> int | None:
        """Key/value heads of the model; None when neither the config nor its class says."""
        counts = HeadCounts(self.case.declaration.hf_config)
        return counts.model.kv if counts.known else None

    def is_draft(self, path: str, layer: int | None) -> bool:
        """Whether a path belongs to a draft (MTP) layer: those stand behind the model's own layers."""
        if _DRAFT.search(path):
            return True
        behind = self.hidden_layers > 0 and layer is not None and layer >= self.hidden_layers
        return behind and not _TOWER.search(path)

    @cached_property
    def receivers(self) -> tuple[AttentionLayer, ...]:
        """The attention layers that need scales of their own."""
        return tuple(
            layer
            for layer in self.case.deliveries.attention
            if layer.expects_scales and not self.is_draft(layer.path, layer.layer)
        )

    @cached_property
    def parameters(self) -> Mapping[str, tuple[int, ...]]:
        """The shapes of all scale parameters, by full name."""
        return {
            f"{layer.path}.{name}": shape
            for layer in self.case.deliveries.attention
            for name, shape in layer.parameters.items()
        }

    @cached_property
    def _by_path(self) -> Mapping[str, AttentionLayer]:
        return {layer.path: layer for layer in self.case.deliveries.attention}

    @cached_property
    def _by_anchor(self) -> Mapping[str, tuple[AttentionLayer, ...]]:
        found: dict[str, list[AttentionLayer]] = defaultdict(list)
        for layer in self.case.deliveries.attention:
            found[anchor(layer.path)].append(layer)
        return {name: tuple(layers) for name, layers in found.items()}

    @cached_property
    def _by_tail(self) -> Mapping[str, tuple[AttentionLayer, ...]]:
        """Attention layers by their anchor from its number on: what stands before differs between files and engines."""
        found: dict[str, list[AttentionLayer]] = defaultdict(list)
        for name, layers in self._by_anchor.items():
            found[_tail(name)].extend(layers)
        return {name: tuple(layers) for name, layers in found.items()}

    @cached_property
    def _by_number(self) -> Mapping[int, tuple[AttentionLayer, ...]]:
        found: dict[int, list[AttentionLayer]] = defaultdict(list)
        for layer in self.case.deliveries.attention:
            if layer.layer is not None:
                found[layer.layer].append(layer)
        return {number: tuple(layers) for number, layers in found.items()}

    # ------------------------------------------------------------------------------------------------------ the scales

    @cached_property
    def deliveries(self) -> Mapping[Id, Delivery]:
        """What became of each scale."""
        return {
            identity(delivery.scale): delivery
            for delivery in self.case.deliveries.deliveries
            if delivery.scale is not None
        }

    def delivery(self, scale: KVScale) -> Delivery | None:
        return self.deliveries.get(identity(scale))

    def outcome(self, scale: KVScale) -> str:
        delivery = self.delivery(scale)
        return delivery.outcome if delivery is not None else "not_reached"

    @cached_property
    def _writers(self) -> Mapping[str, Id]:
        """By parameter: the one tensor whose numbers it ends with; none where it is made of several."""
        return {
            delivery.target: identity(delivery.scale)
            for delivery in self.case.deliveries.deliveries
            if delivery.target is not None and delivery.scale is not None and not delivery.joined
        }

    def stays(self, scale: KVScale) -> bool:
        """Whether a parameter ends with this scale's own numbers: it was loaded, and nothing replaced or joined it."""
        delivery = self.delivery(scale)
        if delivery is None or delivery.outcome != "loaded" or delivery.target is None:
            return False
        return self._writers.get(delivery.target) == identity(scale)

    def owners(self, scale: KVScale) -> tuple[AttentionLayer, ...]:
        """The engine's attention layers that a scale belongs to, found or meant; () when there are none."""
        return self._owners[identity(scale)]

    @cached_property
    def _owners(self) -> Mapping[Id, tuple[AttentionLayer, ...]]:
        return {identity(scale): self._find_owners(scale) for scale in self.case.scales}

    def _find_owners(self, scale: KVScale) -> tuple[AttentionLayer, ...]:
        delivery = self.delivery(scale)
        if delivery is not None and delivery.target is not None:
            layer = self._by_path.get(delivery.target.rpartition(".")[0])
            if layer is not None:
                return (layer,)
        for name in (delivery.name if delivery is not None else None, scale.module):
            if name is not None and anchor(name) in self._by_anchor:
                return self._by_anchor[anchor(name)]
        if _TOWER.search(scale.module) or scale.layer is None:
            return ()
        found = self._by_tail.get(_tail(anchor(scale.module)), ()) or self._by_number.get(scale.layer, ())
        return tuple(layer for layer in found if not _TOWER.search(layer.path))

    @cached_property
    def _places(self) -> Mapping[Id, Place]:
        return {identity(scale): self._place(scale) for scale in self.case.scales}

    def _place(self, scale: KVScale) -> Place:
        if self.is_draft(scale.module, scale.layer):
            return "draft"
        if not self.case.deliveries.attention:
            return "no cache" if _TOWER.search(scale.module) else "layer"
        return "layer" if any(layer.expects_scales for layer in self.owners(scale)) else "no cache"

    def place(self, scale: KVScale) -> Place:
        """Whether a scale stands on a layer with a cache of its own, on a draft layer, or on neither."""
        return self._places[identity(scale)]

    def at(self, place: Place, *, kinds: Iterable[str] = ("scale",)) -> tuple[KVScale, ...]:
        """The scales in one kind of place."""
        return tuple(scale for scale in self.case.scales if scale.kind in kinds and self.place(scale) == place)

    @cached_property
    def scales(self) -> tuple[KVScale, ...]:
        """The scales (no zero points, no biases) of the layers that need them, all roles."""
        return self.at("layer")

    @cached_property
    def kv_scales(self) -> tuple[KVScale, ...]:
        """Of :attr:`scales` those for keys and values."""
        return tuple(scale for scale in self.scales if scale.role in ("k", "v", "kv"))

    @cached_property
    def blind(self) -> bool:
        """Whether files could not be read, so that a scale which is not seen may still be there."""
        return any(shard.fault is not None for shard in self.case.checkpoint.shards)

    @cached_property
    def pairs(self) -> tuple[tuple[KVScale, KVScale], ...]:
        """The k and the v scale of each attention module that has exactly one of each."""
        found: dict[str, dict[str, list[KVScale]]] = defaultdict(lambda: defaultdict(list))
        for scale in self.kv_scales:
            found[scale.module][scale.role].append(scale)
        return tuple(
            (roles["k"][0], roles["v"][0])
            for roles in found.values()
            if len(roles.get("k", ())) == 1 and len(roles.get("v", ())) == 1
        )

    @cached_property
    def roles_at(self) -> Mapping[str, frozenset[str]]:
        """By attention layer's path: the roles among k, v and q for which the checkpoint holds a scale."""
        found: dict[str, set[str]] = defaultdict(set)
        for scale in self.scales:
            for layer in self.owners(scale):
                found[layer.path].update(KV_ROLES if scale.role == "kv" else (scale.role,))
        return {path: frozenset(roles) for path, roles in found.items()}

    @cached_property
    def unit(self) -> float:
        """What a scale is multiplied by to be compared with FP8 scales."""
        scheme = self.case.declaration.kv_scheme
        algorithm = (scheme.algorithm or "FP8") if scheme is not None else "FP8"
        return LARGEST_NUMBER.get(algorithm, LARGEST_NUMBER["FP8"]) / LARGEST_NUMBER["FP8"]

    @cached_property
    def marks(self) -> Mapping[Id, str]:
        """The code of the one finding that doubts a scale's value, for each scale that one doubts."""
        return marks(self.scales, self.thresholds, self.unit)

    def marked(self, *codes: str) -> tuple[KVScale, ...]:
        """The scales with one of these marks."""
        return tuple(scale for scale in self.scales if self.marks.get(identity(scale)) in codes)

    @cached_property
    def sound(self) -> tuple[KVScale, ...]:
        """The scales that no mark doubts."""
        return tuple(scale for scale in self.scales if identity(scale) not in self.marks)


def is_quantized_cache(dtype: str) -> bool:
    """Whether a cache of that dtype, as an engine resolves it, needs scales."""
    return dtype not in _PLAIN_CACHE


def has_run_time_scales(dtype: str) -> bool:
    """Whether the scales of such a cache are computed while the engine runs."""
    return dtype.endswith("_per_token_head")


def anchor(path: str) -> str:
    """A path up to its last layer number and the component after it: the attention module, whatever stands below."""
    found = _NUMBERED.match(path)
    return found.group(0) if found else path


def _tail(path: str) -> str:
    """The path from its first number on: model.layers.3.self_attn -> 3.self_attn."""
    found = re.search(r"(?:^|\.)(\d+(?:\..*)?)$", path)
    return found.group(1) if found else path
