"""``Observed``: what one run of the loader left in the layers of one rank, before anything is compared. No PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from core.loading.forward_result import Forward
from core.loading.verification import Disagreement, HeldWeights, Step

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor's values as read back: flat, exact, with the name of the dtype it had on the device."""

    values: Numbers
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One rank's run.

    ``error`` is what the load raised and ``key`` the tensor it came at; with ``key`` alone of an ordinary tensor,
    ``misplaced`` is true. ``written`` are the parameters that were loaded into. By full name: ``parameters`` as they
    are just after loading, ``buffers`` that the kernels read, ``copies`` that the host keeps. ``raised`` is what
    post-processing raised, by layer. ``unknown`` is why the model could not be built.
    """

    rank: int = 0
    where: str = "cpu"
    error: str | None = None
    key: str | None = None
    misplaced: bool = False
    unknown: str = ""
    written: frozenset[str] = frozenset()
    parameters: Mapping[str, Held] = field(default_factory=dict)
    buffers: Mapping[str, Held] = field(default_factory=dict)
    copies: Mapping[str, float] = field(default_factory=dict)
    raised: Mapping[str, str | None] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    peak_memory: int | None = None
    weights: HeldWeights | None = None
    wrong_weights: tuple[Disagreement, ...] = ()
    forward: Forward | None = None
    gathered: Mapping[int, Mapping[str, Numbers]] = field(default_factory=dict)
    """Other ranks' scales by buffer, as they came through the process group."""
