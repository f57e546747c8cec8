"""Patterns, modules and shards as a lazy tree: a node makes its children when it is first opened."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PySide6.QtCore import QAbstractItemModel, QCoreApplication, QModelIndex, QObject, Qt
from PySide6.QtGui import QBrush, QColor, QIcon

from app import text
from app.digest import Digest, Row
from app.status import Status
from app.theme import icons
from app.theme.status import word
from app.theme.theme import colours, theme
from core.checkpoint.faults import with_offset
from core.ordering import natural

Grouping = Literal["patterns", "modules", "shards"]
GROUPINGS: tuple[Grouping, ...] = ("patterns", "modules", "shards")
LARGEST_GROUP = 10_000
SUFFIX = ".safetensors"
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)")
_ROOT = QModelIndex()


@dataclass(frozen=True, slots=True)
class Group:
    """One node: a label, the rows it stands for, and how to make its children.

    ``status`` is the worst among its scales, ``fault`` what is wrong with the file it stands for, ``pattern`` the
    whole of what ``label`` is the telling part of, ``shorter`` the label for less and less room.
    """

    label: str
    ids: Sequence[str]
    status: Status | None = None
    tip: str = ""
    fault: str = ""
    icon: str = ""
    pattern: str = ""
    shorter: Sequence[str] = ()
    children: Callable[[], list[Group]] | None = None


def pattern_of(name: str) -> str:
    """A name with its numbers replaced: "model.layers.3.self_attn.k_scale" -> "model.layers.*.self_attn.k_scale"."""
    return _NUMBER.sub("*", name)


def worst(ids: Iterable[str], rows: Mapping[str, Row]) -> Status | None:
    """The worst status among the rows; None when none of them is a scale."""
    found = [row.status for name in ids if (row := rows.get(name)) is not None]
    return min(found, key=lambda status: status.rank) if found else None


def by_pattern(names: Sequence[str], rows: Mapping[str, Row]) -> list[Group]:
    """Groups of names that differ in their numbers alone, in order of appearance."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(pattern_of(name), []).append(name)
    shared = _shared_prefix(list(groups))
    labels = [pattern[shared:] for pattern in groups]
    return [
        Group(
            label,
            ids,
            worst(ids, rows),
            tip=pattern,
            icon="pattern",
            pattern=pattern,
            shorter=shorter,
            children=_leaves(ids, rows) if len(ids) > 1 else None,
        )
        for (pattern, ids), label, shorter in zip(groups.items(), labels, shortened(labels), strict=True)
    ]


def shortened(labels: Sequence[str]) -> list[list[str]]:
    """For each dotted label the same with parts left out, fewer and fewer; at each step all still differ.

    First go the parts that all have ("encoder.layers.*.self_attn.k_scale" -> "encoder…self_attn.k_scale"), then those
    before the last one that nothing depends on. The last part always stays.
    """
    parts = [label.split(".") for label in labels]
    in_all = set(parts[0]).intersection(*parts) if parts else set()
    kept = [[part not in in_all for part in whole[:-1]] + [True] for whole in parts]
    found: list[list[str]] = [[] for _ in labels]
    shown = _folded(parts, kept)
    if len(set(shown)) < len(labels):
        return found
    for steps, label, whole in zip(found, shown, labels, strict=True):
        if len(label) < len(whole):
            steps.append(label)
    for place in range(2, max(map(len, parts), default=0) + 1):
        fewer = [[keep and len(marks) - at != place for at, keep in enumerate(marks)] for marks in kept]
        labels_now = _folded(parts, fewer)
        if fewer != kept and len(set(labels_now)) == len(labels):
            kept = fewer
            for steps, label, before in zip(found, labels_now, shown, strict=True):
                if len(label) < len(before):
                    steps.append(label)
            shown = labels_now
    return found


def _folded(parts: Sequence[Sequence[str]], kept: Sequence[Sequence[bool]]) -> list[str]:
    """The parts that are kept, "…" for each run of the others."""
    folded = []
    for whole, marks in zip(parts, kept, strict=True):
        shown = ""
        for part, keep in zip(whole, marks, strict=True):
            if not keep:
                shown = shown if shown.endswith("…") else f"{shown}…"
            else:
                shown += part if not shown or shown.endswith("…") else f".{part}"
        folded.append(shown)
    return folded


