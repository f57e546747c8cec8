"""``judge``: the sum of a case in one outcome and a sentence or two, with the numbers that a person wants first."""

from __future__ import annotations

from collections.abc import Sequence

from core.diagnosis.case import Case
from core.diagnosis.catalog import BY_CODE, DOUBTS
from core.diagnosis.consequence import owners_of, where
from core.diagnosis.facts import KV_ROLES, Facts
from core.diagnosis.files import hidden_keys, kv_keys, missing_shards
from core.diagnosis.finding import Finding, Verdict
from core.diagnosis.selection import keys_of
from core.diagnosis.thresholds import Thresholds
from core.engines.outcome import AttentionLayer
from core.naming.scales import KVScale
from core.wording import are, capital, joined, listed, of, plural, say, sentence, short, small


def judge(case: Case, findings: Sequence[Finding]) -> Verdict:
    """Sum up a case and its findings.

    "ok": every attention layer that needs scales receives its own k and v, and nothing doubts their values; or there
    are none and none are declared. "degraded": it loads, but layers run at 1.0 or on doubtful values. "fails": the
    engine raises or refuses. "unknown": something that decides is not known. Where no run of the engine confirms the
    model's modules, the sentence says so.
    """
    verdict = _judge(case, findings)
    if case.deliveries.confirmed or verdict.outcome == "unknown":
        return verdict
    return Verdict(verdict.outcome, joined(" ", (verdict.text, say("Not confirmed by execution."))))


def _judge(case: Case, findings: Sequence[Finding]) -> Verdict:
    facts = Facts(case, Thresholds())
    load = case.deliveries.load
    match load.outcome:
        case "unknown":
            return Verdict(
                "unknown", sentence(load.reason or say("What {engine} does is not known", engine=facts.engine))
            )
        case "refused":
            text = say("{engine} refuses this model: {error}.", engine=facts.engine, error=short(load.error))
            return Verdict("fails", text)
        case "raises" if not _fails_unread(facts):
            error = short(load.error)
            if not load.key:
                return Verdict("fails", say("{engine} stops while loading: {error}.", engine=facts.engine, error=error))
            at_key = say(
                "{engine} stops while loading at {key}: {error}.", engine=facts.engine, key=load.key, error=error
            )
            return Verdict("fails", at_key)
        case _:
            pass
    failing = [layer for layer in case.deliveries.attention if layer.error is not None]
    if failing:
        return _stops_after(facts, failing)
    return _hidden(facts) or _unread(facts) or _loaded(facts, findings)


def _stops_after(facts: Facts, failing: Sequence[AttentionLayer]) -> Verdict:
    share = of(len(failing), len(facts.case.deliveries.attention), "attention layer")
    return Verdict(
        "fails",
        say(
            "{engine} stops after loading: {error} at {path}; {layers} {_fail}.",
            engine=facts.engine,
            error=short(failing[0].error),
            path=failing[0].path,
            layers=share,
            _fail=are(len(failing), "fails"),
        ),
    )


def _hidden(facts: Facts) -> Verdict | None:
    """Files that could not be read may hold scales."""
    checkpoint = facts.case.checkpoint
    files = [shard.name for shard in checkpoint.shards if shard.fault is not None]
    files += [name for name in missing_shards(checkpoint) if name not in files]
    if not files:
        return None
    keys = kv_keys(hidden_keys(checkpoint, files))
    them = "it" if len(files) == 1 else "them"
    if keys:
        lost = say("{scales} in {_them}", scales=plural(len(keys), "KV scale"), _them=them)
    else:
        lost = say("the scales in {_them}, if any,", _them=them)
    named = listed(files)
    if set(files) == set(missing_shards(checkpoint)):
        why = say("{files} {_are} missing", files=named, _are=are(len(files)))
    else:
        why = say("{files} cannot be read", files=named)
    return Verdict("unknown", say("{why}, so {lost} {_are} not known.", why=why, lost=lost, _are=are(len(keys) or 2)))


def _fails_unread(facts: Facts) -> bool:
    """Whether the load seems to end at a scale whose values could not be read: then it is not known."""
    return any(facts.outcome(scale) == "raises" and scale.fault is not None for scale in facts.scales)


def _unread(facts: Facts) -> Verdict | None:
    scales = facts.marked("unreadable-scale")
    if not scales:
        return None
    share = of(len(scales), len(facts.scales), "KV scale")
    text = say("The values of {scales} cannot be read ({key}).", scales=share, key=scales[0].key)
    return Verdict("unknown", text)


