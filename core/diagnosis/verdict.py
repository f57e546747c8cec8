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
from core.wording import are, capital, listed, of, plural, sentence, short, small


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
    return Verdict(verdict.outcome, f"{verdict.text} Not confirmed by execution.")


def _judge(case: Case, findings: Sequence[Finding]) -> Verdict:
    facts = Facts(case, Thresholds())
    load = case.deliveries.load
    match load.outcome:
        case "unknown":
            return Verdict("unknown", sentence(load.reason or f"What {facts.engine} does is not known"))
        case "refused":
            return Verdict("fails", f"{facts.engine} refuses this model: {short(load.error)}.")
        case "raises" if not _fails_unread(facts):
            at = f" at {load.key}" if load.key else ""
            return Verdict("fails", f"{facts.engine} stops while loading{at}: {short(load.error)}.")
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
        f"{facts.engine} stops after loading: {short(failing[0].error)} at {failing[0].path}; "
        f"{share} {are(len(failing), 'fails')}.",
    )


def _hidden(facts: Facts) -> Verdict | None:
    """Files that could not be read may hold scales."""
    checkpoint = facts.case.checkpoint
    files = [shard.name for shard in checkpoint.shards if shard.fault is not None]
    files += [name for name in missing_shards(checkpoint) if name not in files]
    if not files:
        return None
    keys = kv_keys(hidden_keys(checkpoint, files))
    what = f"{plural(len(keys), 'KV scale')} in it" if len(files) == 1 else f"{plural(len(keys), 'KV scale')} in them"
    lost = what if keys else f"the scales in {'it' if len(files) == 1 else 'them'}, if any,"
    gone = set(files) == set(missing_shards(checkpoint))
    why = f"{are(len(files))} missing" if gone else "cannot be read"
    return Verdict("unknown", f"{listed(files)} {why}, so {lost} {are(len(keys) or 2)} not known.")


def _fails_unread(facts: Facts) -> bool:
    """Whether the load seems to end at a scale whose values could not be read: then it is not known."""
    return any(facts.outcome(scale) == "raises" and scale.fault is not None for scale in facts.scales)


def _unread(facts: Facts) -> Verdict | None:
    scales = facts.marked("unreadable-scale")
    if not scales:
        return None
    return Verdict(
        "unknown", f"The values of {of(len(scales), len(facts.scales), 'KV scale')} cannot be read ({scales[0].key})."
    )


def _loaded(facts: Facts, findings: Sequence[Finding]) -> Verdict:
    receivers = facts.receivers
    if not facts.kv_scales:
        return _without_scales(facts, findings)
    if not receivers:
        return Verdict("ok", f"No attention layer of {facts.engine} needs scales of its own here.")
    faults = [text for text in (_unused(facts) or _lost(facts), _copied(facts)) if text]
    roles = ("k", "v", "kv", "q", "prob") if facts.cache_quantized and not facts.run_time_scales else ("q", "prob")
    doubtful = _doubtful(facts, findings, roles)
    if doubtful and not faults:
        return Verdict("degraded", f"{_all_reach(facts)}, but {doubtful}.")
    if doubtful:
        faults.append(doubtful)
    if faults:
        return Verdict("degraded", " ".join(sentence(text) for text in faults))
    return Verdict("ok", f"{_all_reach(facts)}.")


def _without_scales(facts: Facts, findings: Sequence[Finding]) -> Verdict:
    scheme = facts.case.declaration.kv_scheme
    count = len(facts.receivers)
    doubtful = _doubtful(facts, findings, ("q", "prob"))
    if scheme is not None:
        runs = f": {of(count, count, 'attention layer')} of {facts.engine} {are(count, 'runs')} at 1.0" if count else ""
        declares = f"{scheme.source.file} declares a quantized KV cache ({scheme.label})"
        text = f"{declares}, but no k or v scale is stored for its layers{runs}"
        return Verdict("degraded", " ".join(sentence(part) for part in (text, doubtful) if part))
    if doubtful:
        return Verdict("degraded", sentence(doubtful))
    others = [scale for scale in facts.scales if facts.outcome(scale) == "loaded"]
    text = "There are no KV-cache scales here and none are declared; an FP8 cache would run at 1.0."
    if others:
        text += f" {plural(len(others), 'q or prob scale')} {are(len(others), 'reaches')} the attention layers."
    return Verdict("ok", text)


