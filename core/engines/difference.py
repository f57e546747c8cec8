"""Where an installed vLLM differs from the built-in profile that answers for its version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.architectures import known_architectures
from core.backends import Backend
from core.backends.older import OUTPUT_SCALES
from core.engines.probed import ProbedClass, ProbedMapper, ProbedMethod, Reading, release_reading
from core.engines.vllm.releases import RELEASES, Release
from core.naming.mapper import ORDER, Rule, WeightsMapper

Kind = Literal["method", "rule", "suffix", "renaming", "architecture", "mapper", "loader"]
Change = Literal["added", "removed", "changed"]
_BUILT_IN_RULES = ("cache-scale rule", "checkpoint rule")
_USED: Mapping[Change, str] = {"added": "applied", "changed": "applied as installed", "removed": "not applied"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One difference. ``kind``: a quantization ``method``, a ``rule`` or an ignored ``suffix`` of one, a ``renaming``
    that vLLM's own code does in another way than its rules say here, an ``architecture``, a rule of a model class's
    ``mapper``, or the ``loader`` of such a class. ``subject`` names the method, architecture or class, ``detail`` says
    what is different, ``consequence`` what the engine profile "installed" makes of it.
    """

    kind: Kind
    subject: str
    change: Change
    detail: str
    consequence: str = ""

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.kind} {self.change}: {self.detail}"


_NOUNS: tuple[tuple[Kind, str, str], ...] = (
    ("method", "quantization method", "quantization methods"),
    ("rule", "rule of a method", "rules of methods"),
    ("suffix", "list of ignored suffixes", "lists of ignored suffixes"),
    ("renaming", "renaming", "renamings"),
    ("architecture", "architecture", "architectures"),
    ("mapper", "rule of a model class", "rules of model classes"),
    ("loader", "loader of a model class", "loaders of model classes"),
)


def summary(differences: Sequence[Difference]) -> str:
    """How many there are of each kind: "2 rules of methods, 1 architecture"."""
    counts = Counter(difference.kind for difference in differences)
    return ", ".join(
        f"{counts[kind]} {one if counts[kind] == 1 else more}" for kind, one, more in _NOUNS if counts[kind]
    )


def differences_of(reading: Reading, release: Release) -> tuple[Difference, ...]:
    """Where what was read differs from that release's built-in profile, methods first."""
    return (*_methods(reading, release), *_renamings(reading), *_models(reading, release))


# --------------------------------------------------------------------------------------------------------------- rules
def same_rules(left: WeightsMapper, right: WeightsMapper) -> bool:
    """Whether two mappers rename alike: the same rules of each kind in the same order, wherever they come from."""
    return _ordered(left) == _ordered(right)


def _ordered(mapper: WeightsMapper) -> list[tuple[str, str, str | None, str | int | None]]:
    return [
        (rule.kind, rule.pattern, rule.replacement, rule.shard)
        for kind in ORDER
        for rule in mapper.rules
        if rule.kind is kind
    ]


def rule_changes(before: WeightsMapper, now: WeightsMapper) -> Iterator[tuple[Change, str]]:
    """What became of each rule, the old mapper's rules first."""
    old, new = _by_pattern(before), _by_pattern(now)
    for key, rule in old.items():
        other = new.get(key)
        if other is None:
            yield "removed", str(rule)
        elif (other.replacement, other.shard) != (rule.replacement, rule.shard):
            yield "changed", f"{rule}{_shard(rule)}, now -> {other.replacement or 'dropped'}{_shard(other)}"
    yield from (("added", f"{rule}{_shard(rule)}") for key, rule in new.items() if key not in old)
    common = [key for key in old if key in new]
    if common != [key for key in new if key in old]:
        yield "changed", "the rules come in another order"


def _by_pattern(mapper: WeightsMapper) -> dict[tuple[str, str], Rule]:
    return {(rule.kind, rule.pattern): rule for kind in ORDER for rule in mapper.rules if rule.kind is kind}


def _shard(rule: Rule) -> str:
    return f" ({rule.shard})" if rule.shard is not None else ""


# ------------------------------------------------------------------------------------------------------------- methods
def _methods(reading: Reading, release: Release) -> Iterator[Difference]:
    for name, backend in release.backends.items():
        method = reading.methods.get(name)
        if method is None:
            if name not in reading.unread_methods:
                yield Difference(
                    kind="method",
                    subject=name,
                    change="removed",
                    detail=f"vLLM {reading.version} has no such quantization method",
                    consequence="a checkpoint that declares it is refused",
                )
            continue
        rules = (
            (backend.get_cache_scale_mapper(), method.cache_scales),
            (backend.get_checkpoint_weight_mapper(), method.checkpoint),
        )
        for what, (known, probed) in zip(_BUILT_IN_RULES, rules, strict=True):
            for change, rule in rule_changes(known, probed.mapper if probed is not None else WeightsMapper()):
                yield Difference(
                    kind="rule", subject=name, change=change, detail=f"{what} {rule}", consequence=_USED[change]
                )
            yield from _unread(name, probed)
        yield from _suffixes(name, backend, method.ignored_suffixes)
        if method.asks_cache_scale != (release.asks_cache_scale and name in OUTPUT_SCALES):
            does = "has" if method.asks_cache_scale else "has no"
            yield Difference(
                kind="method", subject=name, change="changed", detail=f"{method.config_class} {does} get_cache_scale"
            )
    for name, method in reading.methods.items():
        if name not in release.backends:
            elsewhere = known_backend(name, method, release) is not None
            yield Difference(
                kind="method",
                subject=name,
                change="added",
                detail=f"vLLM {release.version} does not have {method.config_class.rpartition('.')[2]}",
                consequence="it is known from another version"
                if elsewhere
                else "names are mapped by its rules, the values that layers end with are unknown",
            )


