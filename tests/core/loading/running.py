"""The loader without the prediction: a set-up from configs alone, a stream of tensors, what the layers then hold."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from core.backends.kv_method import AttentionShape, CacheSetup
from core.engines import Fed, Wish, get_engine
from core.engines.vllm.engine import Vllm
from core.engines.vllm.predict import Setup
from core.loading.attention import Attention
from core.loading.kv_cache import BaseKVCacheMethod
from core.loading.setup import declaration_for
from core.loading.skeleton import attention_layers, build_skeleton
from core.quantization import read_declaration

ERRORS = (ValueError, AttributeError, KeyError, AssertionError, RuntimeError, TypeError)


@dataclass(frozen=True)
class Configs:
    """Config files that lie nowhere."""

    files: Mapping[str, Mapping[str, Any]]

    def config(self, name: str) -> Mapping[str, Any] | None:
        return self.files.get(name)


def set_up(
    files: Mapping[str, Mapping[str, Any]],
    kv_cache_dtype: str,
    names: Iterable[str] = (),
    *,
    engine_id: str = "vllm-0.33.0",
) -> Setup:
    """What the engine would build from these config files."""
    engine = get_engine(engine_id)
    assert isinstance(engine, Vllm)
    names = tuple(names)
    declaration = read_declaration(Configs(files), tensor_names=names)
    wish = Wish(kv_cache_dtype=kv_cache_dtype, dtype="bfloat16")  # the golden runs' dtype, whatever configs say
    read = declaration_for(engine, declaration)
    setup = engine.setup(read, engine.settle(declaration, wish), [Fed(name, (), ()) for name in names], wish)
    assert setup is not None
    return setup


@dataclass(frozen=True)
class Ran:
    """How a load ended, and the attention layers as it left them."""

    error: str | None
    written: set[str]
    layers: Mapping[str, Attention]


def run(setup: Setup, weights: Iterable[tuple[str, torch.Tensor]], *, device: str = "cpu") -> Ran:
    model: nn.Module = build_skeleton(setup)
    for _, layer in attention_layers(model):
        layer.to(device)
    try:
        written = model.load_weights(weights)  # type: ignore[operator]
    except ERRORS as error:
        return Ran(f"{type(error).__name__}: {error}", set(), {})
    return Ran(None, written, dict(attention_layers(model)))


def post_process(layer: Attention) -> str | None:
    """The name of the exception that post-processing raises."""
    try:
        layer.process_weights_after_loading()
    except ERRORS as error:
        return type(error).__name__
    return None


def equal(left: Iterable[float], right: Iterable[float]) -> bool:
    """NaN equals NaN."""
    first, second = list(left), list(right)
    return len(first) == len(second) and all(
        a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(first, second, strict=True)
    )


def differences(golden: Mapping[str, Any], ran: Ran) -> list[str]:
    """Where a run differs from what the real engine did (``load_error``, ``writes``, ``attention``)."""
    should = golden["load_error"]
    if ran.error is not None or should is not None:
        same = (ran.error or "").partition(" The available")[0] == (should or "").partition(" The available")[0]
        return [] if same else [f"raised {ran.error}, and not {should}"]
    found = []
    written = {write["param"] if isinstance(write, dict) else write[0] for write in golden["writes"]}
    if ran.written != written:
        found.append(f"wrote {sorted(ran.written ^ written)}")
    if ran.layers.keys() != golden["attention"].keys():
        return [*found, f"has layers {sorted(ran.layers.keys() ^ golden['attention'].keys())}"]
    for path, layer in ran.layers.items():
        found += [f"{path} {text}" for text in _layer_differences(golden["attention"][path]["final"], layer)]
    return found


def _layer_differences(final: Mapping[str, Any], layer: Attention) -> list[str]:
    error, should = post_process(layer), final["error"]
    if error is not None or should is not None:
        return [] if error == str(should).partition(":")[0] else [f"raised {error}, and not {should}"]
    found = []
    for role in ("k", "v", "q"):
        copy = getattr(layer, f"_{role}_scale_float")
        if not equal([copy], [final[role]]):
            found.append(f"{role} is {copy}, and not {final[role]}")
    for role in ("k", "v", "q", "prob"):
        held, engine = layer.get_buffer(f"_{role}_scale").reshape(-1).tolist(), final.get(f"{role}_tensor")
        if engine is not None and not equal(held, engine):
            found.append(f"{role} tensor is {held}, and not {engine}")
    return found


def run_cases(shared: Path, *, device: str = "cpu", engine_id: str = "vllm-0.33.0") -> tuple[int, dict[str, list[str]]]:
    """Every golden case that the engine built, of a model that can be built here: how many there are, and what differs
    in which. Cases of other versions have the ids of 0.33.0's, whose file holds configs and tensors.
    """
    data = json.loads((shared / "golden" / "vllm-0.33.0" / "cases.json").read_text(encoding="utf-8"))
    own = json.loads((shared / "golden" / engine_id / "cases.json").read_text(encoding="utf-8"))["cases"]
    wrong: dict[str, list[str]] = {}
    done = 0
    for name, case in data["cases"].items():
        outcome = own.get(name, {}).get("outcome", {})
        if "attention" not in outcome:
            continue
        config = data["configs"][case["config"]]
        setup = set_up({"config.json": config}, case["kv_cache_dtype"], case["tensors"], engine_id=engine_id)
        try:
            ran = run(setup, _stream(case["tensors"]), device=device)
        except NotImplementedError:  # a loop of an older release, which is predicted only
            continue
        if found := differences(outcome, ran):
            wrong[name] = found
        done += 1
    return done, wrong


def _stream(tensors: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    for name in sorted(tensors):  # the order in which safetensors lists them
        yield name, torch.tensor(tensors[name]["values"], dtype=torch.float32).reshape(tensors[name]["shape"])


ONE_HEAD = AttentionShape(num_heads=1, num_kv_heads=1, total_num_heads=1, total_num_kv_heads=1)


def attention(
    method: BaseKVCacheMethod | None,
    *,
    quantized: bool = True,
    per_token_head: bool = False,
    fnuz: bool = False,
    shape: AttentionShape = ONE_HEAD,
    dtype: torch.dtype = torch.bfloat16,
    tp: tuple[int, int] = (0, 1),
) -> Attention:
    """One attention layer; ``tp`` is its rank and the number of ranks."""
    cache = CacheSetup(
        dtype="fp8" if quantized else "bfloat16", quantized=quantized, per_token_head=per_token_head, fnuz=fnuz
    )
    return Attention(shape=shape, cache=cache, params_dtype=dtype, quant_method=method, tp_rank=tp[0], tp_size=tp[1])


def scales(layer: Attention) -> dict[str, float]:
    """k, v, q and prob as the kernels read them, where each is one number."""
    return {role: layer.get_buffer(f"_{role}_scale").item() for role in ("k", "v", "q", "prob")}
