"""The whole way of one tensor: every rule with its place in the sources, what nearly matched, and what comes next."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from core.architectures.loops import LoopLoader
from core.architectures.modules import AutoLoader, ModuleNode, OwnLoader
from core.backends.older import OUTPUT_SCALES
from core.diagnosis.facts import Facts
from core.diagnosis.thresholds import Thresholds
from core.engines import EngineProfile, Fed, get_engine
from core.engines.installed import Installed
from core.engines.outcome import AttentionLayer, Delivery
from core.engines.sglang.engine import Sglang
from core.engines.sglang.helper import HELPER, helper_rules
from core.engines.sglang.models import architectures, load_loops
from core.engines.sglang.steps import Call, Remap
from core.engines.vllm.engine import Vllm
from core.engines.vllm.remap import cache_scale, remap_rules
from core.engines.vllm.walk import Walk
from core.inspection import Inspection, predict_tensors
from core.naming.citation import cite
from core.naming.conventions import without_numbers
from core.naming.mapper import Renaming, Rule, RuleKind, Step
from core.naming.near import NearMiss, near_misses, told
from core.wording import are, joined, listed, number, plural, say, sentence

_INSIDE = re.compile(r"\.(?:\w*self_attn|mixer|\w+_attn)\.(?:attn|mla_attn|attn_mqa)\.\w+_(?:scale|zero_point)$")
_MOST_NEAR = 3
_RANK = ("shadowed", "unasked", "guarded", "elsewhere", "anchored")
_OUTCOMES = {"dropped": say("dropped"), "ignored": say("ignored"), "loaded": say("loaded")}


@dataclass(frozen=True, slots=True, kw_only=True)
class CitedStep:
    """One rule that changed the name, and where it stands."""

    step: Step
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One tensor's way through one engine.

    ``target`` is the parameter it reached, None when it reached none; then ``parameter`` is the one of its layer that
    waits for it ("" where the layer has none) and ``near`` what nearly brought it there. ``verbatim`` says what becomes
    of a tensor that bears the parameter's own name. ``layer`` is the attention layer it belongs to. ``then`` says what
    the engine does next.
    """

    delivery: Delivery
    steps: tuple[CitedStep, ...]
    near: tuple[NearMiss, ...]
    layer: AttentionLayer | None
    target: str | None
    parameter: str
    verbatim: str
    then: str


def cite_in(engine: EngineProfile, rule: Rule, *, by: str) -> str:
    """Where a rule stands in this engine's sources, with the line where it is known. The lines of an installed vLLM are
    known where it is one of the releases that were read.
    """
    if isinstance(engine, Vllm) and not (isinstance(engine, Installed) and engine.version != engine.base.version):
        return cite(rule, by=by, release=engine.release.id, title=f"vLLM {engine.release.version}")
    if isinstance(engine, Sglang):
        return cite(rule, by=by, release=engine.id, title=engine.title)
    return rule.source


def near_renaming(engine: EngineProfile, renaming: Renaming, method: str | None) -> NearMiss | None:
    """The rule that came nearest to a mapped name which does not end inside an attention layer; None where none did."""
    if renaming.result is None or _INSIDE.search(renaming.result):
        return None
    if isinstance(engine, Vllm):
        backend = engine.release.backends.get(method or "")
        rules = backend.get_cache_scale_mapper().rules if backend is not None else ()
        if not rules:
            rules = remap_rules(mla=False)
    else:
        rules = helper_rules() if isinstance(engine, Sglang) else ()
    found = [
        replace(near, source=cite_in(engine, near.rule, by=near.by))
        for near in near_misses(renaming.name, rules, renaming.steps, by=engine.title)
        if near.kind == "anchored"
    ]
    return max(found, key=lambda near: near.likeness, default=None)


