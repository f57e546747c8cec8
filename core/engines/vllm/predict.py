"""What vLLM does with a checkpoint's scales: every tensor followed, every attention layer's end values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from core.architectures.heads import HeadCounts
from core.architectures.layers import KV_SHARED, layer_kinds, positive, text_config_of
from core.architectures.modules import ModuleNode, OwnLoader
from core.backends.base import Backend
from core.backends.kv_method import (
    ROLES,
    AttentionShape,
    CacheSetup,
    EngineError,
    KVMethod,
    ScaleParameter,
)
from core.engines.outcome import AttentionLayer, Deliveries, Delivery, DeliveryOutcome, LoadResult, ValueSource
from core.engines.profile import Fed
from core.engines.vllm.releases import NEWEST, Release
from core.engines.vllm.walk import Arrival, Lacking, Walk
from core.naming.conventions import MOST_LAYERS, layer_number
from core.quantization.declaration import Declaration
from core.wording import say


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One attention layer, ready to take scales. ``cache`` is its own: the engine's, where the model passes that on."""

    path: str
    node: ModuleNode
    shape: AttentionShape
    cache: CacheSetup
    method: KVMethod | None
    parameters: Mapping[str, ScaleParameter]


@dataclass(frozen=True, slots=True)
class Stop:
    """An ordinary tensor at which the load ends, and how many of the followed tensors are read before it."""

    key: str
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Everything the prediction needs besides the tensors, for one tensor-parallel rank. ``dtype`` is the engine's
    model dtype, ``stop`` the first ordinary tensor at which the load ends.
    """

    root: ModuleNode
    backend: Backend | None
    declared: Declaration
    hf_config: Mapping[str, Any]
    cache: CacheSetup
    dtype: str
    release: Release = NEWEST
    tp_rank: int = 0
    tp_size: int = 1
    stop: Stop | None = None
    layers: tuple[Layer, ...] = field(init=False)

    def __post_init__(self) -> None:
        built = []
        counts = HeadCounts(self.hf_config)
        shape = attention_shape(counts, tp_rank=self.tp_rank, tp_size=self.tp_size)
        for path, node in self.root.attention_layers():
            method = None
            if not counts.uniform:
                shape = attention_shape(counts, layer_number(path), tp_rank=self.tp_rank, tp_size=self.tp_size)
            if self.backend is not None and node.quantized and node.attention is not None:
                method = self.backend.kv_method(node.attention, path, self.declared)
            built.append(
                Layer(
                    path=path,
                    node=node,
                    shape=shape,
                    cache=self.cache if node.cache_config else self._unasked(node),
                    method=method,
                    parameters=method.parameters(shape) if method is not None else {},
                )
            )
        object.__setattr__(self, "layers", tuple(built))

    @property
    def at_end(self) -> str:
        """What the model's own loader raises after the last tensor, if anything."""
        return self.root.loader.at_end if isinstance(self.root.loader, OwnLoader) else ""

    def _unasked(self, node: ModuleNode) -> CacheSetup:
        """The cache of a layer that is built without the engine's cache config: "auto", in which compressed-tensors'
        own scheme still decides for a layer that gets the quant config (vLLM 0.33.0, ``Attention.__init__``).
        """
        method = self.backend.method if self.backend is not None and node.quantized else None
        scheme = self.declared.config.get("kv_cache_scheme") if method == "compressed-tensors" else None
        own = scheme is not None and node.attention == "Attention"
        return replace(self.cache, dtype="fp8" if own else "auto", quantized=own, per_token_head=False)

    def walk(self) -> Walk:
        text = text_config_of(self.hf_config)
        return Walk(
            self.root,
            self.backend,
            {layer.path: layer.parameters for layer in self.layers},
            hidden_layers=positive(text, "num_hidden_layers") or len(layer_kinds(self.hf_config)),
            draft_layers=positive(text, "num_nextn_predict_layers") or 0,
            config=text,
            release=self.release,
        )


