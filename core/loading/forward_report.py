"""What the attention of the layers lost, as plain data and as text. No PyTorch in here."""

from __future__ import annotations

import math
from typing import Any

from core.loading.forward_result import DATA_WORDS, VARIANTS, Forward, LayerForward, error_text

_HEADS = {"received": "received", "one": "at 1.0", "swapped": "exchanged", "fitted": "fitted"}


def forward_as_data(forward: Forward) -> dict[str, Any]:
    """Everything, ready for JSON; NaN and infinities are the strings "nan", "inf" and "-inf"."""
    return {
        "format": forward.format,
        "quantized": forward.quantized,
        "tokens": forward.tokens,
        "queries": forward.queries,
        "seed": forward.seed,
        "text": forward.text,
        "reason": forward.reason,
        "layers": [_layer(layer) for layer in forward.layers],
    }


def forward_lines(forward: Forward) -> list[str]:
    """The verdict, where the data come from, and a row for each layer."""
    lines = [f"Attention: {forward.text}."]
    measured = forward.measured
    if not measured:
        return lines
    made = dict.fromkeys(layer.data for layer in measured)
    run = f"{forward.tokens} tokens, {forward.format}, seed {forward.seed}"
    lines += [
        f"  error of the output relative to attention in float64: {run}",
        *(f"  keys and values {DATA_WORDS[data]}" for data in made),
        "",
        f"  {'layer':>6} {''.join(f'{_HEADS[variant]:>11}' for variant in VARIANTS)}   clipped k, v    made by",
    ]
    return [*lines, *(f"  {_row(layer)}" for layer in forward.layers)]


def _row(layer: LayerForward) -> str:
    name = str(layer.layer) if layer.layer is not None else layer.path
    if not layer.errors:
        return f"{name:>6}   {layer.note}"
    errors = "".join(f"{_finer(layer.errors[variant]):>11}" for variant in VARIANTS)
    lost = layer.losses.get("received")
    clipped = f"{_share(lost.k_saturated, layer)}, {_share(lost.v_saturated, layer)}" if lost is not None else "-"
    note = f" ({layer.note})" if layer.note else ""
    return f"{name:>6} {errors}   {clipped:14}  {layer.data}{note}"


def _finer(error: float) -> str:
    return f"{error:.3f}" if 0.001 <= error < 10 else error_text(error)


def _share(count: int, layer: LayerForward) -> str:
    if not count:
        return "0"
    return f"{max(100 * count / max(layer.elements, 1), 0.1):.1f} %"


def _layer(layer: LayerForward) -> dict[str, Any]:
    return {
        "path": layer.path,
        "layer": layer.layer,
        "data": layer.data,
        "errors": {variant: _number(error) for variant, error in layer.errors.items()},
        "losses": {
            variant: {
                "k_saturated": loss.k_saturated,
                "v_saturated": loss.v_saturated,
                "k_flushed": loss.k_flushed,
                "v_flushed": loss.v_flushed,
            }
            for variant, loss in layer.losses.items()
        },
        "elements": layer.elements,
        "scales": {"k": _number(layer.scales[0]), "v": _number(layer.scales[1])},
        "worse": layer.worse,
        "milliseconds": round(layer.seconds * 1000, 4),
        "note": layer.note,
    }


def _number(number: float) -> float | str:
    if math.isnan(number):
        return "nan"
    return number if math.isfinite(number) else "inf" if number > 0 else "-inf"
