"""Planned exports held against what the real vLLM did with checkpoints of the very names that the plan would write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from core.errors import ExportError
from core.export import ExportPlan, plan_export
from core.inspection import inspect
from tests.golden_data import NOT_THE_ENGINE, golden, write_case

ENGINE = "vllm-0.33.0"
Written = frozenset[tuple[str, tuple[int, ...]]]


def written(tensors: Mapping[str, Mapping[str, Any]], plan: ExportPlan | None = None) -> Written:
    """Names and shapes, as they are or as the plan writes them."""
    rows: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for edit in plan.edits if plan is not None else ():
        found = rows.setdefault(edit.key, [])
        if edit.new_key is not None:
            shape = edit.new_shape if edit.new_shape is not None else tuple(tensors[edit.key]["shape"])
            found.append((edit.new_key, shape))
    stays = {name: [(name, tuple(tensor["shape"]))] for name, tensor in tensors.items()}
    return frozenset(row for found in (stays | rows).values() for row in found)


def targets(writes: Iterable[Any]) -> set[str]:
    return {write["param"] if isinstance(write, dict) else write[0] for write in writes}


def test_the_real_engine_loads_what_a_plan_says_it_loads(tmp_path: Path) -> None:
    found = golden(ENGINE, "cases")
    cases: dict[str, Any] = {
        name: case
        for name, case in found["cases"].items()
        if not NOT_THE_ENGINE.search(case["outcome"].get("refused", ""))
    }
    known = {(case["config"], case["kv_cache_dtype"], written(case["tensors"])): case for case in cases.values()}
    planned = held = 0
    for name, case in cases.items():
        if not case["outcome"].get("load_error"):
            continue
        folder = write_case(tmp_path / name, found["configs"][case["config"]], case["tensors"])
        try:
            plan = plan_export(inspect(folder, kv_cache_dtype=case["kv_cache_dtype"]))
        except ExportError as error:
            assert "with another value" in str(error)  # noqa: PT017
            continue
        planned += bool(plan.changes)
        truth = known.get((case["config"], case["kv_cache_dtype"], written(case["tensors"], plan)))
        if not plan.changes or truth is None or plan.predicted.load.outcome != "loads":
            continue
        held += 1
        outcome = truth["outcome"]
        assert outcome["load_error"] is None, name
        arrived = {delivery.target for delivery in plan.predicted.deliveries if delivery.outcome == "loaded"}
        assert targets(outcome["writes"]) == arrived, name
    assert planned > 200
    assert held > 10
