"""The declared KV scheme, read from every layout in which producers write it.

:func:`kv_scheme` and :func:`attention_scheme` take the quantization dict as written, the whole config.json and the
other files, and return what is declared for keys and values and for the attention's queries.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from core.quantization.declaration import KVScheme, NumberType, Source


class _Number(NamedTuple):
    bits: int | None
    type: NumberType | None
    algorithm: str


_NUMBERS: dict[str, _Number] = {
    "fp8": _Number(8, "float", "FP8"),
    "fp8_e4m3": _Number(8, "float", "FP8"),
    "fp8_e4m3fn": _Number(8, "float", "FP8"),
    "float8_e4m3fn": _Number(8, "float", "FP8"),
    "float8_e4m3": _Number(8, "float", "FP8"),
    "fp8_affine": _Number(8, "float", "FP8_AFFINE"),
    "fp8_e5m2": _Number(8, "float", "FP8_E5M2"),
    "float8_e5m2": _Number(8, "float", "FP8_E5M2"),
    "nvfp4": _Number(4, "float", "NVFP4"),
    "nvfp4_affine": _Number(4, "float", "NVFP4_AFFINE"),
    "nvfp4_rotate": _Number(4, "float", "NVFP4_ROTATE"),
    "fp4": _Number(4, "float", "FP4"),
    "mxfp4": _Number(4, "float", "MXFP4"),
    "mxfp8": _Number(8, "float", "MXFP8"),
    "int8": _Number(8, "int", "INT8"),
    "uint8": _Number(8, "int", "INT8"),
    "int8_zp": _Number(8, "int", "INT8"),
    "int4": _Number(4, "int", "INT4"),
    "uint4": _Number(4, "int", "INT4"),
    "int4_zp": _Number(4, "int", "INT4"),
    "c8": _Number(8, "int", "INT8"),
}
_GRANULARITY = {
    "per_tensor": "tensor",
    "per_head": "attn_head",
    "head": "attn_head",
    "per_channel": "channel",
    "per_group": "group",
    "per_token": "token",
    "per_token_per_head": "token_head",
}
_KV_PROJECTIONS = re.compile(r"(?:[kv]|kv|qkv|kv_b|query_key_value|c_attn)_?proj$|qkvz?$|query_key_value$|c_attn$")
_ATTENTION_TARGET = re.compile(r"Attention$|self_attn\$?$")


def _granularity(value: Any) -> str | None:
    name = str(value).lower().replace("-", "_") if value else ""
    return _GRANULARITY.get(name, name or None)


def from_name(value: Any, source: Source, *, strategy: str | None = "tensor") -> KVScheme:
    """A scheme written as one word: "FP8", "NVFP4", "static" (AutoFP8: FP8 with stored scales), "dynamic"."""
    word = str(value).removeprefix("torch.").lower().replace("-", "_")
    scaling = word in ("static", "dynamic")
    number = _NUMBERS.get("fp8" if scaling else word, _Number(None, None, str(value).upper()))
    return KVScheme(
        num_bits=number.bits,
        type=number.type,
        strategy="tensor_group" if number.algorithm.startswith("NVFP4") else strategy,
        dynamic=word == "dynamic",
        symmetric=False if "AFFINE" in number.algorithm or word.endswith("_zp") else None,
        algorithm=number.algorithm,
        raw=value,
        source=source,
    )


def from_args(args: Mapping[str, Any], source: Source, *, strategy: str | None = None) -> KVScheme:
    """A compressed-tensors style dict: num_bits, type, strategy, dynamic, symmetric."""
    bits, kind = args.get("num_bits"), args.get("type")
    bits = bits if isinstance(bits, int) and not isinstance(bits, bool) else None
    number: NumberType | None = "float" if kind == "float" else "int" if kind == "int" else None
    shared = args.get("strategy") or strategy
    algorithm = f"{'FP' if number == 'float' else 'INT'}{bits}" if bits and number else None
    if algorithm == "FP4" and (shared in (None, "tensor_group") or args.get("group_size") == 16):
        algorithm, shared = "NVFP4", shared or "tensor_group"
    symmetric = args.get("symmetric")
    return KVScheme(
        num_bits=bits,
        type=number,
        strategy=str(shared) if shared else None,
        dynamic=bool(args.get("dynamic")),
        symmetric=symmetric if isinstance(symmetric, bool) else None,
        algorithm=algorithm,
        raw=dict(args),
        source=source,
    )


def from_quark(spec: Any, source: Source) -> KVScheme | None:
    """Quark's tensor specification; a list of two means block scales under one tensor scale (NVFP4)."""
    levels = [level for level in (spec if isinstance(spec, list) else [spec]) if isinstance(level, Mapping)]
    if not levels:
        return None
    first = levels[0]
    number = _NUMBERS.get(str(first.get("dtype")).lower(), _Number(None, None, str(first.get("dtype")).upper()))
    two_levels = len(levels) > 1 and number.algorithm == "FP4"
    symmetric = levels[-1].get("symmetric")
    return KVScheme(
        num_bits=number.bits,
        type=number.type,
        strategy="tensor_group" if two_levels else _granularity(first.get("qscheme")),
        dynamic=bool(levels[-1].get("is_dynamic")),
        symmetric=symmetric if isinstance(symmetric, bool) else None,
        algorithm="NVFP4" if two_levels else number.algorithm,
        raw=spec,
        source=source,
    )


