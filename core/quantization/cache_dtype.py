"""Which KV-cache dtype vLLM 0.33.0 really uses.

Source: vLLM 0.33.0, ``utils/torch_utils.py`` (``resolve_kv_cache_dtype_string``), ``config/cache.py``,
``v1/kv_cache_interface.py`` and ``Attention.__init__``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from core.quantization.declaration import Declaration
from core.wording import say

KV_CACHE_DTYPES = (
    "auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_ds_mla", "nvfp4_ds_mla",
    "turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc", "octave_k3v4", "octave_k3v3",
    "octave_k3v3_compact", "ultraquant_4bit", "int4_per_token_head", "int8_per_token_head", "fp8_per_token_head",
    "nvfp4", "nvfp4_4over6",
)  # fmt: skip
"""What ``--kv-cache-dtype`` takes in vLLM 0.33.0."""

PER_TOKEN_HEAD_DTYPES = ("int4_per_token_head", "int8_per_token_head", "fp8_per_token_head")
"""Dtypes whose scales are computed at run time: scales from the checkpoint are dropped after loading."""

_FLOATING = ("auto", "float16", "bfloat16", "half", "float", "float32")
_MODELOPT_NAMES = {"fp8": "fp8_e4m3", "nvfp4": "nvfp4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDtype:
    """The KV cache's dtype.

    ``resolved`` is what the attention layers use; "auto" there means the model dtype. ``configured`` is what the engine
    holds before it builds the layers: compressed-tensors changes "auto" only while a layer is built. ``quantized``: the
    cache is not kept in a plain float dtype, so k and v scales matter (except for the per-token-head dtypes).
    ``reason`` is a sentence for people.
    """

    requested: str
    configured: str
    resolved: str
    quantized: bool
    reason: str


def is_quantized(kv_cache_dtype: str) -> bool:
    """Whether vLLM counts the dtype as a quantized KV cache."""
    return kv_cache_dtype not in _FLOATING and kv_cache_dtype in KV_CACHE_DTYPES


def resolve_kv_cache_dtype(
    requested: str, declaration: Declaration, *, attention_layers: Collection[str] = ("Attention",)
) -> CacheDtype:
    """What ``--kv-cache-dtype requested`` comes to for this checkpoint.

    ``attention_layers`` are the engine's layer classes in the model: only "Attention" (and its kin, "CrossAttention")
    applies a compressed-tensors scheme, "MLAAttention" does not. An explicit choice always stands, also one that does
    not exist (:func:`core.quantization.refusals.refusal` says so).
    """
    configured = requested
    reason: str = say("chosen explicitly")
    if requested == "auto":
        configured, reason = _from_modelopt(declaration)
    elif requested == "bfloat16" and "DeepseekV32ForCausalLM" in declaration.architectures[:1]:
        configured, reason = "auto", say("vLLM 0.33.0 reads bfloat16 as auto for DeepSeek V3.2")
    resolved = configured
    if configured == "auto" and declaration.method == "compressed-tensors":
        scheme = declaration.config.get("kv_cache_scheme")
        if scheme is None:
            reason = say("compressed-tensors without a kv_cache_scheme: model dtype")
        elif any(layer != "MLAAttention" for layer in attention_layers):
            resolved, reason = "fp8", say("compressed-tensors declares a kv_cache_scheme")
        else:
            reason = say("a compressed-tensors kv_cache_scheme is not applied by MLAAttention: model dtype")
    return CacheDtype(
        requested=requested, configured=configured, resolved=resolved, quantized=is_quantized(resolved), reason=reason
    )


def _from_modelopt(declaration: Declaration) -> tuple[str, str]:
    config = declaration.config
    if declaration.method is None:
        return "auto", say("no quantization declared: model dtype")
    if not str(config.get("quant_method", "")).startswith("modelopt"):
        return "auto", say("vLLM 0.33.0 does not resolve auto for {method}: model dtype", method=declaration.method)
    if declaration.nested or (declaration.config_source and "compression_config" in declaration.config_source.field):
        return "auto", say("vLLM 0.33.0 resolves auto from the top-level quantization_config only: model dtype")
    nested = config.get("quantization")
    inner: Mapping[str, Any] = nested if isinstance(nested, Mapping) else config
    declared = (
        inner.get("kv_cache_scheme")
        or config.get("kv_cache_scheme")
        or inner.get("kv_cache_quant_algo")
        or config.get("kv_cache_quant_algo")
    )
    if not declared:
        return "auto", say("ModelOpt declares no KV-cache algorithm: model dtype")
    name = _modelopt_name(declared)
    if name is None:
        return "auto", say(
            "vLLM 0.33.0 knows no KV-cache dtype for ModelOpt's {declared!r}: model dtype", declared=declared
        )
    return name, say(
        "ModelOpt declares the KV cache as {declared}", declared=declared if isinstance(declared, str) else name
    )


def _modelopt_name(declared: Any) -> str | None:
    if isinstance(declared, Mapping):
        if declared.get("type") != "float":
            return None
        if declared.get("num_bits") == 8 and declared.get("dynamic") is False:
            return "fp8_e4m3"
        return "nvfp4" if declared.get("num_bits") == 4 else None
    return _MODELOPT_NAMES.get(declared.lower()) if isinstance(declared, str) else None
