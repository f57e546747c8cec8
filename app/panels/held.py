"""Every value that was read back from the device, beside what was expected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QModelIndex, Signal
from PySide6.QtWidgets import QWidget

from app import text
from app.models.records import Record, RecordTable
from app.panels.layouts import grow, horizontal, vertical
from app.panels.parts import CheckBox, label
from app.panels.tables import Table
from app.theme.theme import theme

if TYPE_CHECKING:
    from core.loading.verification import HeldValue, Verification


class HeldView(QWidget):
    """The table of values; emits path and role of the row that was chosen."""

    value_chosen = Signal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._verification: Verification | None = None
        columns = {
            self.tr("Layer"): "12.self_attn.attn",
            self.tr("Attribute"): "_prob_scale_float",
            self.tr("Expected"): "0.0312 – 0.047",
            self.tr("Held"): "0.0312 – 0.047",
            self.tr("Dtype"): "bfloat16",
            self.tr("Max. error"): "Max. error",
            self.tr("Against"): "",
        }
        self.table = RecordTable(list(columns), [2, 3, 5], self)
        samples = dict(enumerate(columns.values()))
        self.view = Table(self.table, self.tr("Expected and held values"), samples, names=(0,))
        self.view.selectionModel().currentRowChanged.connect(self._on_row_changed)
        self.counted = label(dim=True)
        self.only_differences = CheckBox(self.tr("Differences only"))
        self.only_differences.toggled.connect(self._fill)
        top = horizontal(self.counted, self.only_differences, margins=(12, 6, 12, 6))
        grow(top, self.counted)
        grow(vertical(top, self.view, parent=self), self.view)
        theme().changed.connect(self.table.refresh_theme)

    def show_verification(self, verification: Verification | None) -> None:
        """Show the values of a run."""
        self._verification = verification
        self._fill()

    def _fill(self) -> None:
        held = self._verification.held if self._verification is not None else ()
        shown = [value for value in held if not (self.only_differences.isChecked() and value.equal)]
        several = self._verification is not None and self._verification.tensor_parallel > 1
        self.table.set_records([self._record(value, several=several) for value in shown])
        wrong = sum(not value.equal for value in held)
        self.counted.setText(
            self.tr("{count} values, {wrong} differ").format(count=text.count(len(held)), wrong=text.count(wrong))
        )

    def _record(self, value: HeldValue, *, several: bool) -> Record:
        against = self.tr("file") if value.against == "file" else self.tr("prediction")
        layer = value.layer_path
        if several:
            layer = self.tr("rank {rank}: {layer}").format(rank=value.rank, layer=layer)
        return Record(
            (
                layer,
                value.name,
                text.values(value.expected),
                text.values(value.held) or self.tr("nothing"),
                value.dtype,
                text.number(value.max_error),
                against,
            ),
            icon="ok" if value.equal else "error",
            tone="ok" if value.equal else "error",
            tip=f"{layer}.{value.name}",
            id=f"{value.layer_path} {value.role}",
        )

    def _on_row_changed(self, current: QModelIndex) -> None:
        record = self.table.record(current.row())
        if record is not None:
            path, _, role = record.id.partition(" ")
            self.value_chosen.emit(path, role)
