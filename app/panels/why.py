"""WHY: the story of the current key, rule by rule."""

from __future__ import annotations

import json
from difflib import SequenceMatcher
from html import escape

from PySide6.QtCore import QCoreApplication, QEvent, Qt, QTimer
from PySide6.QtGui import QColor, QGuiApplication, QPainter, QPaintEvent, QPen, QShowEvent
from PySide6.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from app import text
from app.digest import Digest
from app.panels.layouts import grow, horizontal, stacked, vertical
from app.panels.parts import Chip, Head, Note, clear, label, tool_button
from app.panels.reading import ElidedLabel, Page, Passage
from app.selection import Selection
from app.story import Beat, Story, tell
from app.theme.status import tone, word
from app.theme.theme import colours, theme
from core.trace import Tracer

_RAIL = 34


class BeatView(QFrame):
    """One step: a number on the rail at the left, then what happened."""

    def __init__(self, number: int, beat: Beat, *, last: bool) -> None:
        super().__init__()
        self._number, self._beat, self._last = number, beat, last
        self.setAccessibleName(f"{number}. {beat.title}")
        body = QVBoxLayout(self)
        body.setContentsMargins(_RAIL, 6, 10, 10)
        body.setSpacing(4)
        head = QHBoxLayout()
        head.setSpacing(8)
        title = label(beat.title, strong=True, wrap=True)
        head.addWidget(title, 1)
        if beat.chip:
            head.addWidget(Chip(beat.chip, beat.tone), 0, Qt.AlignmentFlag.AlignTop)
        body.addLayout(head)
        if beat.name:
            body.addWidget(self._names())
        if beat.text:
            body.addWidget(Passage(beat.text))
        if beat.facts:
            body.addLayout(self._facts())
        if beat.source:
            body.addWidget(Passage(beat.source, small=True))
        for passage in self.findChildren(Passage):
            # Selected with the mouse. The page is what Tab comes to: a story has thirty of these.
            passage.setFocusPolicy(Qt.FocusPolicy.ClickFocus)

    def _names(self) -> Passage:
        """The name, or the name before and after with what changed marked."""
        if self._beat.becomes is None:
            return Passage(self._beat.name, fixed=True)
        before, after = _marked(self._beat.name, self._beat.becomes)
        shown = Passage("", fixed=True)
        shown.setHtml(f"{before}<br>→&nbsp;{after}")
        shown.setAccessibleName(f"{self._beat.name} → {self._beat.becomes}")
        return shown

    def _facts(self) -> QGridLayout:
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(10)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        for row, (name, value) in enumerate(self._beat.facts):
            caption = label(name, dim=True)
            grid.addWidget(caption, row, 0, Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
            shown = Passage(value)
            shown.setAccessibleName(f"{name}: {value}")
            grid.addWidget(shown, row, 1)
        return grid

    def paintEvent(self, event: QPaintEvent) -> None:
        now = colours()
        accent = now.tone(self._beat.tone)
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        centre, radius = 17, 9
        top = 6 + radius
        painter.setPen(QPen(QColor(now.border), 1.5))
        if self._number > 1:
            painter.drawLine(centre, 0, centre, top)
        if not self._last:
            painter.drawLine(centre, top, centre, self.height())
        painter.setPen(QPen(QColor(accent.ink), 1.3))
        painter.setBrush(QColor(accent.tint))
        painter.drawEllipse(centre - radius, top - radius, 2 * radius, 2 * radius)
        font = self.font()
        font.setBold(True)
        font.setPointSizeF(font.pointSizeF() * 0.85)
        painter.setFont(font)
        painter.drawText(
            centre - radius, top - radius, 2 * radius, 2 * radius, Qt.AlignmentFlag.AlignCenter, str(self._number)
        )
        painter.end()


class WhyPanel(QWidget):
    """Tells the story of the selection's current row."""

    def __init__(self, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._selection = selection
        self._digest: Digest | None = None
        self._story: Story | None = None
        self._tracer: Tracer | None = None
        self._stale = False
        self.setAccessibleName(self.tr("Why"))
        self._head = Head(self.tr("Why"))
        self._text_button = tool_button("copy", self.tr("Copy the story as text"), self.copy_text)
        self._json_button = tool_button("braces", self.tr("Copy the story as JSON"), self.copy_json)
        self._head.add(self._text_button)
        self._head.add(self._json_button)

        self._status = Chip()
        self._also = ElidedLabel()
        top = horizontal(self._status, self._also, margins=(12, 10, 12, 6))
        grow(top, self._also)
        self._beats = vertical(margins=(4, 0, 0, 0))
        self._page = Page()
        self._page.setAccessibleName(self.tr("Why"))
        vertical(top, self._beats, 1, parent=self._page.page)
        self._note = Note("why")
        body = QWidget()
        self._stack = stacked(body, self._note, self._page)
        grow(vertical(self._head, body, parent=self), body)

        self._delay = QTimer(self)  # a held arrow key passes many rows; only the one it rests on is told
        self._delay.setSingleShot(True)
        self._delay.setInterval(20)
        self._delay.timeout.connect(self.refresh)
        selection.changed.connect(self._on_selection_changed)
        theme().changed.connect(self._on_theme_changed)
        self.refresh()

    @property
    def story(self) -> Story | None:
        return self._story

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        self._tracer = Tracer(digest.inspection) if digest is not None else None
        self.refresh()

    def copy_text(self) -> None:
        """Put the story on the clipboard as text."""
        if self._story is not None:
            QGuiApplication.clipboard().setText(self._story.as_text())

    def copy_json(self) -> None:
        """Put the story on the clipboard as JSON."""
        if self._story is not None:
            QGuiApplication.clipboard().setText(json.dumps(self._story.as_dict(), indent=2, ensure_ascii=False))

    def refresh(self) -> None:
        """Tell the current row's story anew."""
        self._delay.stop()
        current = self._selection.current
        row = self._digest.by_id.get(current) if self._digest is not None and current is not None else None
        story = tell(self._digest, row, self._tracer) if self._digest is not None and row is not None else None
        for button in (self._text_button, self._json_button):
            button.setEnabled(story is not None)
        if story == self._story and story is not None and self._beats.count():
            self._show_also()
            return
        self._story = story
        clear(self._beats)
        if story is None:
            self._note.say(
                self.tr("This tensor is no KV-cache scale: nothing is predicted for it.")
                if current is not None and self._digest is not None
                else self.tr("Select a key to see, rule by rule, where it ends and why."),
                icon="why",
            )
            self._stack.setCurrentWidget(self._note)
            return
        row = story.row
        self._status.show_word(word(row.status), tone(row.status))
        self._show_also()
        for number, beat in enumerate(story.beats, 1):
            self._beats.addWidget(BeatView(number, beat, last=number == len(story.beats)))
        self._stack.setCurrentWidget(self._page)
        for _ in range(3):  # the page, its steps, their texts: laid out before they are painted, not after
            QCoreApplication.sendPostedEvents(None, QEvent.Type.LayoutRequest.value)
        self._page.setAccessibleDescription(story.as_text(sources=False))
        self._page.to_top()

    def _show_also(self) -> None:
        others = len(self._selection.ids) - 1
        self._also.setText(self.tr("and {count} more selected").format(count=text.count(others)) if others > 0 else "")

    def _on_selection_changed(self) -> None:
        self._delay.start()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._stale:
            self._on_theme_changed()

    def _on_theme_changed(self) -> None:
        """Tell the story anew, whose marks have the theme's colours; a hidden one when it is shown."""
        self._stale = not self.isVisible()
        if not self._stale:
            self._story = None
            self._delay.start()  # not in the turn that restyles all that is on the screen


def _marked(before: str, after: str) -> tuple[str, str]:
    """Both names as markup, what went and what came on a tinted ground."""
    now = colours()
    gone, came = now.error, now.ok
    left, right = [], []
    for kind, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        old, new = escape(before[i:j]), escape(after[k:m])
        if kind == "equal":
            left.append(old)
            right.append(new)
        else:
            left.append(f'<span style="background:{gone.tint};color:{gone.ink}">{old}</span>' if old else "")
            right.append(f'<span style="background:{came.tint};color:{came.ink}">{new}</span>' if new else "")
    return "".join(left), "".join(right)
