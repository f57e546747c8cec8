"""``repair``: the repairs that a person chose, applied to the tensors and configs of a planned export.

Each is applied to what the ones before it left, in the order of their nature and not of the command line: what is
declared, then what the numbers mean, then their values, then what is missing, then what is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from core.checkpoint.remote.address import is_address, parse_address
from core.diagnosis.finding import Finding
from core.diagnosis.options import Option
from core.diagnosis.thresholds import LARGEST_NUMBER
from core.engines import Fed, get_engine
from core.errors import UsageError
from core.export.config_files import ConfigDraft
from core.export.declaring import declare_cache, declare_fp8, follow
from core.export.filling import fill, take_from
from core.export.fixes import Choice, Fix, choose, options_for, refuse_code
from core.export.leftovers import leftovers
from core.export.mending import divide, exchange, invert, reduce, scale_by, set_values
from core.export.names import parts_of
from core.export.naming import choose_names
from core.export.plan import AppliedFix
from core.export.reindexing import agree, take_in
from core.export.rows import Row, rows_of
from core.inspection import Inspection, imagine
from core.naming.conventions import is_leftover
from core.side_files import ScaleSource, open_scale_source
from core.side_files.formats import NVFP4_OVER_FP8
from core.wording import joined, say

SCALES_FROM = "scales-from"
_ADDING = ("missing-scale", "declared-absent", "dynamic-scheme", "k-without-v", "v-without-k")
_ORDER = (
    "declare",
    "to-fp8",
    "amax-to-scale",
    "reciprocal",
    "rescale",
    "factor",
    "swap",
    "reshape",
    "set-scale",
    "duplicate",
    "drop",
)
_MENDED = say("Nothing was left to do: another repair had mended it.")
_WISHED = {"per-head": "reshape", "factor": "factor", "swap": "swap", "declare": "declare", "leftovers": "drop"}


@dataclass(slots=True, kw_only=True)
class Repaired:
    """A planned export after its repairs: the tensors, the configs, and the inspection of what they come to."""

    inspection: Inspection
    rows: list[Row]
    configs: ConfigDraft
    applied: list[AppliedFix] = field(default_factory=list)
    filled: bool = False
    """Whether scales were added where the source has none at all."""
    settled: set[str] = field(default_factory=set)
    """Codes of findings about files that are mended: they are judged by the source's files until these are written."""
    per_head: bool = False
    """Whether the cache was declared per head because the scales to come are."""
    cleared: bool = False
    """Whether what quantizers left behind is left out."""
    notes: list[str] = field(default_factory=list)
    """Sentences about what a repair could not take over as its source has it, or only under a condition."""

    @property
    def tensors(self) -> list[Row]:
        """The tensors that will be written."""
        return [row for row in self.rows if not row.dropped]


def repair(inspection: Inspection, fixes: Sequence[Fix] = (), scales_from: str | None = None) -> Repaired:
    """Apply the repairs; without any, the checkpoint as it is.

    Raises:
        UsageError: a code that is unknown or does not apply here, a value that cannot be chosen or found.
        UnreadableCheckpointError: the file that a value names cannot be read.
    """
    work = Repaired(inspection=inspection, rows=rows_of(inspection), configs=ConfigDraft(inspection.checkpoint))
    pending = sorted(fixes, key=lambda fix: _stage(fix, inspection.findings))
    if scales_from is not None:
        source = _source(scales_from)
        pending = _declared_first(work, pending, source)
        work.rows, work.filled = take_from(work.inspection, work.rows, source, SCALES_FROM)
        _tell_largest(work, work.rows, source, SCALES_FROM)
        if work.per_head and not any(fix.code == "per-head" for fix in fixes):
            work.notes.append(_told_heads(source))
        keys = _touched(work.rows, SCALES_FROM)
        work.applied.append(AppliedFix(code=SCALES_FROM, value=_shown(scales_from), reason=_told(source), keys=keys))
        _look_again(work)
    while pending:
        fix = next((fix for fix in pending if options_for(fix, work.inspection.findings)), None)
        if fix is not None:
            _apply(work, fix)
            _look_again(work)
        else:
            fix = pending[0]
            if not options_for(fix, inspection.findings):
                raise refuse_code(fix, (*inspection.findings, *work.inspection.findings))
            work.applied.append(AppliedFix(code=fix.code, value=fix.value, reason=_MENDED))
        pending.remove(fix)
    return work


