"""What TensorRT-LLM does with KV-cache scales, by the algorithm of the cache.

Sources: TensorRT-LLM's public documentation, sources and tests (``_torch/modules/linear.py``, ``_torch/attention``,
``models/modeling_utils.py``; the tests of INT8 and NVFP4 caches). Nothing here was compared with a run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.backends.kv_method import EngineError

Algorithm = Literal["none", "FP8", "NVFP4", "INT8"]

SMALLEST_NORMAL = 2.0**-126
LARGEST = 3.4028234663852886e38
"""The range of float32 whose reciprocals are finite too."""

UNDER_PROJECTIONS = re.compile(
    r"^(?P<module>.*\.(?P<layer>[0-9]{1,9})\.self_attn)\.(?P<role>[kv])_proj\.(?P=role)_scale$"
)
"""The only spelling the PyTorch backend reads: it looks at what stands beside each projection's weight."""

CONVERTED = re.compile(
    r"^(?P<module>.*\.(?P<layer>[0-9]{1,9})\.attention)\.(?P<role>kv|k|v)_cache_(?P<reciprocal>rcp_)?scaling_factor$"
)
"""The factors of converted checkpoints (``rankN.safetensors``). The parameters are ``kv_cache_scaling_factor`` and its
reciprocal; a factor for k and one for v become one of both before the model is built.
"""

ARCHITECTURES = (
    "Exaone4ForCausalLM", "Gemma3ForCausalLM", "Glm4MoeForCausalLM", "GptOssForCausalLM", "LlamaForCausalLM",
    "MistralForCausalLM", "MixtralForCausalLM", "NemotronForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM", "SeedOssForCausalLM", "Starcoder2ForCausalLM",
)  # fmt: skip
"""Models of the PyTorch backend whose attention is ``model.layers.N.self_attn`` with one fused QKV projection."""

READ = ("modelopt", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8", "fp8", "mxfp4", "mxfp8", "compressed-tensors",
        "nvfp4")  # fmt: skip
"""The quantization methods whose configs the PyTorch backend reads (``_torch/model_config.py``, load_hf_quant_config,
and ModelOpt's own file). Of any other it sees none: weights are taken as they stand, and no cache is declared.
"""

JOINED = "kv_cache_scaling_factor"
"""The parameter that both factors of a layer become."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """What a layer's kernels get, and which of the scales found were used for it."""

    k: float
    v: float
    used: frozenset[str]


def scales_of_layer(
    algorithm: Algorithm, found: Sequence[tuple[str, str, tuple[float, ...]]], *, load_scales: bool = True
) -> Cached:
    """The scales of one layer of the PyTorch backend from what stands beside its projections.

    ``found`` are (key, role, values) in reading order. FP8: 1.0 whatever is there. NVFP4: the largest k and the
    largest v as they are stored, which should be amax / 448 (older releases took amax / 2688, and that times 6); both
    or neither. INT8: one number for both, the larger of k and v, which must be finite, positive and invertible.
    Raises EngineError where TensorRT-LLM does.
    """
    if algorithm not in ("NVFP4", "INT8") or (algorithm == "NVFP4" and not load_scales):
        return Cached(k=1.0, v=1.0, used=frozenset())
    k, v = ([values for _, role, values in found if role == wanted] for wanted in ("k", "v"))
    if bool(k) != bool(v) or (algorithm == "INT8" and not k):
        kind = "ValueError" if algorithm == "INT8" else "AssertionError"
        raise EngineError(kind, f"{algorithm} KV cache: both scales must be loaded together")
    if not k:
        return Cached(k=1.0, v=1.0, used=frozenset())
    used = frozenset(key for key, _, _ in found)
    if any(len(values) != 1 for values in (*k, *v)):
        kind = "ValueError" if algorithm == "INT8" else "RuntimeError"
        raise EngineError(kind, f"{algorithm} KV cache: a scale must be one number")
    largest_k, largest_v = max(value for (value,) in k), max(value for (value,) in v)
    if algorithm == "NVFP4":
        return Cached(k=largest_k, v=largest_v, used=used)
    both = max(largest_k, largest_v)
    if not (math.isfinite(both) and SMALLEST_NORMAL <= both <= LARGEST):
        raise EngineError("ValueError", f"INT8 KV cache: the scale must be finite and positive, got {both}")
    return Cached(k=both, v=both, used=used)


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """What the layers of a converted checkpoint get, by attention module; which factors were made one for it, and
    which were stored beside those and replaced.
    """

    by_module: Mapping[str, tuple[int, float | None]]
    joined: frozenset[str]
    replaced: frozenset[str]


def factors_of(found: Sequence[tuple[str, re.Match[str], tuple[float, ...]]]) -> Factors:
    """The factors of converted checkpoints, (key, match of CONVERTED, values) in reading order.

    ``preprocess_weights``: k with its v becomes the larger of the two, whatever is stored for both. A v alone is left
    over. None stands for a factor that is not one number. Raises EngineError with the missing name for a k alone.
    """
    stored = {key: values for key, match, values in found if not match["reciprocal"]}
    by_module: dict[str, tuple[int, float | None]] = {}
    joined, replaced = set[str](), set[str]()
    for key, match, values in found:
        module, layer = match["module"], int(match["layer"])
        if match["reciprocal"] or match["role"] == "v":
            continue
        if match["role"] == "k":
            other = f"{module}.v_cache_scaling_factor"
            if other not in stored:
                raise EngineError("AssertionError", f"{other} not found")
            joined |= {key, other}
            by_module[module] = layer, _larger(values, stored[other])
        elif f"{module}.k_cache_scaling_factor" not in stored:
            by_module[module] = layer, values[0] if len(values) == 1 else None
        elif f"{module}.v_cache_scaling_factor" in stored:
            both = _larger(*(stored[f"{module}.{role}_cache_scaling_factor"] for role in ("k", "v")))
            (joined if values == (both,) else replaced).add(key)
    return Factors(by_module=by_module, joined=frozenset(joined), replaced=frozenset(replaced))


def _larger(k: tuple[float, ...], v: tuple[float, ...]) -> float | None:
    """As torch.max has it: NaN where either is."""
    if len(k) != 1 or len(v) != 1:
        return None
    return math.nan if math.isnan(k[0]) or math.isnan(v[0]) else max(k[0], v[0])
