"""The repairs of an export: what can be mended, each to be ticked, with its choice and its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QUndoCommand
from PySide6.QtWidgets import QFileDialog, QLineEdit, QWidget

from app.panels.layouts import grow, horizontal, vertical
from app.panels.parts import Button, CheckBox
from app.panels.reading import ElidedBox, Passage
from app.text import spoken, translate
from core.wording import capital

if TYPE_CHECKING:
    from core.diagnosis import Finding, Option
    from core.export import ExportPlan
    from core.export.fixes import Fix

_FIRST_NUMBER = {"NUMBER": "1.0", "xNUMBER": "0.5"}


@dataclass(frozen=True, slots=True)
class Offer:
    """A repair that can be ticked: the code of a finding or of a wish, its title, its reason, its options."""

    code: str
    title: str
    reason: str
    options: tuple[Option, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user chose for the export: the target (``engine:ID`` or ``names:ID``, "" for the window's engine), the
    repairs, and the source of scales ("" for none).
    """

    target: str = ""
    fixes: tuple[Fix, ...] = ()
    scales_from: str = ""

    def fix_of(self, code: str) -> Fix | None:
        return next((fix for fix in self.fixes if fix.code == code), None)


class Choosing(QUndoCommand):
    """A step from one set of choices to the next; ``apply`` brings a set about."""

    def __init__(self, before: Choices, after: Choices, words: str, apply: Callable[[Choices], None]) -> None:
        super().__init__(words)
        self._before, self._after, self._apply = before, after, apply

    def undo(self) -> None:
        self._apply(self._before)

    def redo(self) -> None:
        self._apply(self._after)


def offers_of(plan: ExportPlan) -> list[Offer]:
    """What can be mended: the findings before, those that only the plan brings about, then what may be wished for."""
    from core.diagnosis import BY_ITSELF, WISHES, options_of

    found: dict[str, Finding] = {}
    for finding in (*plan.before.findings, *plan.findings_predicted):
        if finding.remedy and finding.remedy not in BY_ITSELF:
            found.setdefault(finding.code, finding)
    offers = [Offer(code, spoken(each.title), spoken(each.evidence), options_of(each)) for code, each in found.items()]
    titles = _wish_titles()
    return offers + [Offer(code, titles[code], "", options) for code, options in WISHES.items()]


def _wish_titles() -> Mapping[str, str]:
    return {
        "per-head": translate("Repairs", "One scale for each layer in place of one for each head"),
        "factor": translate("Repairs", "Multiply every k and v scale"),
        "swap": translate("Repairs", "Exchange k and v in every layer"),
        "leftovers": translate("Repairs", "Leave out what quantizers left behind"),
        "declare": translate("Repairs", "Declare the quantized KV cache in config.json"),
    }