def _declared_first(work: Repaired, pending: Sequence[Fix], source: ScaleSource) -> list[Fix]:
    """Layers have a place for the scales to come only once the cache is declared, in words that the engine takes and,
    where nothing is stored, as one with stored scales; and whether it is one for each head depends on these words.
    Returns the repairs that are left to do.
    """
    first = [fix for fix in pending if not _stage(fix, work.inspection.findings)]
    first = [fix for fix in first if options_for(fix, work.inspection.findings)]
    for fix in first:
        _apply(work, fix, source)
        _look_again(work)
    if not any(row.scale is not None for row in work.tensors):
        _declare_static(work)
    return [fix for fix in pending if fix not in first]


def _declare_static(work: Repaired) -> None:
    """Scales are to be stored: engines that pass over a dynamic scheme have a place for them only without it."""
    scheme = work.inspection.declaration.kv_scheme
    if scheme is not None and scheme.dynamic:
        work.filled = True
        _look_again(work)


def _look_again(work: Repaired) -> None:
    """Judge what the repairs come to; configs that must agree with the scales follow them."""
    tensors = [row.fed for row in work.tensors]
    scales = [fed.scale for fed in tensors if fed.scale is not None]
    follow(work.configs, work.inspection.declaration, scales, filled=work.filled)
    declaration = work.configs.declaration() if work.configs.changed else None
    left = () if work.cleared else None
    work.inspection = imagine(work.inspection, tensors, declaration=declaration, leftovers=left)


def _stage(fix: Fix, findings: Sequence[Finding]) -> int:
    finding = _finding(fix, findings)
    remedy = finding.remedy if finding is not None else _WISHED.get(fix.code, "declare")
    return _ORDER.index(remedy) if remedy in _ORDER else 0


def _finding(fix: Fix, findings: Sequence[Finding]) -> Finding | None:
    return next((finding for finding in findings if finding.code == fix.code), None)


def _apply(work: Repaired, fix: Fix, coming: ScaleSource | None = None) -> None:
    """Apply one repair; ``coming`` are the scales that will be taken next."""
    findings = work.inspection.findings
    finding = _finding(fix, findings)
    choice = choose(fix, options_for(fix, findings))
    remedy = finding.remedy if finding is not None else _WISHED[fix.code]
    title = finding.title if finding is not None else _TITLES[fix.code]
    if remedy == "rename":
        reason = say("Every export for an engine does so by itself.")
        work.applied.append(AppliedFix(code=fix.code, value=fix.value, reason=reason))
        return
    if fix.code == "leftovers" and work.cleared:
        work.applied.append(AppliedFix(code=fix.code, value=fix.value, reason=_MENDED))
        return
    if remedy == "repair-index":
        _reindex(work, fix, title)
        return
    if remedy == "declare":
        scales = [row.scale for row in work.tensors if row.scale is not None]
        engine = str(work.inspection.settings.engine.value)
        per_head = coming is not None and coming.several and _takes_heads(work, coming)
        said = declare_cache(work.configs, work.inspection.declaration, scales, engine, per_head=per_head)
        work.per_head = per_head
        work.applied.append(
            AppliedFix(code=fix.code, value=fix.value, reason=say("{title}: {said}", title=title, said=said))
        )
        return
    before = work.rows
    work.rows = _changed(work, fix, choice, remedy, finding, title)
    if work.rows == before:
        raise UsageError(say("{fix} finds nothing to change", fix=fix), remedy=say("Leave it out"))
    reason = say("{title}: {choice}.", title=title, choice=_words(choice))
    keys = _touched(work.rows, fix.code)
    work.applied.append(AppliedFix(code=fix.code, value=_shown(fix.value), reason=reason, keys=keys))


def _takes_heads(work: Repaired, source: ScaleSource) -> bool:
    """Whether the engine keeps a source's scales per head once they are declared so: the prediction is asked."""
    draft = ConfigDraft(work.inspection.checkpoint)
    engine = str(work.inspection.settings.engine.value)
    try:
        declare_cache(draft, work.inspection.declaration, (), engine, per_head=True)
        bare = imagine(work.inspection, [row.fed for row in work.tensors], declaration=draft.declaration())
        rows, _ = take_from(bare, work.rows, source, SCALES_FROM)
    except UsageError:  # the repair itself will meet it
        return False
    tensors = [row.fed for row in rows if not row.dropped]
    after = imagine(bare, choose_names(imagine(bare, tensors)).tensors).deliveries
    several = {scale.layer for scale in source.scales if len(scale.values) > 1}
    layers = [layer for layer in after.attention if layer.layer in several and layer.expects_scales]
    return (
        after.load.outcome == "loads" and bool(layers) and all({"k", "v"} <= layer.per_head.keys() for layer in layers)
    )


