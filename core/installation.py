"""The installed vLLM beside the built-in profile of the nearest version: what differs, and what it does here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.engines import INSTALLED, get_engine
from core.engines.difference import Difference, Kind
from core.engines.installed import Installed
from core.inspection import Inspection
from core.matrix import Column
from core.side_by_side import keys_apart
from core.wording import are, capital, joined, plural, say

_NAMED: tuple[Kind, ...] = ("method", "architecture")
_CHANGES = {"added": say("more"), "removed": say("fewer"), "changed": say("changed")}
_SHOWN = 4


@dataclass(frozen=True, slots=True)
class InstalledNote:
    """``text`` says what differs at all and what follows for this checkpoint; ``concerning`` are the differences in
    its own method, architecture and model classes, a line each; ``others`` names the rest by kind.
    """

    text: str
    concerning: tuple[str, ...]
    others: tuple[str, ...]


def installed_note(columns: Sequence[Column]) -> InstalledNote | None:
    """What is different about the installed vLLM; None where it is not among the columns."""
    column = next((column for column in columns if column.engine == INSTALLED), None)
    engine = get_engine(INSTALLED) if column is not None else None
    if column is None or not isinstance(engine, Installed):
        return None
    base = next((each for each in columns if each.engine == engine.base.id), None)
    subjects = _subjects(engine, column.inspection) if column.inspection is not None else frozenset()
    concerning = [each for each in engine.differences if each.subject in subjects]
    return InstalledNote(
        joined(" ", (say("{sentence}.", sentence=capital(engine.how_checked)), _here(engine, column, base))),
        tuple(dict.fromkeys(map(line, concerning))),
        names_of(engine.differences),
    )


def line(difference: Difference) -> str:
    """One difference with what is made of it: "llama.LlamaModel: loader changed: ... (...)"."""
    told = say("{subject}: {difference}", subject=difference.subject, difference=difference.text)
    return _with(told, difference.consequence)


def _with(told: str, consequence: str) -> str:
    return say("{difference} ({consequence})", difference=told, consequence=consequence) if consequence else told


def names_of(differences: Iterable[Difference]) -> tuple[str, ...]:
    """The methods and architectures that differ, by kind, change and consequence, the first few of each by name."""
    found: dict[tuple[Kind, str, str], list[str]] = {}
    for kind in _NAMED:
        for each in differences:
            if each.kind == kind:
                found.setdefault((kind, each.change, each.consequence), []).append(each.subject)
    told = []
    for (kind, change, consequence), names in found.items():
        how_many = plural(len(names), "quantization method" if kind == "method" else "architecture")
        named = say("{change}: {count}: {names}", change=_CHANGES[change], count=how_many, names=_first(names))
        told.append(_with(named, consequence))
    return tuple(told)


def _first(names: Sequence[str]) -> str:
    shown = joined(", ", names[:_SHOWN])
    if len(names) <= _SHOWN:
        return shown
    return say("{first} and {last}", first=shown, last=say("{count:,} more", count=len(names) - _SHOWN))


def _subjects(engine: Installed, inspection: Inspection) -> frozenset[str]:
    """What this checkpoint has to do with: its method, its architecture, and the classes that load it."""
    settings = inspection.settings
    names = {name for name in (settings.method.value, settings.architecture.value) if name}
    by = {step.by for delivery in inspection.deliveries.deliveries for step in delivery.steps}
    reading = engine.probed.reading
    names.update(cls for cls in reading.classes if cls.rpartition(".")[2] in by)
    if (cls := reading.architectures.get(settings.architecture.value or "")) is not None:
        names.add(cls)
    return frozenset(names)


def _here(engine: Installed, column: Column, base: Column | None) -> str:
    if base is None or base.inspection is None or column.inspection is None:
        return ""
    profile = say("the built-in profile of vLLM {version}", version=engine.base.version)
    if column.outcome == "unknown" and base.outcome != "unknown":
        return say("What it does with this checkpoint is not known; {profile} would answer for it.", profile=profile)
    apart = len(keys_apart(column.inspection, base.inspection))
    if not apart and column.outcome == base.outcome:
        return say("On this checkpoint it does the same as {profile}.", profile=profile)
    return say(
        "On this checkpoint {keys} {_end} differently: it serves {served} of {expecting} layers, "
        "{profile} {base_served} of {base_expecting}.",
        keys=plural(apart, "key"),
        _end=are(apart, "ends"),
        served=column.served,
        expecting=column.expecting,
        profile=profile,
        base_served=base.served,
        base_expecting=base.expecting,
    )