def _value(value: Any, source: Source, *, strategy: str | None = None) -> KVScheme | None:
    if isinstance(value, Mapping):
        return from_args(value, source, strategy=strategy) if value else None
    if isinstance(value, str) and value.strip():
        return from_name(value, source)
    return None


def kv_scheme(
    declared: Mapping[str, Any],
    *,
    file: str,
    path: str,
    hf_config: Mapping[str, Any],
    hf_quant_config: Mapping[str, Any],
    ascend: tuple[str, Mapping[str, Any]] | None = None,
) -> KVScheme | None:
    """What is declared for keys and values; the most specific statement wins.

    ``path`` is the dotted place of ``declared`` inside ``file``; ``ascend`` the name and content of a
    quant_model_description file.
    """
    return (
        _angelslim(hf_config)
        or _from_block(declared, file, path)
        or _from_block(hf_quant_config, "hf_quant_config.json", "")
        or _ascend(ascend)
    )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _from_block(block: Mapping[str, Any], file: str, path: str) -> KVScheme | None:
    if not block:
        return None
    if str(block.get("quant_method", "")).lower() == "quark":
        return _quark(block, file, path)
    modelopt = "quant_algo" in block or str(block.get("quant_method", "")).lower().startswith("modelopt")
    places = [(block, path)]
    if isinstance(nested := block.get("quantization"), Mapping):
        places.append((nested, _join(path, "quantization")))
    for place, where in places:
        for key in ("kv_cache_scheme", "kv_cache_quant_algo", "kv_cache_quant_type"):
            source = Source(file, _join(where, key), place.get(key))
            if found := _value(place.get(key), source, strategy="tensor" if modelopt else None):
                return found
    if block.get("static_kv_dtype"):
        source = Source(file, _join(path, "static_kv_dtype"), block["static_kv_dtype"])
        strategy = _granularity(block.get("static_kv_granularity"))
        return from_name(block["static_kv_dtype"], source, strategy=strategy or "tensor")
    return None


def _quark(block: Mapping[str, Any], file: str, path: str) -> KVScheme | None:
    # kv_cache_quant_config is written for this purpose; older exports only have the entries of layer_quant_config that
    # export.kv_cache_group names, or that name a K or V projection.
    export = block.get("export")
    group = export.get("kv_cache_group") if isinstance(export, Mapping) else None
    patterns = [str(pattern) for pattern in group] if isinstance(group, list) else []
    for section, wanted in (
        ("kv_cache_quant_config", None),
        ("layer_quant_config", patterns),
        ("layer_quant_config", []),
    ):
        entries = block.get(section)
        if not isinstance(entries, Mapping):
            continue
        for name, entry in entries.items():
            if not isinstance(entry, Mapping) or not _names_kv(str(name), wanted):
                continue
            source = Source(file, _join(path, f"{section}.{name}.output_tensors"), entry.get("output_tensors"))
            if found := from_quark(entry.get("output_tensors"), source):
                return found
    return None


def _names_kv(name: str, wanted: Iterable[str] | None) -> bool:
    if wanted is None:
        return True
    patterns = list(wanted)
    if patterns:
        return any(fnmatchcase(name, pattern) for pattern in patterns)
    return _KV_PROJECTIONS.search(name.rsplit(".", 1)[-1].lstrip("*")) is not None


