"""What an engine does with a checkpoint's scales: the results every engine profile gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.backends.kv_method import ValueSource
from core.naming.mapper import Step
from core.naming.scales import KVScale

LoadOutcome = Literal["loads", "raises", "refused", "unknown"]
DeliveryOutcome = Literal["loaded", "ignored", "dropped", "raises", "not_reached"]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """How the whole load ends. ``error`` is the engine's own exception, ``key`` the first tensor that causes it."""

    outcome: LoadOutcome
    error: str | None = None
    key: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What becomes of one tensor.

    ``target`` is the parameter's full name in the engine when the tensor reached one, else None; ``name`` is the name
    the engine looked for last. ``loaded`` are the numbers written (before the parameter's own dtype rounds them).
    ``reason`` is a sentence for people; ``scale`` is None for a tensor that is no KV scale but takes part in the load.
    ``joined``: the engine makes the parameter of this tensor and of others together, so that none of them replaces
    another.
    """

    key: str
    scale: KVScale | None
    name: str | None
    target: str | None
    outcome: DeliveryOutcome
    steps: tuple[Step, ...]
    reason: str
    loaded: tuple[float, ...] = ()
    error: str | None = None
    joined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionLayer:
    """One attention layer of the engine's model that has a KV cache, after loading.

    ``parameters`` maps parameter name to shape. ``final`` holds what the kernels get for k, v, q and prob; for
    per-head scales the float the engine keeps beside them (the maximum over heads). ``per_head`` holds the heads.
    ``source`` says where each value came from. ``error`` is the engine's exception when post-processing raises.
    ``own_cache`` is the dtype of the layer's KV cache where the engine's ``--kv-cache-dtype`` does not decide it:
    "auto" means the model dtype. ``joint`` is the parameter that is made of k's and v's scales together, one number of
    each, where there is such a one.
    """

    path: str
    cls: str
    layer: int | None
    kv_method: str | None
    parameters: Mapping[str, tuple[int, ...]]
    final: Mapping[str, float]
    source: Mapping[str, ValueSource]
    per_head: Mapping[str, tuple[float, ...]]
    error: str | None = None
    expects_scales: bool = True
    own_cache: str | None = None
    joint: str = ""

    def parameter_for(self, role: str, kind: str = "scale") -> str | None:
        """The name of the parameter that takes the scales of that role, None where the layer has none. A common scale
        ("kv") is taken for k.
        """
        own = f"{'k' if role == 'kv' else role}_{kind}"
        if own in self.parameters:
            return own
        return self.joint if self.joint and kind == "scale" and role in ("k", "v", "kv") else None

    def shape_for(self, parameter: str) -> tuple[int, ...]:
        """The shape in which one tensor goes to that parameter."""
        return (1,) if parameter == self.joint else self.parameters[parameter]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliveries:
    """The prediction for one checkpoint under one engine: the load, every tensor, every attention layer.

    ``confirmed`` is False where the model's modules are known from sources or from tensor names alone: no run of the
    engine has confirmed them. A note then says so. ``closed`` says that no name gets to the attention layers: a loader
    on the way ends the load at any tensor.
    """

    load: LoadResult
    deliveries: tuple[Delivery, ...]
    attention: tuple[AttentionLayer, ...]
    notes: tuple[str, ...] = ()
    confirmed: bool = True
    closed: bool = False


__all__ = [
    "AttentionLayer",
    "Deliveries",
    "Delivery",
    "DeliveryOutcome",
    "LoadOutcome",
    "LoadResult",
    "ValueSource",
]
