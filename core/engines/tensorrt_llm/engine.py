"""The engine profile of TensorRT-LLM (PyTorch backend, and checkpoints its converter wrote)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from core.architectures.layers import layer_kinds
from core.backends.kv_method import EngineError
from core.engines.outcome import AttentionLayer, Deliveries, Delivery, DeliveryOutcome, LoadResult, ValueSource
from core.engines.profile import Fed, Wish
from core.engines.tensorrt_llm.rules import (
    ARCHITECTURES,
    CONVERTED,
    JOINED,
    READ,
    UNDER_PROJECTIONS,
    Algorithm,
    Factors,
    factors_of,
    scales_of_layer,
)
from core.errors import UsageError
from core.naming.mapper import Renaming, Rule, RuleKind, Step, WeightsMapper
from core.numerics import FLOAT_TYPES
from core.quantization import Declaration
from core.settings import Choice, Settings
from core.wording import joined, say

KV_CACHE_DTYPES = ("auto", "fp8", "nvfp4", "int8", "float16", "bfloat16")
_ALGORITHMS: Mapping[str, Algorithm] = {"fp8": "FP8", "fp8_e4m3": "FP8", "nvfp4": "NVFP4", "int8": "INT8"}
_SOURCE = "TensorRT-LLM, _torch/modules/linear.py (fused QKV projection)"
_JOINED_BY = "TensorRT-LLM, models/modeling_utils.py (preprocess_weights)"
_UNQUANTIZED = (None, "", "NONE", "None")
_JOINT: Mapping[str, str] = {"NVFP4": "qkv_proj.kv_scales", "INT8": "qkv_proj.kv_cache_scaling_factor"}
_TAKES: Mapping[Algorithm, Mapping[str, tuple[int, ...]]] = {
    "NVFP4": {_JOINT["NVFP4"]: (3,)},
    "INT8": {_JOINT["INT8"]: (1,)},
}
_FACTORS: Mapping[str, tuple[int, ...]] = {JOINED: (1,), "kv_cache_rcp_scaling_factor": (1,)}
_ATTENTION = ("full_attention", "sliding_attention", "chunked_attention", "indexed_attention")


class TensorrtLlm:
    """TensorRT-LLM's PyTorch backend: settles the assumptions and says which scales reach the attention kernels."""

    id = "tensorrt-llm"
    name = "TensorRT-LLM"
    verifiable = False
    version: str = say("(PyTorch backend)")
    title: str = say("TensorRT-LLM (PyTorch backend)")
    source = "TensorRT-LLM's public documentation, sources and tests"
    how_checked: str = say("from documentation and public sources, not run: no prediction was compared with the engine")

    def known_architectures(self) -> tuple[str, ...]:
        """The models of the PyTorch backend whose layout is described, sorted."""
        return tuple(sorted(ARCHITECTURES))

    # ---------------------------------------------------------------------------------------------------- assumptions
    def settle(self, declaration: Declaration, wish: Wish) -> Settings:
        title, cache, dtype, architecture = self.title, wish.kv_cache_dtype, wish.dtype, wish.architecture
        if cache not in (*KV_CACHE_DTYPES, *_ALGORITHMS):
            problem = say("{engine} has no KV-cache dtype {value!r}", engine=title, value=cache)
            raise UsageError(problem, remedy=_one_of(KV_CACHE_DTYPES))
        if dtype is not None and dtype not in FLOAT_TYPES:
            problem = say("{engine} has no model dtype {value!r}", engine=title, value=dtype)
            raise UsageError(problem, remedy=_one_of(FLOAT_TYPES))
        if architecture is not None and architecture not in ARCHITECTURES:
            problem = say("{engine} has no description of the architecture {value!r}", engine=title, value=architecture)
            raise UsageError(problem, remedy=_one_of(ARCHITECTURES))
        algorithm, why = _algorithm(declaration, wish)
        return Settings(
            engine=Choice(self.id, "chosen"),
            method=_method(declaration, wish),
            architecture=_architecture(declaration, wish),
            kv_cache_dtype=Choice(wish.kv_cache_dtype, "default" if wish.kv_cache_dtype == "auto" else "chosen", why),
            kv_cache_dtype_resolved="auto" if algorithm == "none" else algorithm.lower(),
            dtype=_dtype(declaration, wish),
        )

    # ----------------------------------------------------------------------------------------------------- prediction
    def deliver(
        self,
        declaration: Declaration,
        settings: Settings,
        tensors: Sequence[Fed],
        wish: Wish,
        names: Sequence[str] = (),
    ) -> Deliveries:
        algorithm, _ = _algorithm(declaration, wish)
        if declaration.dialect == "tensorrt-llm":
            return _converted(tensors, algorithm, self.how_checked)
        name = settings.architecture.value
        count = len(layer_kinds(declaration.hf_config))
        reason = ""
        if name not in ARCHITECTURES:
            reason = say(
                "the layout of {architecture} in {engine} is not described here", architecture=name, engine=self.title
            )
        elif not count:
            reason = say("config.json does not say how many layers the model has")
        elif (method := settings.method.value) is not None and method not in READ:
            reason = say(
                "{engine} reads no quantization config of {method}: it would take the weights as they stand, without "
                "their scales",
                engine=self.title,
                method=method,
            )
        if reason:
            load = LoadResult("unknown", reason=reason)
            return Deliveries(
                load=load, deliveries=tuple(_lost(fed, "not_reached", reason) for fed in tensors), attention=()
            )
        refused = _refusal(declaration, algorithm)
        if refused is not None:
            reason = say("the engine refuses to build the model")
            why = say("the engine refuses to build the model: {error}", error=refused.partition(": ")[2])
            return Deliveries(
                load=LoadResult("refused", refused, None, why),
                deliveries=tuple(_lost(fed, "not_reached", reason) for fed in tensors),
                attention=(),
            )
        kinds = layer_kinds(declaration.hf_config)
        paths = {
            index: f"model.layers.{index}.self_attn"
            for index, kind in enumerate(kinds)
            if kind.partition("+")[0] in _ATTENTION
        }
        return _native(paths, tensors, algorithm, (self.how_checked,))

    # -------------------------------------------------------------------------------------------------------- mapping
    def map_names(
        self, names: Sequence[str], *, method: str | None, architecture: str | None, rules: WeightsMapper | None = None
    ) -> list[Renaming]:
        """Each scale beside a projection becomes an entry of the fused projection's ``kv_scales``."""
        return [Renaming(name, _target(name) or name, None, _steps(name)) for name in names]


