"""``ExportResult``: what an export wrote, and how it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.diagnosis.finding import Verdict
from core.export.placement import Placement
from core.inspection import Inspection


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """A finished export: ``bytes_written`` in all files, of which ``linked``, ``cloned`` and ``copied`` bytes are
    hard links, share blocks with the source, or were written; ``verified`` tensors; ``seconds`` of wall time.

    ``after`` is the inspection of the written folder under the engine that the plan was made for. ``resumed`` names
    the files that an interrupted export had finished, ``notes`` are sentences for people.
    """

    out: Path
    bytes_written: int
    linked: int = 0
    cloned: int = 0
    copied: int = 0
    seconds: float
    verified: int
    after: Inspection
    placement: Placement
    resumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict_after(self) -> Verdict:
        return self.after.verdict
