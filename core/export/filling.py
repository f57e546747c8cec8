"""Scales for attention layers that have none, and scales of another source in place of those stored."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.diagnosis.facts import Facts
from core.diagnosis.thresholds import Thresholds
from core.engines import get_engine
from core.engines.outcome import AttentionLayer
from core.errors import UsageError
from core.export.fixes import Choice
from core.export.mending import Values, kept, renamed
from core.export.rows import Places, Row, added_row
from core.inspection import Inspection
from core.naming.scales import KVScale, Role
from core.side_files import ScaleSource
from core.wording import numbered, say, spread

_ROLES: tuple[Role, ...] = ("k", "v")


def fill(
    inspection: Inspection, rows: Sequence[Row], code: str, choice: Choice, source: ScaleSource | None, title: str
) -> tuple[list[Row], bool]:
    """Add the scales that a finding misses; whether there were none at all before.

    Raises:
        UsageError: the layers, their names or the values are not known.
    """
    facts = Facts(inspection.case, Thresholds())
    values = Values(inspection, rows, choice, source)
    places = Places(inspection, rows)
    added = []
    for layer in _receivers(facts, inspection):
        for role in _missing(facts, layer, code):
            module, file = _place(inspection, places, layer)
            wanted = _wanted(module, file, role, layer)
            given, why = values.for_scale(wanted)
            shape = _shape(layer, role, given)
            new = given if shape else (max(given),)
            reason = say("{title}: {value}, {why}.", title=title, value=kept(new, given), why=why)
            added.append(added_row(module, file, role, new, shape, code=code, reason=reason))
    return [*rows, *added], not facts.kv_scales


def take_from(inspection: Inspection, rows: Sequence[Row], source: ScaleSource, code: str) -> tuple[list[Row], bool]:
    """Replace every k and v scale by the source's, and add those that are missing.

    Raises:
        UsageError: the source has no scale for a layer, or scales for layers that are not there.
    """
    facts = Facts(inspection.case, Thresholds())
    layers = _receivers(facts, inspection)
    _refuse_another_model(source, layers)
    changed: list[Row] = []
    have: set[tuple[str, str]] = set()
    for row in rows:
        scale = row.scale
        if row.dropped or scale is None or scale.kind != "scale" or scale.role not in ("k", "v", "kv"):
            changed.append(row)
            continue
        found = [
            source.find(role, scale.layer, scale.module) for role in (_ROLES if scale.role == "kv" else (scale.role,))
        ]
        values = [each.values for each in found if each is not None]
        if len(values) < len(found):
            changed.append(row)
            continue
        owners = facts.owners(scale)
        given = values[0] if len(values) == 1 else (max(map(max, values)),)
        new, shape = _held(scale, owners, given)
        old = spread(scale.values) if scale.values else say("unreadable")
        told = kept(new, given)
        reason = say("Scales of {source}: {old} becomes {new}.", source=source.path.name, old=old, new=told)
        changed.append(renamed(row.holding(new, shape, code, reason), scale))
        for owner in owners:
            have |= {(owner.path, role) for role in (_ROLES if scale.role == "kv" else (scale.role,))}
    places = Places(inspection, rows)
    lacking = []
    for layer in layers:
        for role in _ROLES:
            if (layer.path, role) in have or layer.parameter_for(role) is None:
                continue
            module, file = _place(inspection, places, layer)
            entry = source.find(role, layer.layer, module)
            if entry is None:
                if role not in facts.roles_at.get(layer.path, frozenset()):
                    lacking.append(layer.layer or 0)
                continue
            shape = _shape(layer, role, entry.values)
            new = entry.values if shape else (max(entry.values),)
            reason = say("Scales of {source}: {value}.", source=source.path.name, value=kept(new, entry.values))
            changed.append(added_row(module, file, role, new, shape, code=code, reason=reason))
    if lacking:
        raise UsageError(
            say("has no scale for {layers}", layers=numbered(lacking)),
            path=source.place,
            remedy=say("Choose a file made for this model"),
        )
    if not any(code in row.fixes for row in changed):
        engine = get_engine(str(inspection.settings.engine.value)).title
        raise UsageError(
            say("{engine} gives these attention layers no parameters for scales", engine=engine),
            path=source.place,
            remedy=say("Add --fix declare where nothing declares the KV cache, or choose another engine"),
        )
    return changed, not facts.kv_scales


def _refuse_another_model(source: ScaleSource, layers: Sequence[AttentionLayer]) -> None:
    numbers = {layer.layer for layer in layers}
    beyond = [layer for layer in source.layers if layer not in numbers]
    if beyond:
        raise UsageError(
            say("has scales for {layers}, and this model has no attention layer there", layers=numbered(beyond)),
            path=source.place,
            remedy=say("Choose a file made for this model"),
        )


def _receivers(facts: Facts, inspection: Inspection) -> Sequence[AttentionLayer]:
    if facts.receivers:
        return facts.receivers
    engine = get_engine(str(inspection.settings.engine.value)).title
    raise UsageError(
        say("which attention layers {engine} builds here is not known, so no scale can be added", engine=engine),
        path=inspection.checkpoint.place,
        remedy=say("Mend first what keeps the engine from loading, or choose another engine"),
    )


def _missing(facts: Facts, layer: AttentionLayer, code: str) -> Sequence[Role]:
    """The roles that a layer lacks and that this finding speaks of; only those that it has a parameter for."""
    have = facts.roles_at.get(layer.path, frozenset())
    lacking = [role for role in _ROLES if role not in have and layer.parameter_for(role) is not None]
    if code in ("k-without-v", "v-without-k"):
        given, wanted = code[0], code[-1]
        return [role for role in lacking if role == wanted and given in have]
    return lacking if not have & {"k", "v"} else []


def _place(inspection: Inspection, places: Places, layer: AttentionLayer) -> tuple[str, str]:
    found = places.of(layer)
    if found is None:
        raise UsageError(
            say("what the checkpoint calls {layer} is not known, so no scale can be added", layer=layer.path),
            path=inspection.checkpoint.place,
            remedy=say("Give the checkpoint one layer with scales, or its weights, to tell"),
        )
    return found


def _wanted(module: str, file: str, role: Role, layer: AttentionLayer) -> KVScale:
    return KVScale(
        key=f"{module}.{role}_scale", file=file, role=role, kind="scale", layer=layer.layer, module=module,
        convention="portable", dtype="F32", shape=(),
    )  # fmt: skip


def _held(
    scale: KVScale, owners: Sequence[AttentionLayer], given: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """New values for a stored scale, and their shape: the stored one, unless its layer takes as many as are given."""
    stored = scale.shape if scale.numel else ()
    if len(given) == math.prod(stored):
        return given, stored
    shape = next((found for layer in owners if (found := _shape(layer, scale.role, given))), None)
    return (given, shape) if shape else ((max(given),) * math.prod(stored), stored)


def _shape(layer: AttentionLayer, role: Role, values: Sequence[float]) -> tuple[int, ...]:
    """One value for each head where the parameter takes so many, else a scalar."""
    parameter = layer.parameter_for(role)
    room = math.prod(layer.shape_for(parameter)) if parameter is not None else 1
    return (len(values),) if len(values) > 1 and room == len(values) else ()
