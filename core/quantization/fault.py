"""``Fault``: what a quantization method of vLLM finds wrong with its dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception class, its message, and the field of the quantization dict that causes it."""

    exception: str
    message: str
    field: str


# What Python says where a config's value is of another type than the engine's code takes for granted.


def no_attribute(value: Any, name: str, field: str) -> Fault:
    """``value.name``, which it has not."""
    return Fault("AttributeError", f"'{type(value).__name__}' object has no attribute '{name}'", field)


def no_length(value: Any, field: str) -> Fault:
    """``len(value)`` of what has none."""
    return Fault("TypeError", f"object of type '{type(value).__name__}' has no len()", field)


def not_hashable(value: Any, field: str) -> Fault:
    """``value`` as a key or in a set: a list or a dict."""
    return Fault("TypeError", f"unhashable type: '{type(value).__name__}'", field)


def no_item(value: Any, key: str, field: str) -> Fault | None:
    """``value[key]``; None where it is there."""
    match value:
        case Mapping():
            return None if key in value else Fault("KeyError", f"'{key}'", f"{field}.{key}")
        case list():
            return Fault("TypeError", "list indices must be integers or slices, not str", field)
        case str():
            return Fault("TypeError", "string indices must be integers, not 'str'", field)
        case _:
            return Fault("TypeError", f"'{type(value).__name__}' object is not subscriptable", field)
