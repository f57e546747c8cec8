"""For every code a checkpoint that earns it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from core.inspection import Inspection, inspect
from tests.core.diagnosis.build import (
    COMPRESSED,
    FP8,
    MODELOPT,
    PER_HEAD,
    Folder,
    Tensor,
    Tensors,
    llama,
    look,
    scales,
)
from tests.places import CHECKPOINTS

K0 = "model.layers.0.self_attn.k_scale"
V0 = "model.layers.0.self_attn.v_scale"
K1 = "model.layers.1.self_attn.k_scale"
V1 = "model.layers.1.self_attn.v_scale"
GOOD = scales([0.03, 0.04], [0.01, 0.02])
INT8 = COMPRESSED | {"kv_cache_scheme": COMPRESSED["kv_cache_scheme"] | {"type": "int"}}  # type: ignore[operator]
UNDECLARED = {name: value for name, value in COMPRESSED.items() if name != "kv_cache_scheme"}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}
WHISPER = CHECKPOINTS / "llmcompressor" / "whisper-kvonly"
PER_CHANNEL = CHECKPOINTS / "quark" / "llama-fp8-kvfp8perchannel"
Example = Callable[[Path], Inspection]


def _of(config: Mapping[str, Any], tensors: Tensors, **options: Any) -> Example:
    return lambda path: look(path, config, tensors, **options)


def _modelopt(k: list[float | None], v: list[float | None], **options: Any) -> Example:
    return _of(llama(MODELOPT, layers=len(k)), scales(k, v), **options)


def _sharded(
    shards: Mapping[str, Tensors], weight_map: Mapping[str, str], *, damage: Callable[[Path], object] | None = None
) -> Example:
    def example(path: Path) -> Inspection:
        folder = Folder(path, llama(MODELOPT), shards, weight_map).write()
        if damage is not None:
            damage(folder)
        return inspect(folder)

    return example


_HALVES: Mapping[str, Tensors] = {
    "a.safetensors": scales([0.03], [0.01]),
    "b.safetensors": {K1: 0.04, V1: 0.02},
}
_HALVES_MAP = {K0: "a.safetensors", V0: "a.safetensors", K1: "b.safetensors", V1: "b.safetensors"}


def _truncate(folder: Path) -> None:
    path = folder / "b.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


EXAMPLES: Mapping[str, Example] = {
    "load-refused": _of(llama(INT8), GOOD),
    "load-raises": _of(llama(None), GOOD),
    "shape": _of(llama(MODELOPT), GOOD | {K0: Tensor([0.1, 0.2, 0.3, 0.4], [4])}),
    "head-count": _of(llama(PER_HEAD, layers=1), {K0: Tensor([0.1, 0.2, 0.3], [3]), V0: Tensor([0.1, 0.2], [2])}),
    # float16 has nothing between 0 and 6e-8, so the engine's copy of k becomes 0.0.
    "layer-assertion": _modelopt([2e-8, 0.04], [0.01, 0.02], dtype="float16"),
    "dropped-scale": _of(llama(AWQ), GOOD),
    "q-dropped": _of(llama(AWQ), scales([0.03, 0.04], [0.01, 0.02], q=[0.1, 0.1])),
    "conflict": _of(llama(MODELOPT), GOOD | {"model.layers.0.self_attn.k_proj.k_scale": 0.05}),
    "v-without-k": _modelopt([None, 0.04], [0.01, 0.02]),
    "k-without-v": _modelopt([0.03, 0.04], [None, 0.02]),
    "kv-not-shared": _of(llama(COMPRESSED), {f"model.layers.{layer}.self_attn.kv_scale": 0.03 for layer in range(2)}),
    "missing-scale": _modelopt([None, 0.04], [None, 0.02]),
    "cache-not-quantized": _of(llama(FP8), GOOD),
    "run-time-scales": _of(llama(COMPRESSED), GOOD, kv_cache_dtype="int8_per_token_head"),
    "q-missing": _modelopt([0.03, 0.04], [0.01, 0.02]),
    "q-applied": _of(llama(FP8), scales([0.03, 0.04], [0.01, 0.02], q=[0.1, 0.2])),
    "not-needed": lambda _: inspect(WHISPER),
    "draft-scale": _of(llama(MODELOPT), GOOD | scales([None, None, 0.05], [None, None, 0.02])),
    "zero-points": _of(llama(COMPRESSED), GOOD | {"model.layers.0.self_attn.k_zero_point": Tensor([0.0], [1])}),
    "offsets-lost": _of(llama(FP8), GOOD | {"model.layers.0.self_attn.k_zero_point": 3.0}, kv_cache_dtype="fp8"),
    "uninitialised": _of(llama(COMPRESSED), scales([0.03, 0.04], [0.01, 0.02], q=[-1.3e29, 3.7e-40])),
    "not-finite": _of(llama(COMPRESSED), scales([float("nan"), 0.04], [0.01, float("inf")])),
    "negative": _modelopt([-1.0, 0.04], [-1.0, 0.02]),
    "zero": _modelopt([0.03, 0.04], [0.01, 0.0]),
    "amax-stored": _modelopt([15.0, 40.0], [6.0, 20.0]),
    "reciprocal-stored": _modelopt([15.0, 40.0], [60.0, 200.0]),
    "exactly-one": _modelopt([1.0, 1.0], [1.0, 0.02]),
    "outlier": _modelopt([0.03, 0.03, 0.04, 2.0], [0.01] * 4),
    "dtype-epsilon": _of(
        llama(COMPRESSED),
        {key: Tensor([value], [1], "BF16") for key, value in zip(GOOD, (0.03125, 0.0625, 0.0156, 2**-7), strict=True)},
    ),
    "tiny": _modelopt([0.03, 0.04], [0.01, 1e-5]),
    "large": _modelopt([0.3, 1.2], [0.1, 0.2]),
    "above-half": _modelopt([0.3, 0.7], [0.1, 0.2]),
    "swapped": _modelopt([0.01] * 10, [0.05] * 10),
    "pair-ratio": _modelopt([0.03, 0.03, 0.03, 0.0002], [0.01, 0.01, 0.01, 0.02]),
    "odd-dtype": _of(llama(MODELOPT), GOOD | {K1: Tensor([0x10], (), "F8_E4M3")}),
    "rounding": _modelopt([0.03, 0.04], [0.01, 0.02]),
    "k-equals-v": _modelopt([0.03, 0.04], [0.03, 0.04]),
    "declared-absent": _of(llama(MODELOPT), {"lm_head.weight": 0.5}),
    "dynamic-scheme": _of(
        llama(COMPRESSED | {"kv_cache_scheme": COMPRESSED["kv_cache_scheme"] | {"dynamic": True}}),  # type: ignore[operator]
        {"lm_head.weight": 0.5},
    ),
    "undeclared": _of(llama(UNDECLARED), GOOD),
    "declaration-note": lambda _: inspect(PER_CHANNEL),
    "method-chosen": _of(llama(COMPRESSED), GOOD, method="modelopt"),
    "broken-file": _sharded(_HALVES, _HALVES_MAP, damage=_truncate),
    "shard-missing": _sharded(_HALVES, _HALVES_MAP, damage=lambda folder: (folder / "b.safetensors").unlink()),
    "unreadable-scale": _of(llama(MODELOPT), GOOD | {K1: Tensor([], [0])}),
    "index-disagrees": _sharded(_HALVES, {**_HALVES_MAP, V1: "a.safetensors", "model.norm.weight": "a.safetensors"}),
    "duplicate-key": _sharded({**_HALVES, "b.safetensors": {K0: 0.03, K1: 0.04, V1: 0.02}}, _HALVES_MAP),
    "split-pair": _sharded(
        {"a.safetensors": {K0: 0.03, K1: 0.04}, "b.safetensors": {V0: 0.01, V1: 0.02}},
        {K0: "a.safetensors", K1: "a.safetensors", V0: "b.safetensors", V1: "b.safetensors"},
    ),
    "unindexed-scales": _sharded(
        {"a.safetensors": {"lm_head.weight": 0.5}, "model-kvscales.safetensors": GOOD},
        {"lm_head.weight": "a.safetensors"},
    ),
}
