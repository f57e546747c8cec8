"""What SGLang does with a checkpoint's scales: every tensor followed, every attention layer's end values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.backends.kv_method import ROLES, AttentionShape, CacheSetup, EngineError, ScaleParameter, ValueSource
from core.engines.outcome import AttentionLayer, Deliveries, Delivery, LoadResult
from core.engines.profile import Fed
from core.engines.sglang.kv_method import SglangKVCacheMethod
from core.engines.sglang.models import ATTENTION_CLASS, Architecture, Layer, build_layers, load_loops, number_in
from core.engines.sglang.walk import Arrival, Walk
from core.wording import say

_SHAPE = AttentionShape(num_heads=1, num_kv_heads=1, total_num_heads=1, total_num_kv_heads=1)
"""SGLang's scale parameters are scalars whatever the heads are."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model ready to load: its layers, the KV method of those that have one, and their parameters by full name.

    ``kinds`` are the kinds of its decoder layers; ``counted`` says that the config gave their number;
    ``quantization`` is the class of the quantization config.
    """

    architecture: Architecture
    config: Mapping[str, Any]
    kinds: Sequence[str]
    counted: bool
    kv_method: str | None
    cache: CacheSetup
    quantization: str | None = None
    layers: tuple[Layer, ...] = field(init=False)
    parameters: Mapping[str, ScaleParameter] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", build_layers(self.architecture, self.config, self.kinds))
        scales = SglangKVCacheMethod("").parameters(_SHAPE)
        object.__setattr__(
            self,
            "parameters",
            {
                f"{layer.path}.{name}": parameter
                for layer in self.layers
                if self.method_of(layer) is not None
                for name, parameter in scales.items()
            },
        )

    def method_of(self, layer: Layer) -> SglangKVCacheMethod | None:
        return SglangKVCacheMethod(self.kv_method) if self.kv_method is not None and layer.quantized else None

    def walk(self) -> Walk:
        return Walk(
            loops=load_loops(),
            root=self.architecture.loop,
            exists=self.parameters.__contains__,
            layers=len(self.kinds) if self.counted else None,
            experts=lambda fields: number_in(self.config, fields),
            quantization=self.quantization,
        )


def predict(model: Model, tensors: Iterable[Fed], *, notes: tuple[str, ...] = ()) -> Deliveries:
    """Follow every tensor in the order in which the engine reads them, then post-process every layer."""
    walk = model.walk()
    held = {name: (parameter.initial,) * parameter.numel for name, parameter in model.parameters.items()}
    written: set[str] = set()
    deliveries: list[Delivery] = []
    failure: Delivery | None = None
    failed = ""
    for tensor in tensors:
        if failure is not None:
            deliveries.append(not_reached(tensor, failed))
            continue
        delivery = _deliver(tensor, walk.follow(tensor.key, tensor.values), model, held, written)
        deliveries.append(delivery)
        if delivery.outcome == "raises":
            failure = delivery
            failed = say("the load has already failed at {key}", key=failure.key)
    if failure is not None:
        load = LoadResult("raises", failure.error, failure.key, failure.reason)
        attention = tuple(_layer(model, layer) for layer in model.layers)
    else:
        load = LoadResult("loads")
        attention = tuple(_finished(model, layer, held, written) for layer in model.layers)
    return Deliveries(load=load, deliveries=tuple(deliveries), attention=attention, notes=notes)


def not_reached(tensor: Fed, reason: str) -> Delivery:
    """The delivery of a tensor the engine never looks at."""
    return Delivery(
        key=tensor.key, scale=tensor.scale, name=None, target=None, outcome="not_reached", steps=(), reason=reason
    )


def _deliver(
    tensor: Fed, arrival: Arrival, model: Model, held: dict[str, tuple[float, ...]], written: set[str]
) -> Delivery:
    error, reason, target = arrival.error, arrival.reason, arrival.parameter
    if target is not None:
        method = SglangKVCacheMethod(model.kv_method or "")
        try:
            kept = method.take(model.parameters[target], tensor.values, tensor.shape, _SHAPE, "float32")
        except EngineError as refused:
            error = refused
            reason = say(
                "{target} does not take a tensor of shape {shape}: {error}",
                target=target,
                shape=list(tensor.shape),
                error=str(refused),
            )
            target = None
        else:
            held[target] = kept or held[target]
            reason = say(
                "{target} takes it, and replaces the value before" if target in written else "{target} takes it",
                target=target,
            )
            written.add(target)
    return Delivery(
        key=tensor.key,
        scale=tensor.scale,
        name=arrival.name,
        target=target,
        outcome="raises" if error is not None else "loaded" if target else "dropped" if arrival.warned else "ignored",
        steps=arrival.steps,
        reason=reason,
        loaded=tensor.values if target is not None else (),
        error=str(error) if error is not None else None,
    )


def _finished(model: Model, layer: Layer, held: Mapping[str, tuple[float, ...]], written: set[str]) -> AttentionLayer:
    method = model.method_of(layer)
    if method is None:
        return _layer(model, layer, final=dict.fromkeys(ROLES, 1.0), source=dict.fromkeys(ROLES, "default"))
    names = [name for name in ("k_scale", "v_scale") if f"{layer.path}.{name}" in model.parameters]
    values = {name: held[f"{layer.path}.{name}"] for name in names}
    loaded = frozenset(name for name in names if f"{layer.path}.{name}" in written)
    try:
        done = method.process(values, loaded, model.cache)
    except EngineError as error:
        return _layer(model, layer, error=str(error))
    return _layer(model, layer, final=done.final, source=done.source)


def _layer(
    model: Model,
    layer: Layer,
    *,
    final: Mapping[str, float] | None = None,
    source: Mapping[str, ValueSource] | None = None,
    error: str | None = None,
) -> AttentionLayer:
    shapes = {
        name: model.parameters[full].shape
        for name in ("k_scale", "v_scale")
        if (full := f"{layer.path}.{name}") in model.parameters
    }
    return AttentionLayer(
        path=layer.path,
        cls=ATTENTION_CLASS,
        layer=layer.layer,
        kv_method=model.kv_method if shapes else None,
        parameters=shapes,
        final=final or {},
        source=source or {},
        per_head={},
        error=error,
        expects_scales=layer.scaled,
    )
