"""What ``kvscope probe`` tells: what was read from an installed vLLM, and where the built-in profile differs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.engines.difference import Difference, Kind, same_rules
from core.engines.installed import INSTALLED, Installed
from core.naming.mapper import WeightsMapper
from core.wording import plural

SCHEMA = "kvscope.probe-report/1"
_SUBJECTS, _ROWS = 6, 8


def probe_as_data(engine: Installed, file: Path) -> dict[str, Any]:
    """The reading and the differences, for JSON. ``file`` is where the engine is kept."""
    reading = engine.probed.reading
    return {
        "schema": SCHEMA,
        "engine": INSTALLED,
        "version": engine.version,
        "python": engine.probed.python,
        "python_version": reading.python_version,
        "platform": reading.platform,
        "date": engine.probed.date,
        "file": str(file),
        "complete": reading.complete,
        "methods": len(reading.methods),
        "mappers": _distinct(engine),
        "architectures": len(reading.architectures),
        "classes": len(reading.classes),
        "unread": {"methods": dict(reading.unread_methods), "architectures": dict(reading.unread_architectures)},
        "nearest": f"vllm-{engine.base.version}",
        "differences": [asdict(difference) for difference in engine.differences],
    }


def probe_text(engine: Installed, file: Path, *, full: bool = False) -> str:
    """The same for people. Differences that many methods or classes share take one line; ``full`` names them all."""
    reading = engine.probed.reading
    registered = len(reading.architectures) + len(reading.unread_architectures)
    lines = [
        f"vLLM {engine.version}, read with {engine.probed.python} (Python {reading.python_version})",
        f"  {plural(len(reading.methods), 'quantization method')} with {plural(_distinct(engine), 'distinct mapper')}",
        f"  {len(reading.architectures)} of {registered} architectures, {len(reading.classes):,} model classes",
        f"  kept in {file}: choose it with --engine {INSTALLED}",
    ]
    if not reading.complete:
        lines.append("  The time was over before everything was read: give it more with --timeout SECONDS.")
    for what, unread in (("method", reading.unread_methods), ("architecture", reading.unread_architectures)):
        by_reason: dict[str, list[str]] = {}
        for name, reason in unread.items():
            by_reason.setdefault(reason, []).append(name)
        lines += [
            f"  not read ({plural(len(names), 'method' if what == 'method' else 'architecture')}): "
            f"{_listed(names, full=full)}: {reason}"
            for reason, names in by_reason.items()
        ]
    lines.append("")
    if not engine.differences:
        return "\n".join([*lines, f"No difference from the built-in profile of vLLM {engine.base.version}."])
    lines.append(f"It {engine.how_checked}:")
    return "\n".join([*lines, *_grouped(engine.differences, full=full)])


def _distinct(engine: Installed) -> int:
    """How many different cache-scale mappers the methods have."""
    found: list[WeightsMapper] = []
    for method in engine.probed.reading.methods.values():
        mapper = method.cache_scales.mapper if method.cache_scales is not None else WeightsMapper()
        if not any(same_rules(mapper, other) for other in found):
            found.append(mapper)
    return len(found)


def _grouped(differences: Iterable[Difference], *, full: bool) -> list[str]:
    groups: dict[Kind, dict[tuple[str, str], list[str]]] = {}
    for each in differences:
        groups.setdefault(each.kind, {}).setdefault((each.text, each.consequence), []).append(each.subject)
    lines = []
    for kind, rows in groups.items():
        shown = list(rows.items()) if full else list(rows.items())[:_ROWS]
        for (text, consequence), subjects in shown:
            lines.append(f"  {text}" + (f" ({consequence})" if consequence else ""))
            lines.append(f"      {_listed(subjects, full=full)}")
        if len(rows) > len(shown):
            lines.append(f"  {kind}: {len(rows) - len(shown)} more, which --all lists")
    return lines


def _listed(names: list[str], *, full: bool) -> str:
    if full or len(names) <= _SUBJECTS:
        return ", ".join(names)
    return f"{', '.join(names[:_SUBJECTS])} and {len(names) - _SUBJECTS} more"
