"""What the scales cost the attention output: the verdict, and the error of each layer as a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import text
from app.panels.layouts import horizontal, stacked, vertical
from app.panels.parts import Note, label
from app.panels.reading import Passage
from app.plots.errors import PLOTTED, error_plot, series_word
from app.theme.theme import colours, theme
from core.wording import capital, sentence

if TYPE_CHECKING:
    from app.plots.error_canvas import ErrorCanvas
    from core.loading.forward_result import Forward

_MARKS = {"received": "●", "one": "■", "swapped": "▼"}


class ForwardView(QWidget):
    """Shows one run of the attention. pyqtgraph is imported when a plot is first shown."""

    layer_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._forward: Forward | None = None
        self._stale = True
        self.canvas: ErrorCanvas | None = None
        self.verdict = Passage()
        self.verdict.setAccessibleName(self.tr("What the scales cost"))
        self.origin = label(dim=True, wrap=True)
        self.legend = {variant: label(f"{_MARKS[variant]} {series_word(variant)}") for variant in PLOTTED}
        level = label(self.tr("- -  rounding alone"), dim=True)
        page = QWidget()
        legend = horizontal(*self.legend.values(), level, 1, margins=(0, 0, 0, 0), spacing=14)
        self._place: QVBoxLayout = vertical(
            self.verdict, self.origin, legend, parent=page, margins=(12, 8, 12, 0), spacing=4
        )
        self._page = page
        self._note = Note("plot")
        self._stack = stacked(self, self._note, page)
        theme().changed.connect(self._on_theme_changed)
        self.show_forward(None)

    @property
    def note(self) -> str:
        """What stands in place of the plot; "" where the plot is shown."""
        return self._note.text if self._stack.currentWidget() is self._note else ""

    def show_forward(self, forward: Forward | None) -> None:
        """Show a run, or what a run would give."""
        self._forward = forward
        self._stale = True
        if forward is None:
            self._say(
                self.tr(
                    "Tick “Run the attention too” to see what the scales cost: the error of each layer's attention "
                    "output with the scales received, with 1.0, and with k and v exchanged."
                )
            )
        elif not forward.measured:
            self._say(text.spoken(forward.text))
        else:
            self.verdict.setPlainText(text.spoken(sentence(capital(forward.text))))
            self.origin.setText(self._origin(forward))
            self._stack.setCurrentWidget(self._page)
            if self.isVisible():
                self._draw()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._draw()

    def _origin(self, forward: Forward) -> str:
        from core.loading.forward_result import DATA_WORDS

        made = dict.fromkeys(layer.data for layer in forward.measured)
        words = "; ".join(text.spoken(DATA_WORDS[data]) for data in made)
        return self.tr("Keys and values: {words} ({tokens} tokens, {format}, seed {seed})").format(
            words=words, tokens=forward.tokens, format=forward.format, seed=forward.seed
        )

    def _draw(self) -> None:
        if not self._stale or self._forward is None or not self._forward.measured:
            return
        self._stale = False
        if self.canvas is None:
            QTimer.singleShot(0, self, self._make_canvas)  # after the verdict is painted
        else:
            self._paint(self.canvas)

    def _make_canvas(self) -> None:
        if self.canvas is None:
            # In the GUI thread, like the plot of scales: see app/panels/plot.py.
            from app.plots.error_canvas import ErrorCanvas

            self.canvas = ErrorCanvas(colours())
            self.canvas.layer_chosen.connect(self.layer_chosen)
            self._place.addWidget(self.canvas, 1)
        self._paint(self.canvas)

    def _paint(self, canvas: ErrorCanvas) -> None:
        if self._forward is not None:
            from app.plots.error_canvas import error_colour

            canvas.show_data(error_plot(self._forward), colours())
            for variant, mark in self.legend.items():
                palette = mark.palette()
                palette.setColor(mark.foregroundRole(), error_colour(colours(), variant))
                mark.setPalette(palette)

    def _say(self, words: str) -> None:
        self._note.say(words, icon="plot")
        self._stack.setCurrentWidget(self._note)

    def _on_theme_changed(self) -> None:
        self._stale = True
        if self.isVisible():
            self._draw()
