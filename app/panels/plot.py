"""The plot of scale values by layer. pyqtgraph is imported when the panel is first shown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QBuffer, QIODevice, QRectF, QSize, QTimer
from PySide6.QtGui import QColor, QImage, QPainter, QShowEvent
from PySide6.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QSizePolicy,
    QStackedLayout,
    QVBoxLayout,
    QWidget,
)

from app.compared import Compared
from app.digest import Digest
from app.panels.parts import Button, CheckBox, Note, label
from app.plots.series import PlotData, as_csv, plot_data
from app.saving import ask_where
from app.selection import Selection
from app.text import complaint
from app.theme.theme import colours, theme
from core.errors import KVScopeError

if TYPE_CHECKING:
    from app.plots.canvas import Canvas


class PlotPanel(QWidget):
    """Scales by layer, or per head as a heat map; a box selects, the wheel zooms, a double click shows all."""

    def __init__(self, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._selection = selection
        self._digest: Digest | None = None
        self._compared: Compared | None = None
        self._data: PlotData | None = None
        self._stale = True
        self.canvas: Canvas | None = None
        self.mode = QComboBox()
        self.mode.setAccessibleName(self.tr("What is plotted"))
        self.mode.activated.connect(self._on_mode_activated)
        self._roles = QWidget()
        self._role_row = QHBoxLayout(self._roles)
        self._role_row.setContentsMargins(0, 0, 0, 0)
        self._role_row.setSpacing(10)
        self._usage = self.tr("drag: select · wheel: zoom · double click: all")
        self._hint = label(self._usage, dim=True)
        bar = QHBoxLayout()
        bar.setContentsMargins(12, 6, 8, 4)
        bar.setSpacing(10)
        bar.addWidget(self.mode)
        bar.addWidget(self._roles)
        self.ghost = label(dim=True)
        self.ghost.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        bar.addWidget(self.ghost, 1)
        bar.addWidget(self._hint)
        self.save_buttons: dict[str, Button] = {}
        for name, slot in (("PNG", self._on_png), ("SVG", self._on_svg), ("CSV", self._on_csv)):
            button = Button(name, "save", flat=True, tip=self.tr("Save the plot as {kind}").format(kind=name))
            button.clicked.connect(slot)
            bar.addWidget(button)
            self.save_buttons[f".{name.lower()}"] = button
        self._page = QWidget()
        page = QVBoxLayout(self._page)
        page.setContentsMargins(0, 0, 0, 0)
        page.setSpacing(0)
        page.addLayout(bar)
        self._place = page
        self._note = Note("plot")
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._note)
        self._stack.addWidget(self._page)
        selection.changed.connect(self._on_selection_changed)
        theme().changed.connect(self._on_theme_changed)

    @property
    def hint(self) -> str:
        """The line beside the buttons: how the plot is used, or why it was not saved."""
        return self._hint.text()

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        self._data = None
        self._stale = True
        if self.isVisible():
            self._refresh()

    def show_compared(self, compared: Compared | None) -> None:
        """Draw a compared checkpoint's values behind the own ones, None to leave them out."""
        self._compared = compared
        name = Path(compared.path).name if compared is not None else ""
        self.ghost.setText(self.tr("hollow, dashed: {name}").format(name=name) if name else "")
        self._stale = True
        if self.isVisible():
            self._refresh()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._stale:
            self._refresh()

    def save(self, path: Path) -> None:
        """Save as PNG (two pixels for one), SVG or CSV, by the file's ending."""
        kind = path.suffix.lower()
        if self._digest is None:
            return
        if kind == ".csv":
            path.write_text(as_csv(self._digest), "utf-8", "backslashreplace")
        elif self.canvas is not None:
            size = self.canvas.size()
            if kind == ".svg":
                self._save_svg(path, size)
            else:
                image = QImage(size * 2, QImage.Format.Format_ARGB32_Premultiplied)
                image.setDevicePixelRatio(2)
                image.fill(QColor(colours().base))
                painter = QPainter(image)
                self.canvas.render(painter)
                painter.end()
                if not image.save(str(path)):
                    raise KVScopeError(
                        self.tr("could not be written"), path=path, remedy=self.tr("Choose another folder.")
                    )

    def _save_svg(self, path: Path, size: QSize) -> None:
        # pyqtgraph's own SVG exporter does not work with Qt 6.11; Qt's generator draws the same scene.
        from PySide6.QtSvg import QSvgGenerator

        if self.canvas is None:
            return
        # Into memory: where it cannot write a file the generator says nothing.
        drawing = QBuffer()
        drawing.open(QIODevice.OpenModeFlag.WriteOnly)
        generator = QSvgGenerator()
        generator.setOutputDevice(drawing)
        generator.setSize(size)
        generator.setViewBox(QRectF(0, 0, size.width(), size.height()))
        generator.setTitle("KVScope")
        painter = QPainter(generator)
        self.canvas.render(painter)
        painter.end()
        path.write_bytes(drawing.data().data())

    # --- drawing

    def _refresh(self) -> None:
        self._stale = False
        if self._digest is None:
            self._say(self.tr("Open a checkpoint to plot its scales."))
            return
        compared = self._compared.comparison if self._compared is not None else None
        self._data = plot_data(self._digest, compared)
        if not self._data.series:
            self._say(self.tr("There is no scale value to plot."))
            return
        if self.canvas is None:
            self._say(self.tr("Preparing the plot …"))
            QTimer.singleShot(0, self, self._make_canvas)  # after the note is painted: this takes half a second once
            return
        self._offer(self._data)
        self._draw()

    def _make_canvas(self) -> None:
        if self.canvas is None:
            # In the GUI thread, although it is slow: pyqtgraph copies Qt's modules name by name while it is imported,
            # and Qt crashes when its classes are first touched in another thread while this one handles events.
            from app.plots.canvas import Canvas

            self.canvas = Canvas(colours())
            self.canvas.points_chosen.connect(self._on_points_chosen)
            self._place.addWidget(self.canvas, 1)
        self._refresh()

    def _offer(self, data: PlotData) -> None:
        """Modes and role switches that the data has."""
        wanted = [("layers", self.tr("Scales by layer"))]
        wanted += [
            (f"heads:{series.role}", self.tr("Heads of {role}").format(role=series.role))
            for series in data.series
            if any(len(point.heads) > 1 for point in series.points)
        ]
        current = self.mode.currentData()
        self.mode.clear()
        for value, shown in wanted:
            self.mode.addItem(shown, value)
        self.mode.setCurrentIndex(max(self.mode.findData(current), 0))
        self.mode.setVisible(len(wanted) > 1)
        hidden = {box.text() for box in self._roles.findChildren(CheckBox) if not box.isChecked()}
        while self._role_row.count():
            item = self._role_row.takeAt(0)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.setParent(None)
                widget.deleteLater()
        from app.plots.canvas import series_colour

        for series in data.series:
            box = CheckBox(series.role)
            box.setChecked(series.role not in hidden)
            box.setAccessibleName(self.tr("Show {role}").format(role=series.role))
            palette = box.palette()
            palette.setColor(box.foregroundRole(), QColor(series_colour(colours(), series.role)))
            box.setPalette(palette)
            font = box.font()
            font.setBold(True)
            box.setFont(font)
            box.toggled.connect(self._on_role_toggled)
            self._role_row.addWidget(box)

    def _draw(self) -> None:
        if self.canvas is None or self._data is None:
            return
        self.canvas.show_data(self._data, colours(), mode=self.mode.currentData() or "layers")
        self.canvas.mark(self._selection.ids)
        self._roles.setVisible(not str(self.mode.currentData()).startswith("heads:"))
        self._stack.setCurrentWidget(self._page)

    def _say(self, words: str) -> None:
        self._note.say(words, icon="plot")
        self._stack.setCurrentWidget(self._note)

    # --- what happens

    def _on_points_chosen(self, ids: Iterable[str], extend: bool) -> None:
        chosen = list(ids)
        if extend:
            chosen += [name for name in self._selection.ids if name not in chosen]
        self._selection.select(chosen, origin=self)
        if self.canvas is not None:
            self.canvas.mark(self._selection.ids)

    def _on_selection_changed(self, origin: object) -> None:
        if origin is not self and self.canvas is not None and self.isVisible():
            self.canvas.mark(self._selection.ids)

    def _on_role_toggled(self) -> None:
        if self.canvas is not None:
            self.canvas.hide_roles(box.text() for box in self._roles.findChildren(CheckBox) if not box.isChecked())

    def _on_mode_activated(self) -> None:
        self._draw()

    def _on_theme_changed(self) -> None:
        if self.isVisible():
            self._refresh()
        else:
            self._stale = True

    def _on_png(self) -> None:
        self._ask(self.tr("PNG image (*.png)"), ".png")

    def _on_svg(self) -> None:
        self._ask(self.tr("SVG drawing (*.svg)"), ".svg")

    def _on_csv(self) -> None:
        self._ask(self.tr("CSV table (*.csv)"), ".csv")

    def _ask(self, kinds: str, ending: str) -> None:
        name = self._digest.inspection.checkpoint.path.name if self._digest is not None else "scales"
        suggested = f"{name}-scales{ending}"
        path = ask_where(self, self.tr("Save the plot"), suggested, kinds, known=self.save_buttons)
        if path is None:
            return
        try:
            self.save(path)
        except OSError as error:
            self._hint.setText(self.tr("Not saved: {error}").format(error=error))
        except KVScopeError as error:
            self._hint.setText(complaint(error))
        else:
            self._hint.setText(self._usage)