def _one_of(choices: Sequence[str]) -> str:
    return say("Choose one of {choices}", choices=joined(", ", choices))


def _target(name: str, parameter: str = _JOINT["NVFP4"]) -> str | None:
    found = UNDER_PROJECTIONS.match(name)
    return f"{found['module']}.{parameter}" if found else None


def _steps(name: str, parameter: str = _JOINT["NVFP4"]) -> tuple[Step, ...]:
    target = _target(name, parameter)
    if target is None:
        return ()
    rule = Rule(RuleKind.REGEX, r"\.[kv]_proj\.([kv])_scale$", f".{parameter}", source=_SOURCE)
    return (Step(rule, name, target, "Linear"),)


def _algorithm(declaration: Declaration, wish: Wish) -> tuple[Algorithm, str]:
    """How the cache is stored: as asked for, else as the checkpoint declares it."""
    if wish.kv_cache_dtype != "auto":
        return _ALGORITHMS.get(wish.kv_cache_dtype, "none"), ""
    method = _method(declaration, wish).value
    if method is not None and method not in READ:
        return "none", say("no quantization config of {method} is read: model dtype", method=method)
    scheme = declaration.kv_scheme
    named = (scheme.algorithm or "").upper() if scheme is not None else ""
    if named in ("FP8", "NVFP4", "INT8"):
        return _ALGORITHMS[named.lower()], say("the checkpoint declares {algorithm}", algorithm=named)
    if not named:
        return "none", say("no KV-cache algorithm declared: model dtype")
    return "none", say("no cache is kept in {algorithm}: model dtype", algorithm=named)


def _refusal(declaration: Declaration, algorithm: Algorithm) -> str | None:
    if (
        algorithm == "INT8"
        and declaration.method is not None
        and declaration.config.get("quant_algo") not in _UNQUANTIZED
    ):
        return "ValueError: INT8 KV cache requires unquantized FP16/BF16 projections"
    return None