def _loaded(facts: Facts, findings: Sequence[Finding]) -> Verdict:
    receivers = facts.receivers
    if not facts.kv_scales:
        return _without_scales(facts, findings)
    if not receivers:
        none = say("No attention layer of {engine} needs scales of its own here.", engine=facts.engine)
        return Verdict("ok", none)
    faults = [text for text in (_unused(facts) or _lost(facts), _copied(facts)) if text]
    roles = ("k", "v", "kv", "q", "prob") if facts.cache_quantized and not facts.run_time_scales else ("q", "prob")
    doubtful = _doubtful(facts, findings, roles)
    if doubtful and not faults:
        return Verdict("degraded", say("{arrived}, but {doubt}.", arrived=_all_reach(facts), doubt=doubtful))
    if doubtful:
        faults.append(doubtful)
    if faults:
        return Verdict("degraded", joined(" ", (sentence(text) for text in faults)))
    left = _left_over(facts)
    if left and not any(facts.outcome(scale) == "loaded" for scale in facts.kv_scales):
        return Verdict("degraded", sentence(_none_used(facts)))
    if left:
        return Verdict("degraded", say("{arrived}, but {left}.", arrived=_all_reach(facts), left=left))
    return Verdict("ok", sentence(_all_reach(facts)))


def _without_scales(facts: Facts, findings: Sequence[Finding]) -> Verdict:
    scheme = facts.case.declaration.kv_scheme
    count = len(facts.receivers)
    doubtful = _doubtful(facts, findings, ("q", "prob"))
    if scheme is not None:
        text = say(
            "{file} declares a quantized KV cache ({scheme}), but no k or v scale is stored for its layers",
            file=scheme.source.file,
            scheme=scheme.label,
        )
        if count:
            text = say(
                "{lacking}: {layers} of {engine} {_run} at 1.0",
                lacking=text,
                layers=of(count, count, "attention layer"),
                engine=facts.engine,
                _run=are(count, "runs"),
            )
        return Verdict("degraded", joined(" ", (sentence(text), sentence(doubtful))))
    if doubtful:
        return Verdict("degraded", sentence(doubtful))
    others = [scale for scale in facts.scales if facts.outcome(scale) == "loaded"]
    none = say("There are no KV-cache scales here and none are declared; an FP8 cache would run at 1.0.")
    if not others:
        return Verdict("ok", none)
    reach = say(
        "{scales} {_reach} the attention layers.",
        scales=plural(len(others), "q or prob scale"),
        _reach=are(len(others), "reaches"),
    )
    return Verdict("ok", joined(" ", (none, reach)))


def _all_reach(facts: Facts) -> str:
    arrived = [scale for scale in facts.kv_scales if facts.outcome(scale) == "loaded"]
    count, whole, layers = len(keys_of(arrived)), len(keys_of(facts.kv_scales)), len(facts.receivers)
    told = say(
        "{scales} {_reach} the only attention layer of {engine}"
        if layers == 1
        else "{scales} {_reach} the {layers} of {engine}",
        scales=capital(_share(count, whole, facts.kv_scales)),
        _reach=are(count, "reaches"),
        layers=plural(layers, "attention layer"),
        engine=facts.engine,
    )
    return say("{arrived}, for k and v alike", arrived=told) if _for_both(arrived) else told


def _for_both(scales: Sequence[KVScale]) -> bool:
    return all(scale.role == "kv" for scale in scales)


def _share(part: int, whole: int, scales: Sequence[KVScale]) -> str:
    """A share of these scales in words."""
    return of(part, whole, "kv scale" if _for_both(scales) else "k and v scale")


def _left_over(facts: Facts) -> str:
    """Further scales for layers that have theirs: which of them are meant, nobody can tell."""
    lost = keys_of([scale for scale in facts.kv_scales if facts.outcome(scale) in ("dropped", "ignored")])
    return say("the other {count} {_end} nowhere", count=len(lost), _end=are(len(lost), "ends")) if lost else ""


def _none_used(facts: Facts) -> str:
    """No scale arrives, and the layers run at 1.0 because their cache needs none."""
    scales = plural(len(facts.kv_scales), "kv scale" if _for_both(facts.kv_scales) else "k and v scale")
    return say(
        "{engine} keeps the KV cache in {dtype}, so none of the {scales} is used",
        engine=facts.engine,
        dtype=facts.cache_dtype,
        scales=scales,
    )


def _unused(facts: Facts) -> str:
    """Scales arrive, but the cache does not use them."""
    arrived = [scale for scale in facts.kv_scales if facts.outcome(scale) == "loaded"]
    if not arrived:
        return ""
    share, load = _share(len(arrived), len(facts.kv_scales), facts.kv_scales), are(len(arrived), "loads")
    if facts.run_time_scales:
        return say(
            "{scales} {_load}, but the {dtype} cache computes its own",
            scales=share,
            _load=load,
            dtype=facts.cache_dtype,
        )
    if facts.cache_quantized:
        return ""
    return say(
        "{scales} {_load}, but {engine} keeps the KV cache in {dtype}, so none is used",
        scales=share,
        _load=load,
        engine=facts.engine,
        dtype=facts.cache_dtype,
    )


