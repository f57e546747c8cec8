"""The engine profile "installed": the vLLM that was probed on this machine.

Renaming rules come from that vLLM itself. Module trees, the KV methods' parameters and arithmetic, and the refusals
are those of the built-in profile that answers for its version; where the two contradict each other about how a model
loads itself, the outcome is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any

from core.architectures import ModuleNode, known_architectures
from core.backends import Backend
from core.backends.base import AttentionKind
from core.backends.kv_method import KVMethod
from core.engines.difference import Difference, alias_of, differences_of, known_backend, same_rules, summary
from core.engines.outcome import Deliveries, Delivery, LoadResult
from core.engines.probe import number_of
from core.engines.probed import ProbedEngine, ProbedMethod, Reading, release_reading
from core.engines.profile import Fed, Wish
from core.engines.rebuilding import ContradictionError, Rebuilding, with_source
from core.engines.saved import load_installed, saved_file
from core.engines.vllm.engine import Vllm
from core.engines.vllm.releases import NEWEST, Release, release_for
from core.engines.vllm.walk import ROTARY_DROPPER, Walk
from core.errors import KVScopeError
from core.naming.mapper import WeightsMapper
from core.quantization import Declaration
from core.settings import Choice, Settings
from core.wording import joined, say

INSTALLED = "installed"
"""The id of this profile."""


class ProbedBackend(Backend):
    """A backend with the rules of the installed vLLM. Without a built-in one it is not ``complete``: whether it has a
    KV method, and which, is not known.
    """

    def __init__(self, method: str, probed: ProbedMethod, built_in: Backend | None, version: str) -> None:
        self._built_in = built_in
        self.method = method
        self.config_class = built_in.config_class if built_in is not None else probed.config_class.rpartition(".")[2]
        self.title = built_in.title if built_in is not None else f"{method} ({self.config_class})"
        self.source = f"vLLM {version} as installed, {probed.config_class}"
        self.ignored_suffixes = probed.ignored_suffixes
        self._cache_scales = with_source(
            probed.cache_scales.mapper if probed.cache_scales is not None else WeightsMapper(),
            f"{self.source}.get_cache_scale_mapper",
        )
        self.complete = built_in is not None
        self._checkpoint = with_source(
            probed.checkpoint.mapper if probed.checkpoint is not None else WeightsMapper(),
            f"{self.source}.get_checkpoint_weight_mapper",
        )

    def get_cache_scale_mapper(self) -> WeightsMapper:
        return self._cache_scales

    def get_checkpoint_weight_mapper(self) -> WeightsMapper:
        return self._checkpoint

    def kv_method(self, kind: AttentionKind, path: str, declared: Declaration) -> KVMethod | None:
        return self._built_in.kv_method(kind, path, declared) if self._built_in is not None else None


class Installed(Vllm):
    """The vLLM that ``kvscope probe`` read."""

    def __init__(self, probed: ProbedEngine) -> None:
        base, reading = nearest_release(probed.version), probed.reading
        super().__init__(replace(base, backends=_backends(reading, base)), probed.version)
        self.probed = probed
        self.base = base
        self.differences = differences_of(reading, base)
        self.id = INSTALLED
        self.title = say("vLLM {version} (installed)", version=probed.version)
        self.stands_in = ""
        self.source = (
            f"{len(reading.methods)} quantization methods' rules and {len(reading.classes)} model classes' loaders, "
            f"read on {probed.date[:10]} with {probed.python}; module trees, KV methods and refusals are those of the "
            f"built-in profile of vLLM {base.version} ({base.source})"
        )
        self.how_checked = _compared(self.differences, base)
        known = release_reading(base.id)
        self._known = known
        self._rebuilding = Rebuilding(reading, known) if known is not None else None
        self._reasons: dict[str, str] = {}
        self._rewritten: dict[str, tuple[str, ...]] = {}

    @cached_property
    def new_methods(self) -> frozenset[str]:
        """The methods of which only the rules are known."""
        backends = self.release.backends.values()
        return frozenset(each.method for each in backends if isinstance(each, ProbedBackend) and not each.complete)

    def known_architectures(self) -> tuple[str, ...]:
        """The architectures whose module trees are known, those that only the installed vLLM registers included."""
        more = (name for name in self.probed.reading.architectures if self._alias(name) is not None)
        return tuple(sorted({*super().known_architectures(), *more}))

    def _alias(self, architecture: str) -> str | None:
        """A known architecture that the installed vLLM builds by the same class, for one that is not known itself."""
        if self._known is None:
            return None
        return alias_of(architecture, self.probed.reading, self._known, known_architectures(self.base.id))

    def registers(self, architecture: str) -> bool:
        reading = self.probed.reading
        return (
            architecture in reading.architectures
            or architecture in reading.unread_architectures
            or super().registers(architecture)
        )

    def settle(self, declaration: Declaration, wish: Wish) -> Settings:
        return replace(super().settle(declaration, wish), engine=Choice(self.id, "chosen", self.how_checked))

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
        method = settings.method.value
        if method in self.new_methods:
            return self._mapped_only(declaration, settings, tensors, method)
        if method is not None and method in self.base.backends and method not in self.release.backends:
            return self._refused(tensors, method)
        deliveries = super().deliver(declaration, settings, tensors, wish, names, leftovers)
        return replace(deliveries, notes=(*deliveries.notes, *self._notes(method, settings.architecture.value)))

    def _mapped_only(
        self, declaration: Declaration, settings: Settings, tensors: Sequence[Fed], method: str
    ) -> Deliveries:
        """The names of a method of which only the rules are known."""
        reason = say(
            "of the quantization method {method} only the renaming rules are known: which attention layers take "
            "scales, and what they make of them, is not",
            method=method,
        )
        backend = self.release.backends[method]
        root = self._model(declaration, settings.architecture.value, method, tensors)
        mapper = (
            Walk(root, backend, {}, release=self.release).mapper_of(root)[0]
            if root is not None
            else (backend.get_cache_scale_mapper() | backend.get_checkpoint_weight_mapper() | ROTARY_DROPPER)
        )
        renamed = [mapper.trace(fed.key, by=root.cls if root is not None else "AutoWeightsLoader") for fed in tensors]
        deliveries = tuple(
            Delivery(
                key=fed.key,
                scale=fed.scale,
                name=each.result,
                target=None,
                outcome="not_reached",
                steps=each.steps,
                reason=reason,
            )
            for fed, each in zip(tensors, renamed, strict=True)
        )
        return Deliveries(load=LoadResult("unknown", reason=reason), deliveries=deliveries, attention=())

    def _refused(self, tensors: Sequence[Fed], method: str) -> Deliveries:
        """A method that this vLLM no longer has."""
        error = (
            "ValidationError: 1 validation error for ModelConfig Value error, Unknown quantization method: "
            f"{method}. Must be one of {list(self.probed.reading.methods)}."
        )
        reason = say(
            "the installed vLLM {version} has no quantization method {method}", version=self.version, method=method
        )
        return Deliveries(
            load=LoadResult("refused", error, None, reason), deliveries=_none(tensors, reason), attention=()
        )

    def _unknown(self, settings: Settings, tensors: Sequence[Fed]) -> Deliveries:
        reason = self._reasons.get(settings.architecture.value or "")
        if reason is None:
            return super()._unknown(settings, tensors)
        return Deliveries(load=LoadResult("unknown", reason=reason), deliveries=_none(tensors, reason), attention=())

    def _notes(self, method: str | None, architecture: str | None) -> tuple[str, ...]:
        notes: list[str] = []
        known = self.base.version
        if self.version != self.base.version:
            notes.append(
                say(
                    "vLLM {version} was probed for its renaming rules; the modules and what they do with scales are "
                    "those of vLLM {known}",
                    version=self.version,
                    known=known,
                )
            )
        rules = [each for each in self.differences if each.subject == method and each.kind in ("rule", "suffix")]
        if rules:
            notes.append(
                say(
                    "the rules of {method} differ from those of vLLM {known} in {differences}; they are used as they "
                    "are installed",
                    method=method,
                    known=known,
                    differences=summary(rules),
                )
            )
        if rewritten := self._rewritten.get(architecture or ""):
            notes.append(
                say(
                    "{classes}: load_weights was rewritten since vLLM {known}, and is followed as it was",
                    classes=joined(", ", rewritten),
                    known=known,
                )
            )
        if (alias := self._alias(architecture or "")) is not None:
            notes.append(
                say(
                    "{architecture} is built by the same class as {alias}, whose modules are known",
                    architecture=architecture,
                    alias=alias,
                )
            )
        unread = self.probed.reading.unread_architectures.get(architecture or "")
        if unread is not None and (self._known is None or architecture not in self._known.unread_architectures):
            notes.append(
                say(
                    "the installed vLLM could not be asked about {architecture} ({error})",
                    architecture=architecture,
                    error=unread,
                )
            )
        return tuple(notes)

    # ---------------------------------------------------------------------------------------------------------- model
    def build(
        self, architecture: str, config: Mapping[str, Any], *, method: str | None, layers: int | None
    ) -> ModuleNode | None:
        """The built-in module tree, with the mappers of the installed vLLM; None where the two do not fit together."""
        known = self._alias(architecture) or architecture
        # Without any layer it could not be seen which modules scales pass through.
        root = super().build(known, config, method=method, layers=1 if layers == 0 else layers)
        if root is None or self._rebuilding is None:
            return root
        try:
            rebuilt, self._rewritten[architecture] = self._rebuilding.model(known, root)
        except ContradictionError as found:
            self._reasons[architecture] = found.reason
            return None
        return rebuilt


def nearest_release(version: str) -> Release:
    """The built-in release that answers for an installed version; the newest for a build that has no version."""
    number = number_of(version)
    return release_for(number) if number is not None else NEWEST


_in_use: dict[str, Installed] = {}


def installed_engine() -> Installed | None:
    """The profile of the vLLM that was probed last; None when none was. Raises KVScopeError for an unreadable file.

    One that this process has used stays when its file goes away: inspections still speak of it.
    """
    path = saved_file()
    used = _in_use.get(str(path))
    try:
        found = path.stat()
        engine = _installed(str(path), found.st_mtime_ns, found.st_size)
    except (OSError, KVScopeError) as error:
        if used is None and isinstance(error, KVScopeError):
            raise
        return used
    if engine is not None:
        _in_use[str(path)] = engine
    return engine or used


@lru_cache(maxsize=2)
def _installed(_path: str, _changed: int, _size: int) -> Installed | None:
    probed = load_installed()
    return Installed(probed) if probed is not None else None


def differences(installed: ProbedEngine) -> tuple[Difference, ...]:
    """Where an installed vLLM differs from the built-in profile that answers for its version."""
    return differences_of(installed.reading, nearest_release(installed.version))


def _compared(found: Sequence[Difference], base: Release) -> str:
    if found:
        return say(
            "differs from the built-in profile of vLLM {known} in {differences}",
            known=base.version,
            differences=summary(found),
        )
    if not base.how_checked:
        return say("no difference from the built-in profile of vLLM {known}", known=base.version)
    return say(
        "no difference from the built-in profile of vLLM {known}, which was {compared}",
        known=base.version,
        compared=base.how_checked,
    )


# ------------------------------------------------------------------------------------------------------------ backends
def _backends(reading: Reading, base: Release) -> Mapping[str, Backend]:
    """The methods that the installed vLLM has, each with its own rules where those differ from the built-in ones."""
    found: dict[str, Backend] = {
        name: backend for name, backend in base.backends.items() if name in reading.unread_methods
    }
    for name, probed in reading.methods.items():
        built_in = known_backend(name, probed, base)
        backend = ProbedBackend(name, probed, built_in, reading.version)
        same = built_in is not None and name in base.backends and _same(backend, built_in)
        found[name] = built_in if built_in is not None and same else backend
    return MappingProxyType(found)


def _same(left: Backend, right: Backend) -> bool:
    return (
        same_rules(left.get_cache_scale_mapper(), right.get_cache_scale_mapper())
        and same_rules(left.get_checkpoint_weight_mapper(), right.get_checkpoint_weight_mapper())
        and set(left.ignored_suffixes) == set(right.ignored_suffixes)
    )


def _none(tensors: Sequence[Fed], reason: str) -> tuple[Delivery, ...]:
    return tuple(
        Delivery(key=fed.key, scale=fed.scale, name=None, target=None, outcome="not_reached", steps=(), reason=reason)
        for fed in tensors
    )
