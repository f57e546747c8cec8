"""ModelOpt's settings as vLLM 0.33.0 reads them, in both layouts, and what it demands of them.

Source: vLLM 0.33.0, ``model_executor/layers/quantization/modelopt.py`` and ``model_loader/weight_utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.quantization.declaration import Declaration
from core.quantization.fault import Fault, no_attribute

_MODELOPT_ALGORITHMS = {
    "FP8": ("modelopt",),
    "FP8_PER_CHANNEL_PER_TOKEN": ("modelopt",),
    "FP8_PB_WO": ("modelopt",),
    "NVFP4": ("modelopt_fp4",),
    "W4A16_NVFP4": ("modelopt_fp4",),
    "MXFP8": ("modelopt_mxfp8", "mxfp8"),
    "MIXED_PRECISION": ("modelopt_mixed",),
}
_REQUIRED_BESIDE = {
    "modelopt_fp4": ("NVFP4", ("group_size", "kv_cache_quant_algo", "exclude_modules")),
    "modelopt_mxfp8": ("MXFP8", ("kv_cache_quant_algo", "exclude_modules")),
}


def modelopt_block(declaration: Declaration) -> tuple[Mapping[str, Any], bool]:
    """The dict ModelOpt's settings stand in, and whether it is the nested ("quantization") layout."""
    config = declaration.config
    if declaration.method == "modelopt_mixed" and "quantized_layers" not in config:
        config = declaration.hf_quant_config
    nested = config.get("quantization")
    if isinstance(nested, Mapping):
        return nested, True
    if declaration.method in ("modelopt_mxfp8", "mxfp8") and not config.get("quant_algo"):
        # MiniMax writes quant_method "mxfp8" and ignored_layers for the same tensors.
        algorithm = config.get("kv_cache_quant_algo")
        listed = config.get("ignored_layers") or []
        return {"quant_algo": "MXFP8", "kv_cache_quant_algo": algorithm, "exclude_modules": listed}, True
    return config, False


def quantizes_cache_alone(declaration: Declaration) -> bool:
    """Whether this is ModelOpt's config for a KV cache whose weights are not quantized (``quant_algo`` is missing)."""
    declared = declaration.declared
    if not str(declared.get("quant_method", "")).startswith("modelopt"):
        return False
    blocks = [declared, declared.get("quantization"), declaration.hf_quant_config.get("quantization")]
    found = [block for block in blocks if isinstance(block, Mapping)]
    return not any(block.get(name) for block in found for name in ("quant_algo", "config_groups", "quantized_layers"))


def modelopt_kv_algorithm(declaration: Declaration) -> str | None:
    """The KV algorithm vLLM's ModelOpt config object holds ("FP8", "NVFP4"), None when it sees none.

    In the flat layout only the dict {type: float, num_bits: 8} counts; a word such as "NVFP4" does not.
    """
    block, nested = modelopt_block(declaration)
    if nested:
        algorithm = block.get("kv_cache_quant_algo")
        return algorithm.upper() if isinstance(algorithm, str) else None
    scheme = block.get("kv_cache_scheme")
    is_fp8 = isinstance(scheme, Mapping) and scheme.get("type") == "float" and scheme.get("num_bits") == 8
    return "FP8" if is_fp8 else None


def check_modelopt(declaration: Declaration) -> Fault | None:
    """What vLLM's ModelOpt config class raises on this dict, None when it accepts it."""
    if declaration.method == "modelopt_mixed" and "quantized_layers" not in declaration.config:
        if fault := _mixed_side_file(declaration):
            return fault
    elif not isinstance(declaration.config.get("quantization", {}), Mapping):
        return Fault("ValueError", "Expected 'quantization' to be a dictionary in config", "quantization")
    block, nested = modelopt_block(declaration)
    prefix = "quantization." if nested else ""
    if not block.get("quant_algo"):
        return Fault("ValueError", "Missing 'quant_algo' in quantization config", f"{prefix}quant_algo")
    return (
        _modelopt_types(block, nested, prefix)
        or _modelopt_algorithm(declaration, str(block["quant_algo"]).upper(), prefix)
        or _modelopt_fields(declaration, block, nested)
    )