def _native(
    paths: Mapping[int, str], tensors: Sequence[Fed], algorithm: Algorithm, notes: tuple[str, ...]
) -> Deliveries:
    """The PyTorch backend: the scales beside the projections of each layer, taken together."""
    beside: dict[int, list[tuple[str, str, tuple[float, ...]]]] = {index: [] for index in paths}
    for fed in tensors:
        found = UNDER_PROJECTIONS.match(fed.key)
        if found is not None and fed.values and int(found["layer"]) in beside and not _TOWER.search(fed.key):
            beside[int(found["layer"])].append((fed.key, found["role"], fed.values))
    attention, used, failure = [], set[str](), None
    takes, joint = _TAKES.get(algorithm, {}), _JOINT.get(algorithm, "")
    for index, path in paths.items():
        try:
            cached = scales_of_layer(algorithm, beside[index])
        except EngineError as error:
            failure = failure or (str(error), beside[index][0][0] if beside[index] else None)
            attention.append(_layer(path, index, {}, {}, takes=takes, joint=joint))
            continue
        used |= cached.used
        source: ValueSource = "checkpoint" if cached.used else "default"
        if not cached.used and beside[index]:
            source = "forced"
        final = {"k": cached.k, "v": cached.v, "q": 1.0, "prob": 1.0}
        sources: dict[str, ValueSource] = {"k": source, "v": source, "q": "default", "prob": "default"}
        attention.append(_layer(path, index, final, sources, takes=takes, joint=joint))
    if failure is not None:
        reason = failure[0].partition(": ")[2]
        deliveries = tuple(
            _lost(fed, "raises" if fed.key == failure[1] else "not_reached", reason, failure[0]) for fed in tensors
        )
        return Deliveries(
            load=LoadResult("raises", *failure, reason), deliveries=deliveries, attention=tuple(attention), notes=notes
        )
    return Deliveries(
        load=LoadResult("loads"),
        deliveries=tuple(_delivery(fed, used, algorithm) for fed in tensors),
        attention=tuple(attention),
        notes=notes,
    )


_TOWER = re.compile(r"vision|audio|visual")


def _delivery(fed: Fed, used: set[str], algorithm: Algorithm) -> Delivery:
    if fed.key in used:
        target = _target(fed.key, _JOINT[algorithm])
        return Delivery(
            key=fed.key,
            scale=fed.scale,
            name=target,
            target=target,
            outcome="loaded",
            steps=_steps(fed.key, _JOINT[algorithm]),
            reason=say("the fused QKV projection takes it"),
            loaded=fed.values,
            joined=True,
        )
    if algorithm == "FP8":
        reason = say("an FP8 cache runs at 1.0: TensorRT-LLM never uses a checkpoint's scales for it")
        return _lost(fed, "ignored", reason)
    if algorithm == "none":
        return _lost(fed, "ignored", say("the cache is not quantized, and no scales are used"))
    return _lost(fed, "ignored", say("only k_proj.k_scale and v_proj.v_scale of the decoder's layers are read"))


def _lost(fed: Fed, outcome: DeliveryOutcome, reason: str, error: str | None = None) -> Delivery:
    return Delivery(
        key=fed.key,
        scale=fed.scale,
        name=None,
        target=None,
        outcome=outcome,
        steps=(),
        reason=reason,
        error=error if outcome == "raises" else None,
    )


def _layer(
    path: str,
    index: int,
    final: Mapping[str, float],
    source: Mapping[str, ValueSource],
    *,
    takes: Mapping[str, tuple[int, ...]],
    joint: str = "",
) -> AttentionLayer:
    return AttentionLayer(
        path=path,
        cls="Attention",
        layer=index,
        kv_method=say("fused QKV projection") if takes else None,
        parameters=takes,
        final=final,
        source=source,
        per_head={},
        joint=joint,
    )


