"""An inspection arranged for the views: one row per scale, one column per attention layer. No Qt, no judgement.

A status here only names what the core decided: the delivery's outcome, where the layer's value came from, and
whether a finding doubts it.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.status import Status
from core.diagnosis import DOUBTS
from core.naming.conventions import layer_number
from core.ordering import natural

if TYPE_CHECKING:
    from core.diagnosis.finding import Finding
    from core.engines.outcome import AttentionLayer, Delivery
    from core.inspection import Inspection
    from core.naming.scales import KVScale

COVERED_ROLES = ("k", "v", "q", "prob")
_EXPECTED_ROLES = ("k", "v")
_SIDES = frozenset({"encoder", "decoder"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the key table: a scale's tensor, or a parameter that expects one and gets none.

    ``id`` is what the selection holds: the checkpoint key (with its shard where an earlier one holds it too), or the
    parameter's name where there is no tensor (then ``key`` is ""). ``target`` is the parameter that the tensor
    reaches, else the name the engine looked for last.
    """

    id: str
    status: Status
    layer: int | None
    role: str
    kind: str
    key: str
    target: str
    reached: bool
    dtype: str
    shape: tuple[int, ...]
    values: tuple[float, ...]
    convention: str
    file: str
    module: str
    reason: str
    scale: KVScale | None = field(repr=False)
    delivery: Delivery | None = field(repr=False)
    attention: AttentionLayer | None = field(repr=False)

    @property
    def missing(self) -> bool:
        """Whether the row stands for a parameter without a tensor."""
        return not self.key

    @property
    def value(self) -> float | None:
        """The one number of a scalar, the largest of several, None where nothing is stored."""
        return max(self.values) if self.values else None


@dataclass(frozen=True, slots=True)
class Cell:
    """One role of one attention layer in the coverage strip; ``ids`` are the rows behind it."""

    status: Status
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One attention layer of the coverage strip. ``group`` is the stack of layers it belongs to ("model.layers")."""

    group: str
    layer: int | None
    path: str
    attention: AttentionLayer | None = field(repr=False)
    cells: Mapping[str, Cell] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """The rows and columns of one inspection, with look-ups."""

    inspection: Inspection = field(repr=False)
    rows: tuple[Row, ...]
    by_id: Mapping[str, Row] = field(repr=False)
    ids_by_key: Mapping[str, tuple[str, ...]] = field(repr=False)
    findings_by_id: Mapping[str, tuple[Finding, ...]] = field(repr=False)
    columns: tuple[Column, ...] = field(repr=False)
    roles: tuple[str, ...]
    counts: Mapping[Status, int]

    def ids_of(self, finding: Finding) -> tuple[str, ...]:
        """The rows a finding concerns: its keys, or everything on its layers where it names none."""
        named = tuple(name for key in finding.keys for name in self.ids_by_key.get(key, ()))
        if named:
            return named
        layers = set(finding.layers)
        return tuple(row.id for row in self.rows if row.layer in layers)

    @property
    def telling(self) -> tuple[str, ...]:
        """The row to begin with, whose story tells most: the first of the worst finding, else the first of all.

        Where what is wrong concerns no row (a file that cannot be read), it is the first that gets nothing.
        """
        found = [finding for finding in self.inspection.findings if finding.severity != "info"]
        of_findings = (ids[:1] for finding in found if (ids := self.ids_of(finding)))
        without = ((row.id,) for row in self.rows if row.missing and found)
        return next(itertools.chain(of_findings, without), tuple(itertools.islice(self.by_id, 1)))


def digest(inspection: Inspection) -> Digest:
    """Arrange an inspection. Rows come in layer order, missing parameters beside their layer's tensors."""
    findings = _findings_by_key(inspection.findings)
    delivered: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in inspection.deliveries.deliveries:
        delivered[delivery.key].append(delivery)
    layers = _Layers(inspection.deliveries.attention)
    rows: list[Row] = []
    ids: dict[str, list[str]] = defaultdict(list)
    for scale in inspection.scales:
        known = ids[scale.key]
        own = delivered[scale.key][len(known) :][:1] or delivered[scale.key][-1:]
        known.append(f"{scale.key} ({scale.file})" if known else scale.key)
        rows.append(_row(known[-1], scale, own[0] if own else None, findings.get(scale.key, ()), layers))
    for delivery in inspection.deliveries.deliveries:
        if delivery.outcome == "raises" and delivery.key not in ids:
            ids[delivery.key].append(delivery.key)
            rows.append(_row_of_other(delivery, layers))
    rows += _missing(inspection.deliveries.attention, rows)
    rows.sort(key=_order)
    by_id = {row.id: row for row in rows}
    columns = _columns(inspection.deliveries.attention, rows)
    roles = tuple(
        role for role in COVERED_ROLES if role in _EXPECTED_ROLES or any(column.cells[role].ids for column in columns)
    )
    counts: dict[Status, int] = defaultdict(int)
    for row in rows:
        counts[row.status] += 1
    return Digest(
        inspection=inspection,
        rows=tuple(rows),
        by_id=by_id,
        ids_by_key={key: tuple(names) for key, names in ids.items()},
        findings_by_id={name: tuple(found) for key, found in findings.items() for name in ids.get(key, (key,))},
        columns=columns,
        roles=roles,
        counts=dict(counts),
    )