def attention_shape(
    counts: HeadCounts, layer: int | None = None, *, tp_rank: int = 0, tp_size: int = 1
) -> AttentionShape:
    """Heads of one of the language model's attention layers on one of ``tp_size`` ranks, and of the whole model."""
    own = counts.of(layer)
    return AttentionShape(
        num_heads=own.query // tp_size,
        num_kv_heads=max(1, own.kv // tp_size),
        total_num_heads=counts.model.query,
        total_num_kv_heads=counts.model.kv,
        tp_rank=tp_rank,
        tp_size=tp_size,
    )


def first_stop(
    setup: Setup, tensors: Sequence[Fed], names: Iterable[str], leftovers: Iterable[str] = ()
) -> Stop | None:
    """The first of all tensors of the checkpoint, if it is none of ``tensors``, that reaches a loader which ends the
    load at any, or is one of ``leftovers`` for which there is no place.
    """
    walk, read = setup.walk(), 0
    left = next((name for name in leftovers if walk.follow(name).error is not None), None)
    any_stops = setup.root.stops_at_any()
    if left is None and not any_stops:
        return None
    for name in names:
        followed = read < len(tensors) and tensors[read].key == name
        if name == left or (any_stops and isinstance(walk.follow(name).error, Lacking)):
            return None if followed else Stop(name, read)
        read += followed
    return None


def predict(setup: Setup, tensors: Iterable[Fed]) -> Deliveries:
    """Follow every tensor in the order in which the engine reads them, then post-process every layer."""
    walk = setup.walk()
    by_parameter = {
        f"{layer.path}.{name}": (layer, layer.method, parameter)
        for layer in setup.layers
        if layer.method is not None
        for name, parameter in layer.parameters.items()
    }
    held = {target: (parameter.initial,) * parameter.numel for target, (_, _, parameter) in by_parameter.items()}
    written: set[str] = set()
    deliveries: list[Delivery] = []
    load: LoadResult | None = None
    failed = ""
    for tensor in tensors:
        if load is None and setup.stop is not None and len(deliveries) == setup.stop.after:
            load = _stopped(setup.stop, walk)
        if load is not None:
            failed = failed or say("the load has already failed at {key}", key=load.key)
            deliveries.append(_not_reached(tensor, failed))
            continue
        delivery = _deliver(tensor, walk.follow(tensor.key, tensor.shape), setup, by_parameter, held, written)
        deliveries.append(delivery)
        if delivery.outcome == "raises":
            load = LoadResult("raises", delivery.error, delivery.key, delivery.reason)
    if load is None and setup.stop is not None:
        load = _stopped(setup.stop, walk)
    if load is None and setup.at_end:
        load = LoadResult("raises", setup.at_end, None, setup.at_end.partition(": ")[2])
    if load is None:
        load = LoadResult("loads")
        attention = tuple(_finish(layer, held, written) for layer in setup.layers)
    else:
        attention = tuple(_unfinished(layer) for layer in setup.layers)
    return Deliveries(
        load=load, deliveries=tuple(deliveries), attention=_expecting(attention, setup), closed=_is_closed(setup, walk)
    )


def _is_closed(setup: Setup, walk: Walk) -> bool:
    """Whether not even a name below them gets to the attention layers."""
    own = [f"{layer.path}.k_scale" for layer in setup.layers]
    return bool(own) and setup.root.stops_at_any() and all(isinstance(walk.follow(name).error, Lacking) for name in own)


def _stopped(stop: Stop, walk: Walk) -> LoadResult:
    arrival = walk.follow(stop.key)
    return LoadResult("raises", str(arrival.error), stop.key, arrival.reason)


def _deliver(
    tensor: Fed,
    arrival: Arrival,
    setup: Setup,
    by_parameter: Mapping[str, tuple[Layer, KVMethod, ScaleParameter]],
    held: dict[str, tuple[float, ...]],
    written: set[str],
) -> Delivery:
    outcome: DeliveryOutcome
    error = arrival.error
    reason = arrival.reason
    target = arrival.parameter
    numel = math.prod(arrival.shape)
    values = tensor.values[:numel]
    unread = numel > 0 and not values
    if error is None and target is not None:
        found = by_parameter.get(target)
        if found is None:
            outcome, reason = "loaded", say("{target} takes it", target=target)
        else:
            layer, method, parameter = found
            try:
                given = (1.0,) * min(numel, MOST_LAYERS) if unread else values  # whether it is taken, the shape decides
                kept = method.take(parameter, given, arrival.shape, layer.shape, setup.dtype)
            except EngineError as refused:
                error = EngineError(arrival.wraps, str(refused)) if arrival.wraps else refused
                reason = say(
                    "{target} does not take a tensor of shape {shape}: {error}",
                    target=target,
                    shape=list(arrival.shape),
                    error=str(refused),
                )
            else:
                if kept is not None:
                    held[target] = () if unread else kept
                reason = say(
                    "{target} takes it, and replaces the value before" if target in written else "{target} takes it",
                    target=target,
                )
                written.add(target)
    if error is not None:
        outcome, target = "raises", None
    elif target is not None:
        outcome = "loaded"
    else:
        outcome = "ignored" if arrival.ignored else "dropped"
    return Delivery(
        key=tensor.key,
        scale=tensor.scale,
        name=arrival.name,
        target=target,
        outcome=outcome,
        steps=arrival.steps,
        reason=reason,
        loaded=values if target is not None else (),
        error=str(error) if error is not None else None,
    )


def _not_reached(tensor: Fed, reason: str) -> Delivery:
    return Delivery(
        key=tensor.key,
        scale=tensor.scale,
        name=None,
        target=None,
        outcome="not_reached",
        steps=(),
        reason=reason,
    )


def _unfinished(layer: Layer) -> AttentionLayer:
    return _attention(layer, {}, {}, {}, None)


def _finish(layer: Layer, held: Mapping[str, tuple[float, ...]], written: set[str]) -> AttentionLayer:
    if layer.method is None:
        sources: dict[str, ValueSource] = dict.fromkeys(ROLES, "default")
        return _attention(layer, dict.fromkeys(ROLES, 1.0), sources, {}, None)
    values = {name: held[f"{layer.path}.{name}"] for name in layer.parameters}
    if not all(values.values()):
        return _unfinished(layer)  # of a value that cannot be read nobody knows what becomes of it
    loaded = frozenset(name for name in layer.parameters if f"{layer.path}.{name}" in written)
    try:
        done = layer.method.process(values, loaded, layer.cache)
    except EngineError as error:
        return _attention(layer, {}, {}, {}, str(error))
    return _attention(layer, done.final, done.source, done.per_head, None)


def _attention(
    layer: Layer,
    final: Mapping[str, float],
    source: Mapping[str, ValueSource],
    per_head: Mapping[str, tuple[float, ...]],
    error: str | None,
) -> AttentionLayer:
    return AttentionLayer(
        path=layer.path,
        cls=layer.node.cls,
        layer=layer_number(layer.path),
        kv_method=layer.method.name if layer.method is not None else None,
        parameters={name: parameter.shape for name, parameter in layer.parameters.items()},
        final=final,
        source=source,
        per_head=per_head,
        error=error,
        own_cache=None if layer.node.cache_config else layer.cache.dtype,
    )


def _expecting(layers: Sequence[AttentionLayer], setup: Setup) -> tuple[AttentionLayer, ...]:
    """Marks the layers that legitimately have no scale of their own: those that read another layer's KV cache."""
    kinds = layer_kinds(setup.hf_config)
    return tuple(
        replace(layer, expects_scales=False)
        if layer.layer is not None and layer.layer < len(kinds) and kinds[layer.layer].endswith(KV_SHARED)
        else layer
        for layer in layers
    )
