"""Which quantization method SGLang makes of a checkpoint's configs, what it refuses, and what its attention layers get.

Source: SGLang 0.5.23, ``configs/model_config.py`` (``_parse_quant_hf_config``, ``_verify_quantization``),
``model_loader/weight_utils.py`` (``get_quant_config``) and ``mem_cache/kv_cache_dtype.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.engines.sglang.config_checks import UNQUANTIZED, Reading, SglangError, read_config, usual_reading
from core.quantization.declaration import Declaration
from core.wording import say

METHODS = (
    "fp8", "mxfp8", "minimax_m3_nvfp4", "blockwise_int8", "modelopt", "modelopt_fp8", "modelopt_fp4", "nvfp4_online",
    "modelopt_mixed", "w8a8_int8", "w8a8_fp8", "awq", "awq_marlin", "bitsandbytes", "gguf", "gptq_marlin", "moe_wna16",
    "compressed-tensors", "w4afp8", "petit_nvfp4", "quark", "quark_mxfp4", "auto-round", "auto-round-int8", "modelslim",
    "quark_int4fp8_moe", "humming", "mxfp_w4a8", "mxfp4",
)  # fmt: skip
"""The methods SGLang 0.5.23 knows on CUDA (layers/quantization/__init__.py)."""

ALIASES: Mapping[str, str] = {
    "auto_awq": "awq",
    "gptq": "gptq_marlin",
    "auto_gptq": "gptq_marlin",
    "inc": "auto-round",
    "compressed_tensors": "compressed-tensors",
    "gpt_oss_mxfp4": "mxfp4",
}
"""vLLM's names of methods that SGLang has under another one."""

