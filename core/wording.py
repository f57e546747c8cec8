"""How the core speaks: sentences that can be said in another language, and the same words for numbers and counts.

A :class:`Sentence` is a plain ``str`` in English that still knows the template it was made from and what filled it, so
that a face can say it in its user's language (:func:`spoken`). Nothing in the core depends on that: reports, JSON and
tests see the English text. Templates are literals in calls of :func:`say`, :func:`joined`, :func:`plural` and
:func:`of`, where a catalogue of texts can be collected from the sources.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self

_LONGEST_ERROR = 200
_PLURALS = {"is": "are", "has": "have", "does": "do", "was": "were"}


class Sentence(str):
    """An English text made from ``template`` with ``values``, or from ``parts`` with the template between them."""

    __slots__ = ("parts", "template", "values")

    template: str
    values: Mapping[str, object]
    parts: tuple[str, ...]

    def __new__(
        cls,
        text: str = "",
        template: str = "{text}",
        values: Mapping[str, object] | None = None,
        parts: tuple[str, ...] = (),
    ) -> Self:
        made = super().__new__(cls, text)
        made.template = template
        made.values = {"text": str(text)} if values is None else values
        made.parts = parts
        return made

    def reads(self, text: str) -> Sentence:
        """The same sentence, which reads ``text`` in English: with a capital, without its full stop."""
        return Sentence(text, self.template, self.values, self.parts)


def say(template: str, /, **values: object) -> Sentence:
    """A sentence from a template as ``str.format`` fills it; values may be sentences themselves. A place whose name
    begins with "_" holds English grammar (:func:`are`), which a translation leaves out.
    """
    return Sentence(template.format(**values), template, values)


def from_data(text: str) -> Sentence:
    """A sentence that stands in a resource file, where the catalogue of texts finds it."""
    return Sentence(text, text.replace("{", "{{").replace("}", "}}"), {})


def joined(separator: str, parts: Iterable[str]) -> Sentence:
    """``separator.join(parts)``, in which the parts stay sentences; empty ones are left out."""
    kept = tuple(part for part in parts if part)
    return Sentence(separator.join(kept), separator, {}, kept)


def edited(text: str, change: Callable[[str], str]) -> str:
    """``change(text)``, in which a sentence stays one: what fills it is changed alike."""
    if not isinstance(text, Sentence):
        return change(text)
    values = {name: edited(value, change) if isinstance(value, str) else value for name, value in text.values.items()}
    return Sentence(change(text), text.template, values, tuple(edited(part, change) for part in text.parts))


def spoken(text: str, translate: Callable[[str], str]) -> str:
    """The text in the language of ``translate``, which gives the translation of a template, or the template itself. A
    text that is no :class:`Sentence` (a key, an engine's own error) stays as it is, and so does one of which nothing
    has a translation: it reads as English does, "1 key" and with its capital.
    """
    if not isinstance(text, Sentence) or not text:
        return text
    template = translate(text.template)
    if text.parts:
        parts = [spoken(part, translate) for part in text.parts]
        return str(text) if (template, *parts) == (text.template, *text.parts) else template.join(parts)
    said = {
        name: spoken(value, translate) if isinstance(value, Sentence) else value for name, value in text.values.items()
    }
    return str(text) if template == text.template and said == text.values else template.format(**said)


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
    low, high = number(ordered[0]), number(ordered[-1])
    text = low if ordered[0] == ordered[-1] else say("{low} to {high}", low=low, high=high)
    return text if len(ordered) == len(found) else say("{values} and NaN", values=text)


def size(count: int) -> str:
    """Bytes in decimal units: "812 bytes", "41.5 kB", "671.9 GB"."""
    if count < 1000:
        return plural(count, "byte")
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if round(value, 1) < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:,.1f} {unit}"


def plural(count: int, noun: str) -> Sentence:
    """A count with its noun: "1 layer", "2 layers", "1,024 keys"."""
    return Sentence(f"{count:,} {noun}{'' if count == 1 else 's'}", f"{{count:,}} {noun}s", {"count": count})


def are(count: int, verb: str = "is") -> str:
    """The verb that agrees with a count, given as for one: "is", "has", "runs", "reaches". A translation says the verb
    itself, so the place it fills has a name that begins with "_".
    """
    if count == 1:
        return verb
    return _PLURALS.get(verb) or verb.removesuffix("es" if verb.endswith("ches") else "s")


def of(part: int, whole: int, noun: str) -> Sentence:
    """A share in words: all 36 layers, both layers, the only layer, 2 of 36 layers."""
    if part != whole:
        values = {"part": part, "count": whole}
        return Sentence(f"{part:,} of {plural(whole, noun)}", f"{{part:,}} of {{count:,}} {noun}s", values)
    few = {1: f"the only {noun}", 2: f"both {noun}s"}.get(whole)
    if few is not None:
        return Sentence(few, few, {})
    return Sentence(f"all {plural(whole, noun)}", f"all {{count:,}} {noun}s", {"count": whole})


def numbered(layers: Iterable[int]) -> Sentence:
    """Layer numbers as ranges: "layer 3", "layers 0-2, 7"."""
    ordered = sorted(set(layers))
    if not ordered:
        return say("no numbered layer")
    runs: list[list[int]] = []
    for layer in ordered:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    shown = [str(low) if low == high else f"{low}-{high}" for low, high in runs]
    if len(shown) > 12:
        shown = [*shown[:12], "..."]
    numbers = joined(", ", shown)
    return say("layer {numbers}", numbers=numbers) if len(ordered) == 1 else say("layers {numbers}", numbers=numbers)


def listed(items: Sequence[str], *, most: int = 3, word: str = "and") -> str:
    """The first items: "a, b and c", "a, b, c and 9 more"; ``word`` is "and" or "or"."""
    if not items:
        return say("none")
    if len(items) == 1:
        return items[0]
    first, last = joined(", ", items[:-1]), items[-1]
    if len(items) > most:
        first, last = joined(", ", items[:most]), say("{count:,} more", count=len(items) - most)
    return say("{first} or {last}", first=first, last=last) if word == "or" else _and(first, last)


def _and(first: str, last: str) -> Sentence:
    return say("{first} and {last}", first=first, last=last)


def short(error: str | None) -> str:
    """An exception on one line, its first sentence when it is long; "AssertionError:" loses its colon."""
    if not error:
        return say("an exception")
    text = " ".join(error.split()).removesuffix(":")
    if len(text) <= _LONGEST_ERROR:
        return _as(error, text.removesuffix("."))
    first = text.partition(". ")[0]
    return first if len(first) <= _LONGEST_ERROR else f"{first[: _LONGEST_ERROR - 3].rstrip(' .,')}..."


def sentence(text: str) -> str:
    """``text`` with a full stop, and with a capital unless it begins with a name."""
    said = _as(text, text.strip())
    first = said.partition(" ")[0]
    if len(first) > 1 and first.isalpha() and first.islower():
        said = capital(said)
    return said if said.endswith((".", "。")) or not said else say("{sentence}.", sentence=said)


def without_stop(text: str) -> str:
    """``text`` without its full stop."""
    return _as(text, text.rstrip("."))


def small(text: str) -> str:
    """``text`` without its leading capital, which "NaN" keeps."""
    first = text.partition(" ")[0]
    return _as(text, text[:1].lower() + text[1:]) if first[1:].islower() or len(first) == 1 else text


def capital(text: str) -> str:
    """``text`` with its first letter as a capital, nothing else changed."""
    return _as(text, text[:1].upper() + text[1:])


def _as(text: str, reading: str) -> str:
    return text.reads(reading) if isinstance(text, Sentence) else reading
