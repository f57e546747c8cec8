"""One checkpoint under several engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.engines import ENGINES
from core.errors import CancelledError
from core.headline import headline
from core.inspection import inspect
from core.matrix import alike, layer_rows, matrix, served
from core.progress import Progress
from core.report.matrix import matrix_as_data, matrix_text

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
HEADS = "llmcompressor/llama-32layers-kv_attn_head"
DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"


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
    columns = matrix(inspect(samples / QWEN), ["vllm-0.33.0", "sglang-0.5.23"])
    rows = layer_rows(columns)
    assert [row.number for row in rows] == list(range(36))
    ours, theirs = rows[0].layers
    assert ours is not None
    assert theirs is not None
    assert columns[0].inspection is not None
    assert columns[1].inspection is not None
    assert served(ours, columns[0].inspection)
    assert not served(theirs, columns[1].inspection)


def test_an_option_that_one_engine_does_not_know_leaves_the_others(samples: Path) -> None:
    inspection = inspect(samples / QWEN, kv_cache_dtype="int8_per_token_head")
    columns = {column.engine: column for column in matrix(inspection, ["vllm-0.33.0", "sglang-0.5.23"])}
    assert columns["vllm-0.33.0"].inspection is not None
    assert columns["sglang-0.5.23"].inspection is None
    assert columns["sglang-0.5.23"].outcome == "unknown"
    assert "int8_per_token_head" in columns["sglang-0.5.23"].text


def test_the_table_folds_equal_neighbours(samples: Path) -> None:
    deepseek = inspect(samples / DEEPSEEK)
    text = matrix_text(matrix(deepseek, ["vllm-0.33.0"]))
    assert text.splitlines()[2].startswith("vLLM 0.33.0  degraded     0 of 30  None of the 60 k and v scales")
    assert text.splitlines()[-1] == "0-29   k 1 default, v 1 default"
    gemma = matrix_text(matrix(inspect(samples / GEMMA), ["vllm-0.33.0"]))
    assert gemma.splitlines()[-1] == "0-25   ? not reached"


def test_engines_that_do_the_same_share_a_column(samples: Path) -> None:
    columns = matrix(inspect(samples / DEEPSEEK))
    groups = [[column.engine for column in group] for group in alike(columns)]
    assert groups[0] == ["vllm-0.33.0", "vllm-0.27.1", "vllm-0.25.0"]
    assert groups[1] == ["vllm-0.23.0", "vllm-0.22.1"]
    lines = matrix_text(columns).splitlines()
    assert "layer  vLLM 0.33.0, 0.27.1, 0.25.0  vLLM 0.23.0, 0.22.1       SGLang 0.5.23" in lines
    # SGLang's second attention module of each layer needs no scale: no line for it.
    assert lines[-1].startswith("29     k 1 default, v 1 default")
    assert len(layer_rows(columns)) == 30


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (
            DEEPSEEK,
            (
                "vLLM works up to 0.23.0 and loses every scale since 0.25.0; SGLang 0.5.23 works; TensorRT-LLM is not "
                "known. No export helps in vLLM 0.25.0 to 0.33.0."
            ),
        ),
        (
            QWEN,
            (
                "vLLM works up to 0.22.1, stops while loading (TypeError) in 0.23.0 and works since 0.25.0; SGLang "
                "0.5.23 "
                "loses every scale; TensorRT-LLM loses every scale without a word. An export with portable names "
                "serves "
                "every layer in vLLM 0.23.0: kvscope export PATH OUT --engine vllm-0.23.0. No export helps in SGLang "
                "0.5.23 and TensorRT-LLM."
            ),
        ),
        (
            GEMMA,
            (
                "vLLM stops while loading (IndexError) up to 0.22.1, loads the scales but keeps the cache in "
                "bfloat16 in "
                "0.23.0 and stops while loading (AttributeError) since 0.25.0; SGLang 0.5.23 loads the scales but "
                "keeps "
                "the cache in bfloat16; TensorRT-LLM is not known. An export with portable names "
                "serves every layer in vLLM 0.22.1 and 0.25.0 to 0.33.0: kvscope export PATH OUT. An FP8 cache "
                "(--kv-cache-dtype fp8_e4m3) puts the scales to use in vLLM 0.23.0 and SGLang 0.5.23."
            ),
        ),
        (
            "llmcompressor/llama-attn_fp8_tensor",
            (
                "vLLM runs on doubtful values from 0.22.1 to 0.33.0; SGLang 0.5.23 refuses the model "
                "(ValidationError); "
                "TensorRT-LLM loses every scale without a word. No export helps in SGLang 0.5.23 and TensorRT-LLM."
            ),
        ),
    ],
)
def test_the_headline_draws_versions_together(samples: Path, sample: str, said: str) -> None:
    columns = matrix(inspect(samples / sample))
    assert headline(columns) == said
    assert matrix_text(columns).splitlines()[0] == said
    assert matrix_as_data(columns)["text"] == said


def test_one_version_and_engines_in_any_order(samples: Path) -> None:
    inspection = inspect(samples / DEEPSEEK)
    assert headline(matrix(inspection, ["vllm-0.24.0"])) == "vLLM 0.24.0 works."
    assert (
        headline(matrix(inspection, ["sglang-0.5.23", "vllm-0.33.0", "vllm-0.22.1"]))
        == "vLLM works in 0.22.1 and loses every scale in 0.33.0; SGLang 0.5.23 works. "
        "No export helps in vLLM 0.33.0."
    )
    assert headline(()) == "No engine was asked."


def test_what_mends_a_column(samples: Path) -> None:
    columns = {column.engine: column for column in matrix(inspect(samples / GEMMA))}
    newest = columns["vllm-0.33.0"]
    assert (newest.mend, newest.mended, newest.names) == ("export", 26, "portable")
    assert (columns["vllm-0.23.0"].mend, columns["vllm-0.23.0"].mended) == ("cache", 26)
    assert columns["tensorrt-llm"].mend == ""
    data = matrix_as_data(tuple(columns.values()))
    assert {"mend": "export", "mended": 26, "names": "portable", "served": 0}.items() <= data["engines"][0].items()
    assert {"mend": None, "mended": None, "names": None}.items() <= data["engines"][-1].items()


@pytest.mark.parametrize(
    ("sample", "engine", "cache", "fate", "layer"),
    [
        (GEMMA, "sglang-0.5.23", "auto", "loads the scales but keeps the cache in bfloat16", "k 0.0"),
        (GEMMA, "vllm-0.23.0", "auto", "loads the scales but keeps the cache in bfloat16", "k 1 forced, v 1 forced"),
        (HEADS, "vllm-0.33.0", "bfloat16", "loads the scales but keeps the cache in bfloat16", "k 0."),
        (
            QWEN,
            "vllm-0.33.0",
            "int8_per_token_head",
            "loads the scales for a cache that computes its own",
            "k 1 forced",
        ),
    ],
)
def test_layers_whose_cache_uses_no_scale_are_not_served(
    samples: Path, sample: str, engine: str, cache: str, fate: str, layer: str
) -> None:
    (column,) = matrix(inspect(samples / sample, engine=engine, kv_cache_dtype=cache), [engine])
    assert column.outcome == "degraded"
    assert (column.served, column.unused) == (0, column.expecting)
    lines = matrix_text([column]).splitlines()
    assert fate in lines[0]
    assert "No export helps" not in lines[0]
    assert f" 0 of {column.expecting} " in lines[2]
    assert lines[-1].partition("  ")[2].strip().startswith(layer)
    assert lines[-1].endswith(", unused")
    (told,) = matrix_as_data([column])["engines"]
    assert (told["served"], told["unused"]) == (0, column.expecting)


def test_a_cancelled_matrix_stops(samples: Path) -> None:
    progress = Progress()
    progress.cancel()
    with pytest.raises(CancelledError, match="was cancelled"):
        matrix(inspect(samples / QWEN), progress=progress)


def test_two_engines_alone_are_told_where_they_part(samples: Path) -> None:
    text = matrix_text(matrix(inspect(samples / DEEPSEEK), ["vllm-0.33.0", "vllm-0.23.0"]))
    assert "60 of 60 keys end differently, as model.layers.0.self_attn.k_proj.k_scale:" in text
    assert "  vLLM 0.33.0: DeepseekV3ForCausalLM's regex rule" in text
    assert "  vLLM 0.23.0: DeepseekV2Model's regex rule" in text
    assert "Every key ends alike in both." in matrix_text(
        matrix(inspect(samples / QWEN), ["vllm-0.33.0", "vllm-0.27.1"])
    )
    unknown = matrix(inspect(samples / QWEN, kv_cache_dtype="int8_per_token_head"), ["vllm-0.33.0", "sglang-0.5.23"])
    assert "differently" not in matrix_text(unknown)