KV_CACHE_DTYPES = ("auto", "fp8_e4m3", "fp8_e5m2", "bf16", "bfloat16", "mxfp8", "nvfp4", "fp4_mx_block16")
_COMPATIBLE: Mapping[str, tuple[str, ...]] = {
    "modelopt_fp8": ("modelopt",),
    "modelopt_fp4": ("modelopt", "fp8"),
    "modelopt_mixed": ("modelopt",),
    "nvfp4_online": ("fp8", "modelopt_fp8"),
    "minimax_m3_nvfp4": ("mxfp8",),
    "petit_nvfp4": ("modelopt",),
    "w8a8_int8": ("compressed-tensors", "compressed_tensors"),
    "w8a8_fp8": ("compressed-tensors", "compressed_tensors"),
    "auto-round-int8": ("compressed-tensors", "compressed_tensors"),
}
_REQUANTIZING = ("quark_mxfp4",)
_ONLINE = (
    "fp8",
    "mxfp8",
    "w4afp8",
    "w8a8_fp8",
    "w8a8_int8",
    "quark_int4fp8_moe",
    "nvfp4_online",
    "gguf",
    "bitsandbytes",
)
_HF_QUANT_CONFIG = "hf_quant_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What SGLang reads out of the configs.

    ``method`` is SGLang's own name, None for a model that is not quantized; ``source`` says which file and field.
    ``refused`` is the exception that ends the start before any layer is built, ``field`` what causes it. ``reading`` is
    what the method's config makes of attention layers.
    """

    method: str | None
    source: str = ""
    refused: str | None = None
    field: str | None = None
    reading: Reading = UNQUANTIZED
    note: str = ""

    @property
    def auto_dtype(self) -> str:
        """What ``--kv-cache-dtype auto`` becomes where the model keeps its ``quant_config``."""
        algorithm = self.reading.kv_cache_quant_algo
        return "fp8_e4m3" if isinstance(algorithm, str) and algorithm.upper() == "FP8" else "auto"


def resolve(declaration: Declaration, wanted: str | None = None) -> Quantization:
    """The method, the refusal, and what attention layers get; ``wanted`` is ``--quantization``."""
    declared, source = _declared(declaration)
    method: str | None = None
    try:
        method = _method(declared, wanted)
        reading = UNQUANTIZED if method is None else _reading(declaration, declared, method)
    except SglangError as error:
        return Quantization(method=method, source=source, refused=str(error), field=source or None)
    return Quantization(method=method, source=source, reading=reading)


_CONFIG_CLASSES: Mapping[str, str] = {
    "fp8": "Fp8Config",
    "mxfp8": "Fp8Config",
    "modelopt": "ModelOptFp8Config",
    "modelopt_fp8": "ModelOptFp8Config",
    "modelopt_fp4": "ModelOptFp4Config",
    "modelopt_mixed": "ModelOptMixedPrecisionConfig",
    "compressed-tensors": "CompressedTensorsConfig",
    "quark": "QuarkConfig",
    "awq": "AWQConfig",
    "awq_marlin": "AWQMarlinConfig",
    "gptq_marlin": "GPTQMarlinConfig",
    "auto-round": "AutoRoundConfig",
    "mxfp4": "Mxfp4Config",
    "w4afp8": "W4AFp8Config",
}


def config_class(method: str | None) -> str | None:
    """The class of a method's config, as SGLang's exceptions name it; None for a model that is not quantized."""
    return None if method is None else _CONFIG_CLASSES.get(method, "QuantizationConfig")


def suppose(declaration: Declaration, method: str) -> Quantization:
    """What another method would make of the checkpoint: with the checkpoint's own dict where the method can read it,
    else as it treats the dicts it is made for. ``note`` says what SGLang itself does with such a ``--quantization``.
    """
    honest = resolve(declaration, method)
    declared, source = _declared(declaration)
    try:
        reading = _reading(declaration, {**(declared or {}), "quant_method": method}, method)
    except SglangError:
        reading = usual_reading(method)
    if reading.kv_method is None and reading.refuses is None:
        reading = usual_reading(method)
    note = ""
    if honest.refused:
        note = say(
            "--quantization {method} is refused by SGLang for these configs: {error}",
            method=method,
            error=honest.refused,
        )
    return Quantization(method=method, source=source, reading=reading, note=note)


def _declared(declaration: Declaration) -> tuple[dict[str, Any] | None, str]:
    """The dict ``_parse_quant_hf_config`` ends with, and where it stands."""
    config = declaration.hf_config
    found = config.get("quantization_config")
    if isinstance(found, Mapping):
        merged = dict(found)
        if "quant_method" not in merged or merged["quant_method"] == "modelopt":
            merged |= _parse_modelopt({"quantization": merged}) or {}
        return merged, "config.json: quantization_config"
    found = config.get("compression_config")
    if isinstance(found, Mapping):
        return dict(found), "config.json: compression_config"
    if declaration.hf_quant_config:
        return _parse_modelopt(declaration.hf_quant_config), f"{_HF_QUANT_CONFIG}: quantization"
    return None, ""


def _parse_modelopt(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """``_parse_modelopt_quant_config``: the method a ModelOpt dict stands for, None when it names no known one."""
    section = config.get("quantization", config)
    if isinstance(section, Mapping) and isinstance(section.get("quantization"), Mapping):
        section = section["quantization"]
    if not isinstance(section, Mapping) or not section:
        return None
    algorithm = section.get("quant_algo")
    if algorithm == "MIXED_PRECISION":
        return {"quant_method": _mixed(section), "quant_algo": algorithm}
    if isinstance(algorithm, str) and "FP4" in algorithm:
        return {"quant_method": "modelopt_fp4", "quant_algo": algorithm}
    if algorithm == "FP8":
        return {"quant_method": "modelopt_fp8", "quant_algo": algorithm}
    if algorithm == "MXFP8":
        parsed: dict[str, Any] = {
            "quant_method": "mxfp8",
            "quant_algo": algorithm,
            "activation_scheme": "dynamic",
            "weight_block_size": [1, section.get("group_size", 32)],
        }
        kv = section.get("kv_cache_quant_algo")
        scheme = section.get("kv_cache_scheme")
        if kv is None and isinstance(scheme, Mapping) and (scheme.get("type"), scheme.get("num_bits")) == ("float", 8):
            kv = "FP8"
        return parsed if kv is None else {**parsed, "kv_cache_quant_algo": kv}
    return None


def _mixed(section: Mapping[str, Any]) -> str:
    layers = section.get("quantized_layers")
    algorithms = (
        str(layer.get("quant_algo", "")).upper()
        for layer in (layers.values() if isinstance(layers, Mapping) else ())
        if isinstance(layer, Mapping)
    )
    return "modelopt_mixed" if any(name in ("NVFP4", "W4A16_NVFP4") for name in algorithms) else "w4afp8"


def _method(declared: Mapping[str, Any] | None, wanted: str | None) -> str | None:
    """``_verify_quantization``: the method's name. Raises SglangError where SGLang refuses."""
    wanted = wanted.lower() if wanted is not None else None
    method = wanted
    if declared is not None:
        named = declared.get("quant_method", wanted or "")
        if not isinstance(named, str):
            raise SglangError("AttributeError", f"'{type(named).__name__}' object has no attribute 'lower'")
        found = named.lower()
        if wanted not in _REQUANTIZING and (override := _override(declared, wanted)) is not None:
            found = method = override
        if method is None:
            method = found
        elif method != found and found not in _COMPATIBLE.get(method, ()) and method not in _REQUANTIZING:
            raise SglangError(
                "ValueError",
                f"Quantization method specified in the model config ({found}) does not match the quantization method "
                f"specified in the `quantization` argument ({method}).",
            )
    if method is not None and method not in METHODS:
        raise SglangError("ValueError", f"Unknown quantization method: {method}. Must be one of {list(METHODS)}.")
    return method


