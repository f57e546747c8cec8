"""``Row``: one tensor on its way from the source into the copy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.checkpoint.dtypes import decode, encode
from core.diagnosis.facts import anchor
from core.engines import Fed
from core.engines.outcome import AttentionLayer
from core.export.modules import modules_with_weights
from core.export.names import spelling_of
from core.inspection import Inspection
from core.naming.conventions import companion_rows, layer_number, recognise
from core.naming.scales import KVScale, Role
from core.numerics import to_float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A tensor: ``source`` as the checkpoint holds it, None for one that a repair adds, and ``fed`` as it is to be.

    ``file`` is its shard. ``fixes`` are the codes of the repairs that
    touched it, ``reasons`` what they say.
    """

    source: Fed | None
    fed: Fed
    file: str
    fixes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    dropped: bool = False

    @property
    def scale(self) -> KVScale | None:
        return self.fed.scale

    def is_called(self, keys: frozenset[str]) -> bool:
        """Whether one of the keys is its name, now or in the source."""
        return self.fed.key in keys or (self.source is not None and self.source.key in keys)

    def without(self, code: str, reason: str) -> Row:
        """Left out."""
        return replace(self, dropped=True, fixes=(*self.fixes, code), reasons=(*self.reasons, reason))

    def holding(self, values: Sequence[float], shape: tuple[int, ...], code: str, reason: str) -> Row:
        """With other values, in the stored type where that holds them exactly, else in float32."""
        scale = self.fed.scale
        if scale is None:
            return self
        dtype = scale.dtype if _holds(scale.dtype, values) else "F32"
        return replace(
            self,
            fed=_fed(scale, scale.key, tuple(map(to_float32, values)), shape, dtype),
            fixes=(*self.fixes, code),
            reasons=(*self.reasons, reason),
        )

    def called(self, key: str) -> Row:
        """Under another name, as a scale in place of the quantity that the old name promised."""
        scale = self.fed.scale
        if scale is None:
            return self
        known = recognise(key)
        convention = known.convention.id if known is not None else scale.convention
        changed = replace(scale, key=key, quantity="scale", convention=convention)
        return replace(self, fed=Fed(key, self.fed.shape, self.fed.values, changed))


def rows_of(inspection: Inspection) -> list[Row]:
    """Every tensor that takes part, as it is."""
    catalog = inspection.checkpoint.catalog
    others = iter(companion_rows(inspection.checkpoint))
    return [
        Row(source=fed, fed=fed, file=fed.scale.file if fed.scale is not None else catalog.shard(next(others)))
        for fed in inspection.tensors
    ]


def added_row(
    module: str, file: str, role: Role, values: Sequence[float], shape: tuple[int, ...], *, code: str, reason: str
) -> Row:
    """A new scale, in float32, under its portable name."""
    scale = KVScale(
        key="", file=file, role=role, kind="scale", layer=layer_number(module), module=module, convention="portable",
        dtype="F32", shape=shape,
    )  # fmt: skip
    key = spelling_of("portable").spell(scale, role) or ""
    fed = _fed(scale, key, tuple(map(to_float32, values)), shape, "F32")
    return Row(source=None, fed=fed, file=file, fixes=(code,), reasons=(reason,))


class Places:
    """What the checkpoint calls the attention modules of the engine's layers, and in which shards they are."""

    def __init__(self, inspection: Inspection, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._shards = [shard.name for shard in inspection.checkpoint.shards]
        catalog = inspection.checkpoint.catalog
        found = modules_with_weights(inspection.checkpoint)
        self._modules = {module: catalog.shard(row) for module, row in found.items()}
        """Attention modules by their weights, with the shard that holds the last of these."""

    def of(self, layer: AttentionLayer) -> tuple[str, str] | None:
        """The module of a layer, and the shard that a scale of it belongs in.

        Scales of the same layer tell, then those of other layers, then the names of the weights; None where nothing
        does.
        """
        module = self._from_scales(layer) or self._from_weights(layer)
        if module is None and not self._modules:
            module = anchor(layer.path)  # a checkpoint of scales alone: the engine's own name is the best guess
        if module is None:
            return None
        for row in self._rows:
            if row.scale is not None and row.scale.module == module and row.file:
                return module, row.file
        files = [row.file for row in self._rows if row.file] or self._shards
        return module, self._modules.get(module) or files[0]

    def _from_scales(self, layer: AttentionLayer) -> str | None:
        """By analogy; where the checkpoint has weights, only a module that has some."""
        best: tuple[int, str] | None = None
        for row in self._rows:
            scale = row.scale
            if scale is None or scale.layer is None or layer.layer is None:
                continue
            module = re.sub(rf"(?:(?<=\.)|^){scale.layer}(?=\.)", str(layer.layer), scale.module, count=1)
            alike = _shared(module, anchor(layer.path))
            if self._modules and scale.layer != layer.layer and module not in self._modules:
                continue
            if best is None or alike > best[0]:
                best = alike, module
        return best[1] if best is not None else None

    def _from_weights(self, layer: AttentionLayer) -> str | None:
        mine = [module for module in self._modules if layer_number(module) == layer.layer]
        return max(sorted(mine), key=lambda module: _shared(module, anchor(layer.path)), default=None)


def _shared(one: str, other: str) -> int:
    """How many components two paths have in common, the ends counting first."""
    left, right = one.split("."), other.split(".")
    ends = 0
    for a, b in zip(reversed(left), reversed(right), strict=False):
        if a != b:
            break
        ends += 1
    return 100 * ends + len(set(left) & set(right))


def _fed(scale: KVScale, key: str, values: tuple[float, ...], shape: tuple[int, ...], dtype: str) -> Fed:
    return Fed(key, shape, values, replace(scale, key=key, values=values, shape=shape, dtype=dtype, fault=None))


def _holds(dtype: str, values: Sequence[float]) -> bool:
    try:
        return tuple(decode(encode(values, dtype), dtype).tolist()) == tuple(values)
    except (ValueError, OverflowError):
        return False