class _Layers:
    """Finds the engine's attention layer that belongs to a tensor, although the two name it differently."""

    def __init__(self, attention: Iterable[AttentionLayer]) -> None:
        self._by_path: dict[str, AttentionLayer] = {}
        self._by_layer: dict[int, list[AttentionLayer]] = defaultdict(list)
        for layer in attention:
            self._by_path[layer.path] = layer
            if layer.layer is not None:
                self._by_layer[layer.layer].append(layer)

    def of(self, module: str, layer: int | None, target: str | None) -> AttentionLayer | None:
        if target is not None:
            owner = self._by_path.get(target.rpartition(".")[0])
            if owner is not None:
                return owner
        if layer is None:
            return None
        parts = module.split(".")
        side = _SIDES.intersection(parts)
        candidates = [
            candidate
            for candidate in self._by_layer.get(layer, [])
            if _SIDES.intersection(candidate.path.split(".")) in (side, frozenset())
        ]
        return max(candidates, key=lambda candidate: _shared(parts, candidate.path.split(".")), default=None)


def _shared(one: list[str], other: list[str]) -> int:
    """How many components two module paths have in common."""
    return sum(min(one.count(part), other.count(part)) for part in set(one))


def _findings_by_key(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    by_key: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        for key in finding.keys:
            by_key[key].append(finding)
    return by_key


def _row(name: str, scale: KVScale, delivery: Delivery | None, findings: Iterable[Finding], layers: _Layers) -> Row:
    target = delivery.target if delivery is not None else None
    attention = layers.of(scale.module, scale.layer, target)
    return Row(
        id=name,
        status=_status(scale, delivery, attention, findings),
        layer=scale.layer,
        role=scale.role,
        kind=scale.kind,
        key=scale.key,
        target=target or (delivery.name or "" if delivery is not None else ""),
        reached=target is not None,
        dtype=scale.dtype,
        shape=scale.shape,
        values=scale.values,
        convention=scale.convention,
        file=scale.file,
        module=scale.module,
        reason=scale.fault or (delivery.reason if delivery is not None else ""),
        scale=scale,
        delivery=delivery,
        attention=attention,
    )


def _row_of_other(delivery: Delivery, layers: _Layers) -> Row:
    """A tensor that is no KV scale and yet ends the load."""
    module = delivery.key.rpartition(".")[0]
    layer = layer_number(module)
    return Row(
        id=delivery.key,
        status=Status.RAISES,
        layer=layer,
        role="",
        kind="",
        key=delivery.key,
        target=delivery.target or delivery.name or "",
        reached=False,
        dtype="",
        shape=(),
        values=delivery.loaded,
        convention="",
        file="",
        module=module,
        reason=delivery.reason,
        scale=None,
        delivery=delivery,
        attention=layers.of(module, layer, delivery.target),
    )


def _status(
    scale: KVScale, delivery: Delivery | None, attention: AttentionLayer | None, findings: Iterable[Finding]
) -> Status:
    if scale.fault is not None:
        return Status.UNREADABLE
    if delivery is None:
        return Status.NOT_REACHED
    if delivery.outcome != "loaded":
        return Status(delivery.outcome)
    if attention is not None and attention.error is not None:
        return Status.RAISES
    if any(finding.code in DOUBTS for finding in findings):
        return Status.SUSPICIOUS
    if attention is not None and scale.kind == "scale" and attention.source.get(scale.role) == "forced":
        return Status.OVERRIDDEN
    return Status.LOADED


def _missing(attention: Iterable[AttentionLayer], rows: Iterable[Row]) -> list[Row]:
    """Rows for k and v parameters that exist, expect a scale, and have no tensor of their own."""
    present = {(row.attention.path, role) for row in rows if row.attention is not None for role in _roles(row)}
    found = []
    for layer in attention:
        for role in _EXPECTED_ROLES:
            source = layer.source.get(role)
            if not layer.expects_scales or (layer.path, role) in present or source in ("checkpoint", None):
                continue
            copied = source == "duplicated"
            found.append(
                Row(
                    id=f"{layer.path}.{role}_scale",
                    status=Status.COPIED if copied else Status.MISSING,
                    layer=layer.layer,
                    role=role,
                    kind="scale",
                    key="",
                    target=f"{layer.path}.{role}_scale",
                    reached=False,
                    dtype="",
                    shape=layer.parameters.get(f"{role}_scale", ()),
                    values=(),
                    convention="",
                    file="",
                    module=layer.path,
                    reason="",
                    scale=None,
                    delivery=None,
                    attention=layer,
                )
            )
    return found


def _roles(row: Row) -> tuple[str, ...]:
    if row.kind != "scale":
        return ()
    return _EXPECTED_ROLES if row.role == "kv" else (row.role,)


def _order(row: Row) -> tuple[object, ...]:
    path = row.attention.path if row.attention is not None else row.module
    role = COVERED_ROLES.index(row.role) if row.role in COVERED_ROLES else len(COVERED_ROLES)
    return (row.layer is None, natural(path), role, row.missing, natural(row.id))


def _columns(attention: Iterable[AttentionLayer], rows: Iterable[Row]) -> tuple[Column, ...]:
    by_path: dict[str, list[Row]] = defaultdict(list)
    orphans: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.attention is not None:
            by_path[row.attention.path].append(row)
        elif row.layer is not None:
            orphans[row.module].append(row)
    columns = [
        Column(
            group=_group(layer.path),
            layer=layer.layer,
            path=layer.path,
            attention=layer,
            cells={role: _cell(role, by_path[layer.path], layer) for role in COVERED_ROLES},
        )
        for layer in attention
    ]
    columns += [
        Column(
            group=_group(module),
            layer=found[0].layer,
            path=module,
            attention=None,
            cells={role: _cell(role, found, None) for role in COVERED_ROLES},
        )
        for module, found in orphans.items()
    ]
    columns.sort(key=lambda column: (natural(column.group), natural(column.path)))
    return tuple(columns)


def _group(path: str) -> str:
    """The stack a layer belongs to: "model.layers.3.self_attn.attn" -> "model.layers.*.self_attn.attn"."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", path, count=1)


def _cell(role: str, rows: Iterable[Row], layer: AttentionLayer | None) -> Cell:
    behind = [row for row in rows if role in _roles(row) or (row.missing and row.role == role)]
    ids = tuple(row.id for row in behind)
    source = layer.source.get(role) if layer is not None else None
    if not behind:
        return Cell(Status.COPIED if source == "duplicated" else Status.NONE, ids)
    if layer is not None and layer.error is not None:
        return Cell(Status.RAISES, ids)
    if source == "checkpoint":
        # A second tensor that is dropped harms nothing where another one arrives.
        arrived = [row.status for row in behind if row.reached] or [Status.LOADED]
        return Cell(min(arrived, key=lambda status: status.rank), ids)
    if source == "duplicated" and all(row.status is Status.LOADED for row in behind):
        return Cell(Status.COPIED, ids)
    return Cell(min((row.status for row in behind), key=lambda status: status.rank), ids)
