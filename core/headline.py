"""How a checkpoint fares from engine to engine and version to version, in a sentence; and what mends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from core.diagnosis.facts import has_run_time_scales
from core.engines import DEFAULT_ENGINE, INSTALLED, get_engine
from core.engines.vllm.releases import RELEASES, version_of
from core.inspection import Inspection
from core.matrix import Column
from core.wording import edited, joined, listed, say, short

_RELEASES = "vllm-"


def headline(columns: Sequence[Column]) -> str:
    """What each engine does, its versions drawn together ("vLLM works up to 0.23.0 and loses every scale since
    0.25.0"); then, in sentences of their own, what mends it where it does not work.
    """
    releases = sorted((column for column in columns if column.engine.startswith(_RELEASES)), key=_number)
    clauses = [say("vLLM {history}", history=_history(releases))] if releases else []
    others = [column for column in columns if column not in releases]
    clauses += [say("{engine} {does}", engine=_name(column), does=fate(column)) for column in others]
    first = say("{engines}.", engines=joined("; ", clauses)) if clauses else say("No engine was asked.")
    return joined(" ", (first, *_advice(releases, others)))


def fate(column: Column) -> str:
    """What the engine does with the checkpoint, as a verb phrase: "works", "loses every scale"."""
    inspection = column.inspection
    if inspection is None or column.outcome == "unknown":
        return say("is not known")
    load = inspection.deliveries.load
    if load.outcome == "refused":
        return say("refuses the model ({error})", error=_kind(load.error))
    if load.outcome == "raises":
        return say("stops while loading ({error})", error=_kind(load.error))
    if column.outcome == "fails":
        error = next((layer.error for layer in inspection.deliveries.attention if layer.error is not None), None)
        return say("stops after loading ({error})", error=_kind(error))
    if column.outcome == "ok":
        return say("works" if inspection.scales else "has no scale to load")
    return _degraded(column, inspection)


def _degraded(column: Column, inspection: Inspection) -> str:
    outcomes = [
        delivery.outcome
        for delivery in inspection.deliveries.deliveries
        if delivery.scale is not None and delivery.scale.role in ("k", "v", "kv")
    ]
    lost = [outcome for outcome in outcomes if outcome in ("dropped", "ignored")]
    if outcomes and len(lost) == len(outcomes):
        return say("loses every scale without a word" if set(lost) == {"ignored"} else "loses every scale")
    if column.unused and has_run_time_scales(inspection.settings.kv_cache_dtype_resolved):
        return say("loads the scales for a cache that computes its own")
    if column.mend == "cache" or (column.unused and not column.served):
        return say("loads the scales but keeps the cache in {dtype}", dtype=_cache(inspection))
    if column.served < column.expecting:
        if not column.served:
            return say("serves no layer")
        return say("serves {served} of {expecting} layers", served=column.served, expecting=column.expecting)
    return say("runs on doubtful values")


def _cache(inspection: Inspection) -> str:
    resolved = inspection.settings.kv_cache_dtype_resolved
    return str(inspection.settings.dtype.value) if resolved == "auto" else resolved


def _history(columns: Sequence[Column]) -> str:
    """The fates of one engine's versions, from old to new. "up to" and "since" are said only where no known release
    between them was left out.
    """
    runs = [(told, [_version(column) for column in run]) for told, run in groupby(columns, key=fate)]
    if len(columns) == 1:
        return say("{version} {does}", version=_version(columns[0]), does=runs[0][0])
    whole = _without_gaps(columns)
    parts = []
    for number, (told, run) in enumerate(runs):
        first, last = number == 0, number == len(runs) - 1
        if not whole or (len(run) == 1 and not first and not last):
            part = say("{does} in {versions}", does=told, versions=listed(run, most=len(run)))
        elif first == last:
            part = say("{does} from {first} to {last}", does=told, first=run[0], last=run[-1])
        elif first:
            part = say("{does} up to {version}", does=told, version=run[-1])
        else:
            part = say("{does} since {version}", does=told, version=run[0])
        parts.append(part)
    return _in_order(parts)


def _in_order(clauses: Sequence[str]) -> str:
    """Clauses as a list ("a, b and c"): other languages join them otherwise than nouns."""
    told = clauses[0]
    for clause in clauses[1:-1]:
        told = say("{earlier}, {later}", earlier=told, later=clause)
    return say("{earlier} and {later}", earlier=told, later=clauses[-1]) if len(clauses) > 1 else told


def _without_gaps(columns: Sequence[Column]) -> bool:
    first, last = (version_of(_version(column)) or (0, 0) for column in (columns[0], columns[-1]))
    asked = {column.engine for column in columns}
    return all(release.id in asked for release in RELEASES if first <= release.number <= last)


def _advice(releases: Sequence[Column], others: Sequence[Column]) -> Iterable[str]:
    """What an export, or another cache dtype, mends; and where nothing does."""
    from core.export.names import AS_IS

    newest_first = (*reversed(releases), *others)
    mended: dict[tuple[str, bool], list[Column]] = {}
    for column in newest_first:
        if column.mend == "export":
            mended.setdefault((column.names, column.mended == column.expecting), []).append(column)
    for (names, whole), found in mended.items():
        option = "" if found[0].engine == DEFAULT_ENGINE else f" --engine {found[0].engine}"
        what = (
            say("every layer") if whole else say("{part} of {all} layers", part=found[0].mended, all=found[0].expecting)
        )
        yield say(
            "{export} serves {layers} in {engines}: {command}.",
            export=say("An export") if names == AS_IS else say("An export with {names} names", names=names),
            layers=what,
            engines=engine_names(found, releases),
            command=f"kvscope export PATH OUT{option}",
        )
    if cache := [column for column in newest_first if column.mend == "cache"]:
        yield say(
            "An FP8 cache (--kv-cache-dtype fp8_e4m3) puts the scales to use in {engines}.",
            engines=engine_names(cache, releases),
        )
    lost = [column for column in newest_first if _hopeless(column)]
    if lost and len(lost) == len(newest_first) > 1:
        yield say("No export helps in any of them.")
    elif lost:
        yield say("No export helps in {engines}.", engines=engine_names(lost, releases))


def _hopeless(column: Column) -> bool:
    known = column.inspection is not None and bool(column.inspection.scales)
    lost = column.outcome in ("degraded", "fails") and not column.served and not column.unused
    return known and not column.mend and lost


def engine_names(columns: Sequence[Column], releases: Sequence[Column]) -> str:
    """Engines by name, neighbours among the ``releases`` as a range: "vLLM 0.25.0 to 0.33.0 and SGLang 0.5.23"."""
    chosen = [column in columns for column in releases]
    names: list[str] = []
    for inside, run in groupby(range(len(releases)), key=chosen.__getitem__):
        places = list(run)
        if inside:
            first, last = _version(releases[places[0]]), _version(releases[places[-1]])
            told = first if first == last else say("{low} to {high}", low=first, high=last)
            names.append(told if names else say("vLLM {versions}", versions=told))
    names += [_name(column) for column in columns if column not in releases]
    return listed(names, most=len(names))


def _name(column: Column) -> str:
    name = column.title.partition(" (")[0]
    return say("{engine} as installed here", engine=name) if column.engine == INSTALLED else name


def _number(column: Column) -> tuple[tuple[int, int], str]:
    return version_of(_version(column)) or (0, 0), _version(column)


def _version(column: Column) -> str:
    return get_engine(column.engine).version


def _kind(error: str | None) -> str:
    return edited(short(error), lambda text: text.partition(":")[0])
