"""A verification as plain data (schema ``kvscope.verification/1``) and as text. No PyTorch in here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.diagnosis.finding import Finding
from core.loading.claims import layer_list
from core.loading.forward_report import forward_as_data, forward_lines
from core.loading.verification import HeldLayer, HeldValue, State, Verification, brief
from core.output import as_lines

SCHEMA = "kvscope.verification/1"
_SHOWN_LAYERS = 8


def verification_as_data(verification: Verification) -> dict[str, Any]:
    """Everything, ready for JSON; NaN and infinities are the strings "nan", "inf" and "-inf"."""
    forward = forward_as_data(verification.forward) if verification.forward is not None else None
    return {
        **verification_summary(verification),
        "layers": [_layer(layer) for layer in verification.layers],
        "forward": forward,
    }


def verification_summary(verification: Verification) -> dict[str, Any]:
    """The same without the layers: one short line for each checkpoint of many."""
    weights = asdict(verification.weights) if verification.weights is not None else None
    return {
        "schema": SCHEMA,
        "path": verification.path,
        "engine": verification.engine,
        "device": {"id": verification.device, "name": verification.device_name, "fnuz": verification.fnuz},
        "outcome": verification.outcome,
        "error": verification.error,
        "key": verification.key,
        "reason": verification.reason,
        "predicted": {
            "outcome": verification.predicted_outcome,
            "error": verification.predicted_error,
            "key": verification.predicted_key,
        },
        "agreed": verification.agreed,
        "confirmed": verification.confirmed,
        "layers_agreed": verification.layers_agreed,
        "layers_total": verification.layers_total,
        "values": len(verification.held),
        "weights": weights,
        "disagreements": [
            {
                "layer": wrong.layer_path,
                "rank": wrong.rank,
                "role": wrong.role or None,
                "step": wrong.step or None,
                "expected": [_json_number(number) for number in wrong.expected],
                "held": [_json_number(number) for number in wrong.held],
                "text": wrong.text,
            }
            for wrong in verification.disagreements
        ],
        "tensor_parallel": verification.tensor_parallel,
        "ranks": list(verification.ranks),
        "peak_memory_bytes": verification.peak_memory,
        "runs_on": dict(_runs_on(verification)),
        "attention": verification.forward.text if verification.forward is not None else None,
        "steps": [
            {"name": step.name, "seconds": round(step.seconds, 6), "detail": step.detail} for step in verification.steps
        ],
        "text": verification.text,
    }


def verification_text(verification: Verification) -> str:
    """:func:`verification_lines` as one text."""
    return as_lines(verification_lines(verification))


def verification_lines(verification: Verification) -> list[str]:
    """The result, the steps with their times, what disagrees, and the first layers' values."""
    lines = [verification.text, ""]
    lines += [f"  {step.name:22} {step.seconds * 1000:9.1f} ms   {step.detail}" for step in verification.steps]
    if verification.peak_memory is not None:
        lines.append(
            f"  {'device memory':22} {verification.peak_memory / 1e6:9.1f} MB   at most, taken by PyTorch at once"
        )
    if verification.ranks:
        lines += ["", "Ranks:", *(f"  {rank}: {where}" for rank, where in enumerate(verification.ranks))]
    if verification.disagreements:
        lines += ["", "Disagreements:"]
        lines += [f"  {disagreement.text}" for disagreement in verification.disagreements]
    if verification.forward is not None:
        lines += ["", *forward_lines(verification.forward)]
    states = runs_on_lines(verification)
    if states:
        lines += ["", "As the engine would run them:", *(f"  {line}" for line in states)]
    if verification.layers:
        lines += ["", "Held by the attention layers (observed / predicted):"]
        lines += [f"  {_row(layer)}" for layer in verification.layers[:_SHOWN_LAYERS]]
        more = verification.layers_total - _SHOWN_LAYERS
        if more > 0:
            lines.append(f"  and {more} more, which `--json` lists")
    return lines if any(lines[1:]) else lines[:1]


