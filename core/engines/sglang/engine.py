"""The engine profile of SGLang."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from core.backends.kv_method import CacheSetup
from core.engines.outcome import Deliveries, LoadResult
from core.engines.profile import Fed, Wish
from core.engines.sglang.helper import HELPER, maybe_remap_kv_scale_name
from core.engines.sglang.models import Architecture, architectures, build_layers, is_registered, kinds_of, load_loops
from core.engines.sglang.predict import Model, not_reached, predict
from core.engines.sglang.quantization import (
    ALIASES,
    KV_CACHE_DTYPES,
    METHODS,
    Quantization,
    config_class,
    resolve,
    suppose,
)
from core.engines.sglang.walk import Walk
from core.errors import UsageError
from core.naming.mapper import Renaming, WeightsMapper
from core.numerics import FLOAT_TYPES
from core.quantization import Declaration
from core.settings import Choice, Settings
from core.wording import Sentence, joined, say

_CACHE_NAMES = {"fp8": "fp8_e4m3", "bf16": "bfloat16"}
"""Names of KV-cache dtypes that mean the same here: vLLM's fp8, and SGLang's two words for bfloat16."""
_NO_MODEL_TYPE = "ValueError: Unrecognized model. Should have a `model_type` key in its config.json."


class Sglang:
    """SGLang in one version: settles the assumptions, refuses what the engine refuses, predicts the load.

    It follows the load loops that run by default; ``SGLANG_ENABLE_WEIGHT_LOADER_V2`` switches others on.
    """

    name = "SGLang"
    verifiable = False

    def __init__(self, version: str, *, source: str, how_checked: str) -> None:
        self.version = version
        self.id = f"sglang-{version}"
        self.title = f"SGLang {version}"
        self.source = source
        self.how_checked = how_checked

    def known_architectures(self) -> tuple[str, ...]:
        """The architectures whose load loops are described, sorted."""
        return tuple(sorted(architectures()))

    # ---------------------------------------------------------------------------------------------------- assumptions
    def settle(self, declaration: Declaration, wish: Wish) -> Settings:
        self._check(wish)
        quantization = self._quantization(declaration, wish)
        architecture = _architecture(declaration, wish)
        resolved, why = _cache_dtype(wish, quantization, architectures().get(architecture.value or ""))
        return Settings(
            engine=Choice(self.id, "chosen"),
            method=_method(wish, quantization),
            architecture=architecture,
            kv_cache_dtype=Choice(wish.kv_cache_dtype, "default" if wish.kv_cache_dtype == "auto" else "chosen", why),
            kv_cache_dtype_resolved=resolved,
            dtype=_dtype(declaration, wish),
        )

    def _check(self, wish: Wish) -> None:
        title, cache, method, dtype = self.title, wish.kv_cache_dtype, wish.method, wish.dtype
        if cache not in (*KV_CACHE_DTYPES, *_CACHE_NAMES):
            problem = say("{engine} has no KV-cache dtype {value!r}", engine=title, value=cache)
            raise UsageError(problem, remedy=_one_of(KV_CACHE_DTYPES))
        if method is not None and method not in (*METHODS, *ALIASES):
            problem = say("{engine} has no quantization method {value!r}", engine=title, value=method)
            raise UsageError(problem, remedy=_one_of(METHODS))
        if dtype is not None and dtype not in FLOAT_TYPES:
            problem = say("{engine} has no model dtype {value!r}", engine=title, value=dtype)
            raise UsageError(problem, remedy=_one_of(FLOAT_TYPES))
        if wish.architecture is not None and wish.architecture not in architectures():
            raise self._not_known(wish.architecture)

    def _not_known(self, architecture: str) -> UsageError:
        problem = say(
            "the architecture {architecture!r} is not known for {engine}", architecture=architecture, engine=self.title
        )
        return UsageError(problem, remedy=say("Run 'kvscope engines' for the list"))

    def _quantization(self, declaration: Declaration, wish: Wish) -> Quantization:
        """As the configs say; a method the user chose against them is tried out as if they agreed."""
        found = resolve(declaration)
        if wish.method is None:
            return found
        wanted = ALIASES.get(wish.method, wish.method)
        return found if found.method == wanted else suppose(declaration, wanted)

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
        if declaration.dialect == "tensorrt-llm":
            return _refused(_NO_MODEL_TYPE, "config.json: model_type", tensors)
        if declaration.dialect == "mistral":
            reason = say(
                "how {engine} reads Mistral's own format (params.json) is not described here", engine=self.title
            )
            return _nothing(LoadResult("unknown", reason=reason), tensors, reason)
        name = settings.architecture.value
        quantization = self._quantization(declaration, wish)
        architecture = _built(name, quantization)
        if architecture is None and quantization.refused is None:
            reason = self._why_unknown(name)
            return _nothing(LoadResult("unknown", reason=reason), tensors, reason)
        if quantization.refused is not None:
            return _refused(quantization.refused, quantization.field, tensors)
        assert architecture is not None  # noqa: S101  (mypy: the two conditions above)
        kinds = kinds_of(declaration.hf_config, [tensor.key for tensor in tensors])
        reading = quantization.reading
        if reading.refuses is not None and any(
            layer.quantized for layer in build_layers(architecture, declaration.hf_config, kinds)
        ):
            return _refused(reading.refuses, quantization.source, tensors)
        resolved = settings.kv_cache_dtype_resolved
        model = Model(
            architecture=architecture,
            config=declaration.hf_config,
            kinds=kinds,
            counted=bool(kinds_of(declaration.hf_config)),
            kv_method=reading.kv_method,
            quantization=config_class(quantization.method),
            cache=CacheSetup(dtype=resolved, quantized=resolved not in ("auto", "bfloat16")),
        )
        return predict(model, tensors, notes=self._notes(architecture, quantization, wish))

    def _why_unknown(self, name: str | None) -> Sentence:
        if name is None:
            return say("the checkpoint does not name its architecture")
        return say(
            "{engine} has a model class for {architecture}, but its load loop is not described here"
            if is_registered(name)
            else "{engine} has no model class of its own for {architecture}: it would fall back to Transformers, or "
            "refuse",
            engine=self.title,
            architecture=name,
        )

    def _notes(self, architecture: Architecture, quantization: Quantization, wish: Wish) -> tuple[str, ...]:
        notes = [note for note in (quantization.note, quantization.reading.note) if note]
        if not architecture.compared:
            notes.append(
                say(
                    "the load loop of {architecture} was read from {engine}'s source, but not compared with a run",
                    architecture=architecture.name,
                    engine=self.title,
                )
            )
        if wish.rules is not None:
            notes.append(
                say(
                    "{engine} takes no rules of an out-of-tree backend: its models rename in their own code",
                    engine=self.title,
                )
            )
        return tuple(notes)

    # -------------------------------------------------------------------------------------------------------- mapping
    def map_names(
        self, names: Sequence[str], *, method: str | None, architecture: str | None, rules: WeightsMapper | None = None
    ) -> list[Renaming]:
        """Each name through ``maybe_remap_kv_scale_name``, or through the architecture's whole load loop."""
        if architecture is None:
            return [_helper(name) for name in names]
        found = architectures().get(architecture)
        if found is None:
            raise self._not_known(architecture)
        walk = Walk(loops=load_loops(), root=found.loop, exists=_is_scale_parameter, layers=None, experts=_no_number)
        return [_through(walk, name) for name in names]


