"""What a prediction assumes, and where each assumption came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["chosen", "config", "tensors", "default", "unknown"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting with its origin: chosen by the user, read from a config file, derived from tensor names, or this
    program's default. ``detail`` names the file and field. ``value`` None with origin "unknown" means: not known.
    """

    value: str | None
    origin: Origin
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the prediction assumes, each with its origin.

    ``engine`` is an engine profile's id ("vllm-0.33.0"), ``method`` the quantization backend (value None: the
    checkpoint is not quantized), ``kv_cache_dtype`` as asked for, ``kv_cache_dtype_resolved`` as the engine resolves
    it, ``dtype`` the engine's model dtype.
    """

    engine: Choice
    method: Choice
    architecture: Choice
    kv_cache_dtype: Choice
    kv_cache_dtype_resolved: str
    dtype: Choice