def findings_lines(findings: Sequence[Finding]) -> list[str]:
    """Lines for the findings that are no mere notes, the first of them in full."""
    found = [finding for finding in findings if finding.severity != "info"]
    if not found:
        return []
    lines = ["", "Findings:"]
    for place, finding in enumerate(found):
        lines.append(f"  {finding.severity}: {finding.title} ({finding.code})")
        if not place:
            lines += [f"    {finding.evidence}", f"    {finding.consequence}", f"    {finding.fix}"]
    return lines


_STATES: dict[State, str] = {
    "loaded": "from the checkpoint",
    "duplicated": "copied from k",
    "forced": "at 1.0, although a tensor was loaded: the cache is not quantized",
    "dropped": "at 1.0: the checkpoint's tensor did not arrive",
    "default": "at 1.0: nothing arrived, and the checkpoint has nothing for it",
    "none": "at 1.0: the layer has no such parameter",
}


def runs_on_lines(verification: Verification) -> list[str]:
    """What k and v of the layers run on, a line for each kind: "layers 4 to 7: k and v at 1.0: ..."."""
    return [f"{layers}: {_roles(roles)} {_STATES[state]}" for state, roles, layers in _grouped(verification)]


def _roles(roles: tuple[str, ...]) -> str:
    return " and ".join(roles)


def _grouped(verification: Verification) -> list[tuple[State, tuple[str, ...], str]]:
    """State, roles and layers, for k and v, in the order in which the layers come; the same on every rank."""
    found: dict[tuple[State, tuple[str, ...]], list[str]] = {}
    for layer in verification.layers:
        if layer.error is not None or layer.rank:
            continue
        by_state: dict[State, list[str]] = {}
        for role in ("k", "v"):
            if role in layer.states:
                by_state.setdefault(layer.states[role], []).append(role)
        for state, roles in by_state.items():
            found.setdefault((state, tuple(roles)), []).append(layer.path)
    return [(state, roles, layer_list(paths)) for (state, roles), paths in found.items()]


def _runs_on(verification: Verification) -> list[tuple[str, int]]:
    """How many layers' k and v (each counted) run on what."""
    counts: dict[str, int] = {}
    for layer in verification.layers:
        for role in ("k", "v"):
            if role in layer.states and layer.error is None:
                counts[layer.states[role]] = counts.get(layer.states[role], 0) + 1
    return sorted(counts.items())


def _row(layer: HeldLayer) -> str:
    if layer.error is not None:
        return f"{_rank(layer)}{layer.path}: {brief(layer.error)} / {brief(layer.expected_error)}"
    pairs = [
        f"{value.role} {_numbers(value.held)} / {_numbers(value.expected)}"
        for value in layer.values
        if value.name == f"_{value.role}_scale"
    ]
    return f"{_rank(layer)}{layer.path}: {', '.join(pairs)}"


def _rank(layer: HeldLayer) -> str:
    return f"rank {layer.rank}: " if layer.rank else ""


def _numbers(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:3])
    if len(values) == 1:
        return shown
    return f"[{shown}{', ...' if len(values) > 3 else ''}]"


def _layer(layer: HeldLayer) -> dict[str, Any]:
    return {
        "path": layer.path,
        "rank": layer.rank,
        "agreed": layer.agreed,
        "error": layer.error,
        "predicted_error": layer.expected_error,
        "states": dict(layer.states),
        "values": [_value(value) for value in layer.values],
    }


def _value(value: HeldValue) -> dict[str, Any]:
    return {
        "role": value.role,
        "name": value.name,
        "against": value.against,
        "expected": [_json_number(number) for number in value.expected],
        "held": [_json_number(number) for number in value.held],
        "equal": value.equal,
        "dtype": value.dtype,
        "max_error": _json_number(value.max_error),
    }


def _json_number(number: float) -> float | str:
    if math.isnan(number):
        return "nan"
    if math.isinf(number):
        return "inf" if number > 0 else "-inf"
    return number