def _all_reach(facts: Facts) -> str:
    arrived = [scale for scale in facts.kv_scales if facts.outcome(scale) == "loaded"]
    count, layers = len(keys_of(arrived)), len(facts.receivers)
    where_ = f"the {'only attention layer' if layers == 1 else plural(layers, 'attention layer')} of {facts.engine}"
    alike = ", for k and v alike" if _noun(arrived) == "kv scale" else ""
    return f"{capital(of(count, count, _noun(arrived)))} {are(count, 'reaches')} {where_}{alike}"


def _noun(scales: Sequence[KVScale]) -> str:
    return "kv scale" if all(scale.role == "kv" for scale in scales) else "k and v scale"


def _unused(facts: Facts) -> str:
    """Scales arrive, but the cache does not use them."""
    arrived = [scale for scale in facts.kv_scales if facts.outcome(scale) == "loaded"]
    if not arrived:
        return ""
    share = of(len(arrived), len(facts.kv_scales), _noun(facts.kv_scales))
    if facts.run_time_scales:
        return f"{share} {are(len(arrived), 'loads')}, but the {facts.cache_dtype} cache computes its own"
    if facts.cache_quantized:
        return ""
    return (
        f"{share} {are(len(arrived), 'loads')}, but {facts.engine} keeps the KV cache in {facts.cache_dtype}, "
        "so none is used"
    )


def _lost(facts: Facts) -> str:
    """Layers that run at 1.0: nothing arrived for k or v, or nothing that the engine uses."""
    lacking = {layer.path: roles for layer in facts.receivers if (roles := _lacks(facts, layer))}
    empty = [layer for layer in facts.receivers if layer.path in lacking]
    if not empty:
        return ""
    lost = [scale for scale in facts.kv_scales if facts.outcome(scale) in ("dropped", "ignored")]
    roles = sorted({role for layer in empty for role in lacking[layer.path]})
    partly = "" if all(len(found) == len(roles) == 2 for found in lacking.values()) else f" for {' or '.join(roles)}"
    at_one = f"{of(len(empty), len(facts.receivers), 'attention layer')} {are(len(empty), 'runs')} at 1.0{partly}"
    if len(empty) < len(facts.receivers):
        at_one += f" ({where(facts, empty)})"
    if not lost:
        stored = any(facts.roles_at.get(path, frozenset()) & set(roles) for path, roles in lacking.items())
        why = "the stored scales cannot be used" if stored else "no such scale is stored"
        return f"{at_one} in {facts.engine}: {why} there"
    share = f"{len(lost):,} of {plural(len(facts.kv_scales), _noun(facts.kv_scales))}"
    never = "never reaches" if len(lost) == 1 else "never reach"
    return f"{share} {never} an attention layer of {facts.engine}: {at_one}"


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
    one = f"{share} of {facts.engine} {are(len(copied), 'runs')} on one scale for k and v"
    return f"{one}, as v has none that can be used ({where(facts, copied)})"


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
    runs = f"{_some(facts, layers)} {are(len(layers), 'runs')}"
    return f"{runs} on doubtful {listed(roles)} values ({listed(list(dict.fromkeys(titles)))})"


def _some(facts: Facts, layers: Sequence[AttentionLayer]) -> str:
    """A share of the layers, by number where it is not all: "1 of 2 layers (layer 0)"."""
    share = of(len(layers), len(facts.receivers), "layer")
    return share if len(layers) == len(facts.receivers) else f"{share} ({where(facts, layers)})"


def _is_used(facts: Facts, scale: KVScale) -> bool:
    """Whether a layer ends with this scale's value, or with the scale that this offset belongs to."""
    if facts.outcome(scale) != "loaded" and scale.kind == "scale":
        return False
    roles = KV_ROLES if scale.role == "kv" else (scale.role,)
    return any(layer.source.get(role) == "checkpoint" for layer in facts.owners(scale) for role in roles)
