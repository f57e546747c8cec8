"""``EngineProfile``: one engine in one version, and what every profile can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.engines.outcome import Deliveries
from core.naming.mapper import Renaming, WeightsMapper
from core.naming.scales import KVScale
from core.quantization.declaration import Declaration
from core.settings import Settings


@dataclass(frozen=True, slots=True)
class Fed:
    """One tensor the engine reads: a KV scale, or a companion (``scale`` None) that takes part in the load.

    ``shape`` as stored; ``values`` flattened, empty for a companion.
    """

    key: str
    shape: tuple[int, ...]
    values: tuple[float, ...]
    scale: KVScale | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for; None leaves it to the checkpoint and the engine. ``rules`` are an out-of-tree
    backend's own, merged after the method's with ``|``.
    """

    method: str | None = None
    architecture: str | None = None
    kv_cache_dtype: str = "auto"
    dtype: str | None = None
    rules: WeightsMapper | None = field(default=None, repr=False)


class EngineProfile(Protocol):
    """One engine version. ``id`` is what the command line takes, ``how_checked`` how its answers were compared.

    ``verifiable``: KVScope can run this engine's loader (:mod:`core.loading`) and compare.
    """

    id: str
    name: str
    version: str
    title: str
    source: str
    how_checked: str
    verifiable: bool

    def known_architectures(self) -> tuple[str, ...]:
        """The architectures whose load this profile can follow, sorted."""
        ...

    def settle(self, declaration: Declaration, wish: Wish) -> Settings:
        """What the prediction will assume, each with its origin. Raises UsageError for a choice that does not exist."""
        ...

    def deliver(
        self,
        declaration: Declaration,
        settings: Settings,
        tensors: Sequence[Fed],
        wish: Wish,
        names: Sequence[str] = (),
        leftovers: Sequence[str] = (),
    ) -> Deliveries:
        """What the engine does with these tensors, in the order in which it reads them. ``names`` are those of all
        tensors of the checkpoint in that order, for loaders that end the load at any of them; ``leftovers`` those among
        them that belong to no module, and may end it as well.
        """
        ...

    def map_names(
        self, names: Sequence[str], *, method: str | None, architecture: str | None, rules: WeightsMapper | None = None
    ) -> list[Renaming]:
        """What the outermost loader renames each name to, without asking which parameters exist."""
        ...
