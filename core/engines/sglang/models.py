"""SGLang's model classes: where their attention layers are, and which load loop they have.

The facts are data in ``resources/architectures/sglang-0.5.23.json`` (schema ``kvscope.load-loops/1``):

``loops``: name -> ``class``, ``source`` (the file) and ``steps`` (:mod:`core.engines.sglang.steps`).
``architectures``: name in config.json -> ``loop`` and ``attention``, a list of
    ``path`` (``{layer}`` is the layer's number); ``kinds`` (only layers of these kinds have it, see
    :mod:`core.architectures.layers`), ``count`` (config fields with the number of layers, where it is not the decoder's
    number), ``quantized`` false where the layer is built without a quantization config, ``scaled`` false where its
    scales are of no use to the KV cache;
    ``auto_cache`` false where the model keeps no ``quant_config``, so that ``--kv-cache-dtype auto`` never sees one;
    ``compared`` false where the loop was read from the source but not compared with the real model;
    ``becomes`` (``name``, ``unless``): the class that is built instead, unless the method is one of these.
``registered``: the other architectures SGLang has a class for, which are not described.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

from core.architectures.layers import layer_kinds, text_config_of
from core.engines.sglang.steps import parse_steps
from core.engines.sglang.walk import Loop
from core.naming.conventions import layer_number
from resources import resource

FILE = "sglang-0.5.23.json"
ATTENTION_CLASS = "RadixAttention"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionAt:
    """Attention layers of one kind: a path with ``{layer}`` in it, and which layers have one."""

    path: str
    kinds: tuple[str, ...] = ()
    count: tuple[str, ...] = ()
    quantized: bool = True
    scaled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What SGLang builds for one name in config.json."""

    name: str
    loop: str
    attention: tuple[AttentionAt, ...]
    auto_cache: bool = True
    compared: bool = True
    becomes: str | None = None
    becomes_unless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One attention layer of a model with its sizes."""

    path: str
    layer: int | None
    quantized: bool
    scaled: bool


@cache
def _data() -> Mapping[str, Any]:
    data: dict[str, Any] = json.loads(resource("architectures", FILE).read_text(encoding="utf-8"))
    return MappingProxyType(data)


@cache
def load_loops() -> Mapping[str, Loop]:
    """Every load loop, by name."""
    return MappingProxyType(
        {
            name: Loop(by=row["class"], source=f"SGLang 0.5.23, {row['source']}", steps=parse_steps(row["steps"]))
            for name, row in _data()["loops"].items()
        }
    )


@cache
def architectures() -> Mapping[str, Architecture]:
    """Every architecture that is described, by its name in config.json."""
    return MappingProxyType({name: _architecture(name, row) for name, row in _data()["architectures"].items()})


def is_registered(name: str) -> bool:
    """Whether SGLang has a class of that name which is not described here."""
    return name in _data()["registered"]


def _architecture(name: str, row: Mapping[str, Any]) -> Architecture:
    becomes = row.get("becomes", {})
    return Architecture(
        name=name,
        loop=row["loop"],
        attention=tuple(
            AttentionAt(
                path=at["path"],
                kinds=tuple(at.get("kinds", ())),
                count=tuple(at.get("count", ())),
                quantized=at.get("quantized", True),
                scaled=at.get("scaled", True),
            )
            for at in row["attention"]
        ),
        auto_cache=row.get("auto_cache", True),
        compared=row.get("compared", True),
        becomes=becomes.get("name"),
        becomes_unless=tuple(becomes.get("unless", ())),
    )


def kinds_of(config: Mapping[str, Any], names: Sequence[str] = ()) -> tuple[str, ...]:
    """The kind of every decoder layer; where the config does not say how many there are, as many as ``names`` reach."""
    kinds = layer_kinds(config)
    if kinds:
        return kinds
    reached = 1 + max((number for name in names if (number := layer_number(name)) is not None), default=-1)
    return ("attention",) * reached


def number_in(config: Mapping[str, Any], fields: Sequence[str]) -> int | None:
    """The first of these fields that holds a whole number; dots lead into nested configs."""
    for field in fields:
        for base in (config, text_config_of(config)):
            value: Any = base
            for part in field.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100_000:
                return value
    return None


def build_layers(architecture: Architecture, config: Mapping[str, Any], kinds: Sequence[str]) -> tuple[Layer, ...]:
    """The attention layers of the model ``config`` describes, layer by layer."""
    found: list[tuple[int, int, Layer]] = []
    for order, at in enumerate(architecture.attention):
        count = number_in(config, at.count) or 0 if at.count else len(kinds)
        for index in range(count):
            kind = kinds[index].partition("+")[0] if not at.count else ""
            if at.kinds and kind not in at.kinds:
                continue
            path = at.path.replace("{layer}", str(index))
            layer = Layer(path=path, layer=layer_number(path), quantized=at.quantized, scaled=at.scaled)
            found.append((order if at.count else -1, index, layer))
    found.sort(key=lambda row: row[:2])
    return tuple(layer for _, _, layer in found)
