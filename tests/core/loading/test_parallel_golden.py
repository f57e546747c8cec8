"""Scales for each head on each rank: what vLLM 0.33.0's own loader left there, in both of this project's words."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from core.architectures.heads import HeadCounts
from core.backends import kv_method
from core.backends.kv_method import AttentionShape, EngineError
from core.engines.vllm.predict import attention_shape
from core.loading.kv_cache import CompressedTensorsKVCacheMethod
from core.loading.parameters import weight_loader_of
from tests.core.loading.running import attention
from tests.places import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden" / "vllm-0.33.0" / "tensor_parallel.json.gz"
SPEC = kv_method.CompressedTensorsKVCacheMethod(per_head=True)


def _cases() -> Iterator[tuple[dict[str, Any], int, AttentionShape]]:
    for case in json.loads(gzip.decompress(Path(GOLDEN).read_bytes()))["cases"]:
        config = {"num_attention_heads": case["heads"], "num_key_value_heads": case["kv_heads"]}
        for rank in range(case["ranks"]):
            yield case, rank, attention_shape(HeadCounts(config), tp_rank=rank, tp_size=case["ranks"])


def _loaded(case: dict[str, Any], rank: int, shape: AttentionShape) -> list[float] | str:
    layer = attention(CompressedTensorsKVCacheMethod(SPEC), shape=shape, tp=(rank, case["ranks"]))
    parameter = layer.get_parameter(f"{case['role']}_scale")
    try:
        weight_loader_of(parameter)(parameter, torch.tensor(case["stored"]).reshape(-1, 1, 1))
    except (RuntimeError, AssertionError, ZeroDivisionError) as error:
        return type(error).__name__
    held: list[float] = parameter.tolist()
    return held


def _predicted(case: dict[str, Any], shape: AttentionShape) -> list[float] | str:
    parameter = SPEC.parameters(shape)[f"{case['role']}_scale"]
    stored = tuple(case["stored"])
    try:
        taken = SPEC.take(parameter, stored, (len(stored), 1, 1), shape, "bfloat16")
    except EngineError as error:
        return error.kind
    return list(taken or ())


def test_every_rank_ends_as_in_the_real_engine(record_property: Any) -> None:
    wrong = []
    done = 0
    for case, rank, shape in _cases():
        done += 1
        should = case["held"][rank]
        for words, found in (("loaded", _loaded(case, rank, shape)), ("predicted", _predicted(case, shape))):
            if found != should:
                wrong.append((words, case, rank, found))
    assert not wrong, wrong[:3]
    record_property("agreement", f"{done - len(wrong):,} of {done:,} ranks hold the per-head scales of vLLM 0.33.0's")
    assert done > 3000
