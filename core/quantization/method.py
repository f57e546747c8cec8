"""Which quantization method vLLM makes of a quantization dict: 0.33.0, and older versions where a rule says so.

Source: vLLM 0.33.0, ``transformers_utils/model_arch_config_convertor.py`` (normalisation), ``config/model.py``
(``_verify_quantization``) and the ``override_quantization_method`` of every method.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.quantization.fault import Version

METHODS = (
    "awq", "auto_awq", "fp8", "fbgemm_fp8", "fp_quant", "modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed",
    "auto_gptq", "gptq", "gptq_marlin", "awq_marlin", "humming", "compressed-tensors", "experts_int8", "quark",
    "moe_wna16", "torchao", "inc", "mxfp4", "gpt_oss_mxfp4", "deepseek_v4_fp8", "online", "fp8_per_tensor",
    "fp8_per_block", "fp8_per_channel", "int8_per_channel_weight_only", "nvfp4_per_token", "mxfp8",
)  # fmt: skip
DEPRECATED_METHODS = ("fbgemm_fp8", "fp_quant")
MODELOPT_METHODS = ("modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed", "mxfp8")

_LEGACY_MODELOPT = {
    "FP8": "modelopt",
    "FP8_PER_CHANNEL_PER_TOKEN": "modelopt",
    "FP8_PB_WO": "modelopt",
    "NVFP4": "modelopt_fp4",
    "MIXED_PRECISION": "modelopt_mixed",
}
_DEEPSEEK_V4 = ("deepseek_v4", "deepseek_v4_text", "deepseek_v41", "deepseek_v41_text")
_MODEL_CONFIG = "ValidationError: 1 validation error for ModelConfig Value error, "


@dataclass(frozen=True, slots=True)
class Resolution:
    """The normalised dict, the method vLLM ends with, and the exception it raises on the way, if any."""

    config: dict[str, Any]
    method: str | None
    error: str | None = None


def resolve_method(
    quantization: Mapping[str, Any],
    *,
    model_type: str | None = None,
    architectures: Sequence[str] = (),
    platform: str = "cuda",
    key: str = "quantization_config",
    version: Version = (0, 33),
    methods: Collection[str] = METHODS,
) -> Resolution:
    """Normalise the dict and choose the method, without any ``--quantization`` from the user.

    ``key`` is the field that held the dict: ModelOpt's older layout is only recognised outside compression_config.
    ``platform`` matters little: on "cpu" AWQ keeps its name and DeepSeek V4.1 is not known. ``version`` is (major,
    minor), and ``methods`` are the methods that version knows.
    """
    config = dict(quantization)
    if key != "compression_config":
        config, error = _normalise_modelopt(config, version)
        if error:
            return Resolution(config, None, error)
    written = config.get("quant_method", "")
    if not isinstance(written, str):
        return Resolution(config, None, f"AttributeError: '{type(written).__name__}' object has no attribute 'lower'")
    name = written.lower().replace("compressed_tensors", "compressed-tensors")
    if (
        name == "compressed-tensors"
        and config.get("format") == "mxfp4-pack-quantized"
        and architectures
        and architectures[0] in ("KimiK3ForConditionalGeneration", "KimiK3MTPModel")
    ):
        name = "mxfp4"
    config["quant_method"] = name
    override = _override(name, config, model_type, platform)
    method = (override if override in methods else None) or name or None
    return Resolution(config, method, _refused(method, methods))


def _normalise_modelopt(config: dict[str, Any], version: Version) -> tuple[dict[str, Any], str | None]:
    producer = config.get("producer", {})
    nested = config.get("quantization")
    if not isinstance(producer, Mapping):  # vLLM asks it for a name
        return config, f"AttributeError: '{type(producer).__name__}' object has no attribute 'get'"
    if not isinstance(nested, Mapping):
        return config, None
    by_modelopt = producer.get("name") == "modelopt"
    algorithm = nested.get("quant_algo")
    by_modelopt = by_modelopt or (version >= (0, 27) and "modelopt_quant_config" in nested)
    if not by_modelopt or algorithm is None:
        return config, None
    method = _LEGACY_MODELOPT.get(str(algorithm).upper())
    if method == "modelopt_mixed" and version < (0, 33):
        method = None
    if method is None:
        return config, f"{_MODEL_CONFIG}Unknown ModelOpt quant algo: {algorithm}"
    return {**config, "quant_method": method}, None


def modelopt_quant_algo(config: Mapping[str, Any]) -> str:
    """``quant_algo`` in capitals, wherever the layout keeps it; "" when there is none."""
    block = config.get("quantization", config)
    return str(block.get("quant_algo") or "").upper() if isinstance(block, Mapping) else ""


def _override(name: str, config: Mapping[str, Any], model_type: str | None, platform: str) -> str | None:
    if name.startswith("modelopt"):
        return _modelopt_override(modelopt_quant_algo(config))
    if name in ("fp8", "deepseek_v4_fp8"):
        known = _DEEPSEEK_V4[:1] if platform == "cpu" else _DEEPSEEK_V4
        return "deepseek_v4_fp8" if model_type in known else None
    if name in ("mxfp4", "gpt_oss_mxfp4"):
        return "gpt_oss_mxfp4" if model_type == "gpt_oss" else None
    if name == "awq":
        return None if platform == "cpu" else "auto_awq"
    return {"gptq": "auto_gptq", "auto-round": "inc"}.get(name)


def _modelopt_override(algorithm: str) -> str | None:
    if algorithm == "FP8":
        return "modelopt"
    if "FP4" in algorithm:
        return "modelopt_fp4"
    if "MXFP8" in algorithm:
        return "modelopt_mxfp8"
    return "modelopt_mixed" if algorithm == "MIXED_PRECISION" else None


def _refused(method: str | None, methods: Collection[str]) -> str | None:
    if method is None:
        return None
    if method not in methods:
        return f"{_MODEL_CONFIG}Unknown quantization method: {method}. Must be one of {list(methods)}."
    if method in DEPRECATED_METHODS:
        # vLLM never fills the %s: it hands format and name to ValueError as a tuple.
        return (
            f"{_MODEL_CONFIG}('The quantization method %s is deprecated and will be removed in future versions of "
            f"vLLM. To bypass, set `--allow-deprecated-quantization`.', {method!r})"
        )
    return None
