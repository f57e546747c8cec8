"""Agreement of the predictions with what the real vLLM 0.33.0 did, as numbers in the test output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from core.engines import DEFAULT_ENGINE, get_engine
from core.inspection import inspect
from core.report import report
from tests.golden_data import NOT_THE_ENGINE, disagreement, golden, write_case

Record = Callable[[str, object], None]


@pytest.fixture
def record(record_property: Record) -> Callable[[str, int, int], None]:
    """Put "agrees n of m" into the run's summary."""

    def keep(what: str, agreed: int, total: int) -> None:
        record_property("agreement", f"{what}: {agreed} of {total} agree = {100 * agreed / total:.2f} %")

    return keep


@pytest.mark.parametrize(("group", "method"), [("base", "compressed-tensors"), ("output_scale", "quark")])
def test_names_through_the_mapper(group: str, method: str, record: Callable[[str, int, int], None]) -> None:
    data = golden("vllm-0.33.0", "names")
    renamed = data["renamed"][group]
    results = get_engine(DEFAULT_ENGINE).map_names(data["names"], method=method, architecture=None)
    wrong = [each.name for each in results if each.result != renamed.get(each.name, each.name)]
    record(f"vllm-0.33.0 names, {method}", len(results) - len(wrong), len(results))
    assert len(results) > 8000
    assert wrong == []


def test_cases(tmp_path: Path, record: Callable[[str, int, int], None]) -> None:
    data = golden("vllm-0.33.0", "cases")
    misses, total = [], 0
    for name, case in data["cases"].items():
        if NOT_THE_ENGINE.search(case["outcome"].get("refused", "")):
            continue
        total += 1
        folder = write_case(tmp_path / name, data["configs"][case["config"]], case["tensors"])
        found = report(inspect(folder, kv_cache_dtype=case["kv_cache_dtype"], dtype="bfloat16"), explained=False)
        if why := disagreement(case["outcome"], found):
            misses.append(f"{name}: {why}")
    record("vllm-0.33.0 cases", total - len(misses), total)
    assert total > 800
    assert misses == []


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8"])
@pytest.mark.parametrize("tool", ["llmcompressor", "modelopt", "quark"])
def test_deliveries(tool: str, kv_cache_dtype: str, shared: Path, record: Callable[[str, int, int], None]) -> None:
    truth = json.loads((shared / f"golden/vllm-0.33.0/deliveries/{tool}.{kv_cache_dtype}.json").read_text())
    misses, total = [], 0
    for name, outcome in truth.items():
        if NOT_THE_ENGINE.search(outcome.get("refused", "")):
            continue
        total += 1
        found = inspect(shared / "checkpoints" / tool / name, kv_cache_dtype=kv_cache_dtype, dtype="bfloat16")
        if why := disagreement(outcome, report(found, explained=False)):
            misses.append(f"{name}: {why}")
    record(f"vllm-0.33.0 deliveries, {tool}, cache {kv_cache_dtype}", total - len(misses), total)
    assert total > 20
    assert misses == []


def test_a_wrong_prediction_is_seen(tmp_path: Path) -> None:
    """The comparison can fail: one changed value, one lost write, one other exception."""
    data = golden("vllm-0.33.0", "cases")
    name = next(key for key, case in data["cases"].items() if case["outcome"].get("writes"))
    case = data["cases"][name]
    folder = write_case(tmp_path / "case", data["configs"][case["config"]], case["tensors"])
    good = report(inspect(folder, kv_cache_dtype=case["kv_cache_dtype"], dtype="bfloat16"), explained=False)
    assert disagreement(case["outcome"], good) == ""
    lost = {**good, "scales": good["scales"][1:]}
    assert "writes" in disagreement(case["outcome"], lost)
    raised = {**good, "load": {"outcome": "raises", "error": "KeyError: 'x'", "key": "x"}}
    assert "predicted raises" in disagreement(case["outcome"], raised)
    other = [{**layer, "final": {**layer["final"], "k": 17.0}} for layer in good["attention"]]
    assert "predicted 17.0" in disagreement(case["outcome"], {**good, "attention": other})
