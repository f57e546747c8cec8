"""``Forward``: what wrong scales cost the attention output, layer by layer. No PyTorch in here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Placeholder of the next stage."""
