"""A few layers of a large checkpoint that stand for all of them.

Layers whose scales have the same names, shapes and types, and that the engine builds and serves alike, share their
fate under any other engine and any other names: one of them is asked about, and counts for all.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace

from core.architectures.layers import layer_kinds
from core.diagnosis.catalog import DOUBTS
from core.diagnosis.facts import Facts
from core.diagnosis.marks import marks
from core.diagnosis.thresholds import Thresholds
from core.engines import Fed
from core.inspection import Inspection, imagine
from core.naming.conventions import layer_number


def sample(inspection: Inspection) -> Inspection:
    """The inspection of one layer of each kind; the same one where that would leave nothing out, or where values are
    doubted, which other layers' values decide, or a pattern picks layers.
    """
    limits = inspection.thresholds or Thresholds()
    doubted = any(finding.code in DOUBTS for finding in inspection.findings)
    if doubted or inspection.checkpoint.catalog.duplicates or _picks(inspection.declaration.ignore):
        return inspection
    if marks(inspection.scales, limits, Facts(inspection.case, limits).unit):
        return inspection
    stands_for = _representatives(inspection)
    kept = [fed for fed in inspection.tensors if stands_for.get(layer_number(fed.key), 1)]
    if len(kept) == len(inspection.tensors):
        return inspection
    return imagine(inspection, _alike(kept), stands_for=stands_for)


def _picks(ignored: Iterable[str]) -> bool:
    """Whether a pattern may pick layers by their number."""
    return any(re.search(r"\d", entry) and layer_number(entry) is None for entry in ignored)


def _representatives(inspection: Inspection) -> Mapping[int | None, int]:
    """For each layer number how many it stands for: the first of each kind for all of that kind, the others for 0."""
    first: dict[Hashable, int] = {}
    found: dict[int | None, int] = {}
    for number, kind in sorted(_kinds(inspection).items()):
        chosen = first.setdefault(kind, number)
        found[number] = 0
        found[chosen] += 1
    return found


def _kinds(inspection: Inspection) -> Mapping[int, Hashable]:
    """What makes a layer differ from others: its tensors, its attention modules, and what the config says of it."""
    told: dict[int, list[Hashable]] = defaultdict(list)
    for delivery, fed in zip(inspection.deliveries.deliveries, inspection.tensors, strict=True):
        number = layer_number(fed.key)
        if number is not None:
            told[number].append((_pattern(fed.key, number), _content(fed), delivery.outcome))
    for layer in inspection.deliveries.attention:
        if layer.layer is not None:
            parameters, source = tuple(layer.parameters.items()), tuple(layer.source.items())
            path = _pattern(layer.path, layer.layer)
            told[layer.layer].append(
                (path, layer.cls, layer.kv_method, parameters, source, layer.error, layer.expects_scales)
            )
    for entry in inspection.declaration.ignore:
        number = layer_number(entry)
        if number in told:
            told[number].append(_pattern(entry, number))
    kinds = layer_kinds(inspection.declaration.hf_config)
    return {
        number: (kinds[number] if number < len(kinds) else None, frozenset(each), len(each))
        for number, each in told.items()
    }


def _content(fed: Fed) -> Hashable:
    scale = fed.scale
    if scale is None:
        return fed.shape
    values = scale.values if scale.kind != "scale" else ()
    return fed.shape, scale.dtype, scale.role, scale.kind, scale.quantity, scale.convention, scale.fault, values


def _alike(tensors: list[Fed]) -> list[Fed]:
    """With one value for each name, so that no layer stands out among the few that are left."""
    first: dict[Hashable, tuple[float, ...]] = {}
    found = []
    for fed in tensors:
        number = layer_number(fed.key)
        values = first.setdefault((_pattern(fed.key, number), fed.shape), fed.values)
        found.append(replace(fed, values=values, scale=replace(fed.scale, values=values) if fed.scale else None))
    return found


def _pattern(name: str, number: int | None) -> str:
    return f".{name}".replace(f".{number}.", ".*.", 1)
