"""New random checkpoints in every run from one seed: the prediction against the loader that KVScope really runs, and,
where a vLLM can be run, against vLLM itself.

To compare with vLLM, name its Python and a harness that builds models on a CPU and prints what their attention layers
hold, in the variables ``KVSCOPE_VLLM_PYTHON`` and ``KVSCOPE_VLLM_HARNESS``.
``KVSCOPE_RANDOM_SEED`` and ``KVSCOPE_RANDOM_CASES`` choose other cases and more of them.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.inspection import inspect
from core.loading.verify import verify
from core.report import report
from tests.core.engines.mutated_cases import mutated_cases
from tests.core.engines.random_cases import RandomCase, per_head_cases, random_cases, renamed_cases, surveyed_cases
from tests.golden_data import NOT_THE_ENGINE, disagreement

SEED = int(os.environ.get("KVSCOPE_RANDOM_SEED", "20261122"))
COUNT = int(os.environ.get("KVSCOPE_RANDOM_CASES", "320"))
FEWER = int(os.environ.get("KVSCOPE_RANDOM_CASES", "100"))
SURVEYED = Path(__file__).with_name("surveyed_harness.py")
PYTHON, HARNESS = os.environ.get("KVSCOPE_VLLM_PYTHON"), os.environ.get("KVSCOPE_VLLM_HARNESS")
Cases = Callable[[int, int], Iterator[RandomCase]]
KINDS: dict[Cases, str] = {
    random_cases: "random cases",
    surveyed_cases: "random cases over all surveyed architectures",
    renamed_cases: "real scales under other names",
    per_head_cases: "random scales per head, of models with other heads",
    mutated_cases: "real checkpoints, changed as tools and hands change them",
}
EXPERTS_FIRST = ("moe", "mixtral", "deepseek", "gpt_oss", "llama4")
BATCH = 100
_THE_MACHINE = re.compile(r"ImportError|failed to be inspected|No \w+ MoE backend supports")
_WEIGHTS = re.compile(r"KeyError: 'embedding'|missing 'wte\.|missing target-specific weights")
"""What a model says whose checkpoint holds nothing but scales."""


@pytest.mark.parametrize(
    ("cases", "count"),
    [
        (random_cases, COUNT),
        (surveyed_cases, FEWER),
        (renamed_cases, FEWER),
        (per_head_cases, FEWER),
        (mutated_cases, FEWER),
    ],
)
def test_prediction_against_the_loader(
    cases: Cases, count: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    misses = []
    outcomes: dict[str, int] = defaultdict(int)
    for case in cases(SEED, count):
        folder = case.write(tmp_path / case.name)
        found = verify(inspect(folder, kv_cache_dtype=case.kv_cache_dtype, dtype=case.dtype))
        outcomes[found.outcome] += 1
        if not found.agreed:
            misses.append(f"{case.name}: {found.text}")
    record_property(
        "agreement",
        f"{KINDS[cases]}, seed {SEED}, prediction and loader: {count - len(misses)} of {count} agree "
        f"({', '.join(f'{number} {outcome}' for outcome, number in sorted(outcomes.items()))})",
    )
    assert misses == []
    assert outcomes["loads"] > count // 4
    assert outcomes["raises"] > count // 20


def against_vllm(cases: Cases, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    faulthandler.cancel_dump_traceback_later()  # building some hundred models takes longer than a test may otherwise
    groups: dict[tuple[str, str], list[RandomCase]] = defaultdict(list)
    for case in cases(SEED, COUNT):
        case.write(tmp_path / case.name)
        groups[case.kv_cache_dtype, case.dtype].append(case)
    misses, total = [], 0
    for (kv_cache_dtype, dtype), alike in groups.items():
        # In one process vLLM builds models with experts only before all others.
        alike.sort(key=lambda case: not any(word in case.name for word in EXPERTS_FIRST))
        for start in range(0, len(alike), BATCH):
            batch = alike[start : start + BATCH]
            truths = _vllm([tmp_path / case.name for case in batch], kv_cache_dtype, dtype)
            for case in batch:
                truth = truths[str(tmp_path / case.name)]
                refused, error = truth.get("refused", ""), truth.get("load_error") or ""
                if NOT_THE_ENGINE.search(refused) or _THE_MACHINE.search(refused) or _WEIGHTS.search(error):
                    continue
                total += 1
                found = inspect(tmp_path / case.name, kv_cache_dtype=kv_cache_dtype, dtype=dtype)
                if why := disagreement(truth, report(found, explained=False)):
                    misses.append(f"{case.name}, cache {kv_cache_dtype}, {dtype}: {why}")
    record_property(
        "agreement", f"{KINDS[cases]}, seed {SEED}, prediction and vLLM: {total - len(misses)} of {total} agree"
    )
    assert misses == []


if PYTHON and HARNESS:
    test_prediction_against_vllm = pytest.mark.parametrize("cases", [*KINDS])(against_vllm)


def _vllm(folders: list[Path], kv_cache_dtype: str, dtype: str) -> dict[str, dict[str, Any]]:
    """What the real vLLM does with each folder, in the shape of the golden data."""
    several = folders if len(folders) > 1 else folders * 2  # of a single one the harness raises what it should report
    run = subprocess.run(
        [
            str(PYTHON), str(SURVEYED), str(HARNESS), "model", *map(str, several), "--only-scales", "--lenient-weights",
            "--kv-cache-dtype", kv_cache_dtype, "--dtype", dtype,
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    answer = json.loads(run.stdout[run.stdout.index("{") :])
    return {folder: _truth(found) for folder, found in answer.items()}


def _truth(found: dict[str, Any]) -> dict[str, Any]:
    if "build_error" in found:
        return {"refused": found["build_error"]}
    final = found.get("after_process_weights") or {}
    return {
        "load_error": found["load_error"],
        "writes": [{"param": write["param"], "loaded": write["loaded"]} for write in found["scale_writes"]],
        "attention": {
            path: {
                "final": {
                    "error": final[path]["error"],
                    **{role: final[path].get(f"_{role}_scale_float") for role in ("k", "v", "q")},
                }
                if path in final
                else None
            }
            for path in found["attention_before"]
        },
    }
