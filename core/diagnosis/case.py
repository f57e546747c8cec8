"""``Case``: everything the rules of the diagnosis look at."""

from __future__ import annotations

from dataclasses import dataclass

from core.checkpoint import Checkpoint
from core.engines.outcome import Deliveries
from core.naming.scales import KVScale
from core.quantization.declaration import Declaration
from core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One checkpoint under one engine, before it is judged."""

    checkpoint: Checkpoint
    declaration: Declaration
    settings: Settings
    scales: tuple[KVScale, ...]
    deliveries: Deliveries
