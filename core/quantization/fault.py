"""``Fault``: what a quantization method of vLLM finds wrong with its dict."""

from __future__ import annotations

from dataclasses import dataclass

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception class, its message, and the field of the quantization dict that causes it."""

    exception: str
    message: str
    field: str
