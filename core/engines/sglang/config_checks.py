"""``from_config`` of SGLang's quantization configs: what they refuse, and what they give attention layers.

Only what a KV cache depends on is followed; linear and expert layers may refuse more. Source: SGLang 0.5.23,
``layers/quantization``; the docstrings name the files.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.wording import say


class SglangError(Exception):
    """An exception SGLang raises while it reads configs or builds layers: "Type: message"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a method's config means for attention layers that are built with it.

    ``kv_method`` is the class each gets (None: no scale parameters); ``refuses`` the exception that building one
    raises; ``kv_cache_quant_algo`` what ``--kv-cache-dtype auto`` looks at; ``note`` what is worth saying.
    """

    kv_method: str | None = None
    refuses: str | None = None
    kv_cache_quant_algo: str | None = None
    note: str = ""


UNQUANTIZED = Reading()
"""Attention layers get no scale parameters."""

_NO_KEYS: Mapping[str, Any] = {}


def read_config(method: str, config: Mapping[str, Any] | None) -> Reading:
    """What ``method`` makes of its dict; None stands for a model that is quantized while it loads.

    Raises SglangError where ``from_config`` raises.
    """
    reader = _READERS.get(method)
    if reader is None:
        return UNQUANTIZED
    return reader(_NO_KEYS if config is None else config)


def usual_reading(method: str) -> Reading:
    """What attention layers get from the dicts ``method`` is made for, with an FP8 KV cache declared."""
    named = _USUAL.get(method)
    if named is None:
        return _mxfp4({"quant_method": method}) if method == "mxfp4" else UNQUANTIZED
    return Reading(kv_method=named, kv_cache_quant_algo=None if named.startswith(("Fp8", "Quark")) else "FP8")


_USUAL: Mapping[str, str] = {
    "fp8": "Fp8KVCacheMethod",
    "mxfp8": "Fp8KVCacheMethod",
    "modelopt": "ModelOptFp8KVCacheMethod",
    "modelopt_fp8": "ModelOptFp8KVCacheMethod",
    "modelopt_fp4": "ModelOptFp8KVCacheMethod",
    "modelopt_mixed": "ModelOptFp8KVCacheMethod",
    "compressed-tensors": "CompressedTensorsKVCacheMethod",
    "quark": "QuarkKVCacheMethod",
}


def _require(config: Mapping[str, Any], *keys: str) -> Any:
    """``get_from_keys``: the first of these keys, which must be there."""
    for key in keys:
        if key in config:
            return config[key]
    raise SglangError("ValueError", f"Cannot find any of {list(keys)} in the model's quantization config.")


def _fp8(config: Mapping[str, Any]) -> Reading:
    """fp8.py: every attention layer gets Fp8KVCacheMethod."""
    algorithm = None
    if config:
        method = str(_require(config, "quant_method"))
        scheme = _require(config, "activation_scheme")
        if scheme not in ("static", "dynamic"):
            raise SglangError("ValueError", f"Unsupported activation scheme {scheme}")
        block = [1, 32] if "mxfp8" in method else config.get("weight_block_size")
        if block is not None:
            _check_block(method, scheme, block)
        algorithm = config.get("kv_cache_quant_algo")
    return Reading(kv_method="Fp8KVCacheMethod", kv_cache_quant_algo=algorithm)


def _check_block(method: str, scheme: str, block: Any) -> None:
    if "fp8" not in method:
        raise SglangError("ValueError", "The block-wise quantization only supports fp8-serialized checkpoint for now.")
    if not isinstance(block, Sequence) or len(block) != 2:
        size = len(block) if isinstance(block, Sequence) else 0
        raise SglangError(
            "ValueError",
            f"The quantization block size of weight must have 2 dimensions, but got {size} dimensions.",
        )
    if scheme != "dynamic":
        raise SglangError(
            "ValueError",
            "The block-wise quantization only supports dynamic activation scheme for now, "
            f"but got {scheme} activation scheme.",
        )


_NO_ALGORITHM = (
    "Cannot find 'quant_algo' in the model's quantization config. "
    "Expected either flat format (config.json) or nested format (hf_quant_config.json)."
)


def _modelopt_method(algorithm: Any) -> str | None:
    return "ModelOptFp8KVCacheMethod" if algorithm else None


def _is_float(scheme: Any, bits: int) -> bool:
    return isinstance(scheme, Mapping) and scheme.get("type") == "float" and scheme.get("num_bits") == bits


def _modelopt_fp8(config: Mapping[str, Any]) -> Reading:
    """modelopt_quant.py, ModelOptFp8Config: a KV method only where the KV algorithm stands beside ``quant_algo``."""
    algorithm = config.get("quant_algo")
    kv: str | None = None
    note = ""
    if algorithm is not None:
        scheme = config.get("kv_cache_scheme")
        if isinstance(scheme, Mapping):
            kv = "FP8" if _is_float(scheme, 8) else None
        else:
            kv = config.get("kv_cache_quant_algo")
        nested = config.get("quantization")
        if kv is None and isinstance(nested, Mapping) and nested.get("kv_cache_quant_algo"):
            note = say(
                "config.json keeps its ModelOpt section nested (quantization_config.quantization), where SGLang 0.5.23 "
                "does not see the KV-cache algorithm: attention layers get no scale parameters"
            )
    else:
        section = config.get("quantization")
        if not isinstance(section, Mapping):
            raise SglangError("ValueError", _NO_ALGORITHM)
        algorithm, kv = section.get("quant_algo"), section.get("kv_cache_quant_algo")
    if algorithm is None:
        raise SglangError("ValueError", "Cannot find 'quant_algo' in the model's quantization config. ")
    if algorithm != "FP8":
        raise SglangError(
            "ValueError",
            f"ModelOptFp8Config only supports regular FP8 quantization, but found {algorithm!r}. Use the native "
            "'mxfp8' quantization method for MXFP8 or ModelOptFp4Config for FP4.",
        )
    return Reading(kv_method=_modelopt_method(kv), kv_cache_quant_algo=kv, note=note)


def _modelopt_fp4(config: Mapping[str, Any]) -> Reading:
    """modelopt_quant.py, ModelOptFp4Config: an algorithm that is not declared becomes "auto", which is not empty."""
    if str(config.get("quant_method", "")).lower() == "fp8":
        return UNQUANTIZED
    algorithm = config.get("quant_algo")
    kv: str | None
    if algorithm is not None:
        kv = _fp4_kv(config)
        size = config.get("group_size") or _first_group_size(config) or (16 if "NVFP4" in str(algorithm) else None)
        excluded = config.get("ignore", config.get("modules_to_not_convert", config.get("exclude_modules", ())))
    else:
        section = config.get("quantization")
        if not isinstance(section, Mapping) or "quant_algo" not in section or _common_group_size(config) is None:
            raise SglangError("ValueError", _NO_ALGORITHM)
        algorithm, kv = section["quant_algo"], section.get("kv_cache_quant_algo") or "auto"
        size, excluded = _common_group_size(config), section.get("exclude_modules", ())
    if algorithm not in ("FP8", "NVFP4", "NVFP4_AWQ", "W4A16_NVFP4"):
        raise SglangError(
            "ValueError",
            "ModelOpt currently only supports: FP8, NVFP4, NVFP4_AWQ, W4A16_NVFP4 quantizations in sglang. "
            "Please check the quantization config for your model's configuration.",
        )
    if size is None or excluded is None:
        raise SglangError(
            "ValueError",
            "NVFP4 quantization requires group_size and exclude_modules specified in the quantization config",
        )
    # Weights that are not stored in NVFP4 are quantized while loading, and attention layers then get nothing.
    serialized = "NVFP4" in algorithm
    return Reading(kv_method=_modelopt_method(kv) if serialized else None, kv_cache_quant_algo=kv)


def _fp4_kv(config: Mapping[str, Any]) -> str:
    scheme = config.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        return "FP8" if _is_float(scheme, 8) else "auto"
    if isinstance(scheme, str):
        named = scheme.strip().upper()
        if named in ("FP8", "FLOAT8"):
            return "FP8"
        return "NVFP4" if named in ("FP4", "FLOAT4", "NVFP4") else "auto"
    return config.get("kv_cache_quant_algo") or "auto"


def _first_group_size(config: Mapping[str, Any]) -> int | None:
    groups = config.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    return weights.get("group_size") if isinstance(weights, Mapping) else None


def _common_group_size(config: Mapping[str, Any]) -> int | None:
    """The one group size a nested dict names anywhere; None when it names none or several."""
    section = config.get("quantization")
    holders = [holder for holder in (config, section) if isinstance(holder, Mapping)]
    sizes = {size for holder in holders if isinstance(size := holder.get("group_size"), int)}
    return next(iter(sizes)) if len(sizes) == 1 else None


def _modelopt_mixed(config: Mapping[str, Any]) -> Reading:
    """modelopt_quant.py, ModelOptMixedPrecisionConfig."""
    kv: str | None
    if config.get("quant_algo") is not None:
        section = config
        scheme = config.get("kv_cache_scheme")
        if isinstance(scheme, Mapping):
            kv = "FP8" if _is_float(scheme, 8) else "NVFP4" if _is_float(scheme, 4) else "auto"
        else:
            kv = config.get("kv_cache_quant_algo")
    else:
        found = _require(config, "quantization")
        section = found if isinstance(found, Mapping) else {}
        kv = section.get("kv_cache_quant_algo")
    if section.get("quant_algo") != "MIXED_PRECISION":
        raise SglangError("ValueError", "ModelOptMixedPrecisionConfig only supports MIXED_PRECISION checkpoints.")
    if not section.get("quantized_layers"):
        raise SglangError("ValueError", "MIXED_PRECISION quantization requires a non-empty quantized_layers map.")
    return Reading(kv_method=_modelopt_method(kv), kv_cache_quant_algo=kv)


def _compressed_tensors(config: Mapping[str, Any]) -> Reading:
    """compressed_tensors.py: a KV method for static symmetric per-tensor FP8 schemes; other schemes are ignored."""
    groups = config.get("config_groups", {})
    for group in groups.values() if isinstance(groups, Mapping) else ():
        if not isinstance(group, Mapping) or not isinstance(group.get("weights"), Mapping):
            raise SglangError(
                "ValidationError",
                "1 validation error for QuantizationArgs Input should be a valid dictionary or instance of "
                "QuantizationArgs",
            )
        if group.get("targets") is None:
            raise SglangError("TypeError", "'NoneType' object is not iterable")
    scheme = config.get("kv_cache_scheme")
    if scheme is None:
        return UNQUANTIZED
    if not isinstance(scheme, Mapping):
        return Reading(refuses=f"AttributeError: '{type(scheme).__name__}' object has no attribute 'get'")
    supported = (
        _is_float(scheme, 8)
        and scheme.get("strategy") == "tensor"
        and scheme.get("symmetric", True)
        and not scheme.get("dynamic", False)
    )
    if supported:
        return Reading(kv_method="CompressedTensorsKVCacheMethod", kv_cache_quant_algo="FP8")
    return Reading(
        note=say(
            "SGLang 0.5.23 ignores this kv_cache_scheme with a warning: only static symmetric per-tensor FP8 scales "
            "are taken"
        )
    )


def _quark(config: Mapping[str, Any]) -> Reading:
    """quark.py: every attention layer gets QuarkKVCacheMethod, which checks the KV spec when it is built."""
    if config.get("quant_method") != "quark":
        raise SglangError(
            "ValueError",
            f"QuarkConfig.from_config invoked with non-quark quant_method {config.get('quant_method')!r} "
            "but no requantization_method set.",
        )
    if config.get("exclude", ()) is None:
        raise SglangError("TypeError", "'NoneType' object is not iterable")
    export = config.get("export")
    if not isinstance(export, Mapping):
        raise SglangError(
            "ValueError", "The export key should be included in the configurations of Quark quantized model"
        )
    group = export.get("kv_cache_group")
    if not isinstance(group, list | str | Mapping):
        raise SglangError("TypeError", f"object of type '{type(group).__name__}' has no len()")
    odd = next((name for name in group if isinstance(name, list | dict)), None)
    if odd is not None:
        raise SglangError("TypeError", f"unhashable type: '{type(odd).__name__}'")
    spec = _quark_kv_spec(config, group) if group else None
    refuses = None
    if spec is not None and spec.get("dtype") != "fp8_e4m3":
        refuses = (
            "NotImplementedError: Currently supported kv cache quantization is dtype=fp8_e4m3, "
            f"however received {spec.get('dtype')}"
        )
    elif spec is not None and spec.get("qscheme") != "per_tensor":
        refuses = (
            "NotImplementedError: Only support per-tensor scaling factor for quark KV cache. "
            f"Expected qscheme: per_tensor, found qscheme: {spec.get('qscheme')}"
        )
    return Reading(kv_method="QuarkKVCacheMethod", refuses=refuses)


def _quark_kv_spec(config: Mapping[str, Any], group: Collection[str]) -> Mapping[str, Any]:
    layers = config.get("layer_quant_config")
    if not isinstance(layers, Mapping) or not set(group) <= set(layers):
        raise SglangError(
            "ValueError",
            "The Quark quantized model has the kv_cache_group parameter setting, but no kv_cache quantization settings "
            "were found in the quantization configuration.",
        )
    specs = [layers[name] for name in group]
    if any(spec != specs[0] for spec in specs):
        raise SglangError(
            "ValueError",
            "The quantization method used for kv_cache should be the same, but the quantization method for the "
            "kv_cache layer in the config is different.",
        )
    outputs = specs[0].get("output_tensors") if isinstance(specs[0], Mapping) else None
    if not isinstance(outputs, Mapping):
        raise SglangError("ValueError", "The kv_cache quantization configuration is empty.")
    return outputs


def _mxfp4(config: Mapping[str, Any]) -> Reading:
    """mxfp4.py: an attention layer that is built with it raises."""
    _require(config, "quant_method")
    return Reading(refuses="NotImplementedError: Mxfp4 attention layer is not implemented")


def _auto_round(config: Mapping[str, Any]) -> Reading:
    """auto_round.py: no KV method."""
    bits = _require(config, "bits")
    _require(config, "group_size")
    _require(config, "sym")
    checks = (
        ("weight_bits", bits, (2, 3, 4, 8)),
        ("data_type", config.get("data_type", "int"), ("int",)),
        (
            "packing_format",
            config.get("packing_format", "auto_round:auto_gptq"),
            ("auto_round:auto_gptq", "auto_round:auto_awq"),
        ),
    )
    for name, value, known in checks:
        if value not in known:
            # as Python shows a set of them, but in the same order on every run
            listed = ", ".join(map(repr, known))
            raise SglangError("ValueError", f"Unsupported {name}: {value}, currently only support {{{listed}}}")
    return UNQUANTIZED


def _keys(*keys: tuple[str, ...]) -> Callable[[Mapping[str, Any]], Reading]:
    """A method that needs some keys and gives attention layers nothing."""

    def read(config: Mapping[str, Any]) -> Reading:
        for names in keys:
            _require(config, *names)
        return UNQUANTIZED

    return read


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Reading]] = {
    "fp8": _fp8,
    "mxfp8": _fp8,
    "modelopt": _modelopt_fp8,
    "modelopt_fp8": _modelopt_fp8,
    "modelopt_fp4": _modelopt_fp4,
    "modelopt_mixed": _modelopt_mixed,
    "compressed-tensors": _compressed_tensors,
    "quark": _quark,
    "mxfp4": _mxfp4,
    "auto-round": _auto_round,
    "awq": _keys(("w_bit", "bits"), ("q_group_size", "group_size"), ("zero_point",)),
    "awq_marlin": _keys(("bits",), ("group_size",), ("zero_point",)),
    "gptq_marlin": _keys(("bits",), ("group_size",), ("desc_act",), ("sym",)),
}
