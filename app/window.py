"""The main window: menus, the start page or a checkpoint's workspace, and the status bar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtGui import (
    QCloseEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QShowEvent,
)
from PySide6.QtWidgets import QMainWindow, QStackedWidget, QWidget

from app.actions import Actions, Needs
from app.commands import Commands
from app.jobs import Jobs
from app.menus import Menus
from app.panels.log import LogBridge
from app.panels.status import StatusBar
from app.panels.welcome import Sample, Welcome, bundled_samples
from app.session import Choices, Session
from app.settings import Settings
from core.errors import KVScopeError

if TYPE_CHECKING:
    from app.digest import Digest
    from app.workspace import Workspace
    from core.progress import Progress

_SIZE = (1280, 800)


class Window(QMainWindow):
    """One window with one checkpoint. The workspace, and numpy with it, is made when it is first needed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.settings = Settings()
        self.jobs = Jobs(self)
        self.session = Session(self.jobs, self)
        self.log = LogBridge(self)
        self._workspace: Workspace | None = None
        self._samples: tuple[Sample, ...] = bundled_samples()
        self._restored = False
        self._ready = self._getting_ready = False
        self._wanted: tuple[str, Choices | None, str | None] | None = None
        self.setWindowTitle("KVScope")
        self.setAcceptDrops(True)
        self.resize(*_SIZE)
        self.setMinimumSize(960, 600)

        self.commands = Commands(self)
        self.actions_table = Actions(self, self.commands.slot)
        self.menus = Menus(self, self.actions_table, self._samples)
        self.welcome = Welcome(self.actions_table["open_file"], self.actions_table["open_folder"])
        self.welcome.open_requested.connect(self.open_path)
        self.welcome.show_samples(self._samples)
        self.pages = QStackedWidget()
        self.pages.addWidget(self.welcome)
        self.setCentralWidget(self.pages)
        self.status = StatusBar(self.jobs)
        self.setStatusBar(self.status)
        self.show_recent()
        self.commands.check_theme()

        self.session.opening_started.connect(self._on_opening_started)
        self.session.checkpoint_inspected.connect(self._on_checkpoint_inspected)
        self.session.opening_failed.connect(self._on_opening_failed)
        self.session.checkpoint_closed.connect(self._on_checkpoint_closed)
        self.jobs.job_started.connect(self._enable_actions)
        self.jobs.job_ended.connect(self._enable_actions)
        self._enable_actions()

    # --- what others ask for

    @property
    def workspace(self) -> Workspace:
        """The checkpoint's views; made on first use."""
        if self._workspace is None:
            from app.workspace import Workspace

            self.actions_table.draw_icons()
            made = Workspace(self.session, self.actions_table, self.log)
            made.header.set_open_menu(self.menus.open_menu())
            made.message.connect(self.say)
            made.digest_shown.connect(self.status.show_digest)
            made.selection.changed.connect(self._enable_actions)
            made.open_requested.connect(self.open_path)
            made.keys.all_tensors_changed.connect(self.actions_table["all_tensors"].setChecked)
            made.gpu.devices_listed.connect(self._on_devices_listed)
            made.restore(self.settings)
            self.actions_table["groups"].setChecked(True)
            self.pages.addWidget(made)
            self._workspace = made
        return self._workspace

    @property
    def ready(self) -> bool:
        """Whether everything that opening needs has been imported."""
        return self._ready

    def open_path(self, path: str, *, choices: Choices | None = None, select: str | None = None) -> None:
        """Open a checkpoint; whatever was being opened is dropped."""
        if not self._ready:
            self._wanted = (path, choices, select)
            self.get_ready()
            return
        workspace = self.workspace
        workspace.select_when_open(select)
        self.session.open(path, choices)

    def get_ready(self) -> None:
        """Import, in a job, what opening a checkpoint needs: numpy alone takes longer than a frame may."""
        if self._ready or self._getting_ready:
            return
        self._getting_ready = True
        self.jobs.start(self.tr("Getting ready"), _import_core, done=self._on_ready, failed=self._on_not_ready)

    def _on_ready(self, _modules: object) -> None:
        self._ready = True
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            path, choices, select = wanted
            self.open_path(path, choices=choices, select=select)

    def _on_not_ready(self, error: KVScopeError) -> None:
        self._getting_ready = False
        self._wanted = None
        self.say(str(error))

    def show_recent(self) -> None:
        """List what was opened before, in the menu and on the start page."""
        paths = self.settings.recent()
        self.menus.show_recent(paths)
        if self.pages.currentWidget() is self.welcome:
            self.welcome.show_recent(paths)

    def say(self, words: str) -> None:
        """A passing remark in the status bar."""
        self.status.showMessage(words, 6000)

    # --- events

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if not self._restored:
            QTimer.singleShot(0, self, self._on_first_shown)
            # Sizes only, and after the first show: a geometry saved on another screen must not decide where this goes.
            self._restored = True
            sizes = self.settings.sizes("window/size")
            if len(sizes) == 2:
                screen = self.screen().availableSize()
                self.resize(min(sizes[0], screen.width()), min(sizes[1], screen.height()))
            if self.settings.text("window/maximized") == "yes":
                self.showMaximized()

    def _on_first_shown(self) -> None:
        self.status.show_driver()
        self.get_ready()

    def closeEvent(self, event: QCloseEvent) -> None:
        if not self.isMaximized():
            self.settings.set_sizes("window/size", [self.width(), self.height()])
        self.settings.set_text("window/maximized", "yes" if self.isMaximized() else "")
        if self._workspace is not None:
            self._workspace.save(self.settings)
        self.jobs.shutdown()
        self.log.close()
        event.accept()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if _local_path(event.mimeData().urls()) is not None:
            event.acceptProposedAction()
            self.welcome.zone.set_over(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        self.welcome.zone.set_over(False)

    def dropEvent(self, event: QDropEvent) -> None:
        self.welcome.zone.set_over(False)
        path = _local_path(event.mimeData().urls())
        if path is not None:
            event.acceptProposedAction()
            self.open_path(path)

    # --- what the session says

    def _on_opening_started(self, path: str) -> None:
        self.setWindowTitle(f"{Path(path).name or path} – KVScope")
        self.pages.setCurrentWidget(self.workspace)
        self._enable_actions()

    def _on_checkpoint_inspected(self, digest: Digest) -> None:
        if self.session.path is not None:
            self.settings.add_recent(self.session.path)
            self.show_recent()
        self._enable_actions()

    def _on_opening_failed(self, path: str, error: KVScopeError) -> None:
        self._enable_actions()

    def _on_checkpoint_closed(self) -> None:
        self.setWindowTitle("KVScope")
        self.status.show_digest(None)
        if self._workspace is not None:
            self._workspace.selection.clear()
        self.pages.setCurrentWidget(self.welcome)
        self.show_recent()
        self._enable_actions()

    def _on_devices_listed(self) -> None:
        self.status.show_devices(self.workspace.gpu.devices())

    # --- menus

    def _enable_actions(self) -> None:
        given = Needs.NOTHING
        digest = self.session.digest
        if self.session.path is not None:
            given |= Needs.PATH
        if digest is not None:
            given |= Needs.CHECKPOINT
            if any(finding.severity != "info" for finding in digest.inspection.findings):
                given |= Needs.PROBLEMS
            if self._workspace is not None and self._workspace.selection.ids:
                given |= Needs.SELECTION
        if self.jobs.running():
            given |= Needs.RUNNING
        self.actions_table.enable(given)


def _import_core(progress: Progress) -> object:
    """The core, without a line of Qt: Qt's modules are imported in the GUI thread alone, or it crashes."""
    progress.start("importing")
    import core.inspection
    import core.report
    from core.engines import DEFAULT_ENGINE, get_engine

    get_engine(DEFAULT_ENGINE).known_architectures()  # reads the survey that the architecture picker lists
    return core.inspection, core.report


def _local_path(urls: list[QUrl]) -> str | None:
    """The first local file among what is dragged."""
    return next((url.toLocalFile() for url in urls if url.isLocalFile()), None)
