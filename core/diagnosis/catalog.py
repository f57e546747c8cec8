"""Every finding there is: its code, how bad it is, what it means, and where the knowledge comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from core.diagnosis.finding import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInfo:
    """One rule. ``doubts``: layers that run on the values it names run on doubtful values."""

    code: str
    severity: Severity
    title: str
    meaning: str
    source: str
    doubts: bool = False


_VALUES_SEEN = "checkpoints written by llm-compressor, ModelOpt, Quark and AutoRound"
_PUBLIC = "scales of public FP8 models"
_KV_METHOD = "vLLM 0.33.0, layers/quantization/kv_cache.py, BaseKVCacheMethod"
_LOADER = "vLLM 0.33.0, models/utils.py, AutoWeightsLoader"

RULES: tuple[RuleInfo, ...] = (
    # ------------------------------------------------------------------------------------------------------- delivery
    RuleInfo(
        code="load-refused",
        severity="error",
        title="The engine refuses the model",
        meaning="What the checkpoint declares is not supported, so no tensor is read.",
        source="vLLM 0.33.0, config/model.py and the quantization configs",
    ),
    RuleInfo(
        code="load-raises",
        severity="error",
        title="The engine stops while loading",
        meaning="A tensor's name, after all renaming, leads to something that cannot take it.",
        source=_LOADER,
    ),
    RuleInfo(
        code="shape",
        severity="error",
        title="The scale has a shape that its parameter does not take",
        meaning="More than one value where the engine takes one scale for a layer, or a shape of another layout.",
        source="vLLM 0.33.0, KVCacheScaleParameter: one element only",
        doubts=True,
    ),
    RuleInfo(
        code="head-count",
        severity="error",
        title="The number of per-head scales is not the number of KV heads",
        meaning="Per-head scales need one value for each key/value head.",
        source="vLLM 0.33.0, compressed_tensors.py, attn_head strategy",
        doubts=True,
    ),
    RuleInfo(
        code="layer-assertion",
        severity="error",
        title="A layer fails after loading",
        meaning="The engine post-processes each layer's scales and raises there.",
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="dropped-scale",
        severity="error",
        title="No attention layer receives these scales",
        meaning="After renaming, the scale's name belongs to no parameter, and the engine skips it without a word.",
        source=_LOADER,
    ),
    RuleInfo(
        code="q-dropped",
        severity="warning",
        title="No attention layer receives these q or prob scales",
        meaning="The checkpoint quantizes attention itself; the engine runs queries or probabilities at 1.0.",
        source=_LOADER,
    ),
    RuleInfo(
        code="conflict",
        severity="error",
        title="Several tensors with different values reach one parameter",
        meaning="The last one read wins, silently.",
        source=_LOADER,
        doubts=True,
    ),
    # ------------------------------------------------------------------------------------------------------- coverage
    RuleInfo(
        code="v-without-k",
        severity="error",
        title="Layers have a v scale but no k scale",
        meaning="vLLM's scalar methods and SGLang assert that k is there; compressed-tensors runs k at 1.0.",
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="k-without-v",
        severity="warning",
        title="Layers have a k scale but no v scale",
        meaning="vLLM's scalar methods and SGLang copy k to v; compressed-tensors runs v at 1.0.",
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="kv-not-shared",
        severity="warning",
        title="One scale is stored for k and v, and only k receives it",
        meaning="kv_scale is read as k's; scalar methods copy it to v, compressed-tensors leaves v at 1.0.",
        source="vLLM 0.33.0, base cache-scale mapper; compressed_tensors.py",
    ),
    RuleInfo(
        code="missing-scale",
        severity="warning",
        title="Some attention layers have no scale",
        meaning="Layers were ignored or dropped by the tool, or the calibration has a hole.",
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="cache-not-quantized",
        severity="error",
        title="The scales go unused: the KV cache is not quantized",
        meaning="The KV cache stays in a plain float type, so k and v run at 1.0 whatever was loaded.",
        source="vLLM 0.33.0, kv_cache.py; utils/torch_utils.py, resolve_kv_cache_dtype_string",
    ),
    RuleInfo(
        code="run-time-scales",
        severity="warning",
        title="The scales go unused: this cache computes its own",
        meaning="Per-token-head cache types compute scales while the engine runs.",
        source="vLLM 0.33.0, kv_cache.py",
    ),
    RuleInfo(
        code="q-missing",
        severity="info",
        title="There are no q scales",
        meaning="Queries run at 1.0, which is usual; vLLM's log says k_scale, but 1.0 is what is set.",
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="q-applied",
        severity="info",
        title="q or prob scales are applied although the KV cache is not quantized",
        meaning="vLLM applies them whatever the type of the cache.",
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="not-needed",
        severity="info",
        title="Scales on modules without a KV cache of their own",
        meaning="Encoders, towers, linear attention and layers that share another layer's cache need none.",
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="draft-scale",
        severity="info",
        title="Scales on draft (MTP) layers",
        meaning="The main model does not load them; a speculative-decoding run may.",
        source="DeepSeek-V3 and Qwen3-Next checkpoints",
    ),
    RuleInfo(
        code="zero-points",
        severity="info",
        title="Zero points or biases, all zero",
        meaning="Engines do not use them; being zero, they change nothing.",
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="offsets-lost",
        severity="warning",
        title="Zero points or biases that the engine does not apply",
        meaning="The cache was calibrated asymmetrically; without the offset the scales do not fit.",
        source="vLLM 0.33.0: no attention kernel reads k_zero_point or v_zero_point",
        doubts=True,
    ),
    # --------------------------------------------------------------------------------------------------------- values
    RuleInfo(
        code="uninitialised",
        severity="error",
        title="Uninitialised memory in place of scales",
        meaning="The tool registered the parameter and never wrote a calibrated value into it.",
        source="llm-compressor 0.14: q_scale of every attention recipe, layers on the ignore list, mixers, encoders",
        doubts=True,
    ),
    RuleInfo(
        code="not-finite",
        severity="error",
        title="NaN or infinite scales",
        meaning="Calibration saw NaN or overflowed.",
        source=_VALUES_SEEN,
        doubts=True,
    ),
    RuleInfo(
        code="negative",
        severity="error",
        title="Negative scales",
        meaning="A scale is a positive factor; -1.0 is the value of a parameter that never received one.",
        source="vLLM 0.33.0, KVCacheScaleParameter starts at -1.0",
        doubts=True,
    ),
    RuleInfo(
        code="zero",
        severity="error",
        title="Scales of exactly zero",
        meaning="The observer saw only zeros or never fired.",
        source="ModelOpt writes an exact 0.0 for all-zero keys or values",
        doubts=True,
    ),
    RuleInfo(
        code="amax-stored",
        severity="error",
        title="An amax is stored instead of a scale",
        meaning="The largest magnitude itself, not divided by the largest quantized number (448 for FP8).",
        source="ModelOpt's plain save_pretrained; FastDeploy, where it is the convention",
        doubts=True,
    ),
    RuleInfo(
        code="reciprocal-stored",
        severity="error",
        title="The reciprocal of the scale is stored",
        meaning="The factor to quantize by, where engines take the factor to dequantize by.",
        source="TensorRT-LLM's rcp_scaling_factor; large values with V above K",
        doubts=True,
    ),
    RuleInfo(
        code="exactly-one",
        severity="warning",
        title="Scales of exactly 1.0",
        meaning="A clamp (ModelOpt before 0.43, TensorRT-LLM export), a cast recipe, or no calibration at all.",
        source="ModelOpt 0.23 to 0.42: max(amax / 448, 1.0)",
        doubts=True,
    ),
    RuleInfo(
        code="outlier",
        severity="warning",
        title="Scales far above the other layers'",
        meaning="A calibration sample with an outlier, or another unit in this layer.",
        source=f"{_PUBLIC}: the largest ratio to the median is about 25",
        doubts=True,
    ),
    RuleInfo(
        code="dtype-epsilon",
        severity="warning",
        title="Scales of exactly the type's machine epsilon",
        meaning="An observer that saw only zeros stores epsilon; 0.0078125 in bfloat16 looks like a scale.",
        source="compressed-tensors, calculate_qparams",
        doubts=True,
    ),
    RuleInfo(
        code="tiny",
        severity="warning",
        title="Scales smaller than any real calibration gave",
        meaning="Activations of nearly zero, or another unit; real values are clipped.",
        source=f"{_PUBLIC}: the smallest is 0.00023",
        doubts=True,
    ),
    RuleInfo(
        code="large",
        severity="warning",
        title="Scales above 1.0",
        meaning="An amax above 448, or another convention.",
        source=f"{_PUBLIC}: the largest is 0.977",
        doubts=True,
    ),
    RuleInfo(
        code="above-half",
        severity="warning",
        title="Scales above 0.5",
        meaning="An amax above 224: rare in real models, or another convention.",
        source=f"{_PUBLIC}: only Qwen2-1.5B's first layer",
        doubts=True,
    ),
    RuleInfo(
        code="swapped",
        severity="warning",
        title="k and v look swapped",
        meaning="Keys are larger than values in nearly every layer of real models; here it is the other way round.",
        source=f"{_PUBLIC}: K > V in 329 of 334 layers",
        doubts=True,
    ),
    RuleInfo(
        code="pair-ratio",
        severity="warning",
        title="k and v of a layer are far apart from the other layers' ratio",
        meaning="One of the two was calibrated on something else, or belongs to another layer.",
        source=f"{_PUBLIC}: ratios differ by at most about 40 from their median",
        doubts=True,
    ),
    RuleInfo(
        code="odd-dtype",
        severity="warning",
        title="Scales stored in a type that is too coarse for them",
        meaning="Integers and 8-bit floats hold a scale to a few percent at best.",
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="rounding",
        severity="info",
        title="Scales are rounded to the engine's type",
        meaning="Up to 0.4 % in bfloat16: harmless.",
        source="vLLM 0.33.0, KVCacheScaleParameter is created in the model dtype",
    ),
    RuleInfo(
        code="k-equals-v",
        severity="info",
        title="k and v are equal in every layer",
        meaning="One scale for both: Quark's kv_cache_group, or a single kv_scale.",
        source="checkpoints written by Quark; AutoFP8's kv_scale",
    ),
    # ---------------------------------------------------------------------------------------------------- declaration
    RuleInfo(
        code="declared-absent",
        severity="error",
        title="A quantized KV cache is declared, but no scale is stored",
        meaning="A cast recipe, a failed export, or scales in another file.",
        source="ModelOpt's fp8_cast recipe declares FP8 and writes no tensors",
    ),
    RuleInfo(
        code="dynamic-scheme",
        severity="warning",
        title="The declared KV scheme is dynamic",
        meaning="Scales were to be computed at run time; engines without that run at 1.0.",
        source="checkpoints written by llm-compressor and Quark",
    ),
    RuleInfo(
        code="undeclared",
        severity="error",
        title="Scales are stored, but no quantized KV cache is declared",
        meaning="Nothing tells the engine to quantize the cache, so it stays in the model dtype and they go unused.",
        source="vLLM 0.33.0, utils/torch_utils.py, resolve_kv_cache_dtype_string",
    ),
    RuleInfo(
        code="declaration-note",
        severity="warning",
        title="The checkpoint's declaration is contradictory or incomplete",
        meaning="Config files disagree, cannot be read, or say something that the engine reads otherwise.",
        source="vLLM 0.33.0's config readers",
    ),
    RuleInfo(
        code="method-chosen",
        severity="info",
        title="Another quantization method was chosen than the checkpoint declares",
        meaning="The prediction is for the method chosen.",
        source="the --method option",
    ),
    # ---------------------------------------------------------------------------------------------------------- files
    RuleInfo(
        code="broken-file",
        severity="error",
        title="Files cannot be read",
        meaning="Truncated, corrupt, or not what their names say.",
        source="the safetensors format",
    ),
    RuleInfo(
        code="shard-missing",
        severity="error",
        title="Shards that the index names are missing",
        meaning="The download is incomplete.",
        source="the Hugging Face sharded format",
    ),
    RuleInfo(
        code="unreadable-scale",
        severity="error",
        title="Values of scales cannot be read",
        meaning="The tensor is there, its numbers are not.",
        source="the safetensors format",
        doubts=True,
    ),
    RuleInfo(
        code="index-disagrees",
        severity="warning",
        title="The index and the shards disagree",
        meaning="Engines choose files by the index; a tensor elsewhere may not be read.",
        source="the Hugging Face sharded format",
    ),
    RuleInfo(
        code="duplicate-key",
        severity="warning",
        title="A key stands in several shards",
        meaning="The engine reads both; the last one wins.",
        source=_LOADER,
    ),
    RuleInfo(
        code="split-pair",
        severity="warning",
        title="k and v of a layer stand in different shards",
        meaning="Tools write them side by side; shards may come from different exports.",
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="unindexed-scales",
        severity="warning",
        title="A file with KV scales is not named by the index",
        meaning="Engines skip files that the index does not name.",
        source="vLLM 0.33.0, weight_utils.py, filter_duplicate_safetensors_files",
    ),
)

BY_CODE: Mapping[str, RuleInfo] = MappingProxyType({rule.code: rule for rule in RULES})

DOUBTS: frozenset[str] = frozenset(rule.code for rule in RULES if rule.doubts)
"""The codes of the findings that doubt the values themselves, not only whether they arrive."""