class Tracer:
    """Traces the tensors of one inspection; what many of them share is worked out once."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection
        self._engine = get_engine(str(inspection.settings.engine.value))
        self._facts = Facts(inspection.case, Thresholds())
        self._near: dict[tuple[str, ...], tuple[NearMiss, ...]] = {}
        self._verbatim: dict[str, str] = {}
        self._cited: dict[tuple[Rule, str], str] = {}

    def trace(self, delivery: Delivery) -> Trace:
        """The way of one of the inspection's tensors."""
        layer = self._layer(delivery)
        lost = delivery.outcome not in ("loaded", "not_reached")
        parameter = "" if delivery.target is not None or layer is None else _parameter(layer, delivery)
        return Trace(
            delivery=delivery,
            steps=tuple(CitedStep(step=step, source=self.cite(step.rule, step.by)) for step in delivery.steps),
            near=self._near_of(delivery, layer) if lost and not self._misfits(delivery) else (),
            layer=layer,
            target=delivery.target,
            parameter=parameter,
            verbatim=self._say_verbatim(delivery, parameter) if lost and parameter else "",
            then=self._then(delivery, layer),
        )

    def cite(self, rule: Rule, by: str) -> str:
        """Where a rule stands, with the line where it is known."""
        if (rule, by) not in self._cited:
            self._cited[rule, by] = cite_in(self._engine, rule, by=by)
        return self._cited[rule, by]

    def _misfits(self, delivery: Delivery) -> bool:
        """Whether it found its parameter, which did not take it; or is no scale, for which no rule is meant."""
        return delivery.scale is None or delivery.name in self._parameters

    @cached_property
    def _parameters(self) -> frozenset[str]:
        return frozenset(
            f"{layer.path}.{name}" for layer in self._inspection.deliveries.attention for name in layer.parameters
        )

    def _layer(self, delivery: Delivery) -> AttentionLayer | None:
        if delivery.target is not None:
            path = delivery.target.rpartition(".")[0]
            return next((layer for layer in self._inspection.deliveries.attention if layer.path == path), None)
        owners = self._facts.owners(delivery.scale) if delivery.scale is not None else ()
        # Of several attention modules of one layer the one that keeps the cache counts.
        return next((layer for layer in owners if layer.expects_scales), next(iter(owners), None))

    # ------------------------------------------------------------------------------------------------------ near misses
    def _near_of(self, delivery: Delivery, layer: AttentionLayer | None) -> tuple[NearMiss, ...]:
        kind = without_numbers(delivery.key), delivery.outcome, *(step.rule.pattern for step in delivery.steps)
        if kind not in self._near:
            found = [replace(near, source=self.cite(near.rule, near.by)) for near in self._all_near(delivery, layer)]
            self._near[kind] = _best(found, self._parameters, renamed=bool(delivery.steps))
        return self._near[kind]

    def _all_near(self, delivery: Delivery, layer: AttentionLayer | None) -> Iterator[NearMiss]:
        if self._walk is not None:
            for by, rules in _rules_on_the_way(self._walk, delivery):
                yield from near_misses(delivery.key, rules, delivery.steps, by=by)
        if isinstance(self._engine, Vllm):
            yield from self._elsewhere(self._engine, delivery)
        if isinstance(self._engine, Sglang):
            yield from self._in_sglang(delivery, layer)

    @cached_property
    def _walk(self) -> Walk | None:
        inspection, engine = self._inspection, self._engine
        if not isinstance(engine, Vllm):
            return None
        setup = engine.setup(inspection.declaration, inspection.settings, inspection.tensors, inspection.wish)
        return setup.walk() if setup is not None else None

    def _elsewhere(self, engine: Vllm, delivery: Delivery) -> Iterator[NearMiss]:
        """Rules of other backends that know the key as it stands in the checkpoint."""
        method = self._inspection.settings.method.value
        backends = engine.release.backends
        backend = backends.get(method or "")
        own = {rule.pattern for rule in backend.get_cache_scale_mapper().rules} if backend is not None else ()
        holders: dict[Rule, list[str]] = {}
        for name, backend in backends.items():
            for rule in backend.get_cache_scale_mapper().rules:
                if rule.pattern not in own and rule.matches(delivery.key):
                    holders.setdefault(replace(rule, source=""), []).append(name)
        if engine.release.asks_cache_scale and method not in OUTPUT_SCALES:
            step = cache_scale(delivery.key, by="")
            if step is not None:
                holders[step.rule] = list(OUTPUT_SCALES)
        for rule, names in holders.items():
            who = listed(sorted(names), most=4)
            without = say("{method} has not", method=method) if method is not None else say("nothing is declared here")
            source = next(iter(backends[names[0]].get_cache_scale_mapper().rules), rule).source or rule.source
            yield NearMiss(
                kind="elsewhere",
                rule=replace(rule, source=source),
                by=who,
                why=say(
                    "{methods} {_have} the rule {rule}, {without}",
                    methods=who,
                    _have=are(len(names), "has"),
                    rule=told(rule),
                    without=without,
                ),
                would_make=rule.rewrite(delivery.key),
            )

    def _in_sglang(self, delivery: Delivery, layer: AttentionLayer | None) -> Iterator[NearMiss]:
        """The one helper that knows names of scales, where the model's loop asks it and where it does not."""
        loop = _loop_of(self._inspection)
        rules = helper_rules()
        if loop is not None and _asks_helper(loop):
            yield from near_misses(delivery.key, rules, delivery.steps, by=HELPER)
            return
        rule = next((rule for rule in rules if rule.matches(delivery.key)), None)
        if rule is None or loop is None:
            return
        made = rule.rewrite(delivery.key)
        why = say(
            "{helper} would make {name} of it, but {loader}.load_weights never asks it",
            helper=HELPER,
            name=made,
            loader=load_loops()[loop].by,
        )
        if layer is not None and not layer.parameters:
            nothing = say("and no such parameter exists, as the attention is built without the quantization config")
            why = joined("; ", (why, nothing))
        yield NearMiss(
            kind="unasked",
            rule=rule,
            by=HELPER,
            why=why,
            would_make=made,
        )

    # ------------------------------------------------------------------------------------------------- what comes next
    def _say_verbatim(self, delivery: Delivery, parameter: str) -> str:
        """What becomes of the same tensor under the parameter's own name: the engine's prediction is asked."""
        kind = without_numbers(parameter)
        scale = delivery.scale
        if kind not in self._verbatim and scale is not None:
            fed = Fed(parameter, scale.shape, scale.values, replace(scale, key=parameter))
            found = predict_tensors(self._inspection, (fed,)).deliveries[0]
            if found.target == parameter:
                said = say("A tensor of that name would be taken")
            elif found.outcome == "raises":
                error = (found.error or "").partition(":")[0]
                said = say("A tensor of that name would end the load with {error}", error=error)
            else:
                last = found.steps[-1].after if found.steps else None
                said = say(
                    "Even a tensor of that name would be {outcome}", outcome=_OUTCOMES.get(found.outcome, found.outcome)
                )
                if last is not None:
                    said = say("{outcome}, renamed to {name}", outcome=said, name=last)
            self._verbatim[kind] = said
        return self._verbatim.get(kind, "")

    def _then(self, delivery: Delivery, layer: AttentionLayer | None) -> str:
        match delivery.outcome:
            case "raises":
                left = sum(self._facts.outcome(scale) == "not_reached" for scale in self._inspection.scales)
                if not left:
                    return say("The load stops here.")
                scales = plural(left, "more scale")
                return say("The load stops here; {scales} {_are} not read.", scales=scales, _are=are(left))
            case "not_reached":
                return sentence(delivery.reason)
            case _:
                ends = _ends(layer, delivery)
                return say("The load goes on; {ends}.", ends=ends) if ends else say("The load goes on.")


