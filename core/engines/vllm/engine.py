"""The engine profiles of vLLM: one for every release that was run, which also answer for the versions between."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.architectures import ModuleNode, build_model, derive_model, known_architectures
from core.architectures.layers import layer_kinds
from core.backends import Backend
from core.backends.base import AttentionKind
from core.backends.kv_method import CacheSetup, KVMethod
from core.backends.older import OUTPUT_SCALES
from core.engines.outcome import Deliveries, Delivery, LoadResult
from core.engines.profile import Fed, Wish
from core.engines.vllm.conversions import (
    becomes_embedding,
    converted,
    converted_from,
    refused_as_unnamed,
    unnamed,
)
from core.engines.vllm.predict import Setup, first_stop, predict
from core.engines.vllm.releases import NEWEST, RELEASES, UNIFIED, Release, version_of
from core.engines.vllm.remap import cache_scale, remapped
from core.engines.vllm.unregistered import (
    borrowed,
    doubt,
    is_registered,
    refused_as_encoder_decoder,
    refused_as_mxfp4,
)
from core.engines.vllm.walk import ROTARY_DROPPER, Walk
from core.errors import UsageError
from core.naming.conventions import layer_number
from core.naming.mapper import Renaming, WeightsMapper
from core.numerics import FLOAT_TYPES
from core.quantization import Declaration, refusal, resolve_kv_cache_dtype
from core.quantization.cache_dtype import PER_TOKEN_HEAD_DTYPES
from core.quantization.older import as_read_by
from core.quantization.refusals import FLOAT16_UNSTABLE
from core.settings import Choice, Settings
from core.wording import joined, say

_ATTENTION_CLASSES = ("Attention", "MLAAttention")

_LANDED = re.compile(r"attn\.[qkv]_(?:scale|zero_point)$")


class _WithRules(Backend):
    """A backend with an out-of-tree mapper merged after its own."""

    def __init__(self, base: Backend, mapper: WeightsMapper) -> None:
        self._base = base
        self._mapper = mapper
        self.method = base.method
        self.config_class = base.config_class
        self.title = say("{backend} with custom rules", backend=base.title)
        self.source = base.source
        self.ignored_suffixes = base.ignored_suffixes

    def get_cache_scale_mapper(self) -> WeightsMapper:
        return self._base.get_cache_scale_mapper() | self._mapper

    def get_checkpoint_weight_mapper(self) -> WeightsMapper:
        return self._base.get_checkpoint_weight_mapper()

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        return self._base.kv_method(kind, path, declared)


class Vllm:
    """vLLM in one version: settles the assumptions, refuses what the engine refuses, predicts the load.

    ``version`` may differ from the release's own: the release then answers for it, and every answer says so.
    """

    name = "vLLM"

    def __init__(self, release: Release, version: str | None = None) -> None:
        self.release = release
        self.version = version or release.version
        self.id = f"vllm-{self.version}"
        self.title: str = f"vLLM {self.version}"
        self.source = release.source
        self.how_checked = release.how_checked
        self.stands_in = "" if self.version == release.version else _stands_in(release, self.version)
        # core.loading runs the unified loader of the versions that were run themselves.
        self.verifiable = release.first >= UNIFIED and not self.stands_in
        if self.stands_in:
            self.title = say("vLLM {version} (as {known})", version=self.version, known=release.version)
            self.how_checked = say(
                "{stands_in}; that one was {compared}", stands_in=self.stands_in, compared=release.how_checked
            )

    def get_backend(self, method: str) -> Backend:
        """The backend of that name in this version; raises UsageError when it has none."""
        try:
            return self.release.backends[method]
        except KeyError:
            raise UsageError(
                say("no quantization method is called {method!r} in {engine}", method=method, engine=self.title),
                remedy=_one_of(sorted(self.release.backends)),
            ) from None

    # ---------------------------------------------------------------------------------------------------- assumptions
    def known_architectures(self) -> tuple[str, ...]:
        """The architectures whose module trees are known for this release, sorted."""
        return known_architectures(self.release.id)

    def settle(self, declaration: Declaration, wish: Wish) -> Settings:
        if wish.method is not None:
            self.get_backend(wish.method)
        if wish.kv_cache_dtype not in self.release.kv_cache_dtypes:
            raise UsageError(
                say("{engine} has no KV-cache dtype {value!r}", engine=self.title, value=wish.kv_cache_dtype),
                remedy=_one_of(self.release.kv_cache_dtypes),
            )
        if wish.dtype is not None and wish.dtype not in FLOAT_TYPES:
            raise UsageError(say("{dtype!r} is no model dtype", dtype=wish.dtype), remedy=_one_of(FLOAT_TYPES))
        self._allow(wish.rules)
        declaration = self._read(declaration)
        architecture = self._architecture(declaration, wish)
        method = self._method(declaration, wish)
        root = self._model(declaration, architecture.value, method.value, ())
        cache = resolve_kv_cache_dtype(
            wish.kv_cache_dtype, declaration, attention_layers=_kinds(root) or ("Attention",)
        )
        return Settings(
            engine=Choice(self.id, "chosen", self.stands_in),
            method=method,
            architecture=architecture,
            kv_cache_dtype=Choice(
                wish.kv_cache_dtype, "default" if wish.kv_cache_dtype == "auto" else "chosen", cache.reason
            ),
            kv_cache_dtype_resolved=cache.resolved,
            dtype=_dtype(declaration, wish),
        )

    def _read(self, declaration: Declaration) -> Declaration:
        """The declaration as this version reads it; it was made as 0.33.0 does."""
        if self.release is NEWEST:
            return declaration
        return as_read_by(declaration, self.release.number, self.release.backends)

    def _architecture(self, declaration: Declaration, wish: Wish) -> Choice:
        if wish.architecture is not None:
            if wish.architecture not in self.known_architectures() and not self.converts(wish.architecture):
                raise self._not_known(wish.architecture)
            return Choice(wish.architecture, "chosen")
        named = declaration.architectures
        for name in (*filter(self.takes, named), *named):
            return Choice(name, "config", "config.json: architectures")
        if declaration.dialect == "huggingface" and (base := unnamed(declaration.hf_config)):
            detail = say(
                "config.json names no architecture: vLLM takes the base model of {model_type}",
                model_type=declaration.model_type,
            )
            return Choice(base, "default", detail)
        return Choice(None, "unknown", say("config.json names no architecture"))

    def _not_known(self, architecture: str) -> UsageError:
        return UsageError(
            say(
                "the architecture {architecture!r} is not known for {engine}",
                architecture=architecture,
                engine=self.title,
            ),
            remedy=say("Run 'kvscope engines' for the list"),
        )

    def _method(self, declaration: Declaration, wish: Wish) -> Choice:
        if wish.method is not None:
            return Choice(wish.method, "chosen")
        if declaration.method is None:
            return Choice(None, "config", say("no quantization is declared"))
        source = declaration.config_source
        detail = f"{source.file}: {source.field}".rstrip(": ") if source is not None else ""
        return Choice(declaration.method, "config", detail)

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
        deliveries = self._deliver(self._read(declaration), settings, tensors, wish, names, leftovers)
        name, unsure = settings.architecture.value, ""
        if name is not None and deliveries.load.outcome not in ("unknown", "refused"):
            keys = [fed.key for fed in tensors]
            model = self.takes(name)
            unsure = doubt(model or name, declaration.hf_config, self.release, keys, bool(model))
        notes = (*deliveries.notes, *(note for note in (self.stands_in, unsure) if note))
        return replace(deliveries, notes=notes, confirmed=not unsure)

    def _deliver(
        self,
        declaration: Declaration,
        settings: Settings,
        tensors: Sequence[Fed],
        wish: Wish,
        names: Sequence[str],
        leftovers: Sequence[str],
    ) -> Deliveries:
        setup = self.setup(declaration, settings, tensors, wish, names, leftovers)
        refused = refusal(
            declaration,
            kv_cache_dtype=wish.kv_cache_dtype,
            dtype=settings.dtype.value,
            attention_layers=_kinds(setup.root) if setup is not None else _ATTENTION_CLASSES[:1],
            cache_config=setup is None or any(layer.node.cache_config for layer in setup.layers),
            version=self.release.number,
        )
        if refused is not None and not (wish.method is not None and wish.method != declaration.method):
            where = str(refused.source) if refused.source is not None else None
            load = LoadResult("refused", refused.error, where, refused.reason)
            return Deliveries(
                load=load, deliveries=_none(tensors, say("the engine refuses to build the model")), attention=()
            )
        unable = self._unable(declaration, settings, setup)
        if unable is not None:
            nothing = _none(tensors, say("the engine refuses to build the model"))
            return Deliveries(load=unable, deliveries=nothing, attention=())
        if setup is None:
            return self._unknown(settings, tensors)
        return predict(setup, tensors)

    def _unable(self, declaration: Declaration, settings: Settings, setup: Setup | None) -> LoadResult | None:
        """The refusal of a model without a name, of one that would need the Transformers backend, and that it cannot
        run, or of heads that cannot be grouped.
        """
        name = settings.architecture.value
        if name is None:
            return refused_as_unnamed(declaration)
        if setup is not None and (uneven := _uneven_heads(setup)) is not None:
            return uneven
        registered = bool(self.takes(name))
        if not registered:
            refused = refused_as_encoder_decoder(name, declaration.hf_config, self.release)
            if refused is not None:
                return refused
        return refused_as_mxfp4(setup.root.cls, settings.method.value, registered) if setup is not None else None

    def setup(
        self,
        declaration: Declaration,
        settings: Settings,
        tensors: Sequence[Fed],
        wish: Wish,
        names: Sequence[str] = (),
        leftovers: Sequence[str] = (),
    ) -> Setup | None:
        """The model, the backend and the cache this prediction runs on; None for an architecture that is not known."""
        method = settings.method.value
        root = self._model(declaration, settings.architecture.value, method, tensors)
        if root is None:
            return None
        backend = self.release.backends.get(method) if method is not None else None
        if backend is not None and wish.rules is not None:
            backend = _WithRules(backend, wish.rules)
        cache = resolve_kv_cache_dtype(wish.kv_cache_dtype, declaration, attention_layers=_kinds(root))
        setup = Setup(
            root=root,
            backend=backend,
            declared=declaration,
            hf_config=declaration.hf_config,
            cache=CacheSetup(
                dtype=cache.resolved,
                quantized=cache.quantized and cache.resolved not in self.release.plain_caches,
                per_token_head=cache.resolved in PER_TOKEN_HEAD_DTYPES,
            ),
            dtype=settings.dtype.value or "bfloat16",
            release=self.release,
        )
        name = settings.architecture.value
        if name is not None and (self.converts(name) or (declaration.embeds and becomes_embedding(root))):
            keys = names or [fed.key for fed in tensors]
            parameters = (f"{layer.path}.{each}" for layer in setup.layers for each in layer.parameters)
            setup = replace(setup, root=converted(root, name, keys, parameters))
        if not leftovers and not setup.root.stops_at_any():
            return setup
        return replace(setup, stop=first_stop(setup, tensors, names, leftovers))

    def _model(
        self, declaration: Declaration, architecture: str | None, method: str | None, tensors: Sequence[Fed]
    ) -> ModuleNode | None:
        if architecture is None:
            return None
        layers = None
        if not layer_kinds(declaration.hf_config):
            layers = 1 + max((number for fed in tensors if (number := layer_number(fed.key)) is not None), default=-1)
        model = self.takes(architecture)
        root = self.build(model or architecture, declaration.hf_config, method=method, layers=layers)
        if root is None and not model:
            derived = derive_model(architecture, declaration.hf_config, [fed.key for fed in tensors])
            root = derived.root if derived is not None else None
        return root

    def registers(self, architecture: str) -> bool:
        """Whether this version, or the newest, has a model of that name; any other runs through its Transformers
        backend, if at all.
        """
        return is_registered(architecture, self.release)

    def converts(self, architecture: str) -> str:
        """The registered model that becomes that pooling architecture; "" where none does."""
        return converted_from(architecture, self.registers)

    def takes(self, architecture: str) -> str:
        """The registered model that serves the architecture: of that name, or converted to it; "" where none does."""
        return architecture if self.registers(architecture) else self.converts(architecture)

    def build(
        self, architecture: str, config: Mapping[str, Any], *, method: str | None, layers: int | None
    ) -> ModuleNode | None:
        """The module tree of ``architecture`` in this version; None where it is not known."""
        lent = bool(borrowed(architecture, self.release))
        source = NEWEST if lent else self.release
        return build_model(architecture, config, method=method, engine=source.id, layers=layers, lent=lent)

    def _unknown(self, settings: Settings, tensors: Sequence[Fed]) -> Deliveries:
        name = settings.architecture.value
        reason = (
            say("the module tree of {architecture} is not known for {engine}", architecture=name, engine=self.title)
            if name is not None
            else say("the checkpoint does not name its architecture")
        )
        return Deliveries(load=LoadResult("unknown", reason=reason), deliveries=_none(tensors, reason), attention=())

    # -------------------------------------------------------------------------------------------------------- mapping
    def map_names(
        self, names: Sequence[str], *, method: str | None, architecture: str | None, rules: WeightsMapper | None = None
    ) -> list[Renaming]:
        """Each name through ``AutoWeightsLoader``'s merged mapper: the architecture's own, the method's, the rest.

        Before vLLM 0.25, whose models rename scales in their own loops, also through the two helpers that loops ask:
        every name is taken for one that the loop asks about, and every answer for a parameter that exists.
        """
        self._allow(rules)
        backend = self.get_backend(method) if method is not None else None
        if backend is not None and rules is not None:
            backend = _WithRules(backend, rules)
        mla = False
        if architecture is not None:
            root = self.build(architecture, {}, method=method, layers=0)
            if root is None:
                raise self._not_known(architecture)
            mapper, _ = Walk(root, backend, {}, release=self.release).mapper_of(root)
            one_layer = self.build(architecture, {}, method=method, layers=1)
            mla = "MLAAttention" in _kinds(one_layer)
        else:
            mapper = WeightsMapper()
            if backend is not None:
                mapper |= backend.get_cache_scale_mapper()
                mapper |= backend.get_checkpoint_weight_mapper()
            if not self.release.skip_containing:
                mapper |= ROTARY_DROPPER
        by = architecture or "AutoWeightsLoader"
        renamed = [mapper.trace(name, by=by) for name in names]
        if self.release.first >= UNIFIED:
            return renamed
        output_scales = self.release.asks_cache_scale and method in OUTPUT_SCALES
        return [_helped(each, output_scales=output_scales, mla=mla, guarded=self.release.guarded) for each in renamed]

    def _allow(self, rules: WeightsMapper | None) -> None:
        if rules is not None and self.release.asks_cache_scale:
            raise UsageError(
                say("{engine} has no cache-scale mapper that rules could be merged into", engine=self.title),
                remedy=say("Choose vllm-0.23.0 or newer"),
            )


def _uneven_heads(setup: Setup) -> LoadResult | None:
    """What ``Attention.__init__`` raises where the key/value heads cannot share the query heads evenly."""
    for layer in setup.layers:
        heads, kv_heads = layer.shape.num_heads, layer.shape.num_kv_heads
        if layer.node.attention == "Attention" and heads % kv_heads:
            error = f"AssertionError: num_heads ({heads}) is not divisible by num_kv_heads ({kv_heads})"
            reason = say(
                "{heads} heads cannot be shared among {kv_heads} key/value heads", heads=heads, kv_heads=kv_heads
            )
            return LoadResult("refused", error, "config.json: num_key_value_heads", reason)
    return None


def _stands_in(release: Release, version: str) -> str:
    """Why that release answers for another version, in a sentence for people."""
    asked, known = version_of(version) or (0, 0), release.version
    if asked > NEWEST.number:
        return say(
            "vLLM {version} is newer than every version that was run: answered as vLLM {known}",
            version=version,
            known=known,
        )
    if asked < RELEASES[-1].number:
        return say(
            "vLLM {version} is older than every version that was run: answered as vLLM {known}",
            version=version,
            known=known,
        )
    return say(
        "vLLM {version} was not run: answered as vLLM {known}, whose loading code is the nearest before it",
        version=version,
        known=known,
    )


def _one_of(choices: Iterable[str]) -> str:
    return say("Choose one of {choices}", choices=joined(", ", choices))


def _helped(renaming: Renaming, *, output_scales: bool, mla: bool, guarded: bool) -> Renaming:
    """A renaming, followed by what hand-written loops do to the name."""
    name = renaming.result
    if name is None:
        return renaming
    step = cache_scale(name, by="get_cache_scale") if output_scales else None
    if step is None and not (guarded and _LANDED.search(name)):
        step = remapped(name, mla=mla, by="maybe_remap_kv_scale_name")
    if step is None:
        return renaming
    return replace(renaming, result=step.after, steps=(*renaming.steps, step))


def _kinds(root: ModuleNode | None) -> tuple[AttentionKind, ...]:
    if root is None:
        return ()
    return tuple({node.attention: None for _, node in root.attention_layers() if node.attention is not None})


def _dtype(declaration: Declaration, wish: Wish) -> Choice:
    if wish.dtype is not None:
        return Choice(wish.dtype, "chosen")
    named = re.sub(r"^torch\.", "", declaration.torch_dtype or "")
    if named == "float32":
        return Choice("bfloat16", "config", say("the config says float32, which vLLM serves in bfloat16"))
    if named == "float16" and declaration.model_type in FLOAT16_UNSTABLE:
        detail = say(
            "the config says float16, in which vLLM does not run {model_type}", model_type=declaration.model_type
        )
        return Choice("bfloat16", "config", detail)
    if named in FLOAT_TYPES:
        return Choice(named, "config", "config.json: torch_dtype")
    return Choice("bfloat16", "default", say("no dtype is declared"))


def _none(tensors: Sequence[Fed], reason: str) -> tuple[Delivery, ...]:
    return tuple(
        Delivery(key=fed.key, scale=fed.scale, name=None, target=None, outcome="not_reached", steps=(), reason=reason)
        for fed in tensors
    )