def known_backend(name: str, probed: ProbedMethod, release: Release) -> Backend | None:
    """The built-in backend of that method: the release's own, or another release's with the same config class."""
    if name in release.backends:
        return release.backends[name]
    others = (other.backends[name] for other in RELEASES if name in other.backends)
    return next((other for other in others if other.config_class == probed.config_class.rpartition(".")[2]), None)


def _suffixes(name: str, backend: Backend, probed: Iterable[str]) -> Iterator[Difference]:
    known, found = set(backend.ignored_suffixes), set(probed)
    changes: tuple[tuple[Change, set[str]], ...] = (("removed", known - found), ("added", found - known))
    for change, suffixes in changes:
        if suffixes:
            yield Difference(
                kind="suffix",
                subject=name,
                change=change,
                detail=f"names that end in {', '.join(sorted(suffixes))} and lead nowhere",
                consequence=_USED[change],
            )


def _unread(subject: str, probed: ProbedMapper | None) -> Iterator[Difference]:
    for field in probed.unread if probed is not None else ():
        yield Difference(
            kind="renaming",
            subject=subject,
            change="added",
            detail=f"its mapper has {field}, a kind of rule that is not known here",
            consequence="such rules are not applied",
        )


def _renamings(reading: Reading) -> Iterator[Difference]:
    probed = {
        id(mapper): (subject, mapper)
        for subject, mapper in (
            *(
                (name, each)
                for name, method in reading.methods.items()
                for each in (method.cache_scales, method.checkpoint)
            ),
            *((name, each.mapper) for name, each in reading.classes.items()),
        )
        if mapper is not None
    }
    for subject, mapper in probed.values():
        for name, theirs, ours in mapper.disagreements[:1]:
            yield Difference(
                kind="renaming",
                subject=subject,
                change="changed",
                detail=f"vLLM makes {theirs or 'nothing'} of {name}, the same rules here make {ours or 'nothing'}",
                consequence="predictions may be wrong: vLLM applies rules in another way there",
            )


# -------------------------------------------------------------------------------------------------------------- models
def _models(reading: Reading, release: Release) -> Iterator[Difference]:
    known = release_reading(release.id)
    if known is None:
        return
    yield from _architectures(reading, known, release)
    for name, before in known.classes.items():
        now = reading.classes.get(name)
        if now is not None:
            yield from class_differences(name, before, now)
            if before != now:
                yield from _unread(name, now.mapper)


def _architectures(reading: Reading, known: Reading, release: Release) -> Iterator[Difference]:
    now = registered(reading)
    before = registered(known)
    for name in before:
        if name not in now:
            yield Difference(
                kind="architecture",
                subject=name,
                change="removed",
                detail=f"vLLM {reading.version} does not register it",
                consequence="what becomes of its scales is unknown",
            )
        elif (old := before[name]) and (new := now[name]) and old != new:
            yield Difference(
                kind="architecture",
                subject=name,
                change="changed",
                detail=f"it is built as {new}, in vLLM {release.version} as {old}",
                consequence="what becomes of its scales is unknown",
            )
    for name in now:
        if name not in before:
            alias = alias_of(name, reading, known, known_architectures(release.id))
            yield Difference(
                kind="architecture",
                subject=name,
                change="added",
                detail=f"vLLM {release.version} does not register it",
                consequence="built by a class that is known" if alias is not None else "its modules are not known",
            )


def alias_of(architecture: str, reading: Reading, known: Reading, surveyed: Collection[str]) -> str | None:
    """An architecture with a known module tree that is built by the same class in both versions; None for one that
    needs none, or has none. Transformers' own models share a class and are nested as they like.
    """
    cls = reading.architectures.get(architecture)
    if cls is None or architecture in surveyed or cls.startswith("transformers."):
        return None
    same = (name for name in surveyed if known.architectures.get(name) == reading.architectures.get(name) == cls)
    return min(same, default=None)


def registered(reading: Reading) -> Mapping[str, str]:
    """Every architecture that the registry names, with its class; "" for one that could not be read."""
    return {**dict.fromkeys(reading.unread_architectures, ""), **reading.architectures}


def class_differences(name: str, before: ProbedClass, now: ProbedClass) -> Iterator[Difference]:
    """What changed in how a model class loads itself."""
    if before.passes != now.passes:
        yield Difference(
            kind="loader",
            subject=name,
            change="changed",
            detail=f"load_weights {_does(now)}, before it {_does(before)}",
            consequence="" if before.handed is not None and now.handed is not None else "predictions need a new survey",
        )
    elif before.source and now.source and (before.source, before.written) != (now.source, now.written):
        yield Difference(
            kind="loader",
            subject=name,
            change="changed",
            detail="load_weights was rewritten",
            consequence="predictions follow the loader as it was",
        )
    if "class" in (before.passes, now.passes) or before.passes == now.passes == "other":
        old = before.mapper.mapper if before.mapper is not None and before.passes != "none" else WeightsMapper()
        new = now.mapper.mapper if now.mapper is not None and now.passes != "none" else WeightsMapper()
        for change, rule in rule_changes(old, new):
            yield Difference(kind="mapper", subject=name, change=change, detail=f"rule {rule}")


def _does(probed: ProbedClass) -> str:
    match probed.passes:
        case "class":
            return "hands its class's mapper to AutoWeightsLoader"
        case "none":
            return "hands no mapper to AutoWeightsLoader"
        case "own":
            return "is a loop of its own"
        case "other":
            return "makes a mapper while it runs, or calls other loaders"