def _told_heads(source: ScaleSource) -> str:
    return say(
        "{source} has one scale for each head, and so they are declared and stored; by its documentation, vLLM serves "
        "such a cache with FlashAttention alone. --fix per-head stores the largest of each layer instead.",
        source=source.path.name,
    )


def _tell_largest(work: Repaired, rows: Sequence[Row], source: ScaleSource, code: str) -> None:
    """Say where a source has more values for a scale than are stored."""
    reduced = 0
    for row in rows:
        scale = row.scale if not row.dropped else None
        found = source.find(scale.role, scale.layer, scale.module) if scale is not None and code in row.fixes else None
        if scale is not None and found is not None and len(found.values) not in (1, scale.numel):
            reduced += 1
    if reduced:
        engine = get_engine(str(work.inspection.settings.engine.value)).title
        work.notes.append(
            say(
                "{source} has several values for each of {count} scales; the largest of them is stored, because "
                "{engine} does not take so many here.",
                source=source.path.name,
                count=reduced,
                engine=engine,
            )
        )


def _reindex(work: Repaired, fix: Fix, title: str) -> None:
    checkpoint = work.inspection.checkpoint
    reason = say("{title}: it is written anew, as the files are.", title=title)
    if fix.code == "unindexed-scales":
        reason = say("{title}: it is entered there.", title=title)
        entered = take_in(work.configs, checkpoint, fix.code, reason)
        if not entered:
            raise UsageError(say("{fix} finds nothing to change", fix=fix), remedy=say("Leave it out"))
        work.rows = [*work.rows, *entered]
    else:
        agree(work.configs, checkpoint, reason)
    work.settled.add(fix.code)
    keys = _touched(work.rows, fix.code)
    work.applied.append(AppliedFix(code=fix.code, value=fix.value, reason=reason, keys=keys))


_TITLES = {
    "per-head": say("One scale for each layer was wished for"),
    "factor": say("Another unit was wished for"),
    "swap": say("k and v were said to be swapped"),
    "declare": say("A declaration was wished for"),
    "leftovers": say("What quantizers left behind"),
}


def _changed(work: Repaired, fix: Fix, choice: Choice, remedy: str, finding: Finding | None, title: str) -> list[Row]:
    value = choice.option.value
    keys = frozenset(finding.keys) if finding is not None else None
    code = fix.code

    def chosen(row: Row) -> bool:
        if row.dropped or row.scale is None or row.scale.kind != "scale":
            return False
        return row.is_called(keys) if keys is not None else row.scale.role in ("k", "v", "kv")

    if value == "drop" or (remedy == "drop" and not value):
        return _dropped(work, code, keys or frozenset(), title)
    source = _source(choice.path) if value == "PATH" else None
    if code in _ADDING:
        _declare_static(work)
        rows, work.filled = fill(work.inspection, work.rows, code, choice, source, title)
    elif code == "kv-not-shared":
        rows = [part for row in work.rows for part in (_split(row, code, title) if chosen(row) else (row,))]
    else:
        rows = _remedied(work, choice, remedy, chosen, title, source, everything=keys is None)
    if source is not None:
        _tell_largest(work, rows, source, code)
    return rows


def _remedied(
    work: Repaired,
    choice: Choice,
    remedy: str,
    chosen: Callable[[Row], bool],
    title: str,
    source: ScaleSource | None,
    *,
    everything: bool,
) -> list[Row]:
    """The rows with one remedy applied to those chosen; ``everything``: without a finding that names some."""
    code = choice.fix.code
    match remedy:
        case "amax-to-scale":
            return divide(work.inspection, work.rows, chosen, code, title, by=choice.number or None)
        case "reciprocal":
            return invert(work.rows, chosen, code, title)
        case "swap":
            return exchange(work.rows, chosen, code, title)
        case "reshape":
            return reduce(work.rows, _all_scales if everything else chosen, code, title)
        case "to-fp8":
            return _to_fp8(work, chosen, code, title)
        case "rescale":
            return scale_by(work.rows, chosen, code, title, NVFP4_OVER_FP8)
        case "factor":
            return scale_by(work.rows, chosen, code, title, choice.number)
        case "set-scale" | "duplicate" | "drop":
            return set_values(work.inspection, work.rows, chosen, choice, source, title)
    raise ValueError(f"no repair is called {remedy}")


