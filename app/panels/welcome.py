"""The start page: drop a checkpoint, open a recent one, or a bundled sample that tells a story."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QAction, QColor, QPainter, QPaintEvent, QPen, QResizeEvent, QShowEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QScrollArea, QVBoxLayout, QWidget

from app.panels.parts import Button, IconLabel, clear, label
from app.text import translate, unmarked
from app.theme.theme import colours, theme
from resources import resource


@dataclass(frozen=True, slots=True)
class Sample:
    """A bundled checkpoint: where it is, its name, and what it shows."""

    path: Path
    title: str
    story: str


def bundled_samples() -> tuple[Sample, ...]:
    """The samples that the installation holds, in their own order."""
    listed = resource("samples", "samples.json")
    folder = listed.parent
    return tuple(
        Sample(folder / entry["path"], translate("Samples", entry["title"]), translate("Samples", entry["story"]))
        for entry in json.loads(listed.read_text("utf-8"))
        if (folder / entry["path"]).exists()
    )


class Card(QPushButton):
    """A title over a sentence, as one button."""

    opened = Signal(str)

    def __init__(self, path: str, title: str, text: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("card")
        self.setAccessibleName(title)
        self.setAccessibleDescription(text)
        self.setToolTip(path)
        self._path = path
        rows = QVBoxLayout(self)
        rows.setContentsMargins(12, 8, 12, 8)
        rows.setSpacing(2)
        name = label(title, strong=True)
        story = label(text, dim=True, wrap=True)
        for part in (name, story):
            part.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
            rows.addWidget(part)
        self._story = story
        self.clicked.connect(self._on_clicked)

    def sizeHint(self) -> QSize:
        layout = self.layout()
        return layout.sizeHint() if layout is not None else super().sizeHint()

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, width: int) -> int:
        layout = self.layout()
        return layout.heightForWidth(width) if layout is not None else super().heightForWidth(width)

    def _on_clicked(self) -> None:
        self.opened.emit(self._path)


class DropZone(QFrame):
    """The dashed field that says what can be dropped."""

    def __init__(
        self, open_file: QAction, open_folder: QAction, open_address: QAction, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._over = False
        self.setAccessibleName(self.tr("Drop a checkpoint here"))
        rows = QVBoxLayout(self)
        rows.setContentsMargins(24, 22, 24, 22)
        rows.setSpacing(8)
        rows.addWidget(IconLabel("drop", side=32), 0, Qt.AlignmentFlag.AlignHCenter)
        title = label(self.tr("Drop a checkpoint here"), strong=True)
        rows.addWidget(title, 0, Qt.AlignmentFlag.AlignHCenter)
        kinds = label(self.tr("a model folder, a .safetensors shard or its index, a PyTorch file"), dim=True)
        rows.addWidget(kinds, 0, Qt.AlignmentFlag.AlignHCenter)
        buttons = QHBoxLayout()
        buttons.setContentsMargins(0, 8, 0, 0)
        buttons.addStretch(1)
        for action, icon in ((open_folder, "open-folder"), (open_file, "open-file"), (open_address, "open-address")):
            button = Button(unmarked(action.text()), icon, primary=action is open_folder, tip=action.toolTip())
            button.clicked.connect(action.trigger)
            buttons.addWidget(button)
        buttons.addStretch(1)
        rows.addLayout(buttons)
        theme().changed.connect(self.update)

    def set_over(self, over: bool) -> None:
        """Whether something that can be opened hovers above the window."""
        self._over = over
        self.update()

    def paintEvent(self, event: QPaintEvent) -> None:
        now = colours()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        pen = QPen(QColor(now.accent if self._over else now.muted), 1.6, Qt.PenStyle.DashLine)
        painter.setPen(pen)
        painter.setBrush(QColor(now.info.tint if self._over else now.base))
        painter.drawRoundedRect(self.rect().adjusted(2, 2, -2, -2), 10, 10)
        painter.end()


class Welcome(QScrollArea):
    """What the window shows while no checkpoint is open."""

    open_requested = Signal(str)

    def __init__(
        self, open_file: QAction, open_folder: QAction, open_address: QAction, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWidgetResizable(True)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        page = QWidget()
        page.setObjectName("page")
        self.setWidget(page)
        outer = QHBoxLayout(page)
        outer.setContentsMargins(24, 28, 24, 24)
        outer.addStretch(1)
        middle = QWidget()
        middle.setMaximumWidth(940)
        middle.setMinimumWidth(560)
        outer.addWidget(middle, 20)
        outer.addStretch(1)
        rows = QVBoxLayout(middle)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(14)
        title = QLabel(self.tr("Will the engine really receive these KV-cache scales?"))
        font = title.font()
        font.setPointSizeF(font.pointSizeF() * 1.7)
        font.setBold(True)
        title.setFont(font)
        title.setWordWrap(True)
        rows.addWidget(title)
        rows.addWidget(
            label(
                self.tr(
                    "KVScope opens a checkpoint, says what each attention layer ends with in the engine you choose, "
                    "rule by rule why, and writes a copy that loads as intended."
                ),
                dim=True,
                wrap=True,
            )
        )
        self.zone = DropZone(open_file, open_folder, open_address)
        rows.addWidget(self.zone)
        lists = QHBoxLayout()
        lists.setSpacing(24)
        self._recent = QVBoxLayout()
        self._samples = QVBoxLayout()
        for box, caption in ((self._samples, self.tr("Bundled samples")), (self._recent, self.tr("Recent"))):
            box.setSpacing(6)
            half = QVBoxLayout()
            half.setSpacing(8)
            half.addWidget(label(caption, strong=True))
            half.addLayout(box)
            half.addStretch(1)
            lists.addLayout(half, 3 if box is self._samples else 2)
        rows.addLayout(lists)
        rows.addStretch(1)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._fit()

    def _fit(self) -> None:
        """A scroll area asks for the height at the least width; ask for the one at the width there is."""
        if not self.isVisible():
            return
        page = self.widget()
        layout = page.layout() if page is not None else None
        if page is not None and layout is not None:
            layout.activate()
            page.setMinimumHeight(layout.totalHeightForWidth(self.viewport().width()))

    def show_samples(self, samples: tuple[Sample, ...]) -> None:
        """List the bundled samples."""
        clear(self._samples)
        for sample in samples:
            card = Card(str(sample.path), sample.title, sample.story)
            card.opened.connect(self.open_requested)
            self._samples.addWidget(card)
        self._fit()

    def show_recent(self, paths: list[str]) -> None:
        """List what was opened before."""
        clear(self._recent)
        for path in paths[:6]:
            place = Path(path)
            above = path.rpartition("/")[0] if "://" in path else _short(place.parent)
            card = Card(path, place.name or path, above)
            card.opened.connect(self.open_requested)
            self._recent.addWidget(card)
        if not paths:
            self._recent.addWidget(label(self.tr("Checkpoints you open are listed here."), dim=True, wrap=True))
        self._fit()

    def cards(self) -> list[Card]:
        """Every card, samples and recent."""
        return self.findChildren(Card)


def _short(folder: Path) -> str:
    """A folder with the home directory as "~"."""
    try:
        return f"~/{folder.relative_to(Path.home())}"
    except ValueError:
        return str(folder)
