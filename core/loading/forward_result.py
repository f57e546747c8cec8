"""``Forward``: what the scales cost the attention output, layer by layer. No PyTorch in here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from types import MappingProxyType
from typing import Literal

from core.loading.claims import layer_list
from core.wording import joined, say

Variant = Literal["received", "one", "swapped", "fitted"]
"""Which scales keys and values are written and read with: those the layer holds; 1.0; the layer's, k and v exchanged;
the largest magnitude of the very data over the format's largest number."""

VARIANTS: tuple[Variant, ...] = ("received", "one", "swapped", "fitted")

Data = Literal["claimed", "unit", "projected"]
"""Where keys and values come from: drawn to fill the range that the checkpoint's scale claims; drawn with a standard
deviation of 1, where none claims any; or made by the checkpoint's own projections from drawn hidden states."""

DATA_WORDS: Mapping[Data, str] = MappingProxyType(
    {
        "claimed": say("synthetic, filling the range that the scale claims"),
        "unit": say("synthetic, with a standard deviation of 1: no scale claims a range"),
        "projected": say("made by the checkpoint's projections from synthetic hidden states"),
    }
)

_WORSE = 1.5
_LEAST = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOptions:
    """What the user may choose. ``projections``: make keys and values with the checkpoint's own projections, where
    PyTorch can read them.
    """

    seed: int = 0
    projections: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How many numbers of the keys and of the values are clipped to the format's largest one, and how many become zero
    although they are not, with one variant's scales.
    """

    k_saturated: int = 0
    v_saturated: int = 0
    k_flushed: int = 0
    v_flushed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerForward:
    """One layer.

    ``errors`` are relative: the norm of the output's difference from the reference over the norm of the reference.
    ``scales`` are the layer's largest k and v. ``elements`` is how many numbers the keys (or the values) are.
    ``seconds`` is what one pass took on the device. ``note`` says why there are no numbers, or what was drawn instead.
    """

    path: str
    layer: int | None
    data: Data
    errors: Mapping[Variant, float]
    losses: Mapping[Variant, Loss] = field(default_factory=lambda: MappingProxyType({}))
    scales: tuple[float, float] = (1.0, 1.0)
    elements: int = 0
    seconds: float = 0.0
    note: str = ""

    @property
    def worse(self) -> bool:
        """Whether the scales received cost more than rounding to the format does."""
        received, fitted = self.errors.get("received", 0.0), self.errors.get("fitted", 0.0)
        return math.isnan(received) or received > max(_WORSE * fitted, fitted + _LEAST)

    @property
    def cause(self) -> str:
        """What is wrong with scales that cost more, for a sentence."""
        if self.scales == (1.0, 1.0):
            return say("at 1.0")
        swapped, fitted = self.errors.get("swapped", math.nan), self.errors.get("fitted", 0.0)
        if swapped <= max(_WORSE * fitted, fitted + _LEAST):
            return say("with k and v exchanged")
        return say("with the scales received")


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """The attention of every layer, run on a device.

    ``format`` is the cache's (``float8_e4m3fn``, or a plain dtype); ``tokens`` keys and values and ``queries`` queries
    in each layer, drawn from ``seed``. ``reason`` says why nothing was run, "" where it was. ``note`` is about all.
    """

    format: str
    tokens: int
    queries: int
    seed: int
    layers: tuple[LayerForward, ...] = ()
    reason: str = ""
    quantized: bool = True

    @property
    def measured(self) -> tuple[LayerForward, ...]:
        """The layers that have errors."""
        return tuple(layer for layer in self.layers if layer.errors)

    @property
    def text(self) -> str:
        """The verdict in a line: "layers 4 to 7 at 1.0: 0.31 instead of 0.07"."""
        measured = self.measured
        if self.reason or not measured:
            return say("Attention not run: {reason}", reason=self.reason or say("no layer got as far as that"))
        if not self.quantized:
            return say("The cache keeps {format}, to which no scale is applied: nothing is lost", format=self.format)
        groups: dict[str, list[LayerForward]] = {}
        for layer in measured:
            if layer.worse:
                groups.setdefault(layer.cause, []).append(layer)
        if not groups:
            return say(
                "{layers} with the scales received: {received}, no more than rounding to {format} costs ({one} at 1.0, "
                "{swapped} with k and v exchanged)",
                layers=_all(measured),
                format=self.format,
                **{variant: error_text(_typical(measured, variant)) for variant in VARIANTS},
            )
        return joined(
            "; ",
            (
                say(
                    "{layers} {cause}: {received} instead of {fitted}",
                    layers=layer_list(layer.path for layer in layers),
                    cause=cause,
                    received=error_text(_typical(layers, "received")),
                    fitted=error_text(_typical(layers, "fitted")),
                )
                for cause, layers in groups.items()
            ),
        )


def error_text(error: float) -> str:
    """A relative error as people read it: two digits."""
    if math.isnan(error):
        return "NaN"
    return f"{error:.2f}" if 0.01 <= error < 10 else f"{error:.2g}"


def _all(layers: tuple[LayerForward, ...]) -> str:
    return say("all {count:,} layers", count=len(layers)) if len(layers) > 1 else say("the one layer")


def _typical(layers: list[LayerForward] | tuple[LayerForward, ...], variant: Variant) -> float:
    """The median; NaN where more than half are."""
    errors = [layer.errors[variant] for layer in layers]
    finite = [error for error in errors if not math.isnan(error)]
    return median(finite) if 2 * len(finite) > len(errors) else math.nan
