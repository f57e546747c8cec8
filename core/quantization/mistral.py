"""Mistral's own params.json, translated into the names of config.json as vLLM does (``configs/mistral.py``, 0.33.0)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NAMES = {
    "dim": "hidden_size",
    "norm_eps": "rms_norm_eps",
    "n_kv_heads": "num_key_value_heads",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "hidden_dim": "intermediate_size",
}


def translate(params: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """A config.json-like dict and, where vLLM would raise, its exception."""
    config = {_NAMES.get(key, key): value for key, value in params.items()}
    config.setdefault("model_type", "transformer")
    error = None
    quantization = config.pop("quantization", None)
    if quantization:
        translated, error = _quantization(quantization)
        if translated is not None:
            config["quantization_config"] = translated
    config["architectures"] = [_architecture(config)]
    multimodal = config.get("multimodal")
    multimodal = multimodal if isinstance(multimodal, Mapping) else {}
    if multimodal.get("vision_encoder_args") or config.get("vision_encoder"):
        return _wrapped(config, "pixtral", "PixtralForConditionalGeneration"), error
    if isinstance(multimodal.get("whisper_model_args"), Mapping):
        return _wrapped(config, "voxtral", "VoxtralForConditionalGeneration"), error
    if config["architectures"] == ["MistralLarge3ForCausalLM"]:
        config["model_type"] = "deepseek_v3"
    return config, error


def _architecture(config: Mapping[str, Any]) -> str:
    if config.get("model_type") == "mamba":
        return "Mamba2ForCausalLM"
    moe = config.get("moe")
    if not moe:
        return "MistralForCausalLM"
    shared = moe.get("num_shared_experts") if isinstance(moe, Mapping) else 0
    return "MistralLarge3ForCausalLM" if shared else "MixtralForCausalLM"


def _wrapped(text: dict[str, Any], model_type: str, architecture: str) -> dict[str, Any]:
    outer: dict[str, Any] = {"model_type": model_type, "architectures": [architecture], "text_config": text}
    if "quantization_config" in text:
        outer["quantization_config"] = text["quantization_config"]
    return outer


def _quantization(value: Any) -> tuple[dict[str, Any] | None, str | None]:
    if not isinstance(value, Mapping):
        return None, f"AttributeError: '{type(value).__name__}' object has no attribute 'get'"
    if value.get("qformat_weight") == "fp8_e4m3":
        scheme = value.get("qscheme_act")
        if scheme not in ("NO_SCALES", "TENSOR", None):
            return None, (
                "ValidationError: 1 validation error for ModelConfig Assertion failed, "
                "Only NO_SCALES and TENSOR (default) are supported for qscheme_act"
            )
        return {"quant_method": "fp8", "activation_scheme": "dynamic" if scheme == "NO_SCALES" else "static"}, None
    if str(value.get("quant_method", "")).lower().replace("_", "-") == "compressed-tensors":
        return {**value, "quant_method": "compressed-tensors"}, None
    return None, (
        f"ValidationError: 1 validation error for ModelConfig Value error, Found unknown quantization='{dict(value)}' "
        "in config"
    )
