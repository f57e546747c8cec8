"""What a backend's KV-cache method does on an attention layer, without torch.

A KV method creates the scale parameters of one attention layer, takes tensors into them and turns them into the
numbers the attention kernels get. :mod:`core.loading.kv_cache` does the same with real tensors; both read the
parameters from here, so that they can only differ where the arithmetic does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from core.numerics import round_to

ROLES = ("k", "v", "q", "prob")

ValueSource = Literal["checkpoint", "duplicated", "default", "forced"]
"""Where a layer's value came from: its own tensor; another role's tensor; the engine's default because none arrived;
or set by the engine although one arrived (a cache that is not quantized runs at 1.0)."""

Taking = Literal["scalar", "default", "per_head", "discard"]
"""How a parameter takes a tensor: one element only; vLLM's default loader (one element, or exactly its own shape);
the per-head loader; or a per-head zero point, which is read and forgotten."""


class EngineError(Exception):
    """An exception the engine would raise; ``str()`` is "Type: message" as its log shows it."""

    def __init__(self, kind: str, message: str = "") -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSetup:
    """How the KV cache is stored: ``dtype`` as the engine resolved it, whether that is a quantized type, whether its
    scales are computed per token and head at run time, and whether the GPU uses the FNUZ float8 formats (AMD MI300).
    """

    dtype: str
    quantized: bool
    per_token_head: bool = False
    fnuz: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShape:
    """The sizes of one attention layer: query heads and key/value heads on this rank, and in the whole model.

    ``tp_rank`` of ``tp_size`` tensor-parallel ranks this is.
    """

    num_heads: int
    num_kv_heads: int
    total_num_heads: int
    total_num_kv_heads: int
    tp_rank: int = 0
    tp_size: int = 1

    def own_kv_heads(self) -> tuple[int, int]:
        """The first key/value head of this rank, and how many it has: a share of them, or a copy of one where there
        are fewer heads than ranks (vLLM 0.33.0, CompressedTensorsKVCacheMethod).

        Raises:
            EngineError: the ranks can neither share the heads evenly nor each hold a copy of one.
        """
        if self.num_kv_heads * self.tp_size == self.total_num_kv_heads:
            return self.tp_rank * self.num_kv_heads, self.num_kv_heads
        if self.num_kv_heads != 1:
            raise EngineError("AssertionError")
        copies = self.tp_size // self.total_num_kv_heads
        if not copies:
            raise EngineError("ZeroDivisionError", "integer division or modulo by zero")
        return self.tp_rank // copies, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleParameter:
    """One parameter a KV method creates. ``dtype`` "engine" means the engine's model dtype."""

    name: str
    shape: tuple[int, ...]
    initial: float
    dtype: Literal["engine", "float32"]
    taking: Taking

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def has_loader(self) -> bool:
        """Whether the parameter has a weight_loader of its own; without one vLLM's default loader takes the tensor."""
        return self.taking != "default"

    @property
    def with_a_shard(self) -> str:
        """Why a loader that is given a shard besides the tensor fails; the message of the engine's TypeError."""
        match self.taking:
            case "default":
                return "default_weight_loader() takes 2 positional arguments but 3 were given"
            case "scalar":
                return "KVCacheScaleParameter.weight_loader() takes 2 positional arguments but 3 were given"
            case "per_head" | "discard":
                return (
                    "CompressedTensorsKVCacheMethod.create_weights.<locals>._tp_aware_loader() got multiple values for "
                    "argument 'kind'"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """What the kernels get after loading: one float per role, the heads where there are several, and the source."""

    final: Mapping[str, float]
    source: Mapping[str, ValueSource]
    per_head: Mapping[str, tuple[float, ...]]


class KVMethod(ABC):
    """One backend's way with an attention layer's scales."""

    name: str

    @abstractmethod
    def parameters(self, shape: AttentionShape) -> dict[str, ScaleParameter]:
        """The parameters ``create_weights`` gives the layer, by name."""

    @abstractmethod
    def process(
        self,
        held: Mapping[str, tuple[float, ...]],
        loaded: frozenset[str],
        cache: CacheSetup,
    ) -> Processed:
        """``process_weights_after_loading``: ``held`` are the parameters' values, ``loaded`` the names that were
        written. Raises EngineError where the engine does.
        """

    def take(
        self,
        parameter: ScaleParameter,
        values: tuple[float, ...],
        tensor_shape: tuple[int, ...],
        attention: AttentionShape,
        dtype: str,
    ) -> tuple[float, ...] | None:
        """The parameter's values after a tensor was loaded into it (None: it keeps what it holds).

        ``dtype`` is the engine's model dtype. Raises EngineError with the engine's own words when the tensor does
        not fit.
        """
        kept = "float32" if parameter.dtype == "float32" else dtype
        match parameter.taking:
            case "scalar":
                if len(values) != 1:
                    raise EngineError("ValueError", f"KV-cache scale expects a scalar weight, got shape {tensor_shape}")
                return (round_to(kept, values[0]),)
            case "default":
                if not (parameter.numel == 1 and len(values) == 1) and tensor_shape != parameter.shape:
                    raise EngineError(
                        "AssertionError",
                        f"Attempted to load weight (torch.Size({list(tensor_shape)})) into parameter "
                        f"(torch.Size({list(parameter.shape)}))",
                    )
                return tuple(round_to(kept, value) for value in values)
            case "per_head":
                return self.take_per_head(parameter, values, attention, kept)
            case "discard":
                return None

    def take_per_head(
        self, parameter: ScaleParameter, values: tuple[float, ...], attention: AttentionShape, dtype: str
    ) -> tuple[float, ...]:
        """A tensor into a per-head parameter of ``dtype``."""
        return _take_heads(parameter, values, attention, dtype)


def _take_heads(
    parameter: ScaleParameter, values: tuple[float, ...], attention: AttentionShape, dtype: str
) -> tuple[float, ...]:
    """compressed-tensors' loader for the attn_head strategy (vLLM 0.33.0, CompressedTensorsKVCacheMethod).

    The tensor is flattened; q is reduced to one value for each group of query heads; then the rank's own heads are
    copied, and one single value is copied to all.
    """
    heads = values
    if parameter.name.startswith("q"):
        group = attention.total_num_heads // attention.total_num_kv_heads
        if not group or len(heads) % group or not heads:
            raise EngineError("RuntimeError", f"shape '[-1, {group}]' is invalid for input of size {len(heads)}")
        heads = tuple(largest(heads[start : start + group]) for start in range(0, len(heads), group))
    first, count = attention.own_kv_heads()
    heads = heads[first : first + count]
    if len(heads) not in (1, parameter.numel):
        raise EngineError(
            "RuntimeError",
            f"The size of tensor a ({parameter.numel}) must match the size of tensor b ({len(heads)}) "
            "at non-singleton dimension 0",
        )
    if len(heads) == 1:
        heads *= parameter.numel
    return tuple(round_to(dtype, value) for value in heads)


def largest(values: tuple[float, ...]) -> float:
    """The maximum as torch computes it: NaN where any value is NaN."""
    return math.nan if any(math.isnan(value) for value in values) else max(values)


@cache
def _scalars(taking: Taking) -> Mapping[str, ScaleParameter]:
    return {
        f"{role}_scale": ScaleParameter(name=f"{role}_scale", shape=(), initial=-1.0, dtype="engine", taking=taking)
        for role in ("q", "k", "v", "prob")
    }


class BaseKVCacheMethod(KVMethod):
    """Scalar scales that start at -1.0 (vLLM 0.33.0, layers/quantization/kv_cache.py): fp8, quark, modelopt.

    ``plain_parameters`` is vLLM before 0.23, which has no KVCacheScaleParameter yet.
    """

    def __init__(self, name: str = "BaseKVCacheMethod", *, plain_parameters: bool = False) -> None:
        self.name = name
        self._taking: Taking = "default" if plain_parameters else "scalar"

    def parameters(self, shape: AttentionShape) -> dict[str, ScaleParameter]:
        return dict(_scalars(self._taking))

    def process(self, held: Mapping[str, tuple[float, ...]], loaded: frozenset[str], cache: CacheSetup) -> Processed:
        final = dict.fromkeys(ROLES, 1.0)
        source: dict[str, ValueSource] = {role: "forced" if f"{role}_scale" in loaded else "default" for role in ROLES}
        if cache.per_token_head:
            return Processed(final=final, source=source, per_head={})
        factor = 2.0 if cache.fnuz else 1.0
        k, v, q, prob = (held[f"{role}_scale"][0] for role in ROLES)
        if cache.quantized:
            if k > 0.0 and v > 0.0:
                final["k"], final["v"] = k * factor, v * factor
                source["k"] = source["v"] = "checkpoint"
            elif not (k < 0.0 and v < 0.0):
                if not k > 0.0:
                    raise EngineError("AssertionError")
                # Python's max(k, v): v only where it compares greater, so a NaN v leaves k.
                final["k"] = final["v"] = (max(k, v)) * factor
                source["k"], source["v"] = "checkpoint", "duplicated"
        for role, value in (("q", q), ("prob", prob)):
            if value > 0.0:
                final[role] = value * factor
                source[role] = "checkpoint"
        return Processed(final=final, source=source, per_head={})


class CompressedTensorsKVCacheMethod(KVMethod):
    """float32 scales that start at 1.0, and zero points nothing uses (vLLM 0.33.0, compressed_tensors.py).

    ``per_head`` is the attn_head strategy: one value for each key/value head. ``knows_heads`` is false where the
    engine never learned how many heads the whole model has, so that its per-head loader fails.
    """

    name = "CompressedTensorsKVCacheMethod"

    def __init__(self, *, per_head: bool, knows_heads: bool = True) -> None:
        self.per_head = per_head
        self.knows_heads = knows_heads

    def take_per_head(
        self, parameter: ScaleParameter, values: tuple[float, ...], attention: AttentionShape, dtype: str
    ) -> tuple[float, ...]:
        if self.knows_heads:
            return super().take_per_head(parameter, values, attention, dtype)
        if parameter.name.startswith("q"):
            raise EngineError("TypeError", "unsupported operand type(s) for //: 'NoneType' and 'NoneType'")
        if attention.num_kv_heads == 1:
            raise EngineError("TypeError", "unsupported operand type(s) for //: 'int' and 'NoneType'")
        raise EngineError("AssertionError")

    def parameters(self, shape: AttentionShape) -> dict[str, ScaleParameter]:
        size = (shape.num_kv_heads if self.per_head else 1,)
        created: dict[str, ScaleParameter] = {}
        for role in ("k", "v", "q"):
            created[f"{role}_scale"] = ScaleParameter(
                name=f"{role}_scale",
                shape=size,
                initial=1.0,
                dtype="float32",
                taking="per_head" if self.per_head else "default",
            )
        for role in ("k", "v", "q"):
            created[f"{role}_zero_point"] = ScaleParameter(
                name=f"{role}_zero_point",
                shape=size,
                initial=0.0,
                dtype="engine",
                taking="discard" if self.per_head else "default",
            )
        return created

    def process(self, held: Mapping[str, tuple[float, ...]], loaded: frozenset[str], cache: CacheSetup) -> Processed:
        final = {"prob": 1.0}
        source: dict[str, ValueSource] = {"prob": "default"}
        heads: dict[str, tuple[float, ...]] = {}
        for role in ("k", "v", "q"):
            values = held[f"{role}_scale"]
            final[role] = largest(values)
            source[role] = "checkpoint" if f"{role}_scale" in loaded else "default"
            if len(values) > 1:
                heads[role] = values
        return Processed(final=final, source=source, per_head=heads)