def _to_fp8(work: Repaired, chosen: Callable[[Row], bool], code: str, title: str) -> list[Row]:
    """INT8 scales to FP8 scales, declared so; zero points, all of them zero, have no place there."""
    declare_fp8(work.configs, work.inspection.declaration)
    rows = scale_by(work.rows, chosen, code, title, LARGEST_NUMBER["INT8"] / LARGEST_NUMBER["FP8"])
    reason = say("{title}: an FP8 cache has no zero points, and this one is zero.", title=title)
    return [row.without(code, reason) if _is_offset(row) else row for row in rows]


def _is_offset(row: Row) -> bool:
    return row.scale is not None and row.scale.kind == "zero_point" and not row.dropped


def _all_scales(row: Row) -> bool:
    """Whoever asks for one number a layer means q as well."""
    return not row.dropped and row.scale is not None and row.scale.kind == "scale"


def _dropped(work: Repaired, code: str, keys: frozenset[str], title: str) -> list[Row]:
    """Left out; of several tensors for one parameter, or under one name, the last one read stays: engines use that."""
    reason = say("{title}: left out.", title=title)
    if code == "leftovers" or any(map(is_leftover, keys)):
        work.cleared = True
        return [*work.rows, *(row.without(code, reason) for row in leftovers(work.inspection.checkpoint))]
    if code == "duplicate-key":
        return _once(work, code, say("{title}: the last shard's stays, which engines use.", title=title))
    stays: set[str] = set()
    if code == "conflict":
        reason = say("{title}: the last one read stays, which the engine uses.", title=title)
        last: dict[str, str] = {}
        for delivery in work.inspection.deliveries.deliveries:
            if delivery.outcome == "loaded" and delivery.target is not None and delivery.key in keys:
                last[delivery.target] = delivery.key
        stays = set(last.values())
    return [
        row.without(code, reason) if row.is_called(keys) and not row.dropped and row.fed.key not in stays else row
        for row in work.rows
    ]


def _once(work: Repaired, code: str, reason: str) -> list[Row]:
    """Every key that stands in several shards, in the last of them alone."""
    work.settled.add(code)
    catalog = work.inspection.checkpoint.catalog
    gone = {(key, shard) for key, shards in catalog.duplicates for shard in shards[:-1]}
    known = {(row.fed.key, row.file) for row in work.rows}
    rows = [row.without(code, reason) if (row.fed.key, row.file) in gone else row for row in work.rows]
    for key, shard in sorted(gone - known):
        number = next(number for number in catalog.rows_of(key) if catalog.shard(number) == shard)
        bare = Fed(key, catalog.shape(number), ())
        rows.append(Row(source=bare, fed=bare, file=shard).without(code, reason))
    return rows


def _split(row: Row, code: str, title: str) -> tuple[Row, ...]:
    scale = row.scale
    if scale is None or row.source is None:
        return (row,)
    parts = parts_of(scale, "portable")
    reason = say("{title}: written for k and for v.", title=title)
    return tuple(
        Row(source=row.source, fed=part.fed, file=row.file, fixes=(*row.fixes, code), reasons=(*row.reasons, reason))
        for part in parts
    )


def _source(path: str) -> ScaleSource:
    if is_address(path):
        return open_scale_source(path)
    try:
        return open_scale_source(Path(path).expanduser())
    except RuntimeError as error:  # ~SOMEBODY
        raise UsageError(say("does not exist"), path=path, remedy=say("Check the path.")) from error


def _shown(value: str) -> str:
    """A value as a plan and a record may show it: an address without passwords and signatures."""
    return parse_address(value).shown if is_address(value) else value


def _told(source: ScaleSource) -> str:
    said = say("Scales of {source} ({title}).", source=source.path.name, title=source.title)
    return joined(" ", (said, *source.notes))


def _touched(rows: Sequence[Row], code: str) -> tuple[str, ...]:
    found = (row.source.key if row.source is not None else row.fed.key for row in rows if code in row.fixes)
    return tuple(dict.fromkeys(found))


def _words(choice: Choice) -> str:
    option: Option = choice.option
    if not option.typed:
        return option.title
    if option.value == "NUMBER":
        return f"{choice.number:g}"
    if option.value == "xNUMBER":
        return say("times {factor:g}", factor=choice.number)
    return say("from {file}", file=Path(_shown(choice.path)).name)
