"""``inspect``: the whole road from a path to a verdict, on one page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from core.checkpoint import Checkpoint
from core.diagnosis.finding import Finding, Verdict
from core.engines.outcome import Deliveries
from core.naming.scales import KVScale
from core.quantization.declaration import Declaration

Origin = Literal["chosen", "config", "tensors", "default", "unknown"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A setting with where it came from: chosen by the user, read from a config file, derived from tensor names,
    or this program's default. ``detail`` names the file and field. ``value`` None with origin "unknown": not known."""

    value: str | None
    origin: Origin
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the prediction assumes, each with its origin.

    ``engine`` is an engine profile's id ("vllm-0.33.0"), ``method`` the quantization backend, ``kv_cache_dtype`` as
    asked for, ``kv_cache_dtype_resolved`` as the engine resolves it, ``dtype`` the engine's model dtype.
    """

    engine: Choice
    method: Choice
    architecture: Choice
    kv_cache_dtype: Choice
    kv_cache_dtype_resolved: str
    dtype: Choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """Everything the window, the report, the export and the GPU check start from."""

    checkpoint: Checkpoint
    declaration: Declaration
    settings: Settings
    scales: tuple[KVScale, ...]
    deliveries: Deliveries
    findings: tuple[Finding, ...]
    verdict: Verdict