def _parameter(layer: AttentionLayer, delivery: Delivery) -> str:
    scale = delivery.scale
    if scale is None:
        return ""
    leaf = layer.parameter_for(scale.role, "zero_point" if scale.kind == "zero_point" else "scale")
    return f"{layer.path}.{leaf}" if leaf is not None else ""


def _best(found: Iterable[NearMiss], parameters: frozenset[str], *, renamed: bool) -> tuple[NearMiss, ...]:
    """The few that tell most: first those that would have led to a parameter. Where rules did rename the tensor, one
    that wants another name says nothing.
    """

    def leads(near: NearMiss) -> bool:
        made = near.would_make
        return made is not None and any(name == made or name.endswith(f".{made}") for name in parameters)

    distinct: dict[tuple[str, str], NearMiss] = {}
    for near in found:
        distinct.setdefault((near.kind, near.rule.pattern), near)
    kept = []
    for near in distinct.values():
        if leads(near):
            made = say("it would have made {name}, which is the parameter", name=near.would_make)
            why = near.why if near.kind == "unasked" else joined("; ", (near.why, made))
            kept.append((0, replace(near, why=why)))
        elif near.kind in ("unasked", "guarded") or (near.kind == "anchored" and not renamed):
            kept.append((1, near))
    kept.sort(key=lambda ranked: (ranked[0], _RANK.index(ranked[1].kind), -ranked[1].likeness))
    anchored = [near for _, near in kept if near.kind == "anchored"]
    return tuple(near for _, near in kept if near.kind != "anchored" or near is anchored[0])[:_MOST_NEAR]


def _rules_on_the_way(walk: Walk, delivery: Delivery) -> Iterator[tuple[str, tuple[Rule, ...]]]:
    """The renaming rules of each loader that the tensor passes, from the outermost inwards."""
    for node in _nodes(walk.root, delivery.name or delivery.key):
        loader = node.loader
        match loader:
            case AutoLoader():
                yield node.cls, walk.mapper_of(node)[0].rules
            case OwnLoader():
                stacked = (Rule(RuleKind.STACKED, row.old, row.new, source=loader.source) for row in loader.stacked)
                helper = remap_rules(mla=walk.has_mla) if loader.remap != "never" else ()
                yield node.cls, (*loader.mapper.rules, *stacked, *helper)
            case LoopLoader() if "remap" in str(loader.steps):
                yield node.cls, remap_rules(mla=walk.has_mla)
            case _:
                pass


def _nodes(root: ModuleNode, name: str) -> Iterator[ModuleNode]:
    node: ModuleNode | None = root
    for part in (*name.split("."), ""):
        if node is None:
            return
        yield node
        node = node.children.get(part)


def _loop_of(inspection: Inspection) -> str | None:
    found = architectures().get(inspection.settings.architecture.value or "")
    return found.loop if found is not None else None


def _asks_helper(loop: str, seen: tuple[str, ...] = ()) -> bool:
    return any(
        isinstance(step, Remap)
        or (isinstance(step, Call) and step.loop not in seen and _asks_helper(step.loop, (*seen, step.loop)))
        for step in load_loops()[loop].steps
    )


def _ends(layer: AttentionLayer | None, delivery: Delivery) -> str:
    if layer is None or delivery.scale is None:
        return ""
    if layer.error is not None:
        return say("after it, {layer} fails with {error}", layer=layer.path, error=layer.error.rstrip(":"))
    roles = ("k", "v") if delivery.scale.role == "kv" else (delivery.scale.role,)
    told = [f"{role} = {number(layer.final[role])}" for role in roles if role in layer.final]
    return say("{layer} ends with {values}", layer=layer.path, values=listed(told)) if told else ""