def _angelslim(hf_config: Mapping[str, Any]) -> KVScheme | None:
    # AngelSlim (HYV3): K and V each with scheme and granularity, beside the quantization dict.
    outer = hf_config.get("attn_quant_config")
    block = outer.get("kv_cache_quant") if isinstance(outer, Mapping) else None
    if not isinstance(block, Mapping):
        return None
    parts = [part for key in ("k_quant", "v_quant") if isinstance(part := block.get(key), Mapping)]
    static = [part for part in parts if part.get("scheme") != "dynamic"]
    scheme = from_name(
        block.get("dtype", "fp8_e4m3"),
        Source("config.json", "attn_quant_config.kv_cache_quant", dict(block)),
        strategy=_granularity((static or parts or [{}])[0].get("granularity")),
    )
    return replace(scheme, dynamic=bool(parts) and not static, raw=dict(block))


def _ascend(described: tuple[str, Mapping[str, Any]] | None) -> KVScheme | None:
    # C8: INT8 per channel with offsets. FAQuant and FAKQuant: INT8 per head, beside q.
    if described is None:
        return None
    file, content = described
    for key, strategy in (("kv_cache_type", "channel"), ("kv_quant_type", "channel"), ("fa_quant_type", "attn_head")):
        value = content.get(key)
        if not isinstance(value, str) or not value:
            continue
        return KVScheme(
            num_bits=8,
            type="int",
            strategy=strategy,
            dynamic=False,
            symmetric=False,
            algorithm="INT8",
            raw=value,
            source=Source(file, key, value),
        )
    return None


def attention_scheme(
    declared: Mapping[str, Any], *, file: str, path: str, hf_config: Mapping[str, Any]
) -> KVScheme | None:
    """What is declared for the attention itself (queries, probabilities); None when only K and V are quantized."""
    for reader in (_compressed_attention, _autoround_attention, _quark_attention):
        if found := reader(declared, file, path):
            return found
    outer = hf_config.get("attn_quant_config")
    query = outer.get("q_quant") if isinstance(outer, Mapping) else None
    if not isinstance(query, Mapping):
        return None
    source = Source("config.json", "attn_quant_config.q_quant", dict(query))
    scheme = from_name(query.get("dtype", "fp8_e4m3"), source, strategy=_granularity(query.get("granularity")))
    return replace(scheme, dynamic=query.get("scheme") == "dynamic", raw=dict(query))


def _compressed_attention(declared: Mapping[str, Any], file: str, path: str) -> KVScheme | None:
    groups = declared.get("config_groups")
    for name, group in groups.items() if isinstance(groups, Mapping) else ():
        if not isinstance(group, Mapping) or group.get("weights") is not None:
            continue
        targets, args = group.get("targets"), group.get("input_activations")
        if not isinstance(targets, list) or not isinstance(args, Mapping):
            continue
        if any(_ATTENTION_TARGET.search(str(target)) for target in targets):
            return from_args(args, Source(file, _join(path, f"config_groups.{name}.input_activations"), dict(args)))
    return None


def _autoround_attention(declared: Mapping[str, Any], file: str, path: str) -> KVScheme | None:
    outer = declared.get("attention_input_activations")
    args = outer.get("input_activations") if isinstance(outer, Mapping) else None
    if isinstance(args, Mapping):
        field = _join(path, "attention_input_activations.input_activations")
        return from_args(args, Source(file, field, dict(args)))
    if isinstance(dtype := declared.get("static_attention_dtype"), str) and dtype:
        strategy = _granularity(declared.get("static_attention_granularity")) or "tensor"
        return from_name(dtype, Source(file, _join(path, "static_attention_dtype"), dtype), strategy=strategy)
    return None


def _quark_attention(declared: Mapping[str, Any], file: str, path: str) -> KVScheme | None:
    if str(declared.get("quant_method", "")).lower() != "quark":
        return None
    softmax = declared.get("softmax_quant_spec")
    if found := from_quark(softmax, Source(file, _join(path, "softmax_quant_spec"), softmax)):
        return found
    layers = declared.get("layer_quant_config")
    for name, entry in layers.items() if isinstance(layers, Mapping) else ():
        if isinstance(entry, Mapping) and str(name).endswith("q_proj"):
            spec = entry.get("output_tensors")
            source = Source(file, _join(path, f"layer_quant_config.{name}.output_tensors"), spec)
            if found := from_quark(spec, source):
                return found
    return None
