"""The order in which people expect names."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"([0-9]+)")


def natural(name: str) -> list[str | tuple[int, str]]:
    """A sort key under which "shard-2" comes before "shard-10", and numbers of any length are compared as numbers."""
    parts: list[str | tuple[int, str]] = list(_DIGITS.split(name))
    numbers = [str(part).lstrip("0") for part in parts[1::2]]
    parts[1::2] = [(len(number), number) for number in numbers]
    return parts
