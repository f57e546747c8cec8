"""Exports that are killed at random moments: nothing half-done opens, and the next run ends well.

KVSCOPE_FULL=1 kills 200 over four checkpoints, otherwise a seeded 28 die.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from core.errors import ExportError
from core.export import ExportPlan, WriteOptions, write_export
from tests.core.export.crash_server import Crashing
from tests.core.export.exporting import bytes_of, left_in, plan_of
from tests.core.export.faults import nothing_half_done, removed, whole

KILLS = 200 if os.environ.get("KVSCOPE_FULL") == "1" else 28
CASES: list[tuple[str, str | None]] = [
    ("quark/gemma3-26layers-fp8-kvfp8", None),
    ("llmcompressor/llama-32layers-kv_attn_head", "modelopt"),
    ("llmcompressor/llama-32layers-kv_attn_head", None),
    ("modelopt/qwen3-36layers-fp8-kvfp8", "portable"),
]


@pytest.fixture
def crashing(samples: Path) -> Iterator[Crashing]:
    crashing = Crashing([(samples / sample, names) for sample, names in CASES])
    yield crashing
    crashing.process.communicate()


def test_exports_killed_at_random_moments_leave_nothing_half_done(
    samples: Path, tmp_path: Path, crashing: Crashing
) -> None:
    random = Random(11)  # noqa: S311
    plans = [plan_of(samples / sample, names=names) for sample, names in CASES]
    before = [bytes_of(samples / sample) for sample, _ in CASES]
    clean = [crashing.export(number, tmp_path / f"wanted-{number}") for number in range(len(CASES))]
    assert [each["status"] for each in clean] == [0] * len(CASES)
    wanted = [whole(tmp_path / f"wanted-{number}") for number in range(len(CASES))]
    found: Counter[str] = Counter()
    killed = 0
    while killed < KILLS:
        source, resume, out = killed % len(CASES), random.random() < 0.5, tmp_path / "out"
        how: dict[str, float | bool] = {"seconds": random.uniform(0, 1.1 * clean[source]["seconds"])}
        if killed % 2:  # the other half at a call, where time spent is no measure
            how = {"call": random.randrange(int(clean[source]["told"])), "later": random.random() < 0.5}
        answer = crashing.export(source, out, resume=True, **how)
        assert answer["status"] in {-9, 0}, answer["told"]
        killed += answer["status"] == -9
        left = nothing_half_done(out, wanted[source])
        found[f"killed: {left}" if answer["status"] else "ended before"] += 1
        found["files resumed"] += _again(plans[source], out, wanted[source], resume=resume, left=left)
        assert left_in(tmp_path) == [f"wanted-{number}" for number in range(len(CASES))]
    assert [bytes_of(samples / sample) for sample, _ in CASES] == before
    assert found["killed: unfinished"] > KILLS // 10
    print(f"\n{killed} kills: {dict(found)}")


def _again(plan: ExportPlan, out: Path, wanted: dict[str, bytes], *, resume: bool, left: str) -> int:
    """The run after a kill; how many files it could take up."""
    taken_up, refusal = 0, None
    try:
        result = write_export(plan, out, options=WriteOptions(resume=resume))
    except ExportError as error:
        refusal = str(error)
    else:
        taken_up = len(result.resumed)
        assert resume or not taken_up
        assert (
            not resume or left != "unfinished, all written" or taken_up >= len(wanted) - 1
        )  # the last one may not be noted
        assert result.verdict_after == plan.verdict_predicted
    if left == "finished" and not resume:
        assert refusal == f"{out}: is not empty. Choose a folder that does not exist yet, or empty it."
    else:
        assert refusal is None
    assert whole(out) == wanted
    removed(out)
    removed(out.with_name("out.kvscope-unfinished"))
    return taken_up
