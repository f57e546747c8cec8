"""How sure the verdict is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from core.loading.verification import Verification

Observation = Literal["predicted", "observed", "contradicted"]
"""Worked out only; confirmed by running the loader; or contradicted by it."""


def observation_of(verification: Verification | None) -> Observation:
    """What a run of the loader, or its absence, makes of a prediction."""
    if verification is None or verification.outcome in ("unknown", "refused"):
        return "predicted"
    if not verification.agreed:
        return "contradicted"
    # Modules that no run of the engine has confirmed: the loader agrees with them, and they may still be wrong.
    return "observed" if verification.confirmed else "predicted"
