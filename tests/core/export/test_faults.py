"""Every system call of an export fails in turn: the source stays, nothing half-done opens, and the next run succeeds.

KVSCOPE_FULL=1 fails each call in each way; otherwise a seeded choice of them.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from core.errors import ExportError
from core.export import ExportPlan, WriteOptions, write_export
from core.export.options import Mode
from tests.core.export.exporting import bytes_of, left_in, plan_of
from tests.core.export.faults import KINDS, MOVES_BYTES, Cloning, Faulty, nothing_half_done, removed, whole

FULL = os.environ.get("KVSCOPE_FULL") == "1"
CHOSEN = 4
CASES: list[tuple[str, str | None, Mode | None]] = [
    ("quark/gemma3-26layers-fp8-kvfp8", None, None),
    ("llmcompressor/llama-32layers-kv_attn_head", "modelopt", "clone"),
    ("llmcompressor/llama-32layers-kv_attn_head", None, "link"),
]


def faulty(mode: Mode | None, **keywords: object) -> Faulty:
    return (Cloning if mode == "clone" else Faulty)(**keywords)  # type: ignore[arg-type]


def faults(calls: list[str], kind: str) -> Iterator[tuple[int, bool, bool]]:
    """Number of the call, whether the fault stays, and whether the export may be resumed."""
    every = [
        (at, stays, resume)
        for at, name in enumerate(calls)
        if kind != "short" or name in MOVES_BYTES
        for stays in ((False, True) if kind == "ENOSPC" else (False,))
        for resume in (False, True)
    ]
    yield from every if FULL else Random(kind).sample(every, CHOSEN)  # noqa: S311


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sample", "names", "mode"), CASES, ids=["rename", "clone", "link"])
def test_every_system_call_may_fail(
    samples: Path, tmp_path: Path, sample: str, names: str | None, mode: Mode | None, kind: str
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(samples / sample, source, copy_function=shutil.copyfile)  # links would touch the sample
    before, plan = bytes_of(source), plan_of(source, names=names)
    clean = faulty(mode)
    write_export(plan, tmp_path / "wanted", options=WriteOptions(mode=mode), system=clean)
    wanted = whole(tmp_path / "wanted")
    ended: Counter[str] = Counter()
    for at, stays, resume in faults(clean.calls, kind):
        ended[_fail(plan, out, wanted, faulty(mode, at=at, kind=kind, stays=stays), resume=resume, mode=mode)] += 1
        assert left_in(tmp_path) == ["source", "wanted"]
    assert bytes_of(source) == before
    assert sum(ended.values()) >= CHOSEN
    print(f"\n{sample} {mode} {kind}: {len(clean.calls)} calls, {sum(ended.values())} faults: {dict(ended)}")


def _fail(
    plan: ExportPlan, out: Path, wanted: dict[str, bytes], system: Faulty, *, resume: bool, mode: Mode | None
) -> str:
    """One export in which one call fails, and the one after it; how the first ended."""
    options = WriteOptions(mode=mode, resume=resume)
    where = f"{system.kind} at call {system.at}"
    error: ExportError | None = None
    try:
        write_export(plan, out, options=options, system=system)
    except ExportError as caught:
        error = caught
    left = nothing_half_done(out, wanted)
    if error is None:
        assert left == "finished", where
        ended = "went on"
    else:
        assert system.kind != "short", f"{where}: {error}"
        assert left != "finished", where
        assert error.remedy, where
        if left != "nothing" and not resume:
            assert any("could not be removed; delete it" in note for note in getattr(error, "__notes__", ())), where
        ended = left
    if left != "finished":
        again = write_export(plan, out, options=options, system=faulty(mode))
        assert whole(out) == wanted, where
        assert again.verdict_after == plan.verdict_predicted
        assert bool(again.resumed) <= resume
    removed(out)
    removed(out.with_name("out.kvscope-unfinished"))
    return ended