def _converted(tensors: Sequence[Fed], algorithm: Algorithm, how_checked: str) -> Deliveries:
    """Checkpoints of TensorRT-LLM's own converter: one factor for k and v, under the parameter's own name or joined."""
    matches = [None if algorithm == "none" else CONVERTED.match(fed.key) for fed in tensors]
    found = [(fed.key, match, fed.values) for fed, match in zip(tensors, matches, strict=True) if match is not None]
    try:
        factors = factors_of(found)
    except EngineError as error:
        return _stopped(tensors, found, str(error), how_checked)
    deliveries = tuple(
        _converted_delivery(fed, match, factors, algorithm) for fed, match in zip(tensors, matches, strict=True)
    )
    attention = tuple(
        _layer(
            module,
            layer,
            dict.fromkeys(("k", "v"), 1.0 if factor is None else factor) | {"q": 1.0, "prob": 1.0},
            {"k": "checkpoint", "v": "checkpoint", "q": "default", "prob": "default"},
            takes=_FACTORS,
        )
        for module, (layer, factor) in factors.by_module.items()
    )
    return Deliveries(load=LoadResult("loads"), deliveries=deliveries, attention=attention, notes=(how_checked,))


def _converted_delivery(fed: Fed, match: re.Match[str] | None, factors: Factors, algorithm: Algorithm) -> Delivery:
    if match is None:
        unused = algorithm == "none"
        reason = say("the cache is not quantized" if unused else "only kv_cache_scaling_factor is a parameter")
        return _lost(fed, "ignored", reason)
    if fed.key in factors.replaced:
        return _lost(fed, "ignored", say("the larger of the factors for k and for v takes its place"))
    joined = fed.key in factors.joined
    if not joined and match["role"] != "kv":
        return _lost(fed, "ignored", say("only kv_cache_scaling_factor is a parameter"))
    target = f"{match['module']}.{JOINED}" if joined else fed.key
    joining = Rule(RuleKind.SUFFIX, f"{match['role']}_cache_scaling_factor", JOINED, source=_JOINED_BY)
    return Delivery(
        key=fed.key,
        scale=fed.scale,
        name=target,
        target=target,
        outcome="loaded",
        steps=(Step(joining, fed.key, target, "preprocess_weights"),) if target != fed.key else (),
        reason=say("the larger of the factors for k and for v becomes the parameter")
        if joined
        else say("the parameter has the same name"),
        loaded=fed.values,
        joined=joined,
    )


def _stopped(
    tensors: Sequence[Fed], found: Sequence[tuple[str, re.Match[str], tuple[float, ...]]], error: str, how_checked: str
) -> Deliveries:
    """The weights are not made ready: a factor for k stands there without the one for v."""
    reason = error.partition(": ")[2]
    missing = reason.partition(" ")[0]
    first = next(
        key
        for key, match, _ in found
        if match["role"] == "k" and f"{match['module']}.v_cache_scaling_factor" == missing
    )
    deliveries = tuple(_lost(fed, "raises" if fed.key == first else "not_reached", reason, error) for fed in tensors)
    modules = {match["module"]: int(match["layer"]) for _, match, _ in found}
    attention = tuple(_layer(module, layer, {}, {}, takes=_FACTORS) for module, layer in modules.items())
    load = LoadResult("raises", error, first, reason)
    return Deliveries(load=load, deliveries=deliveries, attention=attention, notes=(how_checked,))


def _method(declaration: Declaration, wish: Wish) -> Choice:
    if wish.method is not None:
        return Choice(wish.method, "chosen")
    if declaration.method is None:
        return Choice(None, "config", say("no quantization is declared"))
    source = declaration.config_source
    return Choice(declaration.method, "config", f"{source.file}: {source.field}" if source is not None else "")


def _architecture(declaration: Declaration, wish: Wish) -> Choice:
    if wish.architecture is not None:
        return Choice(wish.architecture, "chosen")
    for name in declaration.architectures:
        return Choice(name, "config", "config.json: architectures")
    return Choice(None, "unknown", say("config.json names no architecture"))


def _dtype(declaration: Declaration, wish: Wish) -> Choice:
    if wish.dtype is not None:
        return Choice(wish.dtype, "chosen")
    named = re.sub(r"^torch\.", "", declaration.torch_dtype or "")
    if named in FLOAT_TYPES:
        return Choice(named, "config", "config.json: torch_dtype")
    return Choice("bfloat16", "default", say("no dtype is declared"))