def _shared_prefix(patterns: Sequence[str]) -> int:
    """The length of the modules that all patterns begin with, the last two parts of a name always left over."""
    if not patterns:
        return 0
    parts = [pattern.split(".") for pattern in patterns]
    most = min(len(part) for part in parts) - 2
    count = 0
    while count < most and len({part[count] for part in parts}) == 1:
        count += 1
    return len(".".join(parts[0][:count])) + 1 if count else 0


def by_module(names: Sequence[str], rows: Mapping[str, Row], prefix: str = "") -> list[Group]:
    """The next level of modules below ``prefix`` (which ends with a dot); single children are joined."""
    groups: dict[str, list[str]] = {}
    start = len(prefix)
    for name in names:
        end = name.find(".", start)
        groups.setdefault(name[start:] if end < 0 else name[start : end + 1], []).append(name)
    found = []
    for part, ids in sorted(groups.items(), key=lambda item: natural(item[0])):
        label, below = part, prefix + part
        while label.endswith("."):
            ahead = {name[len(below) :].partition(".")[0] for name in ids}
            (only,) = ahead if len(ahead) == 1 else (None,)
            if only is None or not all(name.startswith(f"{below}{only}.") for name in ids):
                break
            label, below = f"{label}{only}.", f"{below}{only}."
        module = label.endswith(".")
        found.append(
            Group(
                label.rstrip("."),
                ids,
                worst(ids, rows),
                icon="module" if module else "tensors",
                children=_below(ids, rows, below) if module else None,
            )
        )
    return found


def by_shard(digest: Digest) -> list[Group]:
    """The files of the checkpoint; those that could not be read, or not wholly, carry their fault."""
    checkpoint = digest.inspection.checkpoint
    of_file: dict[str, list[str]] = {}
    for row in digest.rows:
        if row.key:
            of_file.setdefault(row.file, []).append(row.id)
    groups = []
    # An ending that all have is left out: what tells the names apart would be elided before it.
    several = len(checkpoint.shards) > 1
    ending = SUFFIX if several and all(shard.name.endswith(SUFFIX) for shard in checkpoint.shards) else ""
    for shard in checkpoint.shards:
        ids = of_file.get(shard.name, [])
        tip = QCoreApplication.translate("Groups", "{size}, {tensors} tensors, header {header}").format(
            size=text.size(shard.size), tensors=text.count(shard.tensors), header=text.size(shard.header_size)
        )
        fault = text.spoken(shard.fault.message) if shard.fault is not None else ""
        groups.append(
            Group(
                shard.name.removesuffix(ending),
                ids,
                worst(ids, digest.by_id),
                tip=fault or f"{shard.name}: {tip}",
                fault=fault,
                icon="error" if fault else "shard",
                pattern=shard.name,
                children=_details([with_offset(shard.fault.problem, shard.fault.offset), shard.fault.remedy])
                if shard.fault is not None
                else _leaves(ids, digest.by_id)
                if ids
                else None,
            )
        )
    shown = {shard.name for shard in checkpoint.shards if shard.fault is not None}
    groups += [
        Group(
            fault.file,
            [],
            tip=text.spoken(fault.message),
            fault=text.spoken(fault.message),
            icon="error",
            children=_details([with_offset(fault.problem, fault.offset), fault.remedy]),
        )
        for fault in checkpoint.faults
        if fault.file not in shown
    ]
    return groups


def _leaves(ids: Sequence[str], rows: Mapping[str, Row]) -> Callable[[], list[Group]]:
    def make() -> list[Group]:
        shown = [Group(name, [name], worst([name], rows), icon="tensors") for name in ids[:LARGEST_GROUP]]
        if len(ids) > LARGEST_GROUP:
            more = QCoreApplication.translate("Groups", "… and {count} more; use the filter").format(
                count=text.count(len(ids) - LARGEST_GROUP)
            )
            shown.append(Group(more, []))
        return shown

    return make


def _below(ids: Sequence[str], rows: Mapping[str, Row], prefix: str) -> Callable[[], list[Group]]:
    return lambda: by_module(ids, rows, prefix)


def _details(lines: Sequence[str]) -> Callable[[], list[Group]]:
    said = [text.spoken(line) for line in lines if line]
    return lambda: [Group(line, [], tip=line, fault=line) for line in said]


class _Node:
    __slots__ = ("children", "group", "parent", "row")

    def __init__(self, group: Group, parent: int, row: int) -> None:
        self.group = group
        self.parent = parent
        self.row = row
        self.children: list[int] | None = None if group.children is not None else []


