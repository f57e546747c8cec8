"""Many checkpoints as a table, in Markdown or HTML, and their sum in a line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from core import __version__
from core.engines import get_engine
from core.wording import plural
from core.zoo.checking import Asked, Entry

_WORDS = {"ok": "OK", "degraded": "DEGRADED", "fails": "FAILS", "unknown": "UNKNOWN"}
_MOST_CODES = 6

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d5dae1;--ok:#1a7f37;--bad:#b42318;--warn:#8a5a00;
--info:#3b5b8c}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--paper:#16191d;--line:#343a42;--ok:#4cc06b;--bad:#ff8a7a;
--warn:#e0a83a;--info:#8fb4ee}}
body{font:14px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:2rem auto;padding:0 1rem;
max-width:100rem}
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);padding:.3rem .5rem;text-align:left;
vertical-align:top;overflow-wrap:anywhere}thead th{position:sticky;top:0;background:var(--paper)}
.ok b{color:var(--ok)}.degraded b{color:var(--warn)}.fails b,.unread b{color:var(--bad)}.unknown b{color:var(--info)}
code{font:12px/1.4 ui-monospace,monospace}
"""


def summary(entries: Sequence[Entry], asked: Asked) -> str:
    """How many fare how, for each engine, in lines."""
    unread = sum(entry.error is not None for entry in entries)
    lines = []
    for number, engine in enumerate(asked.engines):
        outcomes = Counter(entry.reports[number]["verdict"]["outcome"] for entry in entries if entry.reports)
        parts = [f"{outcomes[outcome]} {word}" for outcome, word in _WORDS.items() if outcomes[outcome]]
        if unread:
            parts.append(f"{unread} UNREAD")
        lines.append(f"{get_engine(engine).title}: {plural(len(entries), 'checkpoint')}: {', '.join(parts)}")
    return "\n".join(lines)


def markdown_table(entries: Sequence[Entry], asked: Asked) -> str:
    """A table for a README or an issue."""
    heads, rows = _cells(entries, asked)
    lines = [f"| {' | '.join(_markdown(head) for head in heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(_markdown(cell) for cell in row)} |" for _, row in rows]
    told = summary(entries, asked).replace("\n", "\n\n")
    return "\n".join((*lines, "", told, "", f"PREDICTED by KVScope {__version__}", ""))


def html_table(entries: Sequence[Entry], asked: Asked) -> str:
    """One self-contained HTML document: no script, no font and no picture from outside."""
    heads, rows = _cells(entries, asked)
    body = "\n".join(
        f"<tr>{''.join(_html_cell(cell, outcome) for cell, outcome in zip(row, outcomes, strict=True))}</tr>"
        for outcomes, row in rows
    )
    return "\n".join(
        (
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
            "<meta name='viewport' content='width=device-width,initial-scale=1'>",
            f"<title>KVScope: {plural(len(entries), 'checkpoint')}</title><style>{_STYLE}</style></head><body>",
            *(f"<p>{escape(line)}</p>" for line in summary(entries, asked).splitlines()),
            f"<table><thead><tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr></thead>",
            f"<tbody>{body}</tbody></table>",
            f"<p>PREDICTED by KVScope {escape(__version__)}</p></body></html>",
            "",
        )
    )


def _cells(entries: Sequence[Entry], asked: Asked) -> tuple[list[str], list[tuple[list[str], list[str]]]]:
    """The heads, and of each row the outcomes (for colours, "" for none) and the texts of its cells."""
    verdicts = [get_engine(engine).title for engine in asked.engines]
    heads = ["checkpoint", "architecture", "written by", "declared", "KV scales", *verdicts, "findings"]
    names = _short([entry.path for entry in entries])
    rows = []
    for name, entry in zip(names, entries, strict=True):
        if not entry.reports:
            texts = [f"UNREAD {entry.error or ''}", *[""] * (len(verdicts) - 1)]
            rows.append((["", "", "", "", "", *["unread"] * len(verdicts), ""], [name, "", "", "", "", *texts, ""]))
            continue
        first = entry.reports[0]
        outcomes = [report["verdict"]["outcome"] for report in entry.reports]
        texts = [f"{_WORDS[report['verdict']['outcome']]} {report['verdict']['text']}" for report in entry.reports]
        facts = [name, _architecture(first), _producer(first), _declared(first), str(len(first["scales"]))]
        rows.append((["", "", "", "", "", *outcomes, ""], [*facts, *texts, _codes(entry.reports)]))
    return heads, rows


def _short(paths: Sequence[str]) -> list[str]:
    """Paths without the folder that all of them share."""
    if len(paths) < 2 or any("://" in path for path in paths):
        return list(paths)
    absolute = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - text, not a file
    shared = os.path.commonpath(absolute)
    return [os.path.relpath(path, shared) for path in absolute]


def _architecture(report: dict[str, Any]) -> str:
    return ", ".join(report["checkpoint"]["architectures"])


def _producer(report: dict[str, Any]) -> str:
    producer = report["checkpoint"]["producer"] or {}
    return " ".join(str(producer[key]) for key in ("name", "version") if producer.get(key))


def _declared(report: dict[str, Any]) -> str:
    """The method and what the cache is kept in."""
    method = report["declaration"]["method"] or "not quantized"
    return f"{method}, cache {report['engine']['kv_cache_dtype_resolved']}"


def _codes(reports: Iterable[dict[str, Any]]) -> str:
    """The codes of errors and warnings, those first that stand first in a report."""
    codes = dict.fromkeys(
        finding["code"] for report in reports for finding in report["findings"] if finding["severity"] != "info"
    )
    shown = list(codes)[:_MOST_CODES]
    return ", ".join(shown) + (f" and {len(codes) - len(shown)} more" if len(codes) > len(shown) else "")


def _markdown(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").split())


def _html_cell(text: str, outcome: str) -> str:
    if not outcome:
        return f"<td>{escape(text)}</td>"
    word, _, rest = text.partition(" ")
    return f"<td class='{outcome}'><b>{word}</b> {escape(rest)}</td>"
