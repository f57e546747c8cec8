"""The torch loader against what vLLM 0.33.0 itself did; the prediction has no part in this."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.checkpoint import open_checkpoint
from core.loading.tensors import read_tensors
from tests.core.loading.running import differences, run, run_cases, set_up


def test_every_case_the_engine_built_ends_as_it_did_there(shared: Path) -> None:
    done, wrong = run_cases(shared)
    print(f"{done - len(wrong)} of {done} cases end as in vLLM 0.33.0")
    assert not wrong
    assert done == 847


@pytest.mark.parametrize(("engine", "least"), [("vllm-0.27.1", 700), ("vllm-0.25.0", 570)])
def test_cases_of_older_versions_end_as_they_did_there(shared: Path, engine: str, least: int) -> None:
    """Models that load in hand-written loops there are left out: those are predicted only."""
    done, wrong = run_cases(shared, engine_id=engine)
    print(f"{done - len(wrong)} of {done} cases end as in {engine}")
    assert not wrong
    assert done >= least


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8"])
@pytest.mark.parametrize("tool", ["llmcompressor", "modelopt", "quark"])
def test_real_checkpoints_end_as_in_the_engine(shared: Path, tool: str, kv_cache_dtype: str) -> None:
    golden = shared / "golden" / "vllm-0.33.0" / "deliveries" / f"{tool}.{kv_cache_dtype}.json"
    wrong, layers, done = {}, 0, 0
    for name, outcome in json.loads(golden.read_text(encoding="utf-8")).items():
        if "attention" not in outcome:
            continue
        checkpoint = open_checkpoint(shared / "checkpoints" / tool / name)
        files = {file: checkpoint.config(file) for file in checkpoint.config_names()}
        setup = set_up(
            {file: content for file, content in files.items() if content is not None},
            kv_cache_dtype,
            checkpoint.catalog.names,
        )
        keys = outcome["checkpoint_scale_tensors"]
        rows = [row for row, key in enumerate(checkpoint.catalog.names) if key in keys]
        ran = run(setup, read_tensors(checkpoint, rows))
        if found := differences(outcome, ran):
            wrong[name] = found
        layers += len(ran.layers)
        done += 1
    print(f"{tool}, {kv_cache_dtype}: {done - len(wrong)} of {done} checkpoints, {layers} attention layers as in vLLM")
    assert not wrong
    assert done
