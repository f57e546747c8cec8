"""How a checkpoint fares from engine to engine and version to version, in a sentence; and what mends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from core.engines import DEFAULT_ENGINE, INSTALLED, get_engine
from core.engines.vllm.releases import RELEASES, version_of
from core.export.names import AS_IS
from core.inspection import Inspection
from core.matrix import Column
from core.wording import listed, short

_RELEASES = "vllm-"


def headline(columns: Sequence[Column]) -> str:
    """What each engine does, its versions drawn together ("vLLM works up to 0.23.0 and loses every scale since
    0.25.0"); then, in sentences of their own, what mends it where it does not work.
    """
    releases = sorted((column for column in columns if column.engine.startswith(_RELEASES)), key=_number)
    clauses = [f"vLLM {_history(releases)}"] if releases else []
    others = [column for column in columns if column not in releases]
    clauses += [f"{_name(column)} {fate(column)}" for column in others]
    first = f"{'; '.join(clauses)}." if clauses else "No engine was asked."
    return " ".join((first, *_advice(releases, others)))


def fate(column: Column) -> str:
    """What the engine does with the checkpoint, as a verb phrase: "works", "loses every scale"."""
    inspection = column.inspection
    if inspection is None or column.outcome == "unknown":
        return "is not known"
    load = inspection.deliveries.load
    if load.outcome == "refused":
        return f"refuses the model ({_kind(load.error)})"
    if load.outcome == "raises":
        return f"stops while loading ({_kind(load.error)})"
    if column.outcome == "fails":
        error = next((layer.error for layer in inspection.deliveries.attention if layer.error is not None), None)
        return f"stops after loading ({_kind(error)})"
    if column.outcome == "ok":
        return "works" if inspection.scales else "has no scale to load"
    return _degraded(column, inspection)


def _degraded(column: Column, inspection: Inspection) -> str:
    outcomes = [
        delivery.outcome
        for delivery in inspection.deliveries.deliveries
        if delivery.scale is not None and delivery.scale.role in ("k", "v", "kv")
    ]
    lost = [outcome for outcome in outcomes if outcome in ("dropped", "ignored")]
    if outcomes and len(lost) == len(outcomes):
        return "loses every scale" + (" without a word" if set(lost) == {"ignored"} else "")
    if column.mend == "cache":
        return f"loads the scales but keeps the cache in {_cache(inspection)}"
    if column.served < column.expecting:
        return f"serves {column.served} of {column.expecting} layers" if column.served else "serves no layer"
    return "runs on doubtful values"


def _cache(inspection: Inspection) -> str:
    resolved = inspection.settings.kv_cache_dtype_resolved
    return str(inspection.settings.dtype.value) if resolved == "auto" else resolved


def _history(columns: Sequence[Column]) -> str:
    """The fates of one engine's versions, from old to new. "up to" and "since" are said only where no known release
    between them was left out.
    """
    runs = [(told, [_version(column) for column in run]) for told, run in groupby(columns, key=fate)]
    if len(columns) == 1:
        return f"{_version(columns[0])} {runs[0][0]}"
    whole = _without_gaps(columns)
    parts = []
    for number, (told, run) in enumerate(runs):
        if not whole:
            when = f"in {listed(run, most=len(run))}"
        elif len(runs) == 1:
            when = f"from {run[0]} to {run[-1]}"
        elif number == 0:
            when = f"up to {run[-1]}"
        elif number == len(runs) - 1:
            when = f"since {run[0]}"
        else:
            when = f"in {run[0]}" if len(run) == 1 else f"from {run[0]} to {run[-1]}"
        parts.append(f"{told} {when}")
    return listed(parts, most=len(parts))


def _without_gaps(columns: Sequence[Column]) -> bool:
    first, last = (version_of(_version(column)) or (0, 0) for column in (columns[0], columns[-1]))
    asked = {column.engine for column in columns}
    return all(release.id in asked for release in RELEASES if first <= release.number <= last)


def _advice(releases: Sequence[Column], others: Sequence[Column]) -> Iterable[str]:
    """What an export, or another cache dtype, mends; and where nothing does."""
    newest_first = (*reversed(releases), *others)
    mended: dict[tuple[str, bool], list[Column]] = {}
    for column in newest_first:
        if column.mend == "export":
            mended.setdefault((column.names, column.mended == column.expecting), []).append(column)
    for (names, whole), found in mended.items():
        option = "" if found[0].engine == DEFAULT_ENGINE else f" --engine {found[0].engine}"
        what = "every layer" if whole else f"{found[0].mended} of {found[0].expecting} layers"
        how = f" with {names} names" if names != AS_IS else ""
        yield f"An export{how} serves {what} in {engine_names(found, releases)}: kvscope export PATH OUT{option}."
    if cache := [column for column in newest_first if column.mend == "cache"]:
        yield f"An FP8 cache (--kv-cache-dtype fp8_e4m3) puts the scales to use in {engine_names(cache, releases)}."
    lost = [column for column in newest_first if _hopeless(column)]
    if lost and len(lost) == len(newest_first) > 1:
        yield "No export helps in any of them."
    elif lost:
        yield f"No export helps in {engine_names(lost, releases)}."


def _hopeless(column: Column) -> bool:
    known = column.inspection is not None and bool(column.inspection.scales)
    return known and not column.mend and column.outcome in ("degraded", "fails") and not column.served


def engine_names(columns: Sequence[Column], releases: Sequence[Column]) -> str:
    """Engines by name, neighbours among the ``releases`` as a range: "vLLM 0.25.0 to 0.33.0 and SGLang 0.5.23"."""
    chosen = [column in columns for column in releases]
    names: list[str] = []
    for inside, run in groupby(range(len(releases)), key=chosen.__getitem__):
        places = list(run)
        if inside:
            first, last = _version(releases[places[0]]), _version(releases[places[-1]])
            names.append(f"{'' if names else 'vLLM '}{first if first == last else f'{first} to {last}'}")
    names += [_name(column) for column in columns if column not in releases]
    return listed(names, most=len(names))


def _name(column: Column) -> str:
    name = column.title.partition(" (")[0]
    return f"{name} as installed here" if column.engine == INSTALLED else name


def _number(column: Column) -> tuple[tuple[int, int], str]:
    return version_of(_version(column)) or (0, 0), _version(column)


def _version(column: Column) -> str:
    return get_engine(column.engine).version


def _kind(error: str | None) -> str:
    return short(error).partition(":")[0]