class RepairRow(QWidget):
    """One offer: a box to tick; below it, once ticked, the choice and what is typed in."""

    changed = Signal(str, str)
    """The code, and the value chosen; emitted when the user ticks the box or chooses otherwise."""
    cleared = Signal(str)

    def __init__(self, offer: Offer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.offer = offer
        self.box = CheckBox(offer.title)
        self.box.setToolTip(offer.reason)
        self.box.setAccessibleDescription(offer.reason)
        self.box.clicked.connect(self._on_clicked)
        self.choice = ElidedBox()
        self.choice.setAccessibleName(self.tr("How: {title}").format(title=offer.title))
        for option in offer.options:
            self.choice.addItem(spoken(capital(option.title)), option.value)
        self.choice.activated.connect(self._on_activated)
        self.value = QLineEdit()
        self.value.setAccessibleName(self.tr("Value: {title}").format(title=offer.title))
        self.value.setMaximumWidth(self.value.fontMetrics().horizontalAdvance("0" * 14))
        self.value.editingFinished.connect(self._on_edited)
        self.browse = Button(self.tr("Browse…"), "open-folder")
        self.browse.clicked.connect(self._on_browse_clicked)
        line = horizontal(self.choice, self.value, self.browse)
        grow(line, self.choice)
        line.setContentsMargins(22, 0, 0, 0)
        self.reason = Passage(offer.reason, small=True)
        indented = horizontal(self.reason)
        indented.setContentsMargins(22, 0, 0, 0)
        vertical(self.box, indented, line, parent=self, spacing=2)
        self.reason.setVisible(bool(offer.reason))  # only now: without a parent it would be shown as a window
        self.show_fix(None)

    def take(self, offer: Offer) -> bool:
        """Show another offer of the same choices; whether they are the same."""
        if (offer.code, offer.options) != (self.offer.code, self.offer.options):
            return False
        self.offer = offer
        self.box.setText(offer.title)
        self.box.setToolTip(offer.reason)
        self.box.setAccessibleDescription(offer.reason)
        self.reason.setPlainText(offer.reason)
        self.reason.setVisible(bool(offer.reason))
        return True

    def show_fix(self, fix: Fix | None) -> None:
        """Show what is chosen, without saying so to anybody."""
        self.box.setChecked(fix is not None)
        kind = _kind(fix.value, self.offer.options) if fix is not None else ""
        if fix is not None:
            self.choice.setCurrentIndex(max(0, self.choice.findData(kind)))
            self.value.setText(fix.value.removeprefix("x") if kind == "xNUMBER" else fix.value if kind else "")
        several = len(self.offer.options) > 1
        self.choice.setVisible(fix is not None and (several or kind in _FIRST_NUMBER))
        self.value.setVisible(fix is not None and kind in {*_FIRST_NUMBER, "PATH"})
        self.browse.setVisible(fix is not None and kind == "PATH")

    def choose_first(self) -> None:
        """Tick it with its first choice."""
        self._choose(self.offer.options[0].value)

    def _choose(self, kind: str) -> None:
        if kind == "PATH":
            self._on_browse_clicked()
        elif kind in _FIRST_NUMBER:
            first = _FIRST_NUMBER[kind]
            self.changed.emit(self.offer.code, f"x{first}" if kind == "xNUMBER" else first)
        else:
            self.changed.emit(self.offer.code, kind)

    def _on_clicked(self, checked: bool) -> None:
        if checked:
            self._choose(str(self.choice.currentData()))
        else:
            self.cleared.emit(self.offer.code)

    def _on_activated(self) -> None:
        if self.box.isChecked():
            self._choose(str(self.choice.currentData()))

    def _on_edited(self) -> None:
        text = self.value.text().strip()
        if not self.box.isChecked() or not text:
            return
        self.changed.emit(self.offer.code, f"x{text}" if self.choice.currentData() == "xNUMBER" else text)

    def _on_browse_clicked(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self, self.tr("Take the scales from"), "", self.tr("Scales (*.json *.safetensors);;All files (*)")
        )
        if chosen:
            self.changed.emit(self.offer.code, chosen)
        elif _kind(self.value.text(), self.offer.options) != "PATH":
            self.cleared.emit(self.offer.code)


class RepairList(QWidget):
    """All repairs on offer. What is chosen is given from outside, so that it can be undone there."""

    changed = Signal(str, str)
    cleared = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: dict[str, RepairRow] = {}
        self._list = vertical(spacing=6)
        vertical(self._list, parent=self)

    def show_offers(self, offers: Sequence[Offer], choices: Choices) -> None:
        """List the offers, with what is chosen."""
        rows: dict[str, RepairRow] = {}
        for place, offer in enumerate(offers):
            row = self._rows.pop(offer.code, None)
            if row is None or not row.take(offer):
                row = self._new_row(offer, replacing=row)
            if self._list.indexOf(row) != place:
                self._list.insertWidget(place, row, 0, Qt.AlignmentFlag.AlignTop)
            rows[offer.code] = row
        for left in self._rows.values():
            self._remove(left)
        self._rows = rows
        for code, row in rows.items():
            row.show_fix(choices.fix_of(code))

    def _new_row(self, offer: Offer, *, replacing: RepairRow | None) -> RepairRow:
        if replacing is not None:
            self._remove(replacing)
        row = RepairRow(offer, self)
        row.changed.connect(self.changed)
        row.cleared.connect(self.cleared)
        return row

    def _remove(self, row: RepairRow) -> None:
        self._list.removeWidget(row)
        row.hide()
        row.deleteLater()

    def row(self, code: str) -> RepairRow | None:
        """The row of a code, None where it is not on offer."""
        return self._rows.get(code)

    def rows(self) -> Iterable[RepairRow]:
        return self._rows.values()


def _kind(value: str, options: Iterable[Option]) -> str:
    """Which option a value belongs to: by its name, else by its form."""
    kinds = {option.value for option in options}
    if value in kinds:
        return value
    if value.startswith("x") and _is_number(value[1:]) and "xNUMBER" in kinds:
        return "xNUMBER"
    return "NUMBER" if _is_number(value) else "PATH"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
