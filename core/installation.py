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
from core.wording import are, capital, plural

_NAMED: tuple[tuple[Kind, str], ...] = (("method", "quantization method"), ("architecture", "architecture"))
_CHANGES = {"added": "more", "removed": "fewer", "changed": "changed"}
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
        f"{capital(engine.how_checked)}.{_here(engine, column, base)}",
        tuple(dict.fromkeys(map(line, concerning))),
        names_of(engine.differences),
    )


def line(difference: Difference) -> str:
    """One difference with what is made of it: "llama.LlamaModel: loader changed: ... (...)"."""
    then = f" ({difference.consequence})" if difference.consequence else ""
    return f"{difference.subject}: {difference.text}{then}"


def names_of(differences: Iterable[Difference]) -> tuple[str, ...]:
    """The methods and architectures that differ, by kind, change and consequence, the first few of each by name."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for kind, noun in _NAMED:
        for each in differences:
            if each.kind == kind:
                found.setdefault((noun, each.change, each.consequence), []).append(each.subject)
    return tuple(
        f"{_CHANGES[change]}: {plural(len(names), noun)}: {_first(names)}{f' ({consequence})' if consequence else ''}"
        for (noun, change, consequence), names in found.items()
    )


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


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
    profile = f"the built-in profile of vLLM {engine.base.version}"
    if column.outcome == "unknown" and base.outcome != "unknown":
        return f" What it does with this checkpoint is not known; {profile} would answer for it."
    apart = len(keys_apart(column.inspection, base.inspection))
    if not apart and column.outcome == base.outcome:
        return f" On this checkpoint it does the same as {profile}."
    return (
        f" On this checkpoint {plural(apart, 'key')} {are(apart, 'ends')} differently: it serves {column.served} of "
        f"{column.expecting} layers, {profile} {base.served} of {base.expecting}."
    )
