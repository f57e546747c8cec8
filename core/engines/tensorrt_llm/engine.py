"""The engine profile of TensorRT-LLM (PyTorch backend, and checkpoints its converter wrote)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

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
    FactorError,
    Factors,
    Found,
    factors_of,
    lacking,
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
        leftovers: Sequence[str] = (),
    ) -> Deliveries:
        algorithm, _ = _algorithm(declaration, wish)
        if declaration.dialect == "tensorrt-llm":
            declared = names if wish.kv_cache_dtype == "auto" else ()
            return _converted(declaration, tensors, declared, algorithm, self.how_checked)
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


def _converted(
    declaration: Declaration, tensors: Sequence[Fed], names: Sequence[str], algorithm: Algorithm, how_checked: str
) -> Deliveries:
    """Checkpoints of TensorRT-LLM's own converter: one factor for k and v, under the parameter's own name or joined.

    ``names`` are those of all tensors, () where only what becomes of ``tensors`` is asked.
    """
    matches = [None if algorithm == "none" else CONVERTED.match(fed.key) for fed in tensors]
    pairs = [(fed, match) for fed, match in zip(tensors, matches, strict=True) if match is not None]
    ranks: dict[str, list[Found]] = {}
    for fed, match in pairs:
        file = fed.scale.file if fed.scale is not None else ""
        ranks.setdefault(file, []).append(Found(fed.key, match, fed.shape, fed.values))
    modules = {match["module"]: int(match["layer"]) for _, match in pairs}
    of_ranks: list[Factors] = []
    refused: FactorError | None = None
    try:
        of_ranks += map(factors_of, ranks.values())
    except FactorError as error:
        refused = error
    if names and algorithm != "none" and (refused is None or refused.parameter):  # asked before any shape is looked at
        missing = lacking(names, [fed.key for fed, _ in pairs], len(layer_kinds(declaration.hf_config)))
        if missing:
            return _incomplete(tensors, modules, missing, how_checked)
    if refused is not None:
        return _stopped(tensors, modules, refused, how_checked)
    by_module = {module: given for factors in of_ranks for module, given in factors.by_module.items()}
    joined = frozenset().union(*(factors.joined for factors in of_ranks))
    replaced = frozenset().union(*(factors.replaced for factors in of_ranks))
    deliveries = tuple(
        _converted_delivery(fed, match, joined, replaced, algorithm)
        for fed, match in zip(tensors, matches, strict=True)
    )
    attention = tuple(
        _layer(
            module,
            layer,
            dict.fromkeys(("k", "v"), 1.0 if factor is None else factor) | {"q": 1.0, "prob": 1.0},
            {"k": "checkpoint", "v": "checkpoint", "q": "default", "prob": "default"},
            takes=_FACTORS,
            joint=JOINED,
        )
        for module, (layer, factor) in by_module.items()
    )
    return Deliveries(load=LoadResult("loads"), deliveries=deliveries, attention=attention, notes=(how_checked,))


def _converted_delivery(
    fed: Fed, match: re.Match[str] | None, joins: frozenset[str], replaced: frozenset[str], algorithm: Algorithm
) -> Delivery:
    if match is None:
        unused = algorithm == "none"
        reason = say("the cache is not quantized" if unused else "only kv_cache_scaling_factor is a parameter")
        return _lost(fed, "ignored", reason)
    if fed.key in replaced:
        return _lost(fed, "ignored", say("the larger of the factors for k and for v takes its place"))
    joined = fed.key in joins
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


def _stopped(tensors: Sequence[Fed], modules: Mapping[str, int], error: FactorError, how_checked: str) -> Deliveries:
    """One stored factor ends the load: before the model takes anything, or as its parameter refuses it."""
    text = str(error)
    reason = text.partition(": ")[2]
    deliveries = tuple(_lost(fed, "raises" if fed.key == error.key else "not_reached", reason, text) for fed in tensors)
    if error.parameter:  # it has a place, where it does not fit
        deliveries = tuple(
            replace(each, name=error.parameter) if each.outcome == "raises" and len(fed.values) > 1 else each
            for each, fed in zip(deliveries, tensors, strict=True)
        )
    attention = tuple(_layer(module, layer, {}, {}, takes=_FACTORS, joint=JOINED) for module, layer in modules.items())
    load = LoadResult("raises", text, error.key, reason)
    return Deliveries(load=load, deliveries=deliveries, attention=attention, notes=(how_checked,))


def _incomplete(
    tensors: Sequence[Fed], modules: Mapping[str, int], missing: Sequence[str], how_checked: str
) -> Deliveries:
    """Layers of the model are left without their factor: before any is taken."""
    listing = ", ".join(map(repr, missing))
    error = f"RuntimeError: Required but not provided tensors:{{{listing}}}"
    layers = dict(modules) | {name.rpartition(".")[0]: int(name.split(".")[-3]) for name in missing}
    reason = say("every layer needs a factor, and {name} is missing", name=missing[0])
    attention = tuple(_layer(module, layer, {}, {}, takes=_FACTORS, joint=JOINED) for module, layer in layers.items())
    return Deliveries(
        load=LoadResult("raises", error, None, reason),
        deliveries=tuple(_lost(fed, "not_reached", reason) for fed in tensors),
        attention=tuple(sorted(attention, key=lambda layer: layer.layer or 0)),
        notes=(how_checked,),
    )


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