def _one_of(choices: Iterable[str]) -> Sentence:
    return say("Choose one of {choices}", choices=joined(", ", choices))


def _is_scale_parameter(name: str) -> bool:
    return name.endswith((".k_scale", ".v_scale")) and not re.search(r"_proj\.[kv]_scale$", name)


def _no_number(_fields: Sequence[str]) -> int | None:
    return None


def _helper(name: str) -> Renaming:
    remapped = maybe_remap_kv_scale_name(name, lambda _: True, by=HELPER)
    return Renaming(name, remapped.name, None, () if remapped.step is None else (remapped.step,))


def _through(walk: Walk, name: str) -> Renaming:
    arrival = walk.follow(name, (1.0,))
    return Renaming(name, arrival.name or name, None, arrival.steps)


def _built(name: str | None, quantization: Quantization) -> Architecture | None:
    """The class that is built for that name: quantized Mixtral has one of its own."""
    found = architectures().get(name or "")
    if (
        found is not None
        and found.becomes is not None
        and quantization.method is not None
        and quantization.method not in found.becomes_unless
    ):
        return architectures()[found.becomes]
    return found


def _refused(error: str, field: str | None, tensors: Sequence[Fed]) -> Deliveries:
    reason = say("the engine refuses to build the model: {error}", error=error.partition(": ")[2])
    return _nothing(LoadResult("refused", error, field, reason), tensors, say("the engine refuses to build the model"))


def _nothing(load: LoadResult, tensors: Sequence[Fed], reason: str) -> Deliveries:
    return Deliveries(load=load, deliveries=tuple(not_reached(tensor, reason) for tensor in tensors), attention=())


def _architecture(declaration: Declaration, wish: Wish) -> Choice:
    if wish.architecture is not None:
        return Choice(wish.architecture, "chosen")
    for name in declaration.architectures:
        return Choice(name, "config", "config.json: architectures")
    return Choice(None, "unknown", say("config.json names no architecture"))


def _method(wish: Wish, quantization: Quantization) -> Choice:
    if wish.method is not None:
        return Choice(quantization.method or ALIASES.get(wish.method, wish.method), "chosen")
    if quantization.method is None:
        return Choice(None, "config", quantization.source or say("SGLang sees no quantization"))
    return Choice(quantization.method, "config", quantization.source)


def _cache_dtype(wish: Wish, quantization: Quantization, architecture: Architecture | None) -> tuple[str, str]:
    """The cache's dtype ("auto": the model's own), and why."""
    if wish.kv_cache_dtype != "auto":
        named = _CACHE_NAMES.get(wish.kv_cache_dtype, wish.kv_cache_dtype)
        return named, "" if named == wish.kv_cache_dtype else say("SGLang calls it {dtype}", dtype=named)
    if quantization.auto_dtype == "auto":
        return "auto", say("SGLang resolves auto to FP8 only for a kv_cache_quant_algo of FP8: model dtype")
    if architecture is not None and not architecture.auto_cache:
        return "auto", say(
            "{architecture} keeps no quant_config, so that auto does not see the scheme: model dtype",
            architecture=architecture.name,
        )
    return quantization.auto_dtype, say("the checkpoint declares an FP8 KV cache")


def _dtype(declaration: Declaration, wish: Wish) -> Choice:
    """``_get_and_verify_dtype``: float32 is served in float16, for Gemma in bfloat16."""
    if wish.dtype is not None:
        return Choice(wish.dtype, "chosen")
    named = re.sub(r"^torch\.", "", declaration.torch_dtype or "")
    if named in ("float16", "bfloat16"):
        return Choice(named, "config", "config.json: torch_dtype")
    served = "bfloat16" if (declaration.model_type or "").startswith("gemma") else "float16"
    detail = say(
        "float32 is served in {dtype}" if named == "float32" else "no dtype is declared: {dtype}", dtype=served
    )
    return Choice(served, "config" if named == "float32" else "default", detail)
