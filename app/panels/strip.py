"""The cells of the coverage strip: roles by layers. Click, drag or arrow keys select; hovering explains."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QEvent, QPoint, QRectF, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetricsF, QHelpEvent, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QSizePolicy, QToolTip, QWidget

from app import text
from app.digest import Cell, Column, Digest
from app.selection import Selection
from app.status import Status
from app.theme.palettes import Colours
from app.theme.status import meaning, paint, tone, word
from app.theme.theme import colours, theme

_LABELS = 46
_RULER = 17
_STACKS = 15
_ROW = 20
_GAP = 14
_LEAST, _MOST = 11, 30

Place = tuple[int, int]
"""Role number and column number of a cell."""


class Strip(QWidget):
    """Paints the cells and turns mouse and keys into selections."""

    def __init__(self, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._selection = selection
        self._digest: Digest | None = None
        self._lefts: list[float] = []
        self._stacks: list[tuple[str, int, int]] = []
        self._top = _RULER
        self._width = float(_MOST)
        self._cursor: Place | None = None
        self._anchor: Place | None = None
        self._hovered: Place | None = None
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMouseTracking(True)
        self.setAccessibleName(self.tr("Coverage: roles by layers"))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        selection.changed.connect(self._on_selection_changed)
        theme().changed.connect(self.update)

    # --- content

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        self._cursor = self._anchor = self._hovered = None
        self._stacks = _stacks(digest.columns) if digest is not None else []
        self._top = _RULER + (_STACKS if len(self._stacks) > 1 else 0)
        if digest is not None:
            self.setFixedHeight(self._top + _ROW * len(digest.roles) + 4)
            several = len(self._stacks) > 1
            wide = sum(
                max(_LEAST * (end - start), self._name_width(name) if several else 0)
                for name, start, end in self._stacks
            )
            self.setMinimumWidth(int(_LABELS + wide + _GAP * len(self._stacks) + 8))
        self._place()
        self.updateGeometry()
        self.update()

    def cell(self, place: Place) -> Cell | None:
        """The cell at a place; None outside the strip."""
        if self._digest is None:
            return None
        role, column = place
        if not (0 <= role < len(self._digest.roles) and 0 <= column < len(self._digest.columns)):
            return None
        return self._digest.columns[column].cells[self._digest.roles[role]]

    def place_of(self, role: str, layer: int) -> Place | None:
        """Where a role of a layer is drawn, the first group's where several have that layer."""
        if self._digest is None or role not in self._digest.roles:
            return None
        for number, column in enumerate(self._digest.columns):
            if column.layer == layer:
                return self._digest.roles.index(role), number
        return None

    def box(self, place: Place) -> QRectF:
        """The rectangle of a cell."""
        role, column = place
        return QRectF(self._lefts[column], self._top + role * _ROW, self._width, _ROW)

    def sizeHint(self) -> QSize:
        count = len(self._digest.columns) if self._digest is not None else 0
        return QSize(int(_LABELS + _MOST * count + 8), self.minimumHeight())

    def _place(self) -> None:
        """Lay out the columns; a stack is at least as wide as its name, where there is more than one."""
        columns: tuple[Column, ...] = self._digest.columns if self._digest is not None else ()
        room = self.width() - _LABELS - 8 - _GAP * max(0, len(self._stacks) - 1)
        self._width = min(float(_MOST), max(float(_LEAST), room / len(columns))) if columns else float(_MOST)
        self._lefts = []
        left = float(_LABELS)
        for name, start, end in self._stacks:
            self._lefts += [left + self._width * number for number in range(end - start)]
            wide = max(self._width * (end - start), self._name_width(name) if len(self._stacks) > 1 else 0.0)
            left += wide + _GAP

    def _name_width(self, name: str) -> float:
        return QFontMetricsF(self._small_font()).horizontalAdvance(name)

    def _small_font(self) -> QFont:
        font = self.font()
        font.setPointSizeF(font.pointSizeF() * 0.82)
        return font

    def resizeEvent(self, event: QEvent) -> None:
        self._place()

    # --- painting

    def paintEvent(self, event: QPaintEvent) -> None:
        painter = QPainter(self)
        now = colours()
        painter.fillRect(self.rect(), QColor(now.base))
        if self._digest is None or not self._digest.columns:
            painter.end()
            return
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._paint_ruler(painter, now, self._digest)
        self._paint_labels(painter, now, self._digest)
        chosen = self._selection.ids
        for role, name in enumerate(self._digest.roles):
            for number, column in enumerate(self._digest.columns):
                place = (role, number)
                self._paint_cell(painter, now, place, column.cells[name], chosen)
        if self.hasFocus() and self._cursor is not None:
            painter.setPen(QPen(QColor(now.accent), 2))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(self.box(self._cursor).adjusted(1, 1, -1, -1), 3, 3)
        painter.end()

    def _paint_cell(self, painter: QPainter, now: Colours, place: Place, cell: Cell, chosen: frozenset[str]) -> None:
        box = self.box(place).adjusted(1, 1, -1, -1)
        accent = now.tone(tone(cell.status))
        if cell.status is not Status.NONE:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(accent.tint))
            painter.drawRoundedRect(box, 3, 3)
        if chosen and any(name in chosen for name in cell.ids):
            painter.setPen(QPen(QColor(now.accent), 1.6))
            painter.setBrush(QColor(now.selected))
            painter.drawRoundedRect(box.adjusted(0.3, 0.3, -0.3, -0.3), 3, 3)
        elif place == self._hovered and cell.ids:
            painter.setPen(QPen(QColor(accent.ink), 1))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(box.adjusted(0.5, 0.5, -0.5, -0.5), 3, 3)
        side = min(11.0, box.width() - 1.5, box.height() - 5)
        centre = box.center()
        paint(
            painter, QRectF(centre.x() - side / 2, centre.y() - side / 2, side, side), cell.status, QColor(accent.ink)
        )

    def _paint_ruler(self, painter: QPainter, now: Colours, digest: Digest) -> None:
        painter.setFont(self._small_font())
        painter.setPen(QColor(now.muted))
        metrics = QFontMetricsF(self._small_font())
        top = self._top - _RULER
        for name, start, end in self._stacks:
            left = self._lefts[start]
            if len(self._stacks) > 1:
                place = QRectF(left, 1, metrics.horizontalAdvance(name) + 4, _STACKS)
                painter.drawText(place, Qt.AlignmentFlag.AlignVCenter, name)
                if start:
                    painter.fillRect(QRectF(left - _GAP / 2, 4, 1, self.height() - 8), QColor(now.border))
            steps = (1, 2, 5, 10, 20, 50)
            room = metrics.horizontalAdvance("000") + 3
            step = next((step for step in steps if self._width * step > room), 100)
            last = -1e9
            for number in range(start, end):
                layer = digest.columns[number].layer
                middle = self._lefts[number] + self._width / 2
                if layer is None or (layer % step and number != start) or middle - room / 2 < last:
                    continue
                box = QRectF(middle - 24, top, 48, _RULER)
                painter.drawText(box, Qt.AlignmentFlag.AlignCenter, str(layer))
                last = middle + room / 2
        painter.drawText(QRectF(0, top, _LABELS - 6, _RULER), _RIGHT, self.tr("layer"))

    def _paint_labels(self, painter: QPainter, now: Colours, digest: Digest) -> None:
        font = self.font()
        font.setBold(True)
        painter.setFont(font)
        painter.setPen(QColor(now.text))
        for role, name in enumerate(digest.roles):
            painter.drawText(QRectF(0, self._top + role * _ROW, _LABELS - 8, _ROW), _RIGHT, name)

    # --- mouse and keys

    def _at(self, point: QPoint) -> Place | None:
        """The cell under a point; role -1 is the ruler (a whole layer), column -1 the label (a whole role)."""
        if self._digest is None:
            return None
        role = -1 if point.y() < self._top else (point.y() - self._top) // _ROW
        if role >= len(self._digest.roles):
            return None
        if point.x() < _LABELS:
            return role, -1
        for column, left in enumerate(self._lefts):
            if left <= point.x() < left + self._width:
                return role, column
        return None

    def _ids(self, first: Place, last: Place) -> list[str]:
        """The rows behind all cells between two places; -1 stands for all roles or all columns."""
        if self._digest is None:
            return []
        found: dict[str, None] = {}
        for number in _span(first[1], last[1], len(self._digest.columns)):
            for role in _span(first[0], last[0], len(self._digest.roles)):
                found.update(dict.fromkeys(self._digest.columns[number].cells[self._digest.roles[role]].ids))
        return list(found)

    def _select(self, place: Place, modifiers: Qt.KeyboardModifier) -> None:
        extend = bool(modifiers & Qt.KeyboardModifier.ShiftModifier) and self._anchor is not None
        if not extend:
            self._anchor = place
        ids = self._ids(self._anchor or place, place)
        current = next(iter(self._ids(place, place)), None)
        if modifiers & Qt.KeyboardModifier.ControlModifier:
            kept = set(self._selection.ids)
            ids = [*(kept - set(ids))] if set(ids) <= kept else [*kept, *ids]
            current = current if current in ids else None
        self._cursor = (max(place[0], 0), max(place[1], 0))
        self._selection.select(ids, current=current, origin=self)
        self.update()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        place = self._at(event.position().toPoint())
        if event.button() == Qt.MouseButton.LeftButton and place is not None:
            self._select(place, event.modifiers())

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        place = self._at(event.position().toPoint())
        if event.buttons() & Qt.MouseButton.LeftButton and place is not None and self._anchor is not None:
            self._select(place, Qt.KeyboardModifier.ShiftModifier)
        if place != self._hovered:
            self._hovered = place
            self.update()

    def leaveEvent(self, event: QEvent) -> None:
        self._hovered = None
        self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        moves = {
            Qt.Key.Key_Left: (0, -1),
            Qt.Key.Key_Right: (0, 1),
            Qt.Key.Key_Up: (-1, 0),
            Qt.Key.Key_Down: (1, 0),
            Qt.Key.Key_Home: (0, -1_000_000),
            Qt.Key.Key_End: (0, 1_000_000),
        }
        move = moves.get(Qt.Key(event.key()))
        if self._digest is None or not self._digest.columns or move is None:
            super().keyPressEvent(event)
            return
        if self._cursor is None:
            place = (0, 0)
        else:
            place = (
                min(max(self._cursor[0] + move[0], 0), len(self._digest.roles) - 1),
                min(max(self._cursor[1] + move[1], 0), len(self._digest.columns) - 1),
            )
        self._select(place, event.modifiers() & Qt.KeyboardModifier.ShiftModifier)

    def focusInEvent(self, event: QEvent) -> None:
        if self._cursor is None and self._digest is not None and self._digest.columns:
            self._cursor = (0, 0)
        self.update()

    def focusOutEvent(self, event: QEvent) -> None:
        self.update()

    def event(self, event: QEvent) -> bool:
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent):
            place = self._at(event.pos())
            tip = self.tip(place) if place is not None else ""
            if tip:
                QToolTip.showText(event.globalPos(), tip, self)
            else:
                QToolTip.hideText()
            return True
        return super().event(event)

    def tip(self, place: Place) -> str:
        """What a cell's tool tip says."""
        cell = self.cell(place)
        if cell is None or self._digest is None:
            return ""
        column, role = self._digest.columns[place[1]], self._digest.roles[place[0]]
        where = (
            column.path
            if column.layer is None
            else self.tr("layer {layer}, {path}").format(layer=column.layer, path=column.path)
        )
        lines = [f"{role}: {word(cell.status)}", where, meaning(cell.status)]
        for name in cell.ids[:4]:
            row = self._digest.by_id[name]
            if row.key:
                lines.append(f"{row.key} = {text.values(row.values) or '?'}")
        layer = column.attention
        if layer is not None and role in layer.final:
            lines.append(self.tr("ends with {value}").format(value=text.number(layer.final[role])))
        return "\n".join(lines)

    def _on_selection_changed(self, origin: object) -> None:
        if origin is not self:
            self._cursor = None
        self.update()


_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


def _stacks(columns: Sequence[Column]) -> list[tuple[str, int, int]]:
    """Runs of columns of one group, as (the part of its name that tells it apart, first, end)."""
    runs: list[tuple[str, int, int]] = []
    for number, column in enumerate(columns):
        if runs and runs[-1][0] == column.group:
            runs[-1] = (column.group, runs[-1][1], number + 1)
        else:
            runs.append((column.group, number, number + 1))
    parts = [name.split(".") for name, _, _ in runs]
    shared = 0
    while parts and shared < min(map(len, parts)) - 1 and len({part[shared] for part in parts}) == 1:
        shared += 1
    return [(".".join(part[shared:]), start, end) for part, (_, start, end) in zip(parts, runs, strict=True)]


def _span(first: int, last: int, length: int) -> range:
    if first < 0 or last < 0:
        return range(length)
    low, high = sorted((first, last))
    return range(low, min(high + 1, length))
