"""A verification as data (schema ``kvscope.verification/1``) and as text. No PyTorch in here."""

from __future__ import annotations

from typing import Any

from core.loading.verification import Verification

SCHEMA = "kvscope.verification/1"
_SHOWN = 10


def verification_as_data(verification: Verification) -> dict[str, Any]:
    """The run, step by step, and every value of every layer, expected and held."""
    weights = verification.weights
    return {
        "schema": SCHEMA,
        "path": verification.path,
        "engine": verification.engine,
        "device": verification.device,
        "device_name": verification.device_name,
        "fnuz": verification.fnuz,
        "outcome": verification.outcome,
        "error": verification.error,
        "key": verification.key,
        "agreed": verification.agreed,
        "text": verification.text,
        "layers_agreed": verification.layers_agreed,
        "layers_total": verification.layers_total,
        "disagreements": [str(each) for each in verification.disagreements],
        "steps": [{"name": step.name, "seconds": step.seconds, "detail": step.detail} for step in verification.steps],
        "layers": [
            {
                "path": layer.path,
                "agreed": layer.agreed,
                "error": layer.error,
                "expected_error": layer.expected_error,
                "values": [
                    {
                        "role": value.role,
                        "name": value.name,
                        "against": value.against,
                        "expected": list(value.expected),
                        "held": list(value.held),
                        "equal": value.equal,
                        "dtype": value.dtype,
                        "max_error": value.max_error,
                    }
                    for value in layer.values
                ],
            }
            for layer in verification.layers
        ],
        "weights": None
        if weights is None
        else {
            "total": weights.total,
            "held": weights.held,
            "equal": weights.equal,
            "bytes": weights.size,
            "left_out": list(weights.left_out),
        },
    }


def verification_text(verification: Verification) -> str:
    """The sum, the steps with their times, and what disagrees."""
    word = "AGREED" if verification.agreed else "NOT VERIFIED" if verification.outcome == "unknown" else "DISAGREED"
    lines = [f"{word}: {verification.text}"]
    lines += [f"  {step.name:<14}{1000 * step.seconds:8.1f} ms  {step.detail}".rstrip() for step in verification.steps]
    lines += [f"  {each}" for each in verification.disagreements[:_SHOWN]]
    if len(verification.disagreements) > _SHOWN:
        lines.append(f"  ... and {len(verification.disagreements) - _SHOWN} more")
    return "\n".join(lines)
