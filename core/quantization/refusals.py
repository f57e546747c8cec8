"""Why vLLM refuses to build a model, decided by what the checkpoint declares.

vLLM reads the declaration in five stages, and the first fault ends the start: the model config (is the method known?),
the cache config (is the KV dtype?), the quantization config (is the method's dict complete?), the linear layers (can
the list of layers left alone be read?) and the attention layers (does the KV method take this scheme?). pydantic turns
ValueError and AssertionError of the first three into ``ValidationError: 1 validation error for ...``; a layer raises as
it is.
Source: vLLM 0.33.0; the versions before it where a rule says so (all five releases were run).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.quantization.cache_dtype import KV_CACHE_DTYPES, resolve_kv_cache_dtype
from core.quantization.config_files import CONFIG
from core.quantization.declaration import Declaration, Source
from core.quantization.fault import Fault, Version
from core.quantization.layer_lists import check_layer_lists
from core.quantization.method_checks import check_method, quark_kv_spec
from core.quantization.modelopt import modelopt_block, modelopt_kv_algorithm
from core.wording import joined, say

Stage = Literal["model config", "cache config", "quantization config", "linear layer", "attention layer"]

ATTENTION_ONLY = frozenset({"Attention"})
BOTH = frozenset({"Attention", "MLAAttention"})
_NO_MODEL_TYPE_NEEDED = ("LongcatFlashForCausalLM", "LongcatFlashNgramForCausalLM")
_STRATEGIES = ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head")
_HALF = ("float16", "bfloat16")
_DTYPES: dict[str, tuple[str, ...]] = {
    "compressed-tensors": ("float32", "float16", "bfloat16"),
    "torchao": ("float32", "float16", "bfloat16"),
    "mxfp4": ("bfloat16",),
    "gpt_oss_mxfp4": ("bfloat16",),
    "modelopt_mxfp8": ("bfloat16",),
    "mxfp8": ("bfloat16",),
}


FLOAT16_UNSTABLE = ("gemma2", "gemma3", "gemma3_text", "glm4")
"""Model types vLLM 0.33.0 refuses to run in float16 (config/model.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """The engine's exception, as it prints it on one line, and the field that causes it.

    ``layers`` are the engine's layer classes whose construction raises; empty when the model is refused whatever its
    layers are. ``reason`` is one sentence for people.
    """

    error: str
    stage: Stage
    reason: str
    source: Source | None = None
    layers: frozenset[str] = frozenset()

    @property
    def exception(self) -> str:
        """The exception's class name."""
        return self.error.split(":", 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """One attempt to start the engine."""

    declaration: Declaration
    requested: str
    configured: str
    resolved: str
    dtype: str | None
    layers: frozenset[str]
    cache_config: bool
    version: Version


def kv_method_layers(declaration: Declaration) -> frozenset[str]:
    """The engine's layer classes to which vLLM's method gives a KV-cache method, so that scale parameters exist.

    "Attention" stands for its subclasses too ("CrossAttention", ...). Whether a model's own attention class passes the
    quantization config on is not decided here; nor are attention layers that Quark's ``exclude`` matches by name.
    """
    match declaration.method:
        case "fp8" | "deepseek_v4_fp8" | "quark" | "compressed-tensors":
            return ATTENTION_ONLY
        case "modelopt" | "modelopt_fp4" | "modelopt_mxfp8" | "mxfp8":
            return BOTH
        case "modelopt_mixed" if modelopt_kv_algorithm(declaration):
            return ATTENTION_ONLY
        case _:
            return frozenset()


def refusal(
    declaration: Declaration,
    *,
    kv_cache_dtype: str = "auto",
    dtype: str | None = None,
    attention_layers: Collection[str] = ("Attention",),
    cache_config: bool = True,
    version: Version = (0, 33),
) -> Refusal | None:
    """The first reason why vLLM does not build the model; None when the declaration gives none.

    ``dtype`` is the engine's model dtype ("bfloat16"), None when not chosen: rules about it are then skipped.
    ``attention_layers`` are the engine's layer classes in the model, "Attention" or "MLAAttention"; with none, only the
    first three stages can refuse. ``cache_config``: whether any of them is told the cache's dtype, as nearly all are.
    ``version`` is (major, minor).
    """
    layers = frozenset("MLAAttention" if name == "MLAAttention" else "Attention" for name in attention_layers)
    cache = resolve_kv_cache_dtype(kv_cache_dtype, declaration, attention_layers=layers)
    start = _Start(
        declaration=declaration,
        requested=kv_cache_dtype,
        configured=cache.configured,
        resolved=cache.resolved,
        dtype=dtype,
        layers=layers,
        cache_config=cache_config,
        version=version,
    )
    for check in _CHECKS:
        if found := check(start):
            return found
    return None


def _wrapped(exception: str, message: str, config: str) -> str:
    prefix = f"ValidationError: 1 validation error for {config} "
    if exception == "ValueError":
        return f"{prefix}Value error, {message}"
    if exception == "AssertionError":
        return f"{prefix}Assertion failed, {message}"
    return f"{prefix}{message}" if exception == "ValidationError" else f"{exception}: {message}"


# --------------------------------------------------------------------------------------------------------- model config


def _unrecognized_model(start: _Start) -> Refusal | None:
    declared = start.declaration
    if declared.dialect in ("mistral", "none") or declared.model_type is not None:
        return None
    if "speculators_config" in declared.hf_config or any(
        name in _NO_MODEL_TYPE_NEEDED for name in declared.architectures[:1]
    ):
        return None
    message = "Unrecognized model. Should have a `model_type` key in its config.json."
    return Refusal(
        error=_wrapped("ValueError", message, "ModelConfig"),
        stage="model config",
        reason=say(
            "TensorRT-LLM wrote this folder, so Transformers cannot tell which model it is"
            if declared.dialect == "tensorrt-llm"
            else "config.json has no model_type, so Transformers cannot tell which model it is"
        ),
        source=Source(CONFIG, "model_type", declared.hf_config.get("model_type")),
    )


def _float16_unstable(start: _Start) -> Refusal | None:
    model_type = start.declaration.model_type
    if start.dtype != "float16" or model_type not in FLOAT16_UNSTABLE:
        return None
    message = (
        f"The model type {model_type!r} does not support float16. "
        "Reason: Numerical instability. Please use bfloat16 or float32 instead."
    )
    return Refusal(
        error=_wrapped("ValueError", message, "ModelConfig"),
        stage="model config",
        reason=say("vLLM does not run {model_type} models in float16", model_type=model_type),
        source=Source("config.json", "model_type", model_type),
    )


def _listed_dtype(start: _Start) -> Refusal | None:
    """Transformers makes a text of whatever is called dtype, at any depth, and takes what follows its first dot."""
    waiting: list[tuple[str, Any]] = [("", start.declaration.hf_config)]
    while waiting:
        field, found = waiting.pop()
        value = found.get("dtype")
        if isinstance(value, list) and "." not in str(value):
            return Refusal(
                error="IndexError: list index out of range",
                stage="model config",
                reason=say("Transformers cannot read a dtype that is a list"),
                source=Source(CONFIG, f"{field}dtype", value),
            )
        waiting += [(f"{field}{name}.", inner) for name, inner in found.items() if isinstance(inner, Mapping)]
    return None


def _unreadable_dict(start: _Start) -> Refusal | None:
    declared = start.declaration
    if declared.config_error is None:
        return None
    return Refusal(
        error=declared.config_error,
        stage="model config",
        reason=say("vLLM cannot make a quantization method of what the config files say"),
        source=declared.config_source,
    )


# --------------------------------------------------------------------------------------------------------- cache config


def _modelopt_block_for_auto(start: _Start) -> Refusal | None:
    # Only --kv-cache-dtype auto looks into the dict this early.
    declared = start.declaration
    nested = declared.config.get("quantization", {})
    modelopt = str(declared.config.get("quant_method", "")).startswith("modelopt")
    if start.requested != "auto" or not modelopt or isinstance(nested, Mapping) or declared.nested:
        return None
    return Refusal(
        error=f"AttributeError: '{type(nested).__name__}' object has no attribute 'get'",
        stage="cache config",
        reason=say("ModelOpt's quantization block must be an object"),
        source=declared.source_of("quantization"),
    )


def _unknown_cache_dtype(start: _Start) -> Refusal | None:
    if start.requested in KV_CACHE_DTYPES:
        return None
    message = f"Invalid kv_cache_dtype: {start.requested!r}. Valid values are: {list(KV_CACHE_DTYPES)}"
    return Refusal(
        error=_wrapped("ValueError", message, "CacheConfig cache_dtype"),
        stage="cache config",
        reason=say("--kv-cache-dtype {dtype} does not exist in vLLM 0.33.0", dtype=start.requested),
    )


def _other_float_cache(start: _Start) -> Refusal | None:
    if start.dtype is None or start.configured not in _HALF or start.configured == start.dtype:
        return None
    if start.version < (0, 33):
        return None  # not known when the check came; the older releases run took no such case
    allowed = f"`auto` or `{start.dtype}`" if start.dtype in _HALF else "`auto`"
    message = (
        f'kv_cache_dtype="{start.configured}" is incompatible with dtype="{start.dtype}". '
        f"Please set `--kv-cache-dtype` to {allowed}."
    )
    return Refusal(
        error=_wrapped("ValueError", message, "VllmConfig"),
        stage="cache config",
        reason=say(
            "a {cache} cache needs a {cache} model, and this one runs in {dtype}",
            cache=start.configured,
            dtype=start.dtype,
        ),
    )


# -------------------------------------------------------------------------------------------------- quantization config


def _method_fault(start: _Start) -> Refusal | None:
    fault = check_method(start.declaration, start.version) if start.declaration.method else None
    if fault is None:
        return None
    return Refusal(
        error=_wrapped(fault.exception, fault.message, "VllmConfig"),
        stage="quantization config",
        reason=say(
            "vLLM's method {method} cannot read this quantization config at {field}",
            method=start.declaration.method,
            field=fault.field,
        ),
        source=_source_of(start.declaration, fault),
    )


def _source_of(declaration: Declaration, fault: Fault) -> Source | None:
    if declaration.method == "modelopt_mixed" and "quantized_layers" not in declaration.config:
        block, _ = modelopt_block(declaration)
        return Source("hf_quant_config.json", fault.field, block.get(fault.field.rsplit(".", 1)[-1]))
    return declaration.source_of(fault.field)


def _method_dtype(start: _Start) -> Refusal | None:
    method = start.declaration.method
    if method is None or start.dtype is None:
        return None
    supported = _DTYPES.get(method, _HALF)
    if start.dtype in supported:
        return None
    types = "[" + ", ".join(f"torch.{name}" for name in supported) + "]"
    message = f"torch.{start.dtype} is not supported for quantization method {method}. Supported dtypes: {types}"
    return Refusal(
        error=_wrapped("ValueError", message, "VllmConfig"),
        stage="quantization config",
        reason=say(
            "vLLM's method {method} runs in {supported}, not in {dtype}",
            method=method,
            supported=joined(" or ", supported),
            dtype=start.dtype,
        ),
        source=start.declaration.config_source,
    )


def _nvfp4_with_mla(start: _Start) -> Refusal | None:
    if start.configured not in ("nvfp4", "nvfp4_4over6") or "MLAAttention" not in start.layers:
        return None
    message = (
        "nvfp4 KV cache is not supported with MLA (Multi-head Latent Attention) backends. Please use a different "
        "--kv-cache-dtype (e.g., 'fp8', 'auto', or 'nvfp4_ds_mla' with a sparse MLA backend) for MLA models such as "
        "DeepSeek."
    )
    scheme = start.declaration.kv_scheme
    return Refusal(
        error=_wrapped("ValueError", message, "VllmConfig"),
        stage="quantization config",
        reason=say("MLA layers have no NVFP4 cache layout"),
        source=scheme.source if scheme and start.requested == "auto" else None,
        layers=frozenset({"MLAAttention"}),
    )


# --------------------------------------------------------------------------------------------------------- linear layer


def _unreadable_list(start: _Start) -> Refusal | None:
    fault = check_layer_lists(start.declaration)
    if fault is None:
        return None
    return Refusal(
        error=f"{fault.exception}: {fault.message}",
        stage="linear layer",
        reason=say("vLLM cannot read the list of layers that are left unquantized, {field}", field=fault.field),
        source=_source_of(start.declaration, fault),
    )


# ------------------------------------------------------------------------------------------------------ attention layer


def _layer(error: str, reason: str, source: Source | None, layers: frozenset[str] = ATTENTION_ONLY) -> Refusal:
    return Refusal(error=error, stage="attention layer", reason=reason, source=source, layers=layers)


def _compressed_scheme(start: _Start) -> Refusal | None:
    declared = start.declaration
    scheme = declared.config.get("kv_cache_scheme")
    if declared.method != "compressed-tensors" or scheme is None or "Attention" not in start.layers:
        return None
    if not isinstance(scheme, Mapping):
        return _layer(
            f"AttributeError: '{type(scheme).__name__}' object has no attribute 'items'",
            say("compressed-tensors needs kv_cache_scheme as an object"),
            declared.source_of("kv_cache_scheme"),
        )
    bits, kind = scheme.get("num_bits"), scheme.get("type")
    wrong = (kind != "float", bits != 8)
    if any(wrong) if start.version >= (0, 25) else all(wrong):  # vLLM pull request 45312
        return _layer(
            "NotImplementedError: Currently supported kv cache quantization is num_bits=8, type=float, however "
            f"received num_bits={bits}, type={kind}",
            say(
                "vLLM keeps a compressed-tensors KV cache in 8-bit float only, and this scheme is {bits}-bit {kind}",
                bits=bits,
                kind=kind,
            ),
            declared.source_of("kv_cache_scheme.num_bits" if bits != 8 else "kv_cache_scheme.type"),
        )
    return _compressed_strategy(declared, scheme)


def _compressed_strategy(declared: Declaration, scheme: Mapping[str, Any]) -> Refusal | None:
    strategy, symmetric = scheme.get("strategy"), scheme.get("symmetric")
    source = declared.source_of("kv_cache_scheme.strategy")
    if strategy not in _STRATEGIES:
        return _layer(
            f"ValueError: {strategy!r} is not a valid QuantizationStrategy",
            say("no such quantization strategy"),
            source,
        )
    if strategy not in ("tensor", "attn_head"):
        return _layer(
            "NotImplementedError: Invalid strategy for compressed-tensors KV cache. Expected strategies: "
            "(<QuantizationStrategy.TENSOR: 'tensor'>, <QuantizationStrategy.ATTN_HEAD: 'attn_head'>), found strategy: "
            f"QuantizationStrategy.{strategy.upper()}",
            say("vLLM takes one KV scale per tensor or per head, not per {strategy}", strategy=strategy),
            source,
        )
    if not symmetric:
        return _layer(
            "NotImplementedError: Only support symmetric scaling factor for compressed-tensors KV cache. However found "
            f"symmetric: {symmetric}",
            say("vLLM has no zero points in the KV cache, and this scheme is asymmetric"),
            declared.source_of("kv_cache_scheme.symmetric"),
        )
    return None


def _quark_scheme(start: _Start) -> Refusal | None:
    declared = start.declaration
    if declared.method != "quark" or "Attention" not in start.layers:
        return None
    spec = quark_kv_spec(declared.config)
    if spec is None:
        return None
    source = declared.kv_scheme.source if declared.kv_scheme else declared.source_of("layer_quant_config")
    if not isinstance(spec, Mapping):
        error = f"AttributeError: '{type(spec).__name__}' object has no attribute 'get'"
        reason = say("vLLM takes one-level KV quantization from Quark, and this one has two levels")
        return _layer(error, reason, source)
    if spec.get("dtype") != "fp8_e4m3":
        return _layer(
            "NotImplementedError: Currently supported kv cache quantization is dtype=fp8_e4m3, however received "
            f"{spec.get('dtype')}",
            say(
                "vLLM keeps a Quark KV cache in fp8_e4m3 only, and this checkpoint declares {dtype}",
                dtype=spec.get("dtype"),
            ),
            source,
        )
    if spec.get("qscheme") != "per_tensor":
        return _layer(
            "NotImplementedError: Only support per-tensor scaling factor for quark KV cache. Expected qscheme: "
            f"per_tensor, found qscheme: {spec.get('qscheme')}",
            say("vLLM takes one KV scale per tensor from Quark, not {qscheme}", qscheme=spec.get("qscheme")),
            source,
        )
    return None


def _e5m2(start: _Start) -> Refusal | None:
    if start.resolved != "fp8_e5m2" or not start.cache_config:
        return None
    declared = start.declaration
    layers = kv_method_layers(declared) & start.layers
    if not layers:
        return None
    # compressed-tensors without a scheme is let through since 0.25.
    weights_only = declared.method == "compressed-tensors" and declared.config.get("kv_cache_scheme") is None
    if weights_only and start.version >= (0, 25):
        return None
    return _layer(
        "ValueError: fp8_e5m2 kv-cache is not supported with fp8 checkpoints.",
        say(
            "method {method} brings KV scales, which vLLM applies to e4m3 only: use --kv-cache-dtype fp8",
            method=declared.method,
        ),
        declared.config_source,
        layers,
    )


_CHECKS: tuple[Callable[[_Start], Refusal | None], ...] = (
    _unrecognized_model,
    _listed_dtype,
    _float16_unstable,
    _unreadable_dict,
    _modelopt_block_for_auto,
    _unknown_cache_dtype,
    _other_float_cache,
    _method_fault,
    _method_dtype,
    _unreadable_list,
    _nvfp4_with_mla,
    _compressed_scheme,
    _quark_scheme,
    _e5m2,
)
