"""``ScaleSource``: the KV-cache scales of a file, by layer and role, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.naming.scales import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceScale:
    """One scale: a dequantization multiplier (amax / 448 for float8_e4m3fn), or one for each KV head.

    ``module`` is the attention module as the source names it, "" where it only counts layers.
    """

    role: Role
    layer: int
    values: tuple[float, ...]
    module: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleSource:
    """What was read: ``format`` is the id of the side file's format, or "checkpoint"; ``title`` says it in words.

    ``notes`` are sentences about what was left out or converted. ``address`` is where it really is, "" on this machine.
    """

    path: Path
    format: str
    title: str
    scales: tuple[SourceScale, ...]
    notes: tuple[str, ...] = ()
    address: str = ""

    @property
    def place(self) -> str:
        """The path or address to name in a message."""
        return self.address or str(self.path)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that have a scale, in order."""
        return tuple(sorted({scale.layer for scale in self.scales}))

    @property
    def several(self) -> bool:
        """Whether some scale has one value for each head."""
        return any(len(scale.values) > 1 for scale in self.scales)

    def find(self, role: Role, layer: int | None, module: str) -> SourceScale | None:
        """The scale for a role of an attention module, None where the source has none.

        A source that names modules is asked by name first; among several modules of one layer the one with the longest
        common end counts. A scale for k and v together answers for both.
        """
        found = [scale for scale in self.scales if scale.layer == layer and scale.role in (role, _common(role))]
        own = [scale for scale in found if scale.role == role] or found
        return max(own, key=lambda scale: _alike(scale.module, module), default=None)


def _common(role: Role) -> Role:
    return "kv" if role in ("k", "v") else role


def _alike(one: str, other: str) -> int:
    """How many components two paths share at their ends."""
    return _run(one.split(".")[::-1], other.split(".")[::-1])


def _run(one: Sequence[str], other: Sequence[str]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count
