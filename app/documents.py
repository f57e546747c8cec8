"""Several open checkpoints as tabs: which there are, which is in front, what its tab says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QStackedWidget, QTabBar, QVBoxLayout, QWidget

from app.jobs import Jobs
from app.session import Choices, Session
from app.theme.theme import theme

if TYPE_CHECKING:
    from app.workspace import Workspace

Make = Callable[["Document"], "Workspace"]


class Document(QObject):
    """One checkpoint: its session, and its views once they are needed."""

    def __init__(self, jobs: Jobs, parent: QObject) -> None:
        super().__init__(parent)
        self.scope = jobs.scope()
        self.session = Session(self.scope, self)
        self.workspace: Workspace | None = None
        self.waits: tuple[str, Choices | None] | None = None
        """A checkpoint of the last run, opened when its tab is first shown."""

    @property
    def path(self) -> str | None:
        return self.waits[0] if self.waits is not None else self.session.path

    @property
    def title(self) -> str:
        """The checkpoint's own name."""
        path = self.path
        return "" if path is None else Path(path).name or path

    @property
    def reusable(self) -> bool:
        """Whether another checkpoint may take this tab: nothing is open in it, or what was asked for never opened."""
        return self.session.digest is None and self.waits is None


class Documents(QWidget):
    """The tab bar (shown for two and more) over the start page or the front checkpoint's views. Never without one
    document; the only one may be empty, and then the start page is shown.
    """

    current_changed = Signal()
    opened = Signal(object)
    """A :class:`Document` was inspected, for the first time or anew."""

    def __init__(self, jobs: Jobs, make: Make, start_page: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self._make = make
        self.pages = QStackedWidget()
        self.pages.addWidget(start_page)
        self._start_page = start_page
        self.bar = QTabBar()
        self.bar.setObjectName("documents")
        self.bar.setAccessibleName(self.tr("Open checkpoints"))
        self.bar.setDocumentMode(True)
        self.bar.setExpanding(False)
        self.bar.setTabsClosable(True)
        self.bar.setDrawBase(False)
        self.bar.setUsesScrollButtons(True)
        self.bar.hide()
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(self.bar)
        rows.addWidget(self.pages, 1)
        self._documents: list[Document] = []
        self._add()
        self.bar.currentChanged.connect(self._on_tab_changed)
        self.bar.tabCloseRequested.connect(self.close_at)
        theme().changed.connect(self.refresh)

    # --- what there is

    def all(self) -> Sequence[Document]:
        return tuple(self._documents)

    @property
    def current(self) -> Document:
        return self._documents[max(self.bar.currentIndex(), 0)]

    def paths(self) -> list[str]:
        """The checkpoints of all tabs, in their order."""
        return [path for document in self._documents if (path := document.path) is not None]

    def document_of(self, path: str) -> Document | None:
        """The document a path is open in."""
        wanted = Path(path).absolute()
        return next((d for d in self._documents if d.path is not None and Path(d.path).absolute() == wanted), None)

    # --- what is done with it

    def for_path(self, path: str) -> Document:
        """The document to open a path in, brought to the front: the one that has it, else the front one where nothing
        is open in it, else a new one.
        """
        document = self.document_of(path) or (self.current if self.current.reusable else self._add())
        self.bring(document)
        return document

    def wait(self, path: str, choices: Choices | None = None) -> Document:
        """A tab for a checkpoint that is opened when it is first looked at; the one that it has already, if any."""
        known = self.document_of(path)
        if known is not None:
            return known
        empty = len(self._documents) == 1 and self.current.reusable and self.current.path is None
        document = self.current if empty else self._add()
        document.waits = (path, choices)
        self.refresh()
        return document

    def bring(self, document: Document) -> None:
        """Bring a document to the front."""
        self.bar.setCurrentIndex(self._documents.index(document))
        self._wake(document)
        self.refresh()

    def step(self, by: int) -> None:
        """Go to the next (1) or previous (-1) tab, round the ends."""
        self.bar.setCurrentIndex((self.bar.currentIndex() + by) % len(self._documents))

    def workspace_of(self, document: Document) -> Workspace:
        """The document's views, made on first use."""
        if document.workspace is None:
            document.workspace = self._make(document)
            self.pages.addWidget(document.workspace)
            self.refresh()
        return document.workspace

    def close_at(self, place: int) -> None:
        """Close a checkpoint; the last one leaves the start page."""
        document = self._documents[place]
        document.waits = None
        document.session.close()
        if len(self._documents) == 1:
            self.refresh()
            self.current_changed.emit()
            return
        document.scope.close()
        del self._documents[place]
        self.bar.removeTab(place)
        if document.workspace is not None:
            self.pages.removeWidget(document.workspace)
            document.workspace.deleteLater()
        document.deleteLater()
        self.refresh()
        self.current_changed.emit()

    def refresh(self) -> None:
        """Titles and icons of the tabs, and the page of the front one."""
        from app.theme import icons
        from app.theme.outcome import outcome_look

        now = theme().colours
        for place, document in enumerate(self._documents):
            digest = document.session.digest
            self.bar.setTabText(place, document.title.replace("&", "&&"))
            self.bar.setTabToolTip(place, document.path or "")
            if digest is not None:
                icon, tone = outcome_look(digest.inspection.verdict.outcome)
                self.bar.setTabIcon(place, icons.icon(icon, now.tone(tone).ink, now.border))
            else:
                self.bar.setTabIcon(place, icons.icon("open-folder", now.muted, now.border))
        self.bar.setVisible(len(self._documents) > 1)
        front = self.current
        shown = front.session.path is not None and front.workspace is not None
        self.pages.setCurrentWidget(front.workspace if shown and front.workspace is not None else self._start_page)

    def _add(self) -> Document:
        document = Document(self._jobs, self)
        self._documents.append(document)
        session = document.session
        session.opening_started.connect(self.refresh)
        session.checkpoint_inspected.connect(self._on_inspected)
        session.opening_failed.connect(self.refresh)
        self.bar.addTab("")
        return document

    def _on_inspected(self) -> None:
        self.refresh()
        session = self.sender()
        document = next((document for document in self._documents if document.session is session), None)
        if document is not None:
            self.opened.emit(document)

    def _on_tab_changed(self) -> None:
        if not self._documents:
            return
        self._wake(self.current)
        self.refresh()
        self.current_changed.emit()

    def _wake(self, document: Document) -> None:
        """Open what waited to be looked at."""
        if document.waits is not None:
            (path, choices), document.waits = document.waits, None
            self.workspace_of(document)
            document.session.open(path, choices)
