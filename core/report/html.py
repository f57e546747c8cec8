"""The report as one self-contained HTML file, to attach to an issue: no script, no font and no picture from outside."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from core import __version__
from core.diagnosis.options import fix_usage
from core.engines import get_engine
from core.engines.outcome import Delivery
from core.inspection import Inspection
from core.naming.scales import KVScale
from core.report.contract import json_text, report
from core.report.text import coverage_marks, plural

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d5dae1;--soft:#f4f6f8;--ok:#1a7f37;--bad:#b42318;
--warn:#8a5a00;--info:#3b5b8c}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--paper:#16191d;--line:#343a42;--soft:#1f2429;--ok:#4cc06b;
--bad:#ff8a7a;--warn:#e0a83a;--info:#8fb4ee}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:70rem;margin:2rem auto;
padding:0 1rem}
h1{font-size:1.3rem;border-left:.4rem solid var(--c);padding-left:.8rem}
.ok{--c:var(--ok)}.degraded,.warning{--c:var(--warn)}.fails,.error{--c:var(--bad)}.unknown,.info{--c:var(--info)}
table{border-collapse:collapse;width:100%;margin:.8rem 0}td,th{border-bottom:1px solid var(--line);padding:.3rem .5rem;
text-align:left;vertical-align:top;overflow-wrap:anywhere}
code,pre{font:13px/1.45 ui-monospace,monospace;background:var(--soft)}pre{padding:.6rem;overflow:auto}
section.finding{border-left:.25rem solid var(--c);padding-left:.8rem;margin:1rem 0}b.word{color:var(--c)}
details{margin:1rem 0}
"""


def html_report(inspection: Inspection) -> str:
    """The whole report as one HTML document."""
    verdict, data = inspection.verdict, report(inspection)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width,initial-scale=1'>",
        f"<title>KVScope: {escape(inspection.checkpoint.path.name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1 class='{verdict.outcome}'>{escape(verdict.outcome.upper())}: {escape(verdict.text)}</h1>",
        "<p>PREDICTED by KVScope " + escape(__version__) + "</p>",
        _facts(inspection),
        _coverage(inspection),
        _why(data["explanation"]),
        *(_finding(inspection, index) for index in range(len(inspection.findings))),
        _scales(inspection),
        "<details><summary>The report as JSON</summary><pre>",
        escape(json_text(data)),
        "</pre></details></body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _why(story: Mapping[str, Any] | None) -> str:
    """Why scales do not arrive, shown on one of them; "" where they all do."""
    if story is None:
        return ""
    lines = "".join(f"<li>{escape(line)}</li>" for line in story["lines"])
    return f"<section class='finding error'><h2>{escape(story['title'])}</h2><ol>{lines}</ol></section>"


def _facts(inspection: Inspection) -> str:
    settings, declaration = inspection.settings, inspection.declaration
    rows = [
        ("Checkpoint", f"{inspection.checkpoint.place} ({plural(len(inspection.checkpoint.catalog), 'tensor')})"),
        ("Written by", declaration.producer.label if declaration.producer is not None else "not said"),
        ("Declared", declaration.kv_scheme.label if declaration.kv_scheme is not None else "no KV-cache scheme"),
        ("Engine", get_engine(str(settings.engine.value)).title),
        ("Backend", f"{settings.method.value or 'none'} ({settings.method.detail or settings.method.origin})"),
        ("Architecture", str(settings.architecture.value or "not known")),
        ("KV cache", f"{settings.kv_cache_dtype.value}, resolved to {settings.kv_cache_dtype_resolved}"),
        ("Model dtype", str(settings.dtype.value)),
    ]
    return "<table>" + "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in rows) + "</table>"


def _coverage(inspection: Inspection) -> str:
    if not inspection.deliveries.attention:
        return ""
    rows = "\n".join(f"{role} {row}" for role, row in coverage_marks(inspection).items())
    legend = "# from the checkpoint   = copied   . at 1.0   - none needed   ! fails   ? not reached"
    return f"<h2>Coverage, layer by layer</h2><pre>{escape(rows)}\n\n{escape(legend)}</pre>"


def _finding(inspection: Inspection, index: int) -> str:
    finding = inspection.findings[index]
    keys = "".join(f"<li><code>{escape(key)}</code></li>" for key in finding.keys[:20])
    more = f"<p>and {len(finding.keys) - 20} more</p>" if len(finding.keys) > 20 else ""
    usage = fix_usage(finding)
    asked = f" On export: <code>{escape(usage)}</code>" if usage else ""
    return (
        f"<section class='finding {finding.severity}'><h3><b class='word'>{finding.severity}</b> "
        f"{escape(finding.title)} <code>{escape(finding.code)}</code></h3>"
        f"<p>{escape(finding.evidence)}</p><p>{escape(finding.consequence)}</p>"
        f"<p><b>Fix:</b> {escape(finding.fix)}{asked}</p>"
        + (
            f"<details><summary>{plural(len(finding.keys), 'key')}</summary><ul>{keys}</ul>{more}</details>"
            if keys
            else ""
        )
        + "</section>"
    )


def _scales(inspection: Inspection) -> str:
    rows = [_row(each, each.scale) for each in inspection.deliveries.deliveries if each.scale is not None]
    if not rows:
        return ""
    head = "<tr><th>Key</th><th>Outcome</th><th>Parameter</th><th>Shape</th><th>Value</th></tr>"
    title = plural(len(rows), "scale tensor")
    return f"<details open><summary>{title}</summary><table>{head}{''.join(rows)}</table></details>"


def _row(delivery: Delivery, scale: KVScale) -> str:
    values = ", ".join(f"{value:.6g}" for value in scale.values[:4]) + (" ..." if len(scale.values) > 4 else "")
    return (
        f"<tr><td><code>{escape(delivery.key)}</code></td><td>{delivery.outcome.replace('_', ' ')}</td>"
        f"<td><code>{escape(delivery.target or delivery.name or '')}</code></td><td>{list(scale.shape)}</td>"
        f"<td>{escape(values)}</td></tr>"
    )