class GroupTree(QAbstractItemModel):
    """The tree; indexes carry the number of a node, 0 being the invisible root."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._nodes: list[_Node] = []
        self._icons: dict[str, QIcon] = {}
        self._fault_brush = QBrush()
        self._faint = QBrush()
        self._right = (Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter).value
        self.set_groups([])

    def set_groups(self, groups: Sequence[Group]) -> None:
        """Show other groups."""
        self.beginResetModel()
        root = _Node(Group("", []), -1, 0)
        self._nodes = [root]
        self._take_theme()
        self._adopt(0, groups)
        self.endResetModel()

    def refresh_theme(self) -> None:
        """Take icons and colours from the theme in force."""
        self.layoutAboutToBeChanged.emit()
        self._take_theme()
        self.layoutChanged.emit()

    def group(self, index: Any) -> Group | None:
        return self._nodes[index.internalId()].group if index.isValid() else None

    def _take_theme(self) -> None:
        now = colours()
        names = ("pattern", "module", "shard", "tensors")
        self._icons = {name: icons.icon(name, now.muted, now.border) for name in names}
        self._icons["error"] = icons.icon("error", now.error.ink, now.border)
        self._fault_brush = QBrush(QColor(now.error.ink))
        self._faint = QBrush(QColor(now.muted))

    def _adopt(self, parent: int, groups: Sequence[Group]) -> None:
        first = len(self._nodes)
        self._nodes += [_Node(group, parent, row) for row, group in enumerate(groups)]
        self._nodes[parent].children = list(range(first, len(self._nodes)))

    def _node(self, index: Any) -> int:
        number: int = index.internalId() if index.isValid() else 0
        return number

    # --- QAbstractItemModel

    def index(self, row: int, column: int, parent: Any = _ROOT) -> QModelIndex:
        children = self._nodes[self._node(parent)].children or []
        if not (0 <= row < len(children) and 0 <= column < 2) or (parent.isValid() and parent.column() != 0):
            return QModelIndex()
        return self.createIndex(row, column, children[row])

    def parent(self, index: Any = _ROOT) -> Any:
        if not index.isValid():
            return QModelIndex()
        above = self._nodes[index.internalId()].parent
        return QModelIndex() if above <= 0 else self.createIndex(self._nodes[above].row, 0, above)

    def rowCount(self, parent: Any = _ROOT) -> int:
        if parent.isValid() and parent.column() != 0:
            return 0
        return len(self._nodes[self._node(parent)].children or [])

    def columnCount(self, parent: Any = _ROOT) -> int:
        return 2

    def hasChildren(self, parent: Any = _ROOT) -> bool:
        if parent.isValid() and parent.column() != 0:
            return False
        children = self._nodes[self._node(parent)].children
        return children is None or bool(children)

    def canFetchMore(self, parent: Any) -> bool:
        return parent.column() <= 0 and self._nodes[self._node(parent)].children is None

    def fetchMore(self, parent: Any) -> None:
        number = self._node(parent)
        node = self._nodes[number]
        if node.children is not None or node.group.children is None:
            return
        groups = node.group.children()
        if not groups:
            node.children = []
            return
        self.beginInsertRows(parent, 0, len(groups) - 1)
        self._adopt(number, groups)
        self.endInsertRows()

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        if orientation != Qt.Orientation.Horizontal or role != Qt.ItemDataRole.DisplayRole or section not in (0, 1):
            return None
        return (QCoreApplication.translate("Groups", "Group"), "#")[section]

    def data(self, index: Any, role: int = 0) -> Any:
        if not index.isValid():
            return None
        group = self._nodes[index.internalId()].group
        first = index.column() == 0
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return group.label if first else (text.count(len(group.ids)) if len(group.ids) > 1 else "")
            case Qt.ItemDataRole.DecorationRole if first:
                if group.fault:
                    return self._icons.get(group.icon)
                return theme().status_icon(group.status) if group.status is not None else self._icons.get(group.icon)
            case Qt.ItemDataRole.ToolTipRole:
                tip = group.tip or group.label
                return f"{tip}\n{word(group.status)}" if group.status is not None else tip
            case Qt.ItemDataRole.ForegroundRole:
                if group.fault:
                    return self._fault_brush
                return None if first else self._faint
            case Qt.ItemDataRole.TextAlignmentRole if not first:
                return self._right
            case _:
                return None
