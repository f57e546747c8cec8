"""The choice of names for a whole checkpoint: as few changes as bring every scale home that can be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from core.engines import Fed, get_engine
from core.engines.outcome import Delivery
from core.errors import ExportError
from core.export.names import AS_IS, SPELLINGS, Oracle, Part, as_convention, parts_of, settled
from core.export.plan import Unreachable
from core.inspection import Inspection
from core.naming.conventions import is_nvfp4_global, without_numbers
from core.naming.scales import KVScale
from core.ordering import natural
from core.wording import say

REDUNDANT = say("the same attention layer has this scale under another name already")


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """What becomes of each tensor of ``inspection.tensors``, by its position there.

    ``parts`` are the tensors written in its place, ``dropped`` the engine's exception for those left out, or another
    reason. ``alone`` is what the engine does with each tensor as it is and ``becomes`` with each name written, whatever
    it does with the others; ``after`` is the prediction for the result. ``proven`` says whether the engine's prediction
    could be asked; otherwise ``alone`` and ``becomes`` are empty.
    """

    names: str
    parts: Mapping[int, tuple[Part, ...]]
    dropped: Mapping[int, str]
    unreachable: tuple[Unreachable, ...]
    alone: Mapping[int, Delivery]
    becomes: Mapping[str, Delivery]
    tensors: tuple[Fed, ...]
    proven: bool
    asked: bool = False


def choose_names(inspection: Inspection, names: str | None = None) -> Naming:
    """The first way of naming under which every layer receives its scales that can.

    The names as they are come first, because an export changes only what must change. ``names`` asks for a convention:
    it is then followed, whatever the engine makes of it.

    Raises:
        UsageError: no convention is called ``names``, or scales cannot be renamed to it.
        ExportError: two different scales would end under one name.
    """
    proven = inspection.deliveries.load.outcome not in {"refused", "unknown"}
    if names is not None or not proven:
        return _as_asked(inspection, names or AS_IS, proven=proven)
    oracle = Oracle(inspection)
    chosen = _best(oracle)
    oracle.ask((*inspection.tensors, *_shapes(oracle, chosen)))
    parts: dict[int, tuple[Part, ...]] = {}
    dropped: dict[int, str] = {}
    for position, fed in enumerate(inspection.tensors):
        found = _written(oracle, fed, chosen)
        if isinstance(found, str):
            dropped[position] = found
        else:
            parts[position] = found
    _resolve_collisions(inspection, parts, dropped)
    return Naming(
        names=chosen,
        parts=parts,
        dropped=dropped,
        unreachable=_unreachable(oracle, parts),
        alone={position: oracle.fate(fed) for position, fed in enumerate(inspection.tensors)},
        becomes={part.key: oracle.fate(part.fed) for found in parts.values() for part in found},
        tensors=_in_reading_order(inspection, parts),
        proven=True,
    )


def untranslatable(inspection: Inspection, scale: KVScale) -> str | None:
    """Why a scale keeps its name whatever the engine takes: it is not the number that the new name would promise."""
    scheme = inspection.declaration.kv_scheme
    reason = no_scale(scale)
    if reason is not None or scheme is None:
        return reason
    as_declared = (scheme.algorithm or "").lower() == inspection.settings.kv_cache_dtype_resolved
    if not as_declared and (scheme.type == "int" or scheme.num_bits not in {8, None}):
        return say(
            "it belongs to a cache declared as {scheme}, and the engine's parameters take FP8 scales",
            scheme=scheme.label,
        )
    return reason


def no_scale(scale: KVScale) -> str | None:
    """Why a tensor is no scale of keys or values that another convention has a name for."""
    if scale.fault is not None:
        return say("its values cannot be read: {fault}", fault=scale.fault)
    if scale.quantity == "amax":
        return say("it holds an amax, which is no scale until it is divided by the largest value of the cache's type")
    if scale.quantity == "reciprocal":
        return say("it holds the reciprocal of a scale")
    if scale.kind == "bias":
        return say("it is an offset, which no engine here takes")
    if is_nvfp4_global(scale):
        return say("it is the global scale of an NVFP4 cache, not the scale of an FP8 cache")
    if ".kv_b_proj." in scale.key:
        return say("it belongs to the up-projection of multi-head latent attention, not to what its cache stores")
    return None


def _best(oracle: Oracle) -> str:
    movable = [
        scale for scale in _movable(oracle.inspection) if scale.role in {"k", "v", "kv"} and scale.kind == "scale"
    ]
    wanted = sum(2 if scale.role == "kv" else 1 for scale in movable)
    best, most = AS_IS, -1
    for names in (AS_IS, *(spelling.id for spelling in SPELLINGS)):
        parts = [part for scale in movable for part in parts_of(scale, names)]
        oracle.ask(part.fed for part in parts)
        reached = {oracle.parameter(part) and oracle.fate(part.fed).target for part in parts} - {None}
        if len(reached) > most:
            best, most = names, len(reached)
        if most == wanted:
            break
    return best


def _movable(inspection: Inspection) -> list[KVScale]:
    scales = [fed.scale for fed in inspection.tensors if fed.scale is not None]
    return [scale for scale in scales if untranslatable(inspection, scale) is None]


def _shapes(oracle: Oracle, names: str) -> list[Fed]:
    """Every scale under the chosen names in the shape in which it would be written: to be asked about at once."""
    found = []
    for scale in _movable(oracle.inspection):
        parts = parts_of(scale, names)
        oracle.ask(part.fed for part in parts)
        found += [_shaped(oracle, part, scale).fed for part in parts]
    return found


def _written(oracle: Oracle, fed: Fed, names: str) -> tuple[Part, ...] | str:
    """What is written for one tensor, or why it is dropped. Where the load ends whatever the names, nothing is gained
    by dropping.
    """
    closed = oracle.inspection.deliveries.closed
    if fed.scale is None:
        fate = oracle.fate(fed)
        return fate.error or fate.reason if fate.outcome == "raises" and not closed else (Part(fed, "k"),)
    scale = fed.scale
    stays = (Part(fed, scale.role),)
    if untranslatable(oracle.inspection, scale) is None:
        for candidate in dict.fromkeys((names, AS_IS, *(spelling.id for spelling in SPELLINGS))):
            if parts := _landing(oracle, scale, parts_of(scale, candidate)):
                return parts
        if not closed and (parts := _elsewhere(oracle, scale)):
            return parts
    fate = oracle.fate(fed)
    if fate.outcome != "raises" or closed or _misfit(oracle, scale) is not None:
        return stays
    return _passed_over(oracle, scale) or fate.error or fate.reason


def _landing(oracle: Oracle, scale: KVScale, parts: Iterable[Part]) -> tuple[Part, ...]:
    """The parts, shaped for their parameters, where all of them reach one; () else."""
    shaped = tuple(_in_shape(oracle, part, scale) for part in parts)
    return shaped if all(oracle.lands(part) for part in shaped) else ()


def _elsewhere(oracle: Oracle, scale: KVScale) -> tuple[Part, ...]:
    """A scale that no name in its own module brings home, under the first name in another spelling of that module which
    does: draft models want theirs without the prefix. () where none does.
    """
    kind = without_numbers(scale.module)
    layer = oracle.layer_of(scale)
    if layer is None or layer.parameter_for(scale.role, scale.kind) is None or kind in oracle.nowhere:
        return ()
    for module in _modules(oracle, scale):
        for spelling in SPELLINGS:
            if parts := _landing(oracle, scale, parts_of(replace(scale, module=module), spelling.id)):
                return parts
    oracle.nowhere.add(kind)
    return ()


_PREFIXES = ("", "model", "language_model.model", "model.language_model")
_STEM = re.compile(r"(?:.*?\.)?(\w+\.\d+\..+)")


def _modules(oracle: Oracle, scale: KVScale) -> list[str]:
    """Other names of the attention module that a scale belongs to: as its weights have it; where the checkpoint has no
    weights, with and without the usual prefixes.
    """
    found = _STEM.fullmatch(scale.module)
    if found is None:
        return []
    modules = [f"{prefix}.{found[1]}".lstrip(".") for prefix in _PREFIXES]
    if known := oracle.modules:
        modules = [module for module in modules if module in known] if scale.module not in known else []
    return [module for module in modules if module != scale.module]


def _passed_over(oracle: Oracle, scale: KVScale) -> tuple[Part, ...]:
    """A scale that no name brings home, under the first name that the engine passes over without raising."""
    if untranslatable(oracle.inspection, scale) is None:
        for spelling in SPELLINGS:
            parts = parts_of(scale, spelling.id)
            kept = tuple(replace(part, fed=replace(part.fed, shape=scale.shape)) for part in parts)
            if kept and all(oracle.fate(part.fed).outcome in {"ignored", "dropped"} for part in kept):
                return kept
    return ()


def _misfit(oracle: Oracle, scale: KVScale) -> str | None:
    """Why a scale must not get out of the engine's way: its value or meaning is not what the engine takes for it.

    It keeps its name, so that the engine goes on refusing what it would otherwise silently run without.
    """
    if scale.kind == "bias" or ".kv_b_proj." in scale.key:
        return None
    reason = untranslatable(oracle.inspection, scale)
    if reason is not None:
        return reason
    declared = oracle.inspection.declaration
    silent = not declared.quantized and declared.dialect != "tensorrt-llm"
    if silent and oracle.inspection.settings.method.value is None:
        return say("nothing declares a quantization; --fix declare declares the KV cache's")
    layer = oracle.layer_of(scale)
    parameter = layer.parameter_for(scale.role, scale.kind) if layer is not None else None
    if layer is None or parameter is None:
        return None
    wanted = math.prod(layer.shape_for(parameter))
    if scale.numel != wanted:
        engine = get_engine(str(oracle.inspection.settings.engine.value)).title
        return say(
            "it holds {values}, and {engine} takes {wanted} for each layer; --fix per-head stores the largest"
            if wanted == 1 < scale.numel
            else "it holds {values}, and {engine} takes {wanted} for each layer",
            values=_values(scale.numel),
            engine=engine,
            wanted=wanted,
        )
    return None


def _values(count: int) -> str:
    return say("1 value") if count == 1 else say("{count} values", count=count)


def _in_shape(oracle: Oracle, part: Part, scale: KVScale) -> Part:
    shaped = _shaped(oracle, part, scale)
    return shaped if oracle.lands(shaped) else part


def _shaped(oracle: Oracle, part: Part, scale: KVScale) -> Part:
    parameter, layer = oracle.parameter(part), oracle.layer_of(scale)
    return part if parameter is None or layer is None else settled(part, scale.shape, layer.shape_for(parameter))


def _resolve_collisions(inspection: Inspection, parts: dict[int, tuple[Part, ...]], dropped: dict[int, str]) -> None:
    owner: dict[str, int] = {}
    # what stays under its name comes first, then scales of their own before a common kv_scale
    order = sorted(parts, key=lambda at: (_moves(inspection, at, parts[at]), len(parts[at])))
    for position in order:
        fed = inspection.tensors[position]
        kept = []
        for part in parts[position]:
            first = owner.setdefault(part.key, position)
            other = inspection.tensors[first]
            if first == position or (part.key == fed.key == other.key):  # one key in two shards is the source's matter
                kept.append(part)
            elif len(parts[position]) == 1 and fed.values != other.values:
                raise ExportError(
                    say(
                        "it would be written as {name}, and so would {other}, with another value",
                        name=part.key,
                        other=other.key,
                    ),
                    key=fed.key,
                    path=inspection.checkpoint.place,
                    remedy=say("Remove one of the two from the checkpoint."),
                )
        if kept:
            parts[position] = tuple(kept)
        else:
            del parts[position]
            dropped[position] = REDUNDANT


def _moves(inspection: Inspection, position: int, parts: Iterable[Part]) -> bool:
    return any(part.key != inspection.tensors[position].key for part in parts)


def _unreachable(oracle: Oracle, parts: Mapping[int, tuple[Part, ...]]) -> tuple[Unreachable, ...]:
    """The scales that do not end at a parameter of their layer, grouped by why."""
    found: dict[str, list[str]] = {}
    for position, fed in enumerate(oracle.inspection.tensors):
        scale = fed.scale
        if scale is None or scale.kind != "scale":
            continue
        if position in parts and all(oracle.lands(part) for part in parts[position]):
            continue
        found.setdefault(_why_not(oracle, scale), []).append(scale.key)
    return tuple(Unreachable(tuple(keys), reason) for reason, keys in found.items())


def _why_not(oracle: Oracle, scale: KVScale) -> str:
    settings = oracle.inspection.settings
    engine = get_engine(str(settings.engine.value)).title
    method = settings.method.value or say("no quantization method")
    layer = oracle.layer_of(scale)
    role = "k" if scale.role == "kv" else scale.role
    if layer is None:
        return say("{engine} builds no attention layer with a KV cache there", engine=engine)
    if oracle.inspection.deliveries.closed:
        return say(
            "{engine} ends the load at any tensor on the way to its {cls} layers, whatever its name",
            engine=engine,
            cls=layer.cls,
        )
    if layer.parameter_for(role) is None:
        return say(
            "{engine} gives {cls} layers no {parameter} under {method}"
            if layer.parameters
            else "{engine} gives {cls} layers no parameters for scales under {method}",
            engine=engine,
            cls=layer.cls,
            parameter=f"{role}_scale",
            method=method,
        )
    reason = untranslatable(oracle.inspection, scale) or _misfit(oracle, scale)
    if reason is not None:
        return reason
    return say(
        "no spelling leads to the parameters of {engine}'s {cls} layers: its own renaming goes past them",
        engine=engine,
        cls=layer.cls,
    )


def _in_reading_order(inspection: Inspection, parts: Mapping[int, tuple[Part, ...]]) -> tuple[Fed, ...]:
    """As engines read: shard by shard, inside a shard by name. Companions stand in the shard of their neighbours."""
    files = {shard.name for shard in inspection.checkpoint.shards}
    files |= {fed.scale.file for fed in inspection.tensors if fed.scale is not None}  # also what a repair takes in
    shards = {name: number for number, name in enumerate(sorted(files, key=natural))}
    rows: list[tuple[int, str, Fed]] = []
    for position, fed in enumerate(inspection.tensors):
        if fed.scale is not None:
            shard = shards[fed.scale.file]
        else:
            row = inspection.checkpoint.catalog.index_of(fed.key)
            shard = 0 if row is None else shards[inspection.checkpoint.catalog.shard(row)]
        rows += [(shard, part.key, part.fed) for part in parts.get(position, ())]
    return tuple(fed for _, _, fed in sorted(rows, key=lambda row: row[:2]))


def _as_asked(inspection: Inspection, names: str, *, proven: bool) -> Naming:
    """One convention for every scale that it can express; the engine is asked only what it makes of the result."""
    parts: dict[int, tuple[Part, ...]] = {}
    kept: dict[str, list[str]] = {}
    for position, fed in enumerate(inspection.tensors):
        scale = fed.scale
        stays = (Part(fed, scale.role if scale is not None else "k"),)
        if scale is None or names == AS_IS:
            parts[position] = stays
            continue
        wanted = as_convention(scale, names) if no_scale(scale) is None else ()
        parts[position] = wanted or stays
        if not wanted:
            kept.setdefault(_why_kept(scale, names), []).append(fed.key)
    dropped: dict[int, str] = {}
    _resolve_collisions(inspection, parts, dropped)
    unreachable = [Unreachable(tuple(keys), reason) for reason, keys in kept.items() if reason]
    if not proven:
        return Naming(
            names=names,
            parts=parts,
            dropped=dropped,
            unreachable=tuple(unreachable),
            alone={},
            becomes={},
            tensors=_in_reading_order(inspection, parts),
            proven=False,
            asked=names != AS_IS,
        )
    oracle = Oracle(inspection)
    oracle.ask((*inspection.tensors, *(part.fed for found in parts.values() for part in found)))
    return Naming(
        names=names,
        parts=parts,
        dropped=dropped,
        unreachable=(*unreachable, *_not_taken(oracle, parts)),
        alone={position: oracle.fate(fed) for position, fed in enumerate(inspection.tensors)},
        becomes={part.key: oracle.fate(part.fed) for found in parts.values() for part in found},
        tensors=_in_reading_order(inspection, parts),
        proven=True,
        asked=True,
    )


def _why_kept(scale: KVScale, names: str) -> str:
    """Why a scale keeps its name although a convention was asked for; "" where that needs no word."""
    reason = no_scale(scale)
    if reason is not None:
        return reason
    return (
        ""
        if scale.kind != "scale"
        else say("{names} has no name for the scale of {role}", names=names, role=scale.role)
    )


def _not_taken(oracle: Oracle, parts: Mapping[int, tuple[Part, ...]]) -> tuple[Unreachable, ...]:
    """The scales that the engine does not take under the names asked for, grouped by why."""
    engine = get_engine(str(oracle.inspection.settings.engine.value)).title
    found: dict[str, list[str]] = {}
    missing = [
        (position, fed.scale)
        for position, fed in enumerate(oracle.inspection.tensors)
        if fed.scale is not None
        and fed.scale.kind == "scale"
        and not all(oracle.lands(part) for part in parts.get(position, ()))
    ]
    oracle.ask(part.fed for _, scale in missing for each in SPELLINGS for part in parts_of(scale, each.id))
    for position, scale in missing:
        layer = oracle.layer_of(scale)
        others = [parts_of(scale, each.id) for each in SPELLINGS]
        known = layer is not None and layer.parameter_for(scale.role) is not None
        if not known or not any(way and all(oracle.lands(part) for part in way) for way in others):
            reason = _why_not(oracle, scale)
        else:
            fates = {oracle.fate(part.fed).outcome for part in parts.get(position, ())}
            if "raises" in fates:
                what = say("{engine} stops at these names", engine=engine)
            elif fates & {"ignored", "dropped"}:
                what = say("{engine} passes over these names", engine=engine)
            else:
                what = say("{engine} misreads these names", engine=engine)
            reason = say("{problem}; export for the engine instead of a convention", problem=what)
        found.setdefault(reason, []).append(scale.key)
    return tuple(Unreachable(tuple(keys), reason) for reason, keys in found.items())
