"""Every finding there is: its code, how bad it is, what it means, and where the knowledge comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from core.diagnosis.finding import Severity
from core.wording import say


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
        title=say("The engine refuses the model"),
        meaning=say("What the checkpoint declares is not supported, so no tensor is read."),
        source="vLLM 0.33.0, config/model.py and the quantization configs",
    ),
    RuleInfo(
        code="load-raises",
        severity="error",
        title=say("The engine stops while loading"),
        meaning=say("A tensor's name, after all renaming, leads to something that cannot take it."),
        source=_LOADER,
    ),
    RuleInfo(
        code="shape",
        severity="error",
        title=say("The scale has a shape that its parameter does not take"),
        meaning=say("More than one value where the engine takes one scale for a layer, or a shape of another layout."),
        source="vLLM 0.33.0, KVCacheScaleParameter: one element only",
        doubts=True,
    ),
    RuleInfo(
        code="head-count",
        severity="error",
        title=say("The number of per-head scales is not the number of KV heads"),
        meaning=say("Per-head scales need one value for each key/value head."),
        source="vLLM 0.33.0, compressed_tensors.py, attn_head strategy",
        doubts=True,
    ),
    RuleInfo(
        code="layer-assertion",
        severity="error",
        title=say("A layer fails after loading"),
        meaning=say("The engine post-processes each layer's scales and raises there."),
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="dropped-scale",
        severity="error",
        title=say("No attention layer receives these scales"),
        meaning=say(
            "After renaming, the scale's name belongs to no parameter, and the engine skips it without a word."
        ),
        source=_LOADER,
    ),
    RuleInfo(
        code="q-dropped",
        severity="warning",
        title=say("No attention layer receives these q or prob scales"),
        meaning=say("The checkpoint quantizes attention itself; the engine runs queries or probabilities at 1.0."),
        source=_LOADER,
    ),
    RuleInfo(
        code="conflict",
        severity="error",
        title=say("Several tensors with different values reach one parameter"),
        meaning=say("The last one read wins, silently."),
        source=_LOADER,
        doubts=True,
    ),
    # ------------------------------------------------------------------------------------------------------- coverage
    RuleInfo(
        code="v-without-k",
        severity="error",
        title=say("Layers have a v scale but no k scale"),
        meaning=say("vLLM's scalar methods and SGLang assert that k is there; compressed-tensors runs k at 1.0."),
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="k-without-v",
        severity="warning",
        title=say("Layers have a k scale but no v scale"),
        meaning=say("vLLM's scalar methods and SGLang copy k to v; compressed-tensors runs v at 1.0."),
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="kv-not-shared",
        severity="warning",
        title=say("One scale is stored for k and v, and only k receives it"),
        meaning=say("kv_scale is read as k's; scalar methods copy it to v, compressed-tensors leaves v at 1.0."),
        source="vLLM 0.33.0, base cache-scale mapper; compressed_tensors.py",
    ),
    RuleInfo(
        code="missing-scale",
        severity="warning",
        title=say("Some attention layers have no scale"),
        meaning=say("Layers were ignored or dropped by the tool, or the calibration has a hole."),
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="cache-not-quantized",
        severity="error",
        title=say("The scales go unused: the KV cache is not quantized"),
        meaning=say("The KV cache stays in a plain float type, so k and v run at 1.0 whatever was loaded."),
        source="vLLM 0.33.0, kv_cache.py; utils/torch_utils.py, resolve_kv_cache_dtype_string",
    ),
    RuleInfo(
        code="run-time-scales",
        severity="warning",
        title=say("The scales go unused: this cache computes its own"),
        meaning=say("Per-token-head cache types compute scales while the engine runs."),
        source="vLLM 0.33.0, kv_cache.py",
    ),
    RuleInfo(
        code="q-missing",
        severity="info",
        title=say("There are no q scales"),
        meaning=say("Queries run at 1.0, which is usual; vLLM's log says k_scale, but 1.0 is what is set."),
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="q-applied",
        severity="info",
        title=say("q or prob scales are applied although the KV cache is not quantized"),
        meaning=say("vLLM applies them whatever the type of the cache."),
        source=_KV_METHOD,
    ),
    RuleInfo(
        code="not-needed",
        severity="info",
        title=say("Scales on modules without a KV cache of their own"),
        meaning=say("Encoders, towers, linear attention and layers that share another layer's cache need none."),
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="draft-scale",
        severity="info",
        title=say("Scales on draft (MTP) layers"),
        meaning=say("The main model does not load them; a speculative-decoding run may."),
        source="DeepSeek-V3 and Qwen3-Next checkpoints",
    ),
    RuleInfo(
        code="zero-points",
        severity="info",
        title=say("Zero points or biases, all zero"),
        meaning=say("Engines do not use them; being zero, they change nothing."),
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="offsets-lost",
        severity="warning",
        title=say("Zero points or biases that the engine does not apply"),
        meaning=say("The cache was calibrated asymmetrically; without the offset the scales do not fit."),
        source="vLLM 0.33.0: no attention kernel reads k_zero_point or v_zero_point",
        doubts=True,
    ),
    # --------------------------------------------------------------------------------------------------------- values
    RuleInfo(
        code="uninitialised",
        severity="error",
        title=say("Uninitialised memory in place of scales"),
        meaning=say("The tool registered the parameter and never wrote a calibrated value into it."),
        source="llm-compressor 0.14: q_scale of every attention recipe, layers on the ignore list, mixers, encoders",
        doubts=True,
    ),
    RuleInfo(
        code="not-finite",
        severity="error",
        title=say("NaN or infinite scales"),
        meaning=say("Calibration saw NaN or overflowed."),
        source=_VALUES_SEEN,
        doubts=True,
    ),
    RuleInfo(
        code="negative",
        severity="error",
        title=say("Negative scales"),
        meaning=say("A scale is a positive factor; -1.0 is the value of a parameter that never received one."),
        source="vLLM 0.33.0, KVCacheScaleParameter starts at -1.0",
        doubts=True,
    ),
    RuleInfo(
        code="zero",
        severity="error",
        title=say("Scales of exactly zero"),
        meaning=say("The observer saw only zeros or never fired."),
        source="ModelOpt writes an exact 0.0 for all-zero keys or values",
        doubts=True,
    ),
    RuleInfo(
        code="amax-stored",
        severity="error",
        title=say("An amax is stored instead of a scale"),
        meaning=say("The largest magnitude itself, not divided by the largest quantized number (448 for FP8)."),
        source="ModelOpt's plain save_pretrained; FastDeploy, where it is the convention",
        doubts=True,
    ),
    RuleInfo(
        code="reciprocal-stored",
        severity="error",
        title=say("The reciprocal of the scale is stored"),
        meaning=say("The factor to quantize by, where engines take the factor to dequantize by."),
        source="TensorRT-LLM's rcp_scaling_factor; large values with V above K",
        doubts=True,
    ),
    RuleInfo(
        code="exactly-one",
        severity="warning",
        title=say("Scales of exactly 1.0"),
        meaning=say("A clamp (ModelOpt before 0.43, TensorRT-LLM export), a cast recipe, or no calibration at all."),
        source="ModelOpt 0.23 to 0.42: max(amax / 448, 1.0)",
        doubts=True,
    ),
    RuleInfo(
        code="outlier",
        severity="warning",
        title=say("Scales far above the other layers'"),
        meaning=say("A calibration sample with an outlier, or another unit in this layer."),
        source=f"{_PUBLIC}: the largest ratio to the median is about 25",
        doubts=True,
    ),
    RuleInfo(
        code="dtype-epsilon",
        severity="warning",
        title=say("Scales of exactly the type's machine epsilon"),
        meaning=say("An observer that saw only zeros stores epsilon; 0.0078125 in bfloat16 looks like a scale."),
        source="compressed-tensors, calculate_qparams",
        doubts=True,
    ),
    RuleInfo(
        code="tiny",
        severity="warning",
        title=say("Scales smaller than any real calibration gave"),
        meaning=say("Activations of nearly zero, or another unit; real values are clipped."),
        source=f"{_PUBLIC}: the smallest is 0.00023",
        doubts=True,
    ),
    RuleInfo(
        code="large",
        severity="warning",
        title=say("Scales above 1.0"),
        meaning=say("An amax above 448, or another convention."),
        source=f"{_PUBLIC}: the largest is 0.977",
        doubts=True,
    ),
    RuleInfo(
        code="above-half",
        severity="warning",
        title=say("Scales above 0.5"),
        meaning=say("An amax above 224: rare in real models, or another convention."),
        source=f"{_PUBLIC}: only Qwen2-1.5B's first layer",
        doubts=True,
    ),
    RuleInfo(
        code="swapped",
        severity="warning",
        title=say("k and v look swapped"),
        meaning=say(
            "Keys are larger than values in nearly every layer of real models; here it is the other way round."
        ),
        source=f"{_PUBLIC}: K > V in 329 of 334 layers",
        doubts=True,
    ),
    RuleInfo(
        code="pair-ratio",
        severity="warning",
        title=say("k and v of a layer are far apart from the other layers' ratio"),
        meaning=say("One of the two was calibrated on something else, or belongs to another layer."),
        source=f"{_PUBLIC}: ratios differ by at most about 40 from their median",
        doubts=True,
    ),
    RuleInfo(
        code="odd-dtype",
        severity="warning",
        title=say("Scales stored in a type that is too coarse for them"),
        meaning=say("Integers and 8-bit floats hold a scale to a few percent at best."),
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="rounding",
        severity="info",
        title=say("Scales are rounded to the engine's type"),
        meaning=say("Up to 0.4 % in bfloat16: harmless."),
        source="vLLM 0.33.0, KVCacheScaleParameter is created in the model dtype",
    ),
    RuleInfo(
        code="k-equals-v",
        severity="info",
        title=say("k and v are equal in every layer"),
        meaning=say("One scale for both: Quark's kv_cache_group, or a single kv_scale."),
        source="checkpoints written by Quark; AutoFP8's kv_scale",
    ),
    # ---------------------------------------------------------------------------------------------------- declaration
    RuleInfo(
        code="declared-absent",
        severity="error",
        title=say("A quantized KV cache is declared, but no scale is stored"),
        meaning=say("A cast recipe, a failed export, or scales in another file."),
        source="ModelOpt's fp8_cast recipe declares FP8 and writes no tensors",
    ),
    RuleInfo(
        code="dynamic-scheme",
        severity="warning",
        title=say("The declared KV scheme is dynamic"),
        meaning=say("Scales were to be computed at run time; engines without that run at 1.0."),
        source="checkpoints written by llm-compressor and Quark",
    ),
    RuleInfo(
        code="undeclared",
        severity="error",
        title=say("Scales are stored, but no quantized KV cache is declared"),
        meaning=say(
            "Nothing tells the engine to quantize the cache, so it stays in the model dtype and they go unused."
        ),
        source="vLLM 0.33.0, utils/torch_utils.py, resolve_kv_cache_dtype_string",
    ),
    RuleInfo(
        code="declaration-note",
        severity="warning",
        title=say("The checkpoint's declaration is contradictory or incomplete"),
        meaning=say("Config files disagree, cannot be read, or say something that the engine reads otherwise."),
        source="vLLM 0.33.0's config readers",
    ),
    RuleInfo(
        code="method-chosen",
        severity="info",
        title=say("Another quantization method was chosen than the checkpoint declares"),
        meaning=say("The prediction is for the method chosen."),
        source="the --method option",
    ),
    # ---------------------------------------------------------------------------------------------------------- files
    RuleInfo(
        code="broken-file",
        severity="error",
        title=say("Files cannot be read"),
        meaning=say("Truncated, corrupt, or not what their names say."),
        source="the safetensors format",
    ),
    RuleInfo(
        code="shard-missing",
        severity="error",
        title=say("Shards that the index names are missing"),
        meaning=say("The download is incomplete."),
        source="the Hugging Face sharded format",
    ),
    RuleInfo(
        code="unreadable-scale",
        severity="error",
        title=say("Values of scales cannot be read"),
        meaning=say("The tensor is there, its numbers are not."),
        source="the safetensors format",
        doubts=True,
    ),
    RuleInfo(
        code="index-disagrees",
        severity="warning",
        title=say("The index and the shards disagree"),
        meaning=say("Engines choose files by the index; a tensor elsewhere may not be read."),
        source="the Hugging Face sharded format",
    ),
    RuleInfo(
        code="duplicate-key",
        severity="warning",
        title=say("A key stands in several shards"),
        meaning=say("The engine reads both; the last one wins."),
        source=_LOADER,
    ),
    RuleInfo(
        code="split-pair",
        severity="warning",
        title=say("k and v of a layer stand in different shards"),
        meaning=say("Tools write them side by side; shards may come from different exports."),
        source=_VALUES_SEEN,
    ),
    RuleInfo(
        code="unindexed-scales",
        severity="warning",
        title=say("A file with KV scales is not named by the index"),
        meaning=say("Engines skip files that the index does not name."),
        source="vLLM 0.33.0, weight_utils.py, filter_duplicate_safetensors_files",
    ),
)

BY_CODE: Mapping[str, RuleInfo] = MappingProxyType({rule.code: rule for rule in RULES})

DOUBTS: frozenset[str] = frozenset(rule.code for rule in RULES if rule.doubts)
"""The codes of the findings that doubt the values themselves, not only whether they arrive."""
