"""One checkpoint under several engines."""

from __future__ import annotations

from pathlib import Path

from core.engines import ENGINES
from core.inspection import inspect
from core.matrix import layer_rows, matrix, served
from core.report.matrix import matrix_text

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


def test_every_engine_answers_and_counts_its_layers(samples: Path) -> None:
    columns = matrix(inspect(samples / QWEN))
    assert [column.engine for column in columns] == list(ENGINES)
    by_engine = {column.engine: column for column in columns}
    newest = by_engine["vllm-0.33.0"]
    assert (newest.outcome, newest.served, newest.expecting) == ("ok", 36, 36)
    assert all(column.inspection is None or column.text == column.inspection.verdict.text for column in columns)
    sglang = by_engine["sglang-0.5.23"]
    assert (sglang.outcome, sglang.served) == ("degraded", 0)


def test_layers_stand_side_by_side(samples: Path) -> None:
    rows = layer_rows(matrix(inspect(samples / QWEN), ["vllm-0.33.0", "sglang-0.5.23"]))
    assert [row.number for row in rows] == list(range(36))
    ours, theirs = rows[0].layers
    assert ours is not None
    assert theirs is not None
    assert served(ours)
    assert not served(theirs)


def test_an_option_that_one_engine_does_not_know_leaves_the_others(samples: Path) -> None:
    inspection = inspect(samples / QWEN, kv_cache_dtype="int8_per_token_head")
    columns = {column.engine: column for column in matrix(inspection, ["vllm-0.33.0", "sglang-0.5.23"])}
    assert columns["vllm-0.33.0"].inspection is not None
    assert columns["sglang-0.5.23"].inspection is None
    assert columns["sglang-0.5.23"].outcome == "unknown"
    assert "int8_per_token_head" in columns["sglang-0.5.23"].text


def test_the_table_folds_equal_neighbours(samples: Path) -> None:
    deepseek = inspect(samples / "modelopt/deepseekv3-30layers-fp8-kvfp8")
    text = matrix_text(matrix(deepseek, ["vllm-0.33.0"]))
    assert text.splitlines()[0].startswith("vLLM 0.33.0  degraded     0 of 30  60 of 60")
    assert text.splitlines()[-1] == "0-29   k 1 default, v 1 default"
    gemma = matrix_text(matrix(inspect(samples / "quark/gemma3-26layers-fp8-kvfp8"), ["vllm-0.33.0"]))
    assert gemma.splitlines()[-1] == "0-25   ? not reached"
