"""Several engines on one checkpoint, as text."""

from __future__ import annotations

from collections.abc import Sequence

from core.engines.outcome import AttentionLayer
from core.matrix import Column, LayerRow, layer_rows

_ROLES = ("k", "v")


def matrix_text(columns: Sequence[Column]) -> str:
    """A line for each engine, then the layers by engines with the values they end with, equal neighbours folded."""
    wide = max(len(column.title) for column in columns)
    lines = [
        f"{column.title:<{wide}}  {column.outcome:<8}  {_count(column):>10}  {column.text}".rstrip()
        for column in columns
    ]
    table = _layers(columns)
    return "\n".join([*lines, "", *table] if table else lines)


def _count(column: Column) -> str:
    return f"{column.served} of {column.expecting}" if column.expecting else "-"


def _layers(columns: Sequence[Column]) -> list[str]:
    rows = layer_rows(columns)
    if not rows:
        return []
    cells = [(row, tuple(_cell(layer) for layer in row.layers)) for row in rows]
    folded: list[tuple[str, tuple[str, ...]]] = []
    start = 0
    for index, (_, texts) in enumerate(cells):
        if index + 1 == len(cells) or cells[index + 1][1] != texts:
            folded.append((_range(cells[start][0], cells[index][0]), texts))
            start = index + 1
    head = ("layer", *(column.title for column in columns))
    table = [head, *((name, *texts) for name, texts in folded)]
    widths = [max(len(row[position]) for row in table) for position in range(len(head))]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _range(first: LayerRow, last: LayerRow) -> str:
    if first.number == last.number:
        return "-" if first.number is None else str(first.number)
    return f"{first.number}-{last.number}"


def _cell(layer: AttentionLayer | None) -> str:
    if layer is None:
        return "-"
    if layer.error is not None:
        return f"! {layer.error.partition(':')[0]}"
    if not layer.final:
        return "? not reached"
    return ", ".join(f"{role} {_value(layer, role)}" for role in _ROLES)


def _value(layer: AttentionLayer, role: str) -> str:
    source = layer.source.get(role)
    value = layer.final.get(role)
    if value is None:
        return "?"
    mark = {"duplicated": "=", "default": " default", "forced": " forced"}.get(str(source), "")
    return f"{value:.5g}{mark}"
