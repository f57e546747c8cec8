"""The JSON side files that tools and engines write, each recognised by its own fields.

Sources: vLLM up to 0.6 and SGLang (``kv_cache.scaling_factor``; vLLM pull request #11906 removed it), also shipped by
KsanaLLM; LightLLM's ``kv_cache_calib.json``; SGLang's ``kv-scales-v1.json``; Intel Neural Compressor's measurement and
scale dumps (``inc_output_hooks_maxabs_*``).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.naming.conventions import layer_number
from core.naming.scales import Role
from core.side_files.source import SourceScale
from core.wording import say

FP8_LARGEST = 448.0
NVFP4_OVER_FP8 = 6.0
"""A scale of amax / (6 x 448) times this is the FP8 scale of the same amax."""
_INC_NODE = re.compile(r"^(?P<module>.+\.\d+\.[^.]+)(?:\.[^.]+)*\.(?P<role>[kv])_cache$")


class SideFileError(ValueError):
    """The file is of the format, and something in it is wrong; ``problem`` says what."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class SideFormat:
    """One format: ``is_this`` tells by the fields, ``read`` gives scales and notes, or raises SideFileError."""

    id: str
    title: str
    fields: str
    is_this: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], tuple[list[SourceScale], list[str]]]


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SideFileError(say("{place} is {value!r} and no number", place=where, value=value))
    if not 0 < value <= sys.float_info.max:  # a whole number may be larger than any float
        raise SideFileError(
            say("{place} is {value!r}, and a scale is a finite number above 0", place=where, value=value)
        )
    return float(value)


def _integer(value: Any, where: str) -> int:
    found = re.fullmatch(r"(?:rank)?([0-9]{1,9})", str(value))
    if found is None:
        raise SideFileError(say("{place} {value!r} is no number", place=where, value=value))
    return int(found.group(1))


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SideFileError(say("{place} is no JSON object", place=where))
    return value


