"""A verification as plain data (schema ``kvscope.verification/1``) and as text. No PyTorch in here."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from core.loading.verification import HeldLayer, HeldValue, Verification, brief

SCHEMA = "kvscope.verification/1"
_SHOWN_LAYERS = 8


def verification_as_data(verification: Verification) -> dict[str, Any]:
    """Everything, ready for JSON; NaN and infinities are the strings "nan", "inf" and "-inf"."""
    return {**verification_summary(verification), "layers": [_layer(layer) for layer in verification.layers]}


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
        "layers_agreed": verification.layers_agreed,
        "layers_total": verification.layers_total,
        "values": len(verification.held),
        "weights": weights,
        "disagreements": [
            {"layer": disagreement.layer_path, "text": disagreement.text} for disagreement in verification.disagreements
        ],
        "steps": [
            {"name": step.name, "seconds": round(step.seconds, 6), "detail": step.detail} for step in verification.steps
        ],
        "text": verification.text,
    }


def verification_text(verification: Verification) -> str:
    """The result, the steps with their times, what disagrees, and the first layers' values."""
    lines = [verification.text, ""]
    lines += [f"  {step.name:22} {step.seconds * 1000:9.1f} ms   {step.detail}" for step in verification.steps]
    if verification.disagreements:
        lines += ["", "Disagreements:"]
        lines += [f"  {disagreement.text}" for disagreement in verification.disagreements]
    if verification.layers:
        lines += ["", "Held by the attention layers (observed / predicted):"]
        lines += [f"  {_row(layer)}" for layer in verification.layers[:_SHOWN_LAYERS]]
        more = verification.layers_total - _SHOWN_LAYERS
        if more > 0:
            lines.append(f"  and {more} more, which `--json` lists")
    return "\n".join(lines).rstrip()


def _row(layer: HeldLayer) -> str:
    if layer.error is not None:
        return f"{layer.path}: {brief(layer.error)} / {brief(layer.expected_error)}"
    pairs = [
        f"{value.role} {_numbers(value.held)} / {_numbers(value.expected)}"
        for value in layer.values
        if value.name == f"_{value.role}_scale"
    ]
    return f"{layer.path}: {', '.join(pairs)}"


def _numbers(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:3])
    if len(values) == 1:
        return shown
    return f"[{shown}{', ...' if len(values) > 3 else ''}]"


def _layer(layer: HeldLayer) -> dict[str, Any]:
    return {
        "path": layer.path,
        "agreed": layer.agreed,
        "error": layer.error,
        "predicted_error": layer.expected_error,
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
