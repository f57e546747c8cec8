"""Engine, backend, architecture and dtypes: what the prediction assumes, and where each value came from."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication, Signal
from PySide6.QtGui import QFontMetrics
from PySide6.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from app.panels.reading import ElidedBox, ElidedLabel
from app.text import spoken
from core.settings import Choice, Origin

AUTOMATIC = ""


def _origins() -> dict[Origin, str]:
    return {
        "chosen": QCoreApplication.translate("Pickers", "chosen"),
        "config": QCoreApplication.translate("Pickers", "from config"),
        "tensors": QCoreApplication.translate("Pickers", "from tensors"),
        "default": QCoreApplication.translate("Pickers", "default"),
        "unknown": QCoreApplication.translate("Pickers", "unknown"),
    }


def origin_text(choice: Choice) -> str:
    """Where a value came from, in a few words."""
    return _origins()[choice.origin]


class Picker(QWidget):
    """A caption that says where the value came from, above a box to choose another."""

    picked = Signal(str)
    """The chosen value, "" to follow the checkpoint again."""

    def __init__(self, caption: str, width: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._caption = caption
        self._offered: tuple[tuple[str, str], ...] | None = None
        self._label = ElidedLabel(caption, scale=0.88)
        self.box = ElidedBox()
        self.box.setAccessibleName(caption)
        self.box.setMaxVisibleItems(24)
        self.box.activated.connect(self._on_activated)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(2)
        rows.addWidget(self._label)
        rows.addWidget(self.box)
        captions = [self._label.fontMetrics().horizontalAdvance(f"{caption} · {text}_") for text in _origins().values()]
        self.setMaximumWidth(max(QFontMetrics(self.font()).horizontalAdvance(width) + 48, *captions))
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)

    @property
    def origin(self) -> str:
        """What the caption says about the value."""
        return self._label.text()

    def offer(self, values: Sequence[tuple[str, str]], *, automatic: bool = True) -> None:
        """What can be chosen, as (value, text); ``automatic`` adds following the checkpoint."""
        offered = ((AUTOMATIC, ""), *values) if automatic else tuple(values)
        if offered == self._offered:
            return
        self._offered = offered
        self.box.clear()
        for value, shown in offered:
            self.box.addItem(shown or self.tr("Automatic"), value)
        if automatic and len(offered) > 1:
            self.box.insertSeparator(1)

    def show_choice(self, choice: Choice, *, becomes: str = "") -> None:
        """Show the value in force; ``becomes`` is what the engine makes of it, where that differs."""
        value = choice.value
        shown = value or self.tr("not known")
        if becomes and becomes != value:
            shown = f"{shown} → {becomes}"
        automatic = self.box.findData(AUTOMATIC)
        place = self.box.findData(value) if value else -1
        if choice.origin != "chosen" and automatic >= 0:
            self.box.setItemText(automatic, self.tr("Auto: {value}").format(value=shown))
            place = automatic
        elif automatic >= 0:
            self.box.setItemText(automatic, self.tr("Automatic"))
        if place < 0 and value:
            self.box.addItem(value, value)
            place = self.box.count() - 1
        self.box.setCurrentIndex(place)
        self._label.setText(f"{self._caption} · {origin_text(choice)}")
        tip = f"{self._caption}: {shown}\n{origin_text(choice)}"
        detail = spoken(choice.detail)
        self.setToolTip(f"{tip}: {detail}" if detail else tip)
        self.box.setAccessibleDescription(f"{shown}, {origin_text(choice)}. {detail}")

    def show_nothing(self) -> None:
        """No checkpoint: the caption alone, and only what can be chosen beforehand."""
        self._label.setText(self._caption)
        self.setToolTip(self._caption)
        automatic = self.box.findData(AUTOMATIC)
        if automatic >= 0:
            self.box.setItemText(automatic, self.tr("Automatic"))
            self.box.setCurrentIndex(automatic)

    def pick(self, value: str) -> None:
        """Choose as a user would."""
        place = self.box.findData(value)
        if place >= 0:
            self.box.setCurrentIndex(place)
            self.picked.emit(value)

    def _on_activated(self, place: int) -> None:
        value = self.box.itemData(place)
        if isinstance(value, str):
            self.picked.emit(value)