def _mixed_side_file(declaration: Declaration) -> Fault | None:
    side = declaration.hf_quant_config
    if not side:
        return Fault("ValueError", "Cannot find the config file for modelopt_mixed", "quantized_layers")
    producer = side.get("producer")
    if not isinstance(producer, Mapping) or producer.get("name") != "modelopt":
        message = "Unsupported quantization config found for modelopt_mixed in hf_quant_config.json."
        return Fault("ValueError", message, "quantized_layers")
    return None


def _modelopt_types(block: Mapping[str, Any], nested: bool, prefix: str) -> Fault | None:
    algorithm = block.get("kv_cache_quant_algo") if nested else None
    if algorithm is not None and not isinstance(algorithm, str):
        message = f"kv_cache_quant_algo must be a string, got {_class(algorithm)}"
        return Fault("ValueError", message, f"{prefix}kv_cache_quant_algo")
    key = "exclude_modules" if nested or "ignore" not in block else "ignore"
    listed = block.get(key, [])
    if not isinstance(listed, list):
        return Fault("ValueError", f"exclude_modules must be a list, got {_class(listed)}", f"{prefix}{key}")
    size = block.get("group_size")
    if size is not None:
        try:
            int(size)
        except (TypeError, ValueError):
            return Fault("ValueError", f"group_size must be an integer, got {_class(size)}", f"{prefix}group_size")
    return None


def _modelopt_algorithm(declaration: Declaration, algorithm: str, prefix: str) -> Fault | None:
    field = f"{prefix}quant_algo"
    owners = _MODELOPT_ALGORITHMS.get(algorithm)
    if owners is None:
        return Fault(
            "ValueError",
            f"ModelOpt currently only supports: {list(_MODELOPT_ALGORITHMS)} quantizations in vLLM. Please check the "
            "`hf_quant_config.json` file for your model's quant configuration.",
            field,
        )
    if declaration.method in owners:
        return None
    family = {"modelopt": "FP8", "modelopt_fp4": "NVFP4"}.get(str(declaration.method))
    if family is None:
        return None
    supported = " / ".join(name for name, by in _MODELOPT_ALGORITHMS.items() if declaration.method in by)
    where = " for vLLM" if family == "FP8" else ""
    message = f"Unsupported ModelOpt {family} quant_algo{where}: {algorithm}. Supported: {supported}."
    return Fault("ValueError", message, field)


def _modelopt_fields(declaration: Declaration, block: Mapping[str, Any], nested: bool) -> Fault | None:
    if nested and declaration.method in _REQUIRED_BESIDE:
        family, required = _REQUIRED_BESIDE[declaration.method]
        absent = [name for name in required if name not in block]
        if absent and family in str(block.get("quant_algo")).upper():
            message = f"{family} quantization requires the following fields in hf_quant_config.json: {absent}"
            return Fault("ValueError", message, f"quantization.{absent[0]}")
    if declaration.method == "modelopt_mixed" and not block.get("quantized_layers"):
        message = (
            "MIXED_PRECISION quant_algo requires a non-empty 'quantized_layers' mapping in the quantization config."
        )
        return Fault("ValueError", message, "quantized_layers")
    return _mixed_layers(block["quantized_layers"]) if declaration.method == "modelopt_mixed" else None


def _mixed_layers(layers: Any) -> Fault | None:
    """Each layer's own algorithm, which vLLM reads in capitals."""
    if not isinstance(layers, Mapping):
        return no_attribute(layers, "values", "quantized_layers")
    for name, layer in layers.items():
        if not isinstance(layer, Mapping):
            return no_attribute(layer, "get", f"quantized_layers.{name}")
        if not isinstance(layer.get("quant_algo", ""), str):
            return no_attribute(layer["quant_algo"], "upper", f"quantized_layers.{name}.quant_algo")
    return None


def _class(value: Any) -> str:
    return str(type(value))
