"""From tensors on their way to the edits of a plan: what happens to each, and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.engines import get_engine
from core.engines.outcome import Delivery
from core.export.names import Part
from core.export.naming import REDUNDANT, Naming
from core.export.plan import Action, TensorEdit
from core.export.rows import Row
from core.inspection import Inspection
from core.naming.scales import KVScale
from core.wording import joined, say, without_stop


def edits_of(inspection: Inspection, rows: Sequence[Row], naming: Naming) -> Iterable[TensorEdit]:
    """One edit for each tensor written, added or left out; tensors that are no KV scales appear where they change.

    ``naming`` counts the rows that no repair dropped, in their order.
    """
    title = get_engine(str(inspection.settings.engine.value)).title
    written: set[tuple[str, str]] = set()
    position = 0
    for row in rows:
        if row.dropped:
            if row.source is not None:
                yield _dropped(row, joined(" ", row.reasons))
            continue
        at, position = position, position + 1
        if at in naming.dropped:
            if row.source is not None:
                yield _dropped(row, _why_dropped(naming.dropped[at], title))
            continue
        scale = row.scale
        if scale is None:
            continue
        was = _fate(row.fed.key, naming.alone.get(at), title)
        for part in naming.parts[at]:
            becomes = _fate(part.key, naming.becomes.get(part.key), title)
            if row.source is None:
                yield _added(row, part, becomes)
                continue
            whose = row.source.key, row.file
            yield _edit(row, part, copy=whose in written, was=was, becomes=becomes)
            written.add(whose)


def _dropped(row: Row, reason: str) -> TensorEdit:
    key = row.source.key if row.source is not None else row.fed.key
    return TensorEdit(key=key, file=row.file, action="dropped", reason=reason, fixes=row.fixes)


def _added(row: Row, part: Part, becomes: str) -> TensorEdit:
    scale = _scale_of(part, row)
    return TensorEdit(
        key="",
        file=row.file,
        action="added",
        reason=_repaired(row, becomes),
        new_key=part.key,
        new_shape=part.fed.shape,
        new_dtype=scale.dtype,
        values=scale.values,
        fixes=row.fixes,
    )


def _edit(row: Row, part: Part, *, copy: bool, was: str, becomes: str) -> TensorEdit:
    stored = row.source.scale if row.source is not None else None
    scale = _scale_of(part, row)
    if stored is None:
        stored = scale
    shape = part.fed.shape if part.fed.shape != stored.shape else None
    dtype = scale.dtype if scale.dtype != stored.dtype else None
    revalued = scale.values is not stored.values and scale.values != stored.values
    action: Action
    if revalued and not copy:
        action, reason = "repaired", _repaired(row, becomes)
    elif copy:
        action, reason = (
            "duplicated",
            say("{key} stands for k and v alike; {becomes}.", key=stored.key, becomes=becomes),
        )
    elif part.key != stored.key:
        action, reason = "renamed", say("{was}; {becomes}.", was=was, becomes=becomes)
    elif shape is not None and stored.numel == 1:
        action, reason = (
            "reshaped",
            say("One number takes the shape {shape}; {becomes}.", shape=list(shape), becomes=becomes),
        )
    elif shape is not None or dtype is not None:
        action, reason = (
            "reshaped",
            say(
                "Stored as {dtype} {shape}; {becomes}.",
                dtype=dtype or stored.dtype,
                shape=list(part.fed.shape),
                becomes=becomes,
            ),
        )
    else:
        action, reason = "kept", say("{was}.", was=was)
    return TensorEdit(
        key=stored.key,
        file=row.file,
        action=action,
        reason=reason,
        new_key=part.key,
        new_shape=shape,
        new_dtype=dtype,
        values=scale.values if revalued or dtype is not None else (),
        fixes=row.fixes,
    )


def _scale_of(part: Part, row: Row) -> KVScale:
    scale = part.fed.scale or row.scale
    if scale is None:
        raise TypeError(f"{part.key} is no scale")
    return scale


def _repaired(row: Row, becomes: str) -> str:
    return say("{reasons} {becomes}.", reasons=joined(" ", row.reasons), becomes=becomes)


def _fate(key: str, delivery: Delivery | None, title: str) -> str:
    if delivery is None or delivery.outcome == "not_reached":
        return say("{engine} is not known to take {key}", engine=title, key=key)
    if delivery.outcome == "raises":
        return say(
            "{engine} raises {error} at {key}",
            engine=title,
            error=first_sentence(delivery.error or delivery.reason),
            key=key,
        )
    if delivery.outcome == "loaded":
        return say("{engine} loads {key} into {parameter}", engine=title, key=key, parameter=delivery.target)
    return say(
        "{engine} ignores {key}" if delivery.outcome == "ignored" else "{engine} drops {key}", engine=title, key=key
    )


def _why_dropped(why: str, title: str) -> str:
    if why == REDUNDANT:
        return say("Left out: {why}.", why=why)
    return say(
        "Left out: {engine} has no parameter for it and raises {error}.", engine=title, error=first_sentence(why)
    )


def first_sentence(text: str) -> str:
    """Up to the first full stop, without it."""
    first, more, _ = text.partition(". ")
    return first.rstrip(".") if more else without_stop(text)