def _list(value: Any, where: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise SideFileError(say("{place} is no list", place=where))
    return value


# ------------------------------------------------------------------------------------------------------- vLLM, SGLang
def _is_scaling_factor(content: Mapping[str, Any]) -> bool:
    block = content.get("kv_cache")
    return isinstance(block, Mapping) and "scaling_factor" in block


def _read_scaling_factor(content: Mapping[str, Any]) -> tuple[list[SourceScale], list[str]]:
    block = content["kv_cache"]
    notes: list[str] = []
    dtype = block.get("dtype")
    if dtype not in (None, "float8_e4m3fn"):
        raise SideFileError(
            say("kv_cache.dtype is {dtype!r}, and only scales for float8_e4m3fn are known", dtype=dtype)
        )
    ranks = _object(block["scaling_factor"], "kv_cache.scaling_factor")
    found: dict[int, list[float]] = {}
    for rank, layers in ranks.items():
        _integer(rank, say("the tensor-parallel rank"))
        for layer, value in _object(layers, f"kv_cache.scaling_factor.{rank}").items():
            where = f"kv_cache.scaling_factor.{rank}.{layer}"
            found.setdefault(_integer(layer, say("the layer")), []).append(_number(value, where))
    if any(not str(rank).isdigit() for rank in ranks):
        notes.append(say("Its ranks are not plain numbers, which vLLM up to 0.6 refused."))
    if len(ranks) > 1:
        notes.append(
            say("It holds {count} tensor-parallel ranks; the largest scale of each layer was taken.", count=len(ranks))
        )
    return [SourceScale(role="kv", layer=layer, values=(max(values),)) for layer, values in found.items()], notes


# ----------------------------------------------------------------------------------------------------------- LightLLM
def _is_lightllm(content: Mapping[str, Any]) -> bool:
    return "scales" in content and "quant_type" in content and "scales_shape" in content


def _read_lightllm(content: Mapping[str, Any]) -> tuple[list[SourceScale], list[str]]:
    kind = content["quant_type"]
    if kind not in ("per_tensor", "per_head"):
        raise SideFileError(say("quant_type is {kind!r}, and only per_tensor and per_head are known", kind=kind))
    rows = _list(content["scales"], "scales")
    heads = 1 if kind == "per_tensor" else _integer(content.get("num_head"), "num_head")
    if not heads or content["scales_shape"] != [len(rows), 2 * heads]:
        raise SideFileError(
            say(
                "scales_shape is {shape}, and scales are {layers} x {width}",
                shape=content["scales_shape"],
                layers=len(rows),
                width=2 * heads,
            )
        )
    found = []
    for layer, row in enumerate(rows):
        values = [_number(value, f"scales[{layer}][{at}]") for at, value in enumerate(_list(row, f"scales[{layer}]"))]
        if len(values) != 2 * heads:
            raise SideFileError(
                say(
                    "scales[{layer}] holds {count} values and not {wanted}",
                    layer=layer,
                    count=len(values),
                    wanted=2 * heads,
                )
            )
        found.append(SourceScale(role="k", layer=layer, values=tuple(values[:heads])))
        found.append(SourceScale(role="v", layer=layer, values=tuple(values[heads:])))
    return found, []


# -------------------------------------------------------------------------------------------------------- SGLang NVFP4
def _is_sglang_pools(content: Mapping[str, Any]) -> bool:
    return str(content.get("schema", "")).startswith("sglang.") and "pools" in content


def _read_sglang_pools(content: Mapping[str, Any]) -> tuple[list[SourceScale], list[str]]:
    policy = str(content.get("scale_policy", ""))
    if not policy.endswith("amax-over-6x448"):
        raise SideFileError(say("scale_policy is {policy!r}, and only amax-over-6x448 is known", policy=policy))
    pools = _object(content["pools"], "pools")
    target = _object(pools.get("target"), "pools.target")
    layers = [_integer(layer, say("the layer")) for layer in _list(target.get("layer_ids"), "pools.target.layer_ids")]
    found = []
    roles: tuple[Role, ...] = ("k", "v")
    for role in roles:
        values = _list(target.get(f"{role}_scale"), f"pools.target.{role}_scale")
        if len(values) != len(layers):
            raise SideFileError(
                say(
                    "pools.target.{role}_scale holds {count} values for {layers} layers",
                    role=role,
                    count=len(values),
                    layers=len(layers),
                )
            )
        for layer, value in zip(layers, values, strict=True):
            scale = (
                _number(value, say("pools.target.{role}_scale of layer {layer}", role=role, layer=layer))
                * NVFP4_OVER_FP8
            )
            found.append(SourceScale(role=role, layer=layer, values=(scale,)))
    notes: list[str] = [say("Its scales are amax / (6 x 448), for an NVFP4 cache; times 6 they are FP8 scales.")]
    if "draft" in pools:
        notes.append(say("The draft model's pool was left out."))
    return found, notes


# --------------------------------------------------------------------------------------------------- Neural Compressor
def _is_inc(content: Mapping[str, Any]) -> bool:
    return isinstance(content.get("Nodes"), Mapping) and "Mode" in content


def _read_inc(content: Mapping[str, Any]) -> tuple[list[SourceScale], list[str]]:
    mode = content["Mode"]
    if mode not in ("Scale", "DynamicRange"):
        raise SideFileError(say("Mode is {mode!r}, and only Scale and DynamicRange are known", mode=mode))
    found = []
    for name, node in content["Nodes"].items():
        match = _INC_NODE.match(name)
        if match is None:
            continue
        inputs = _list(_object(node, f"Nodes.{name}").get("inputs"), f"Nodes.{name}.inputs")
        value = _number(_largest(inputs), f"Nodes.{name}.inputs")
        module, role = match.group("module"), match.group("role")
        scale = value if mode == "Scale" else value / FP8_LARGEST
        found.append(
            SourceScale(
                role="k" if role == "k" else "v", layer=layer_number(module) or 0, values=(scale,), module=module
            )
        )
    if mode == "Scale":
        return found, [say("Its scales are made for Gaudi, whose FP8 ends at 240: they are larger than FP8 needs.")]
    return found, [say("It holds amaxes, which were divided by 448.")]


def _largest(inputs: Any) -> Any:
    """The measured number: alone, or in nested lists of one per channel."""
    if not isinstance(inputs, list):
        return inputs
    flat = [_largest(each) for each in inputs]
    numbers = [value for value in flat if isinstance(value, int | float) and not isinstance(value, bool)]
    return max(numbers) if numbers and len(numbers) == len(flat) else None


FORMATS: tuple[SideFormat, ...] = (
    SideFormat(
        id="scaling-factor",
        title=say("vLLM up to 0.6, SGLang, KsanaLLM: kv_cache_scales.json"),
        fields="kv_cache.scaling_factor",
        is_this=_is_scaling_factor,
        read=_read_scaling_factor,
    ),
    SideFormat(
        id="lightllm",
        title="LightLLM: kv_cache_calib.json",
        fields="quant_type, scales_shape, scales",
        is_this=_is_lightllm,
        read=_read_lightllm,
    ),
    SideFormat(
        id="sglang-pools",
        title="SGLang: kv-scales-v1.json",
        fields="schema sglang.*, pools",
        is_this=_is_sglang_pools,
        read=_read_sglang_pools,
    ),
    SideFormat(
        id="inc",
        title="Intel Neural Compressor: inc_output_hooks_maxabs",
        fields="Mode, Nodes",
        is_this=_is_inc,
        read=_read_inc,
    ),
)
