"""What TensorRT-LLM does with KV-cache scales, by the algorithm of the cache.

Sources: TensorRT-LLM's public documentation, sources and tests (``_torch/modules/linear.py``, ``_torch/attention``,
``models/modeling_utils.py``; the tests of INT8 and NVFP4 caches). Nothing here was compared with a run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
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
    r"^(?P<module>.*\.(?P<layer>[0-9]{1,9})\.attention)\.kv_cache_(?P<reciprocal>rcp_)?scaling_factor$"
)
"""The parameters of converted checkpoints (``rankN.safetensors``)."""

ARCHITECTURES = (
    "Exaone4ForCausalLM", "Gemma3ForCausalLM", "Glm4MoeForCausalLM", "GptOssForCausalLM", "LlamaForCausalLM",
    "MistralForCausalLM", "MixtralForCausalLM", "NemotronForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM", "SeedOssForCausalLM", "Starcoder2ForCausalLM",
)  # fmt: skip
"""Models of the PyTorch backend whose attention is ``model.layers.N.self_attn`` with one fused QKV projection."""


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
    largest v; both or neither. INT8: one number for both, the larger of k and v, which must be finite, positive and
    invertible. Raises EngineError where TensorRT-LLM does.
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
