"""What of a text is English in every language: what is left when all that templates say is taken away."""

from __future__ import annotations

import re
from collections.abc import Iterable
from string import Formatter

from core.wording import spoken

_WORDS = re.compile(r"(?<![\w./'-])[A-Za-z][a-z]*(?:,? [a-z]+){2,}(?![\w./'-])")


def left_in_english(text: str, *, but: Iterable[str] = ()) -> list[str]:
    """Runs of three English words and more that no template says. ``but`` are the words of others: an engine's own
    error, the operating system's reason.
    """
    said = spoken(text, _places)
    for quoted in but:
        said = said.replace(quoted, "")
    return [found.group() for found in _WORDS.finditer(said)]


def _places(template: str) -> str:
    """The bare places of a template, as a translation would have them: without those that hold grammar."""
    names = (name for _, name, _, _ in Formatter().parse(template) if name is not None and not name.startswith("_"))
    return "<" + "|".join(f"{{{name}}}" for name in names) + ">"
