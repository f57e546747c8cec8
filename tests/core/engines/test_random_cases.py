"""New random checkpoints in every run from one seed: the prediction against the loader that KVScope really runs, and,
where a vLLM can be run, against vLLM itself.

To compare with vLLM, name its Python and a harness that builds models on a CPU and prints what their attention layers
hold, in the variables ``KVSCOPE_VLLM_PYTHON`` and ``KVSCOPE_VLLM_HARNESS``.
``KVSCOPE_RANDOM_SEED`` and ``KVSCOPE_RANDOM_CASES`` choose other cases and more of them.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.inspection import inspect
from core.loading.verify import verify
from core.report import report
from tests.core.engines.random_cases import RandomCase, random_cases
from tests.golden_data import NOT_THE_ENGINE, disagreement, write_case

SEED = int(os.environ.get("KVSCOPE_RANDOM_SEED", "20261122"))
COUNT = int(os.environ.get("KVSCOPE_RANDOM_CASES", "320"))
PYTHON, HARNESS = os.environ.get("KVSCOPE_VLLM_PYTHON"), os.environ.get("KVSCOPE_VLLM_HARNESS")
EXPERTS_FIRST = ("moe", "mixtral", "deepseek", "gpt_oss", "llama4")
BATCH = 100


def test_prediction_against_the_loader(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    misses = []
    outcomes: dict[str, int] = defaultdict(int)
    for case in random_cases(SEED, COUNT):
        folder = write_case(tmp_path / case.name, case.config, case.tensors)
        found = verify(inspect(folder, kv_cache_dtype=case.kv_cache_dtype, dtype=case.dtype))
        outcomes[found.outcome] += 1
        if not found.agreed:
            misses.append(f"{case.name}: {found.text}")
    record_property(
        "agreement",
        f"random cases, seed {SEED}, prediction and loader: {COUNT - len(misses)} of {COUNT} agree "
        f"({', '.join(f'{count} {outcome}' for outcome, count in sorted(outcomes.items()))})",
    )
    assert misses == []
    assert outcomes["loads"] > COUNT // 4
    assert outcomes["raises"] > COUNT // 20


@pytest.mark.skipif(not (PYTHON and HARNESS), reason="no vLLM named: KVSCOPE_VLLM_PYTHON and KVSCOPE_VLLM_HARNESS")
def test_prediction_against_vllm(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    groups: dict[tuple[str, str], list[RandomCase]] = defaultdict(list)
    for case in random_cases(SEED, COUNT):
        write_case(tmp_path / case.name, case.config, case.tensors)
        groups[case.kv_cache_dtype, case.dtype].append(case)
    misses, total = [], 0
    for (kv_cache_dtype, dtype), cases in groups.items():
        # In one process vLLM builds models with experts only before all others.
        cases.sort(key=lambda case: not any(word in case.name for word in EXPERTS_FIRST))
        for start in range(0, len(cases), BATCH):
            batch = cases[start : start + BATCH]
            truths = _vllm([tmp_path / case.name for case in batch], kv_cache_dtype, dtype)
            for case in batch:
                truth = truths[str(tmp_path / case.name)]
                if NOT_THE_ENGINE.search(truth.get("refused", "")):
                    continue
                total += 1
                found = inspect(tmp_path / case.name, kv_cache_dtype=kv_cache_dtype, dtype=dtype)
                if why := disagreement(truth, report(found, explained=False)):
                    misses.append(f"{case.name}, cache {kv_cache_dtype}, {dtype}: {why}")
    record_property(
        "agreement", f"random cases, seed {SEED}, prediction and vLLM: {total - len(misses)} of {total} agree"
    )
    assert misses == []


def _vllm(folders: list[Path], kv_cache_dtype: str, dtype: str) -> dict[str, dict[str, Any]]:
    """What the real vLLM does with each folder, in the shape of the golden data."""
    run = subprocess.run(
        [
            str(PYTHON), str(HARNESS), "model", *map(str, folders), "--only-scales", "--lenient-weights",
            "--kv-cache-dtype", kv_cache_dtype, "--dtype", dtype,
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    answer = json.loads(run.stdout[run.stdout.index("{") :])
    if len(folders) == 1:
        answer = {str(folders[0]): answer}
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