def _lost(facts: Facts) -> str:
    """Layers that run at 1.0: nothing arrived for k or v, or nothing that the engine uses."""
    lacking = {layer.path: roles for layer in facts.receivers if (roles := _lacks(facts, layer))}
    empty = [layer for layer in facts.receivers if layer.path in lacking]
    if not empty:
        return ""
    lost = [scale for scale in facts.kv_scales if facts.outcome(scale) in ("dropped", "ignored")]
    roles = sorted({role for layer in empty for role in lacking[layer.path]})
    partly = not all(len(found) == len(roles) == 2 for found in lacking.values())
    at_one = say(
        "{layers} {_run} at 1.0 for {roles}" if partly else "{layers} {_run} at 1.0",
        layers=of(len(empty), len(facts.receivers), "attention layer"),
        _run=are(len(empty), "runs"),
        roles=joined(" or ", roles),
    )
    if len(empty) < len(facts.receivers):
        at_one = say("{share} ({layers})", share=at_one, layers=where(facts, empty))
    if not lost:
        stored = any(facts.roles_at.get(path, frozenset()) & set(roles) for path, roles in lacking.items())
        return say(
            "{at_one} in {engine}: the stored scales cannot be used there"
            if stored
            else "{at_one} in {engine}: no such scale is stored there",
            at_one=at_one,
            engine=facts.engine,
        )
    whole = len(facts.kv_scales)
    if 1 < len(lost) == whole:
        return say(
            "None of the {scales} reaches an attention layer of {engine}: {at_one}",
            scales=plural(whole, "kv scale" if _for_both(facts.kv_scales) else "k and v scale"),
            engine=facts.engine,
            at_one=at_one,
        )
    return say(
        "{scales} never {_reach} an attention layer of {engine}: {at_one}",
        scales=capital(_share(len(lost), whole, facts.kv_scales)),
        _reach=are(len(lost), "reaches"),
        engine=facts.engine,
        at_one=at_one,
    )


def _lacks(facts: Facts, layer: AttentionLayer) -> list[str]:
    """The roles among k and v that run at 1.0 although the cache is quantized, or because nothing arrived."""
    idle = ("default", "forced") if facts.cache_quantized and not facts.run_time_scales else ("default",)
    return [role for role in KV_ROLES if layer.source.get(role) in idle]


def _copied(facts: Facts) -> str:
    """Layers whose v is k's because v has no usable scale; a kv scale is meant for both."""
    meant = {layer.path for scale in facts.kv_scales if scale.role == "kv" for layer in facts.owners(scale)}
    copied = [
        layer
        for layer in facts.receivers
        if layer.path not in meant and "duplicated" in (layer.source.get(role) for role in KV_ROLES)
    ]
    if not copied:
        return ""
    share = of(len(copied), len(facts.receivers), "attention layer")
    return say(
        "{layers} of {engine} {_run} on one scale for k and v, as v has none that can be used ({where})",
        layers=share,
        engine=facts.engine,
        _run=are(len(copied), "runs"),
        where=where(facts, copied),
    )


def _doubtful(facts: Facts, findings: Sequence[Finding], of_interest: Sequence[str]) -> str:
    """Layers that run on values of these roles which a finding doubts."""
    doubting = [finding for finding in findings if finding.code in DOUBTS]
    keys = {key for finding in doubting for key in finding.keys}
    used = [
        scale
        for scale in facts.case.scales
        if scale.key in keys and scale.role in of_interest and _is_used(facts, scale)
    ]
    if not used:
        return ""
    layers = owners_of(facts, used)
    codes = {scale.key for scale in used}
    titles = [small(BY_CODE[finding.code].title) for finding in doubting if codes & set(finding.keys)]
    roles = [role for role in ("k", "v", "kv", "q", "prob") if any(scale.role == role for scale in used)]
    return say(
        "{layers} {_run} on doubtful {roles} values ({why})",
        layers=_some(facts, layers),
        _run=are(len(layers), "runs"),
        roles=listed(roles),
        why=listed(list(dict.fromkeys(titles))),
    )


def _some(facts: Facts, layers: Sequence[AttentionLayer]) -> str:
    """A share of the layers, by number where it is not all: "1 of 2 layers (layer 0)"."""
    share = of(len(layers), len(facts.receivers), "layer")
    if len(layers) == len(facts.receivers):
        return share
    return say("{share} ({layers})", share=share, layers=where(facts, layers))


def _is_used(facts: Facts, scale: KVScale) -> bool:
    """Whether a layer ends with this scale's value, or with the scale that this offset belongs to."""
    if facts.outcome(scale) != "loaded" and scale.kind == "scale":
        return False
    roles = KV_ROLES if scale.role == "kv" else (scale.role,)
    return any(layer.source.get(role) == "checkpoint" for layer in facts.owners(scale) for role in roles)
