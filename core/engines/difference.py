"""Where an installed vLLM differs from the built-in profile that answers for its version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from core.architectures import known_architectures
from core.backends import Backend
from core.backends.older import OUTPUT_SCALES
from core.engines.probed import ProbedClass, ProbedMapper, ProbedMethod, Reading, release_reading
from core.engines.vllm.releases import RELEASES, Release
from core.naming.mapper import ORDER, Rule, WeightsMapper
from core.wording import Sentence, joined, say

Kind = Literal["method", "rule", "suffix", "renaming", "architecture", "mapper", "loader"]
Change = Literal["added", "removed", "changed"]
_USED: Mapping[Change, str] = {
    "added": say("applied"),
    "changed": say("applied as installed"),
    "removed": say("not applied"),
}


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
        return say(
            "{kind} {change}: {detail}", kind=_KINDS[self.kind], change=_CHANGES[self.change], detail=self.detail
        )


_KINDS: Mapping[Kind, str] = {
    "method": say("method"),
    "rule": say("rule"),
    "suffix": say("suffix"),
    "renaming": say("renaming"),
    "architecture": say("architecture"),
    "mapper": say("mapper"),
    "loader": say("loader"),
}
_CHANGES: Mapping[Change, str] = {"added": say("added"), "removed": say("removed"), "changed": say("changed")}
_COUNTED: Mapping[Kind, Callable[[int], Sentence]] = {
    "method": lambda n: say("{count} quantization method" if n == 1 else "{count} quantization methods", count=n),
    "rule": lambda n: say("{count} rule of a method" if n == 1 else "{count} rules of methods", count=n),
    "suffix": lambda n: say(
        "{count} list of ignored suffixes" if n == 1 else "{count} lists of ignored suffixes", count=n
    ),
    "renaming": lambda n: say("{count} renaming" if n == 1 else "{count} renamings", count=n),
    "architecture": lambda n: say("{count} architecture" if n == 1 else "{count} architectures", count=n),
    "mapper": lambda n: say("{count} rule of a model class" if n == 1 else "{count} rules of model classes", count=n),
    "loader": lambda n: say(
        "{count} loader of a model class" if n == 1 else "{count} loaders of model classes", count=n
    ),
}


def summary(differences: Sequence[Difference]) -> Sentence:
    """How many there are of each kind: "2 rules of methods, 1 architecture"."""
    counts = Counter(difference.kind for difference in differences)
    return joined(", ", (said(counts[kind]) for kind, said in _COUNTED.items() if counts[kind]))


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
            before_it, shard = f"{rule}{_shard(rule)}", _shard(other)
            if other.replacement:
                yield "changed", say("{rule}, now -> {name}", rule=before_it, name=f"{other.replacement}{shard}")
            else:
                yield "changed", say("{rule}, now -> dropped{shard}", rule=before_it, shard=shard)
    yield from (("added", f"{rule}{_shard(rule)}") for key, rule in new.items() if key not in old)
    common = [key for key in old if key in new]
    if common != [key for key in new if key in old]:
        yield "changed", say("the rules come in another order")


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
                    detail=say("vLLM {version} has no such quantization method", version=reading.version),
                    consequence=say("a checkpoint that declares it is refused"),
                )
            continue
        rules = (
            (backend.get_cache_scale_mapper(), method.cache_scales),
            (backend.get_checkpoint_weight_mapper(), method.checkpoint),
        )
        for number, (known, probed) in enumerate(rules):
            for change, rule in rule_changes(known, probed.mapper if probed is not None else WeightsMapper()):
                detail = say("checkpoint rule {rule}" if number else "cache-scale rule {rule}", rule=rule)
                yield Difference(kind="rule", subject=name, change=change, detail=detail, consequence=_USED[change])
            yield from _unread(name, probed)
        yield from _suffixes(name, backend, method.ignored_suffixes)
        if method.asks_cache_scale != (release.asks_cache_scale and name in OUTPUT_SCALES):
            detail = say(
                "{config} has get_cache_scale" if method.asks_cache_scale else "{config} has no get_cache_scale",
                config=method.config_class,
            )
            yield Difference(kind="method", subject=name, change="changed", detail=detail)
    for name, method in reading.methods.items():
        if name not in release.backends:
            elsewhere = known_backend(name, method, release) is not None
            yield Difference(
                kind="method",
                subject=name,
                change="added",
                detail=say(
                    "vLLM {version} does not have {config}",
                    version=release.version,
                    config=method.config_class.rpartition(".")[2],
                ),
                consequence=say(
                    "it is known from another version"
                    if elsewhere
                    else "names are mapped by its rules, the values that layers end with are unknown"
                ),
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
                detail=say("names that end in {suffixes} and lead nowhere", suffixes=joined(", ", sorted(suffixes))),
                consequence=_USED[change],
            )


def _unread(subject: str, probed: ProbedMapper | None) -> Iterator[Difference]:
    for field in probed.unread if probed is not None else ():
        yield Difference(
            kind="renaming",
            subject=subject,
            change="added",
            detail=say("its mapper has {field}, a kind of rule that is not known here", field=field),
            consequence=say("such rules are not applied"),
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
                detail=say(
                    "vLLM makes {theirs} of {name}, the same rules here make {ours}",
                    theirs=theirs or say("nothing"),
                    name=name,
                    ours=ours or say("nothing"),
                ),
                consequence=say("predictions may be wrong: vLLM applies rules in another way there"),
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
                detail=say("vLLM {version} does not register it", version=reading.version),
                consequence=say("what becomes of its scales is unknown"),
            )
        elif (old := before[name]) and (new := now[name]) and old != new:
            yield Difference(
                kind="architecture",
                subject=name,
                change="changed",
                detail=say(
                    "it is built as {new}, in vLLM {version} as {old}", new=new, version=release.version, old=old
                ),
                consequence=say("what becomes of its scales is unknown"),
            )
    for name in now:
        if name not in before:
            alias = alias_of(name, reading, known, known_architectures(release.id))
            yield Difference(
                kind="architecture",
                subject=name,
                change="added",
                detail=say("vLLM {version} does not register it", version=release.version),
                consequence=say("built by a class that is known" if alias is not None else "its modules are not known"),
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
            detail=say("load_weights {now}, before it {before}", now=_does(now), before=_does(before)),
            consequence=""
            if before.handed is not None and now.handed is not None
            else say("predictions need a new survey"),
        )
    elif before.source and now.source and (before.source, before.written) != (now.source, now.written):
        yield Difference(
            kind="loader",
            subject=name,
            change="changed",
            detail=say("load_weights was rewritten"),
            consequence=say("predictions follow the loader as it was"),
        )
    if "class" in (before.passes, now.passes) or before.passes == now.passes == "other":
        old = before.mapper.mapper if before.mapper is not None and before.passes != "none" else WeightsMapper()
        new = now.mapper.mapper if now.mapper is not None and now.passes != "none" else WeightsMapper()
        for change, rule in rule_changes(old, new):
            yield Difference(kind="mapper", subject=name, change=change, detail=say("rule {rule}", rule=rule))


def _does(probed: ProbedClass) -> str:
    match probed.passes:
        case "class":
            return say("hands its class's mapper to AutoWeightsLoader")
        case "none":
            return say("hands no mapper to AutoWeightsLoader")
        case "own":
            return say("is a loop of its own")
        case "other":
            return say("makes a mapper while it runs, or calls other loaders")
