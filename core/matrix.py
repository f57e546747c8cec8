"""One checkpoint under several engines: who serves how many layers, with which values, and what would mend the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.diagnosis.facts import has_run_time_scales, is_quantized_cache
from core.diagnosis.finding import VerdictOutcome
from core.engines import ENGINES, get_engine
from core.engines.outcome import AttentionLayer
from core.errors import CancelledError, KVScopeError, UsageError
from core.inspection import Inspection, reinspect
from core.progress import Progress
from core.wording import say

Mend = Literal["", "cache", "export"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One engine's answer. ``inspection`` is None where the engine does not know an option asked for, and ``reason``
    says which. ``served`` counts the layers that run on a k and a v of their own, ``expecting`` those that should, and
    ``unused`` those that receive a k and a v of their own for a cache that does not use them.

    ``mend`` is what brings more layers home in this engine: "cache" an FP8 cache (the scales arrive, and ``auto``
    does not use them), "export" a normalized copy, whose names follow the convention ``names``; "" nothing does, or
    nothing needs to. ``mended`` counts the layers that are served then.
    """

    engine: str
    title: str
    inspection: Inspection | None
    served: int
    expecting: int
    unused: int = 0
    reason: str = ""
    mend: Mend = ""
    mended: int = 0
    names: str = ""

    @property
    def outcome(self) -> VerdictOutcome:
        return self.inspection.verdict.outcome if self.inspection is not None else "unknown"

    @property
    def text(self) -> str:
        return self.inspection.verdict.text if self.inspection is not None else self.reason


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One attention layer across engines: for each column the layer there, None where the engine has no such layer or
    did not come to it. Layers are matched by their number and their order among layers of that number.
    """

    number: int | None
    layers: tuple[AttentionLayer | None, ...]


def served(layer: AttentionLayer, inspection: Inspection) -> bool:
    """Whether the layer ends with a k and a v of its own from the checkpoint, and its cache uses them."""
    return _receives(layer, "checkpoint") and _is_used(layer, inspection)


def unused(layer: AttentionLayer, inspection: Inspection) -> bool:
    """Whether the layer receives a k and a v of its own that its cache does not use: it is kept in the model dtype, or
    computes its own scales.
    """
    return _receives(layer, "checkpoint", "duplicated", "forced") and not _is_used(layer, inspection)


def _receives(layer: AttentionLayer, *sources: str) -> bool:
    return layer.error is None and all(layer.source.get(role) in sources for role in ("k", "v"))


def _is_used(layer: AttentionLayer, inspection: Inspection) -> bool:
    cache = layer.own_cache or inspection.settings.kv_cache_dtype_resolved
    return is_quantized_cache(cache) and not has_run_time_scales(cache)


def matrix(
    inspection: Inspection,
    engines: Iterable[str] | None = None,
    *,
    mends: bool = True,
    progress: Progress | None = None,
) -> tuple[Column, ...]:
    """The checkpoint under each of these engines, by default all that are known, in their order; without ``mends``
    nobody asks what an export would do.

    Raises CancelledError when ``progress`` was cancelled.
    """
    chosen = tuple(ENGINES if engines is None else engines)
    progress = progress or Progress()
    progress.start(say("Predicting every engine"), total=len(chosen), unit=say("engines"))
    columns = []
    for engine in chosen:
        column = _column(inspection, engine)
        columns.append(_with_mend(column) if mends else column)
        progress.advance()
    return tuple(columns)


def _column(inspection: Inspection, engine: str) -> Column:
    title = get_engine(engine).title
    try:
        found = inspection if engine == inspection.settings.engine.value else reinspect(inspection, engine=engine)
    except UsageError as error:
        return Column(engine=engine, title=title, inspection=None, served=0, expecting=0, reason=error.message)
    layers = [layer for layer in found.deliveries.attention if layer.expects_scales]
    return Column(
        engine=engine,
        title=title,
        inspection=found,
        served=_count(found, (layer for layer in layers if served(layer, found))),
        expecting=_count(found, layers),
        unused=_count(found, (layer for layer in layers if unused(layer, found))),
    )


def _count(inspection: Inspection, layers: Iterable[AttentionLayer]) -> int:
    """How many layers these are; in a sample how many they stand for."""
    return sum(inspection.stands_for.get(layer.layer, 1) for layer in layers)


def _with_mend(column: Column) -> Column:
    """What the export would do about it: the engine's own prediction decides."""
    inspection = column.inspection
    if inspection is None or column.outcome in ("ok", "unknown") or not inspection.scales:
        return column
    from core.export import plan_export
    from core.export.target import with_quantized_cache

    try:
        plan = plan_export(with_quantized_cache(inspection))
    except CancelledError:
        raise
    except KVScopeError:  # an export that cannot be written mends nothing; why is the export panel's to tell
        return column
    receiving = [layer for layer in plan.predicted.attention if layer.expects_scales and served(layer, plan.before)]
    mended = _count(inspection, receiving)
    if plan.predicted.load.outcome != "loads" or not mended:
        return column
    if not plan.changes:
        better = mended > column.served or plan.verdict_predicted.outcome != column.outcome
        unused = better and plan.before is not inspection
        return replace(column, mend="cache", mended=mended) if unused else column
    if mended <= column.served and plan.verdict_predicted.outcome == column.outcome:
        return column
    return replace(column, mend="export", mended=mended, names=plan.names)


def layer_rows(columns: Iterable[Column]) -> tuple[LayerRow, ...]:
    """The attention layers of all columns, side by side; without those that need no scale in any engine."""
    columns = tuple(columns)
    by_column = [_numbered(column) for column in columns]
    keys = dict.fromkeys(key for found in by_column for key in found)
    rows = (
        LayerRow(key[0], tuple(found.get(key) for found in by_column))
        for key in sorted(keys, key=lambda key: (key[0] is None, key[0] or 0, key[1]))
    )
    return tuple(row for row in rows if any(layer is not None and layer.expects_scales for layer in row.layers))


def _numbered(column: Column) -> dict[tuple[int | None, int], AttentionLayer]:
    if column.inspection is None:
        return {}
    seen: dict[int | None, int] = {}
    found = {}
    for layer in column.inspection.deliveries.attention:
        order = seen.get(layer.layer, 0)
        seen[layer.layer] = order + 1
        found[layer.layer, order] = layer
    return found


def alike(columns: Sequence[Column]) -> tuple[tuple[Column, ...], ...]:
    """Columns whose layers all end with the same, joined in the order of their first; engines that have no layers to
    compare stand alone.
    """
    groups: dict[object, list[Column]] = {}
    for column in columns:
        layers = column.inspection.deliveries.attention if column.inspection is not None else ()
        ends = tuple(
            (
                layer.layer,
                layer.error,
                tuple(layer.final.items()),
                tuple(layer.source.items()),
                column.inspection is not None and unused(layer, column.inspection),
            )
            for layer in layers
        )
        groups.setdefault(ends or column.engine, []).append(column)
    return tuple(map(tuple, groups.values()))
