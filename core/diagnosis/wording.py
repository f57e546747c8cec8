"""How findings speak: numbers, ranges, layers and counts in the same words everywhere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_LONGEST_ERROR = 200
_PLURALS = {"is": "are", "has": "have", "does": "do", "was": "were"}


def number(value: float) -> str:
    """A value in at most five significant digits: "0.03412", "3.7e-40", "NaN"."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    if value == int(value) and abs(value) < 1e5:
        return f"{value:.1f}"
    return f"{value:.5g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def spread(values: Iterable[float]) -> str:
    """One number, or the range of several; NaN is said beside it: "0.031 to 0.044 and NaN"."""
    found = list(values)
    ordered = sorted(value for value in found if not math.isnan(value))
    if not ordered:
        return "NaN"
    low, high = ordered[0], ordered[-1]
    text = number(low) if low == high else f"{number(low)} to {number(high)}"
    return text if len(ordered) == len(found) else f"{text} and NaN"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 layer", "2 layers", "1,024 keys"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def are(count: int, verb: str = "is") -> str:
    """The verb that agrees with a count, given as for one: "is", "has", "runs", "reaches"."""
    if count == 1:
        return verb
    return _PLURALS.get(verb) or verb.removesuffix("es" if verb.endswith("ches") else "s")


def of(part: int, whole: int, noun: str) -> str:
    """A share in words: all 36 layers, both layers, the only layer, 2 of 36 layers."""
    if part == whole:
        return {1: f"the only {noun}", 2: f"both {noun}s"}.get(whole, f"all {plural(whole, noun)}")
    return f"{part:,} of {plural(whole, noun)}"


def numbered(layers: Iterable[int]) -> str:
    """Layer numbers as ranges: "layer 3", "layers 0-2, 7"."""
    ordered = sorted(set(layers))
    if not ordered:
        return "no numbered layer"
    runs: list[list[int]] = []
    for layer in ordered:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in runs]
    if len(shown) > 12:
        shown = [*shown[:12], "..."]
    return f"{'layer' if len(ordered) == 1 else 'layers'} {', '.join(shown)}"


def listed(items: Sequence[str], *, most: int = 3, word: str = "and") -> str:
    """The first items: "a, b and c", "a, b, c and 9 more"."""
    if len(items) > most:
        return f"{', '.join(items[:most])} {word} {len(items) - most:,} more"
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}" if items else "none"


def short(error: str | None) -> str:
    """An exception on one line, its first sentence when it is long; "AssertionError:" loses its colon."""
    text = " ".join((error or "an exception").split()).removesuffix(":")
    if len(text) <= _LONGEST_ERROR:
        return text.removesuffix(".")
    first = text.partition(". ")[0]
    return first if len(first) <= _LONGEST_ERROR else f"{first[: _LONGEST_ERROR - 3].rstrip(' .,')}..."


def sentence(text: str) -> str:
    """``text`` with a full stop, and with a capital unless it begins with a name."""
    text = text.strip()
    first = text.partition(" ")[0]
    if len(first) > 1 and first.isalpha() and first.islower():
        text = capital(text)
    return text if text.endswith(".") or not text else f"{text}."


def small(text: str) -> str:
    """``text`` without its leading capital, which "NaN" keeps."""
    first = text.partition(" ")[0]
    return text[:1].lower() + text[1:] if first[1:].islower() or len(first) == 1 else text


def capital(text: str) -> str:
    """``text`` with its first letter as a capital, nothing else changed."""
    return text[:1].upper() + text[1:]
