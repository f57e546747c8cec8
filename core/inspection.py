"""``inspect``: the whole road from a path to a verdict, on one page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from core.checkpoint import Checkpoint, open_checkpoint
from core.diagnosis import Thresholds, diagnose, judge
from core.diagnosis.case import Case
from core.diagnosis.finding import Finding, Verdict
from core.engines import DEFAULT_ENGINE, Fed, Wish, get_engine
from core.engines.outcome import Deliveries
from core.naming.conventions import ENDINGS, companion_rows, find_scales, leftover_rows, scale_rows, without_numbers
from core.naming.mapper import WeightsMapper
from core.naming.scales import KVScale
from core.progress import Progress
from core.quantization import Declaration, read_declaration
from core.settings import Choice, Settings
from core.wording import say


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything the window, the report, the export and the GPU check start from."""

    checkpoint: Checkpoint
    declaration: Declaration
    settings: Settings
    wish: Wish
    scales: tuple[KVScale, ...]
    tensors: tuple[Fed, ...]
    deliveries: Deliveries
    findings: tuple[Finding, ...]
    verdict: Verdict
    thresholds: Thresholds | None = None
    """The limits that the findings were made with, None for the usual ones."""
    stands_for: Mapping[int | None, int] = field(default_factory=dict)
    """Of a sample (:mod:`core.sample`): how many layers each layer number stands for, 0 for those left out."""
    leftovers: tuple[str, ...] = ()
    """What quantizers left behind beside the scales, and an engine may stop at: the first key of each kind."""

    @property
    def case(self) -> Case:
        """What the diagnosis saw."""
        return Case(
            checkpoint=self.checkpoint,
            declaration=self.declaration,
            settings=self.settings,
            scales=self.scales,
            deliveries=self.deliveries,
        )


def inspect(  # noqa: PLR0913  (the options of the command line, one by one)
    path: Path | str,
    *,
    engine: str = DEFAULT_ENGINE,
    method: str | None = None,
    architecture: str | None = None,
    kv_cache_dtype: str = "auto",
    dtype: str | None = None,
    rules: WeightsMapper | None = None,
    thresholds: Thresholds | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Open the checkpoint at ``path`` and say whether its KV-cache scales reach the engine's attention layers.

    ``method``, ``architecture`` and ``dtype`` replace what the checkpoint says; ``rules`` are an out-of-tree backend's.
    Reads headers, configs and the scales' own bytes, nothing else. Raises UnreadableCheckpointError when nothing can
    be opened, UsageError for an option that does not exist, CancelledError when ``progress`` was cancelled.
    """
    wish = Wish(method=method, architecture=architecture, kv_cache_dtype=kv_cache_dtype, dtype=dtype, rules=rules)
    get_engine(engine)
    return inspect_opened(
        open_checkpoint(path, wanted=ENDINGS, progress=progress),
        engine=engine,
        wish=wish,
        thresholds=thresholds,
        progress=progress,
    )


def inspect_opened(
    checkpoint: Checkpoint,
    *,
    engine: str = DEFAULT_ENGINE,
    wish: Wish | None = None,
    thresholds: Thresholds | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """The same for a checkpoint that is already open."""
    progress = progress or Progress()
    progress.start(say("Reading scales"))
    declaration = read_declaration(checkpoint)
    scales = find_scales(checkpoint, progress)
    progress.check()
    tensors = _in_reading_order(checkpoint, scales)
    left = _leftovers(checkpoint)
    return _judge(checkpoint, declaration, tensors, engine, wish or Wish(), thresholds, {}, left)


def reinspect(
    inspection: Inspection,
    *,
    engine: str | None = None,
    wish: Wish | None = None,
    thresholds: Thresholds | None = None,
) -> Inspection:
    """The same checkpoint under another engine or other options: nothing is read again. What is None stays."""
    return _judge(
        inspection.checkpoint,
        inspection.declaration,
        inspection.tensors,
        engine or str(inspection.settings.engine.value),
        wish or inspection.wish,
        thresholds or inspection.thresholds,
        inspection.stands_for,
        inspection.leftovers,
    )


def imagine(
    inspection: Inspection,
    tensors: Iterable[Fed],
    *,
    declaration: Declaration | None = None,
    stands_for: Mapping[int | None, int] | None = None,
    leftovers: tuple[str, ...] | None = None,
) -> Inspection:
    """The checkpoint judged as if it held these tensors, and said ``declaration`` in its configs. ``stands_for`` makes
    it a sample, ``leftovers`` other than its own are there: see :class:`Inspection`.
    """
    return _judge(
        inspection.checkpoint,
        declaration or inspection.declaration,
        tuple(tensors),
        str(inspection.settings.engine.value),
        inspection.wish,
        inspection.thresholds,
        inspection.stands_for if stands_for is None else stands_for,
        inspection.leftovers if leftovers is None else leftovers,
    )


def predict_tensors(inspection: Inspection, tensors: Iterable[Fed]) -> Deliveries:
    """What the chosen engine would do with other tensors under the same configs: the export's question."""
    engine = get_engine(str(inspection.settings.engine.value))
    return engine.deliver(inspection.declaration, inspection.settings, tuple(tensors), inspection.wish)


def _judge(
    checkpoint: Checkpoint,
    declaration: Declaration,
    tensors: tuple[Fed, ...],
    engine: str,
    wish: Wish,
    thresholds: Thresholds | None,
    stands_for: Mapping[int | None, int],
    leftovers: tuple[str, ...],
) -> Inspection:
    scales = tuple(tensor.scale for tensor in tensors if tensor.scale is not None)
    profile = get_engine(engine)
    settings = profile.settle(declaration, wish)
    deliveries = profile.deliver(declaration, settings, tensors, wish, checkpoint.catalog.names, leftovers)
    if stands_for:
        judged = (layer for layer in deliveries.attention if stands_for.get(layer.layer, 1))
        deliveries = replace(deliveries, attention=tuple(judged))
    case = Case(checkpoint=checkpoint, declaration=declaration, settings=settings, scales=scales, deliveries=deliveries)
    findings = diagnose(case, thresholds or Thresholds())
    return Inspection(
        checkpoint=checkpoint,
        declaration=declaration,
        settings=settings,
        wish=wish,
        scales=scales,
        tensors=tensors,
        deliveries=deliveries,
        findings=findings,
        verdict=judge(case, findings),
        thresholds=thresholds,
        stands_for=stands_for,
        leftovers=leftovers,
    )


def _leftovers(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The first leftover of each kind: experts alone may have left a hundred thousand, which share their fate."""
    names = checkpoint.catalog.names
    first: dict[str, str] = {}
    for row in leftover_rows(checkpoint):
        first.setdefault(without_numbers(names[row]), names[row])
    return tuple(first.values())


def _in_reading_order(checkpoint: Checkpoint, scales: tuple[KVScale, ...]) -> tuple[Fed, ...]:
    """The scales and their companions as engines read them: shard by shard, by name inside a shard."""
    others = companion_rows(checkpoint)
    if not others:
        return tuple(Fed(scale.key, scale.shape, scale.values, scale) for scale in scales)
    by_row = dict(zip(scale_rows(checkpoint), scales, strict=True))
    tensors = []
    for row in sorted((*by_row, *others)):
        scale = by_row.get(row)
        entry = checkpoint.catalog.entry(row)
        tensors.append(Fed(entry.key, entry.shape, scale.values if scale is not None else (), scale))
    return tuple(tensors)


__all__ = ["Choice", "Inspection", "Settings", "imagine", "inspect", "inspect_opened", "predict_tensors", "reinspect"]
