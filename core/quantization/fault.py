"""``Fault``: what a quantization method of vLLM finds wrong with its dict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception class, its message, and the field of the quantization dict that causes it."""

    exception: str
    message: str
    field: str


def no_attribute(value: Any, name: str, field: str) -> Fault:
    """What Python says where a value of another type is asked for its attribute."""
    return Fault("AttributeError", f"'{type(value).__name__}' object has no attribute '{name}'", field)
