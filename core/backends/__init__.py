"""The quantization backends: for each method, how its scales are renamed and which attention layers take them.

A new backend is one module with a :class:`core.backends.base.Backend` and its name in ``_MODULES``; one from outside
this tree is a TOML file of rules (:mod:`core.backends.rules_file`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from core.backends import compressed_tensors, fp8, modelopt, quark, weight_only
from core.backends.base import Backend
from core.errors import UsageError
from core.wording import joined, say

_MODULES = (fp8, quark, modelopt, compressed_tensors, weight_only)

BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {backend.method: backend for module in _MODULES for backend in module.BACKENDS}
)
"""Every quantization method of vLLM 0.33.0, by name."""


def get_backend(method: str) -> Backend:
    """The backend of that name; raises UsageError when there is none."""
    try:
        return BACKENDS[method]
    except KeyError:
        raise UsageError(
            say("no quantization method is called {method!r}", method=method),
            remedy=say("Choose one of {choices}", choices=joined(", ", sorted(BACKENDS))),
        ) from None


__all__ = ["BACKENDS", "Backend", "get_backend"]
