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
                yield _dropped(row, " ".join(row.reasons))
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
        reason=f"{' '.join(row.reasons)} {becomes}.",
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
        action, reason = "repaired", f"{' '.join(row.reasons)} {becomes}."
    elif copy:
        action, reason = "duplicated", f"{stored.key} stands for k and v alike; {becomes}."
    elif part.key != stored.key:
        action, reason = "renamed", f"{was}; {becomes}."
    elif shape is not None and stored.numel == 1:
        action, reason = "reshaped", f"One number takes the shape {list(shape)}; {becomes}."
    elif shape is not None or dtype is not None:
        action, reason = "reshaped", f"Stored as {dtype or stored.dtype} {list(part.fed.shape)}; {becomes}."
    else:
        action, reason = "kept", f"{was}."
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


def _fate(key: str, delivery: Delivery | None, title: str) -> str:
    if delivery is None or delivery.outcome == "not_reached":
        return f"{title} is not known to take {key}"
    if delivery.outcome == "raises":
        return f"{title} raises {first_sentence(delivery.error or delivery.reason)} at {key}"
    if delivery.outcome == "loaded":
        return f"{title} loads {key} into {delivery.target}"
    return f"{title} {'ignores' if delivery.outcome == 'ignored' else 'drops'} {key}"


def _why_dropped(why: str, title: str) -> str:
    if why == REDUNDANT:
        return f"Left out: {why}."
    return f"Left out: {title} has no parameter for it and raises {first_sentence(why)}."


def first_sentence(text: str) -> str:
    """Up to the first full stop, without it."""
    return text.split(". ", maxsplit=1)[0].rstrip(".")