def _override(declared: Mapping[str, Any], wanted: str | None) -> str | None:
    """``override_quantization_method`` of every method, in order: the first that claims the dict."""
    algorithm = declared.get("quant_algo", "")
    if not isinstance(algorithm, str):
        # ModelOpt's configs are asked for every checkpoint, and take quant_algo for a string.
        raise SglangError("AttributeError", f"'{type(algorithm).__name__}' object has no attribute 'upper'")
    named = declared.get("quant_method", "")
    if wanted == "modelopt" and (canonical := _CANONICAL.get(algorithm.upper())) is not None:
        return canonical
    if named in ("modelopt_fp8", "modelopt_fp4") and wanted not in ("nvfp4_online", *_REQUANTIZING):
        return str(named)
    if named == "modelopt_mixed":
        return "modelopt_mixed"
    if str(named).lower() == "awq" and wanted in (None, "awq_marlin") and _awq_marlin(declared):
        return "awq_marlin"
    if str(named).lower() == "gptq" and wanted in (None, "gptq_marlin") and _gptq_marlin(declared):
        return "gptq_marlin"
    return "humming" if wanted == "humming" and named != "mxfp4" else None


_CANONICAL = {
    "FP8": "modelopt_fp8",
    "MXFP8": "mxfp8",
    "FP4": "modelopt_fp4",
    "NVFP4": "modelopt_fp4",
    "NVFP4_AWQ": "modelopt_fp4",
    "W4A16_NVFP4": "modelopt_fp4",
}
_MARLIN_GROUPS = (-1, 32, 64, 128)


def _awq_marlin(declared: Mapping[str, Any]) -> bool:
    return (
        declared.get("bits") in (4, 8)
        and declared.get("zero_point") is not None
        and declared.get("group_size") in _MARLIN_GROUPS
    )


def _gptq_marlin(declared: Mapping[str, Any]) -> bool:
    marlin = declared.get("checkpoint_format") == "marlin" or declared.get("is_marlin_format", False)
    return (
        not marlin
        and declared.get("bits") in (4, 8)
        and declared.get("sym") is True
        and declared.get("desc_act") is not None
        and declared.get("group_size") in _MARLIN_GROUPS
    )


def _reading(declaration: Declaration, declared: Mapping[str, Any] | None, method: str) -> Reading:
    """``get_quant_config``: from config.json where it holds a dict, else from hf_quant_config.json."""
    config = declaration.hf_config
    text = config.get("text_config")
    nested = text.get("quantization_config") if isinstance(text, Mapping) else None
    spec = (
        declared
        if isinstance(config.get("quantization_config"), Mapping)
        else nested
        if isinstance(nested, Mapping)
        else config.get("compression_config")
    )
    side = declaration.hf_quant_config
    incomplete = method == "modelopt_mixed" and isinstance(spec, Mapping) and not _is_complete_mixed(spec)
    if isinstance(spec, Mapping) and not incomplete:
        return read_config(method, spec)
    if method.startswith("modelopt") and side:
        return _from_side_file(declaration, method, side)
    if method in _ONLINE:
        return read_config(method, None)
    if method == "modelopt_fp4":
        return UNQUANTIZED
    raise SglangError("ValueError", f"Cannot find the config file for {method}")


def _is_complete_mixed(spec: Mapping[str, Any]) -> bool:
    return "quantized_layers" in spec and ("kv_cache_quant_algo" in spec or "kv_cache_scheme" in spec)


def _from_side_file(declaration: Declaration, method: str, side: Mapping[str, Any]) -> Reading:
    producer = side.get("producer")
    name = producer.get("name", "") if isinstance(producer, Mapping) else ""
    section = side.get("quantization", side)
    if str(name).startswith("modelopt"):
        algorithm = section.get("quant_algo") if isinstance(section, Mapping) else None
        if algorithm is None:
            architecture = declaration.architectures[0] if declaration.architectures else ""
            raise SglangError(
                "ValueError", f"Invalid quant_config, quantization method: {method},hf architectures: {architecture}. "
            )
        if algorithm == "FP8" or method == "modelopt_fp8":
            return read_config("modelopt_fp8", side)
        if isinstance(algorithm, str) and "FP4" in algorithm:
            return read_config("modelopt_fp4", side)
    return read_config(method, side)
