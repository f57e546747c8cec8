"""``inspect``: the whole road from a path to a verdict, on one page."""

from __future__ import annotations

from dataclasses import dataclass

from core.checkpoint import Checkpoint
from core.diagnosis.finding import Finding, Verdict
from core.engines.outcome import Deliveries
from core.naming.scales import KVScale
from core.quantization.declaration import Declaration
from core.settings import Choice, Settings

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


__all__ = ["Choice", "Inspection", "Settings"]
