"""Several engines on one checkpoint, as text and for JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from core.engines.outcome import AttentionLayer
from core.headline import headline
from core.installation import installed_note
from core.matrix import Column, LayerRow, alike, layer_rows, unused
from core.output import as_lines
from core.side_by_side import keys_apart, why_they_differ
from core.wording import are, plural

_ROLES = ("k", "v")


def matrix_text(columns: Sequence[Column]) -> str:
    """The sum in a sentence, a line for each engine, then the layers with the values they end with: engines that do the
    same in one column, equal neighbours in one line.
    """
    wide = max(len(column.title) for column in columns)
    lines = [
        f"{column.title:<{wide}}  {column.outcome:<8}  {_count(column):>10}  {column.text}".rstrip()
        for column in columns
    ]
    if (note := installed_note(columns)) is not None:
        lines += ["", f"The installed vLLM: {note.text}", *(f"  {text}" for text in (*note.concerning, *note.others))]
    lines += _parting(columns)
    table = _layers(columns)
    return as_lines([headline(columns), "", *lines, *(["", *table] if table else ())])


def _parting(columns: Sequence[Column]) -> list[str]:
    """Two engines alone: on how many keys they part, and where, shown on the first."""
    if len(columns) != 2:
        return []
    left, right = columns
    if left.inspection is None or right.inspection is None:
        return []
    apart = keys_apart(left.inspection, right.inspection)
    if not apart:
        return ["", "Every key ends alike in both."]
    pair = [
        next(delivery for delivery in inspection.deliveries.deliveries if delivery.key == apart[0])
        for inspection in (left.inspection, right.inspection)
    ]
    told = why_they_differ(*pair, left_engine=left.title, right_engine=right.title)
    total = len(left.inspection.deliveries.deliveries)
    lines = ["", f"{len(apart):,} of {plural(total, 'key')} {are(len(apart), 'ends')} differently, as {apart[0]}:"]
    for line in told.splitlines():
        lines += textwrap.wrap(
            line, 118, initial_indent="  ", subsequent_indent="     ", break_long_words=False, break_on_hyphens=False
        )
    return lines


def matrix_as_data(columns: Sequence[Column]) -> dict[str, Any]:
    """The same for JSON: the sentence, and each engine's outcome with its number of layers, of which ``unused`` receive
    scales for a cache that does not use them; ``mend`` says what brings more of them home ("cache", "export" or null),
    ``mended`` how many are served then.
    """
    note = installed_note(columns)
    return {
        "text": headline(columns),
        "installed": {"text": note.text, "concerning": list(note.concerning), "others": list(note.others)}
        if note is not None
        else None,
        "engines": [
            {
                "engine": column.engine,
                "title": column.title,
                "outcome": column.outcome,
                "served": column.served,
                "expecting": column.expecting,
                "unused": column.unused,
                "text": column.text,
                "mend": column.mend or None,
                "mended": column.mended if column.mend else None,
                "names": column.names or None,
            }
            for column in columns
        ],
    }


def _count(column: Column) -> str:
    return f"{column.served} of {column.expecting}" if column.expecting else "-"


def _layers(columns: Sequence[Column]) -> list[str]:
    groups = [group for group in alike(columns) if any(column.inspection is not None for column in group)]
    rows = layer_rows(group[0] for group in groups)
    # An engine that came to no layer has nothing to say here; its line above tells why.
    shown = [place for place in range(len(groups)) if any(row.layers[place] is not None for row in rows)]
    if not shown:
        return []
    cells = [(row, tuple(_cell(row.layers[place], groups[place][0]) for place in shown)) for row in rows]
    folded: list[tuple[str, tuple[str, ...]]] = []
    start = 0
    for index, (_, texts) in enumerate(cells):
        if index + 1 == len(cells) or cells[index + 1][1] != texts:
            folded.append((_range(cells[start][0], cells[index][0]), texts))
            start = index + 1
    table = [("layer", *(group_title(groups[place]) for place in shown)), *((name, *texts) for name, texts in folded)]
    widths = [max(len(row[position]) for row in table) for position in range(len(shown) + 1)]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in table]


def group_title(columns: Sequence[Column]) -> str:
    """Engines that do the same, an engine's name once: "vLLM 0.33.0, 0.27.1"."""
    titles: list[str] = []
    before = ""
    for column in columns:
        name, _, rest = column.title.partition(" ")
        titles.append(rest if name == before and rest else column.title)
        before = name
    return ", ".join(titles)


def _range(first: LayerRow, last: LayerRow) -> str:
    if first.number == last.number:
        return "-" if first.number is None else str(first.number)
    return f"{first.number}-{last.number}"


def _cell(layer: AttentionLayer | None, column: Column) -> str:
    if layer is None:
        return "-"
    if layer.error is not None:
        return f"! {layer.error.partition(':')[0]}"
    if not layer.final:
        return "? not reached"
    told = ", ".join(f"{role} {_value(layer, role)}" for role in _ROLES)
    return f"{told}, unused" if column.inspection is not None and unused(layer, column.inspection) else told


def _value(layer: AttentionLayer, role: str) -> str:
    source = layer.source.get(role)
    value = layer.final.get(role)
    if value is None:
        return "?"
    mark = {"duplicated": "=", "default": " default", "forced": " forced"}.get(str(source), "")
    return f"{value:.5g}{mark}"
