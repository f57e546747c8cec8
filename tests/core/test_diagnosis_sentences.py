"""Whatever the diagnosis, the explanations and the comparisons of engines say, they say in templates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from core.diagnosis import Thresholds, options_of
from core.diagnosis.catalog import RULES
from core.diagnosis.options import WISHES
from core.errors import CancelledError
from core.explanation import explain
from core.headline import fate, headline
from core.inspection import Inspection, inspect
from core.matrix import Column, matrix
from core.progress import Progress
from core.side_by_side import why_they_differ
from core.trace import Tracer
from core.wording import Sentence, short, spoken
from tests.core.diagnosis.examples import EXAMPLES
from tests.core.spoken import left_in_english
from tests.places import SAMPLES


def _errors(inspection: Inspection) -> Iterator[str]:
    """What the engine itself says, whole and as it is quoted."""
    deliveries = inspection.deliveries
    errors = [deliveries.load.error, *(layer.error for layer in deliveries.attention)]
    errors += [delivery.error for delivery in deliveries.deliveries]
    for error in dict.fromkeys(each for each in errors if each):
        yield from (error, short(error), error.partition(": ")[2])


def _judged(inspection: Inspection) -> Iterator[str]:
    yield inspection.verdict.text
    for finding in inspection.findings:
        yield from (finding.title, finding.evidence, finding.consequence, finding.fix)
        yield from (option.title for option in options_of(finding))


def _traced(inspection: Inspection) -> Iterator[str]:
    tracer = Tracer(inspection)
    for delivery in inspection.deliveries.deliveries:
        trace = tracer.trace(delivery)
        yield from (delivery.reason, trace.verbatim, trace.then)
        for near in trace.near:
            yield from (near.why, near.by)


def _explained(inspection: Inspection) -> Iterator[str]:
    story = explain(inspection)
    if story is not None:
        yield from (story.title, *story.lines)


def _compared(columns: tuple[Column, ...]) -> Iterator[str]:
    yield headline(columns)
    yield from map(fate, columns)
    for column in columns[1:]:
        yield column.text
        if column.inspection is not None and columns[0].inspection is not None:
            pairs = zip(
                columns[0].inspection.deliveries.deliveries, column.inspection.deliveries.deliveries, strict=True
            )
            yield from (why_they_differ(*pair, left_engine="A", right_engine="B") for pair in pairs)


def _left(texts: Iterable[str], inspections: Iterable[Inspection]) -> dict[str, list[str]]:
    errors = sorted({error for each in inspections for error in _errors(each) if error}, key=len, reverse=True)
    return {text: left for text in dict.fromkeys(texts) if (left := left_in_english(text, but=errors))}


def _everything(inspection: Inspection) -> dict[str, list[str]]:
    columns = matrix(inspection)
    engines = [column.inspection for column in columns if column.inspection is not None]
    said = (text for each in engines for part in (_judged, _traced, _explained) for text in part(each))
    return _left((*said, *_compared(columns)), engines)


def test_of_every_checkpoint_under_every_engine(checkpoint_folder: Path) -> None:
    assert _everything(inspect(checkpoint_folder)) == {}


@pytest.mark.parametrize("code", EXAMPLES)
def test_of_every_finding_under_every_engine(code: str, tmp_path: Path) -> None:
    assert _everything(EXAMPLES[code](tmp_path / "checkpoint")) == {}


def test_of_rules_limits_and_repairs() -> None:
    told = [text for rule in RULES for text in (rule.title, rule.meaning)]
    told += [row.meaning for row in Thresholds().table()]
    told += [option.title for options in WISHES.values() for option in options]
    assert {text: left for text in told if (left := left_in_english(text))} == {}


def test_of_a_job_and_of_its_end() -> None:
    phases: list[str] = []

    class Watched(Progress):
        def start(self, what: str, *, total: int = 0, unit: str = "") -> None:
            phases.extend((what, unit))
            super().start(what, total=total, unit=unit)

    inspection = inspect(SAMPLES / "modelopt" / "qwen3-36layers-fp8-kvfp8", progress=Watched())
    matrix(inspection, ["vllm-0.33.0"], mends=False, progress=Watched())
    assert {"Reading scales", "Predicting every engine", "engines"} <= set(phases)
    assert all(isinstance(text, Sentence) for text in phases if text)
    stopped = Progress()
    stopped.cancel()
    with pytest.raises(CancelledError, match=r"^the job was cancelled$") as error:
        stopped.check()
    assert (
        spoken(error.value.message, {"{what} was cancelled": "{what}已取消", "the job": "任务"}.__getitem__)
        == "任务已取消"
    )
