"""What TensorRT-LLM does with KV-cache scales, by the algorithm of the cache.

Sources: TensorRT-LLM's public documentation, sources and tests (``_torch/modules/linear.py``, ``_torch/attention``,
``models/modeling_utils.py``; the tests of INT8 and NVFP4 caches). Nothing here was compared with a run.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.backends.kv_method import EngineError
from core.ordering import natural

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


@dataclass(frozen=True, slots=True)
class Found:
    """A stored factor: its key, the match of :data:`CONVERTED`, its shape and its values (none where nobody read
    them).
    """

    key: str
    match: re.Match[str]
    shape: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def module(self) -> str:
        return self.match["module"]

    @property
    def parameter(self) -> str:
        """The parameter that it becomes, alone or with the other role's."""
        return f"{self.module}.{'kv_cache_rcp_scaling_factor' if self.match['reciprocal'] else JOINED}"


class FactorError(EngineError):
    """An exception over one stored factor, and the parameter that it does not fit in, if any."""

    def __init__(self, kind: str, message: str, key: str, parameter: str = "") -> None:
        super().__init__(kind, message)
        self.key, self.parameter = key, parameter


def factors_of(found: Sequence[Found]) -> Factors:
    """The factors of the layers, from those stored in reading order.

    ``preprocess_weights``: k with its v becomes the larger of the two, whatever is stored for both. A v alone is left
    over. ``load``: a parameter takes one number, in the shape [1] or []. None stands for a number that nobody read.
    Raises FactorError where TensorRT-LLM stops: over a k without its v, two that cannot be compared, a wrong shape.
    """
    stored = {each.key: each for each in found if not each.match["reciprocal"]}
    by_module: dict[str, tuple[int, float | None]] = {}
    joined, replaced = set[str](), set[str]()
    given: list[tuple[Found, tuple[int, ...]]] = []
    for each in found:
        role, module, layer = each.match["role"], each.module, int(each.match["layer"])
        k, v = (stored.get(f"{module}.{name}_cache_scaling_factor") for name in ("k", "v"))
        if each.match["reciprocal"]:
            if role == "kv":
                given.append((each, each.shape))
        elif role == "k":
            if v is None:
                raise FactorError("AssertionError", f"{module}.v_cache_scaling_factor not found", each.key)
            joined |= {each.key, v.key}
            given.append((each, _broadcast(each, v)))
            by_module[module] = layer, _larger(each.values, v.values)
        elif role == "kv" and k is None:
            given.append((each, each.shape))
            by_module[module] = layer, each.values[0] if len(each.values) == 1 else None
        elif role == "kv" and k is not None and v is not None:
            (joined if each.values == (_larger(k.values, v.values),) else replaced).add(each.key)
    for each, shape in sorted(given, key=lambda pair: int(pair[0].match["layer"])):
        if shape not in ((), (1,)):
            message = (
                "Encounter error 'The value updated is not the same shape as the original. "
                f"Updated: {shape}, original: (1,)' for parameter '{each.parameter}'"
            )
            raise FactorError("RuntimeError", message, each.key, each.parameter)
    return Factors(by_module=by_module, joined=frozenset(joined), replaced=frozenset(replaced))


def lacking(names: Sequence[str], followed: Sequence[str], layers: int) -> tuple[str, ...]:
    """The parameters that no rank's weights bring, of a converted checkpoint with a quantized cache.

    ``load`` wants a factor and its reciprocal, which ``preprocess_weights`` makes where it is not stored, for every
    attention module. ``names`` are those of all tensors, each as often as there are ranks that hold it, ``followed``
    those of the factors that are fed. Where no weight tells the modules, there are ``layers`` of the usual name.
    """
    counts = Counter(names)
    for name in followed:
        counts[name] = max(counts[name], 1)
    wanted = {found["module"]: counts[name] for name in counts if (found := _DENSE.match(name))}
    wanted = wanted or {f"transformer.layers.{layer}.attention": 1 for layer in range(layers)}
    missing: list[str] = []
    for module, ranks in wanted.items():
        kv, k, v = (counts[f"{module}.{role}_cache_scaling_factor"] for role in ("kv", "k", "v"))
        if max(kv, min(k, v)) < ranks:
            missing.append(f"{module}.{JOINED}")
            if counts[f"{module}.kv_cache_rcp_scaling_factor"] < ranks:
                missing.append(f"{module}.kv_cache_rcp_scaling_factor")
    return tuple(sorted(missing, key=natural))


_DENSE = re.compile(r"^(?P<module>.*\.[0-9]{1,9}\.attention)\.dense\.weight$")
"""The output projection that every attention module of the converted models has."""


def _broadcast(k: Found, v: Found) -> tuple[int, ...]:
    """The shape of torch.max of both."""
    shape: list[int] = []
    wide = max(len(k.shape), len(v.shape))
    for place in range(1, wide + 1):
        a, b = (each.shape[-place] if place <= len(each.shape) else 1 for each in (k, v))
        if a != b and 1 not in (a, b):
            message = (
                f"The size of tensor a ({a}) must match the size of tensor b ({b}) at non-singleton dimension "
                f"{wide - place}"
            )
            raise FactorError("RuntimeError", message, k.key)
        shape.insert(0, b if a == 1 else a)
    return tuple(shape)


def _larger(k: tuple[float, ...], v: tuple[float, ...]) -> float | None:
    """As torch.max has it: NaN where either is."""
    if len(k) != 1 or len(v) != 1:
        return None
    return math.nan if math.isnan(k[0]) or math.isnan(v[0]) else max(k[0], v[0])
