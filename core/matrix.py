"""One checkpoint under several engines: who serves how many layers, and with which values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from core.engines import ENGINES, get_engine
from core.engines.outcome import AttentionLayer
from core.errors import UsageError
from core.inspection import Inspection, reinspect


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One engine's answer. ``inspection`` is None where the engine does not know an option asked for, and ``reason``
    says which. ``served`` counts the layers that end with k and v of their own, ``expecting`` those that should.
    """

    engine: str
    title: str
    inspection: Inspection | None
    served: int
    expecting: int
    reason: str = ""

    @property
    def outcome(self) -> str:
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


def served(layer: AttentionLayer) -> bool:
    """Whether the layer ends with a k and a v of its own from the checkpoint."""
    return layer.error is None and all(layer.source.get(role) == "checkpoint" for role in ("k", "v"))


def matrix(inspection: Inspection, engines: Iterable[str] | None = None) -> tuple[Column, ...]:
    """The checkpoint under each of these engines, by default all that are known, in their order."""
    return tuple(_column(inspection, engine) for engine in (ENGINES if engines is None else engines))


def _column(inspection: Inspection, engine: str) -> Column:
    title = get_engine(engine).title
    try:
        found = reinspect(inspection, engine=engine)
    except UsageError as error:
        return Column(engine=engine, title=title, inspection=None, served=0, expecting=0, reason=str(error))
    layers = [layer for layer in found.deliveries.attention if layer.expects_scales]
    return Column(
        engine=engine,
        title=title,
        inspection=found,
        served=sum(map(served, layers)),
        expecting=len(layers),
    )


def layer_rows(columns: Iterable[Column]) -> tuple[LayerRow, ...]:
    """The attention layers of all columns, side by side."""
    columns = tuple(columns)
    by_column = [_numbered(column) for column in columns]
    keys = dict.fromkeys(key for found in by_column for key in found)
    return tuple(
        LayerRow(key[0], tuple(found.get(key) for found in by_column))
        for key in sorted(keys, key=lambda key: (key[0] is None, key[0] or 0, key[1]))
    )


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
