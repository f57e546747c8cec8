"""The main window: an empty frame that is painted at once, then menus, the start page or checkpoints, the status bar.

Nothing but Qt is imported above: whatever the frame can be shown without is imported when it is furnished.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtCore import QCoreApplication, QPoint, QSize, QTimer, QUrl, Signal
from PySide6.QtGui import QAction, QCloseEvent, QDragEnterEvent, QDragLeaveEvent, QDropEvent, QPaintEvent, QShowEvent
from PySide6.QtWidgets import QMainWindow, QMenu, QWidget

if TYPE_CHECKING:
    from app.digest import Digest
    from app.documents import Document
    from app.session import Choices, Session
    from app.workspace import Workspace
    from core.errors import KVScopeError
    from core.progress import Progress

_SIZE = (1280, 800)


class Window(QMainWindow):
    """One window with any number of checkpoints. A checkpoint's views, and numpy with them, are made when first needed.

    With ``furnish=False`` it is an empty frame until :meth:`furnish` is called, soon after it was shown.
    """

    furnished = Signal()
    painted = Signal()
    """The frame has been painted for the first time."""

    def __init__(self, parent: QWidget | None = None, *, furnish: bool = True) -> None:
        super().__init__(parent)
        self._furnished = self._restored = self._painted = False
        self._ready = self._getting_ready = False
        self._wanted: list[tuple[Sequence[str], str, Choices | None, str | None]] = []
        self._drop_menu: QMenu | None = None
        self.setWindowTitle("KVScope")
        self.setAcceptDrops(True)
        self.resize(QSize(*_SIZE).boundedTo(self.screen().availableSize()))
        self.setMinimumSize(960, 600)
        if furnish:
            self.furnish()

    def furnish(self) -> None:
        """Fill the frame. May be called again to no effect."""
        if self._furnished:
            return
        from app.actions import Actions
        from app.commands import Commands
        from app.documents import Documents
        from app.jobs import Jobs
        from app.menus import Menus
        from app.panels.log import LogBridge
        from app.panels.status import StatusBar
        from app.panels.welcome import Welcome, bundled_samples
        from app.settings import Settings

        self.settings = Settings()
        self.jobs = Jobs(self)
        self.log = LogBridge(self)
        samples = bundled_samples()
        self.commands = Commands(self)
        self.actions_table = Actions(self, self.commands.slot, self.settings.keys())
        self.menus = Menus(self, self.actions_table, samples)
        actions = self.actions_table
        self.welcome = Welcome(actions["open_file"], actions["open_folder"], actions["open_address"])
        self.welcome.open_requested.connect(self.open_path)
        self.welcome.show_samples(samples)
        self.documents = Documents(self.jobs, self._make_workspace, self.welcome)
        self.setCentralWidget(self.documents)
        self.status = StatusBar(self.jobs)
        self.setStatusBar(self.status)
        self._furnished = True
        self.show_recent()
        self.commands.check_theme()
        self.documents.current_changed.connect(self._on_front_changed)
        self.documents.opened.connect(self._on_opened)
        self.jobs.job_started.connect(self.enable_actions)
        self.jobs.job_ended.connect(self.enable_actions)
        self.enable_actions()
        self.furnished.emit()
        if self.isVisible():
            self._restore_size()
            QTimer.singleShot(0, self, self._on_first_shown)

    # --- what others ask for

    @property
    def session(self) -> Session:
        """The front checkpoint's session."""
        return self.documents.current.session

    @property
    def workspace(self) -> Workspace:
        """The front checkpoint's views, complete; made on first use."""
        made = self.documents.workspace_of(self.documents.current)
        made.finish()
        return made

    @property
    def ready(self) -> bool:
        """Whether everything that opening needs has been imported."""
        return self._ready

    @property
    def busy(self) -> bool:
        """Whether a job runs or panels are still to be built: what a test or a picture waits for."""
        workspaces = [document.workspace for document in self.documents.all()]
        building = any(workspace is not None and not workspace.built for workspace in workspaces)
        return building or not self._ready or bool(self.jobs.running())

    def open_path(self, path: str, *, choices: Choices | None = None, select: str | None = None) -> None:
        """Open a checkpoint: in its own tab again, in the front one where nothing is open there, else in a new one."""
        if not self._ready:
            self._wanted.append(([path], path, choices, select))
            self.get_ready()
            return
        if choices is None:
            choices = self._choices_for(path)
        document = self.documents.for_path(path)
        document.session.set_thresholds(self.settings.thresholds())
        self.documents.workspace_of(document).select_when_open(select)
        document.session.open(path, choices)

    def open_all(
        self, paths: Sequence[str], front: str, *, choices: Choices | None = None, select: str | None = None
    ) -> None:
        """A tab for each path; only ``front`` is opened at once, the others when they are looked at."""
        if not self._ready:
            self._wanted.append((paths, front, choices, select))
            self.get_ready()
            return
        documents = {path: self.documents.wait(path, choices or self._choices_for(path)) for path in paths}
        self.judge_by_settings()
        first = documents[front]
        self.documents.workspace_of(first).select_when_open(select)
        self.documents.bring(first)

    def judge_by_settings(self) -> None:
        """Judge every checkpoint by the limits in the settings."""
        thresholds = self.settings.thresholds()
        for document in self.documents.all():
            document.session.set_thresholds(thresholds)

    def get_ready(self) -> None:
        """Import, in a job, what opening a checkpoint needs: numpy alone takes longer than a frame may."""
        if self._ready or self._getting_ready or not self._furnished:
            return
        self._getting_ready = True
        self.jobs.start(self.tr("Getting ready"), _import_core, done=self._on_ready, failed=self._on_not_ready)

    def _on_ready(self, _modules: object) -> None:
        self._ready = True
        wanted, self._wanted = self._wanted, []
        if wanted:
            *earlier, (paths, front, choices, select) = wanted
            for others, _, choices_then, _ in earlier:
                for path in others:
                    self.documents.wait(path, choices_then or self._choices_for(path))
            self.open_all(paths, front, choices=choices, select=select)
        else:
            # While the start page is looked at: the first checkpoint then finds its views ready.
            self.documents.workspace_of(self.documents.current)

    def _on_not_ready(self, error: KVScopeError) -> None:
        self._getting_ready = False
        self._wanted = []
        from app.text import complaint

        self.say(complaint(error))

    def _choices_for(self, path: str) -> Choices:
        """An engine that was chosen for the front checkpoint holds for the next one; else the one in the settings."""
        from app.session import Choices
        from core.engines import ENGINES

        document = self.documents.document_of(path)
        if document is not None and document.session.path is not None:
            return document.session.choices
        engine = self.session.choices.engine or self.settings.text("engine")
        return Choices(engine=engine if engine in ENGINES else None)

    def _make_workspace(self, document: Document) -> Workspace:
        """The views of a document, still without most of their panels."""
        from app.workspace import Workspace

        self.actions_table.draw_icons()
        made = Workspace(document.session, self.actions_table, self.log, at_once=False)
        made.header.set_open_menu(self.menus.open_menu())
        made.message.connect(self.say)
        made.digest_shown.connect(self._on_digest_shown)
        made.findings_changed.connect(self._on_front_changed)
        made.selection.changed.connect(self.enable_actions)
        made.history.changed.connect(self.enable_actions)
        made.open_requested.connect(self.open_path)
        made.completed.connect(self._on_workspace_complete)
        return made

    def _on_workspace_complete(self) -> None:
        from app.workspace import Workspace

        made = self.sender()
        if not isinstance(made, Workspace):
            return
        made.keys.all_tensors_changed.connect(self._on_front_changed)
        made.gpu.devices_listed.connect(self._on_devices_listed)
        made.export.undo_stack.canUndoChanged.connect(self.enable_actions)
        made.export.undo_stack.canRedoChanged.connect(self.enable_actions)
        made.compare.offers = self._comparable
        made.restore(self.settings)
        self._on_front_changed()

    def _comparable(self) -> list[str]:
        """What the front checkpoint may be compared with: the other tabs, then what was opened before."""
        return list(dict.fromkeys([*self.documents.paths(), *self.settings.recent()]))

    def show_recent(self) -> None:
        """List what was opened before, in the menu and on the start page."""
        paths = self.settings.recent()
        self.menus.show_recent(paths)
        if self.documents.pages.currentWidget() is self.welcome:
            self.welcome.show_recent(paths)

    def say(self, words: str) -> None:
        """A passing remark in the status bar."""
        self.status.showMessage(words, 6000)

    # --- events

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if not self._painted:
            self._painted = True
            self.painted.emit()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._furnished and not self._restored:
            self._restore_size()
            QTimer.singleShot(0, self, self._on_first_shown)

    def _restore_size(self) -> None:
        # Sizes only, and after the first show: a geometry saved on another screen must not decide where this goes.
        self._restored = True
        sizes = self.settings.sizes("window/size")
        if len(sizes) == 2:
            self.resize(QSize(*sizes).boundedTo(self.screen().availableSize()))
        if self.settings.text("window/maximized") == "yes":
            self.showMaximized()

    def _on_first_shown(self) -> None:
        self.status.show_driver()
        self.get_ready()

    def closeEvent(self, event: QCloseEvent) -> None:
        event.accept()
        if not self._furnished:
            return
        if not self.isMaximized():
            self.settings.set_sizes("window/size", [self.width(), self.height()])
        self.settings.set_text("window/maximized", "yes" if self.isMaximized() else "")
        front = self.documents.current
        self.settings.set_open(self.documents.paths(), front.path)
        if front.workspace is not None:
            front.workspace.save(self.settings)
        self.jobs.shutdown()
        self.log.close()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        if self._furnished and _local_paths(event.mimeData().urls()):
            event.acceptProposedAction()
            self.welcome.zone.set_over(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        if self._furnished:
            self.welcome.zone.set_over(False)

    def dropEvent(self, event: QDropEvent) -> None:
        """Open what is dropped; one checkpoint over another one: ask whether to open it or to compare the two."""
        self.welcome.zone.set_over(False)
        paths = _local_paths(event.mimeData().urls())
        if not paths:
            return
        event.acceptProposedAction()
        if len(paths) == 1 and self.session.digest is not None:
            self._ask(paths[0], event.position().toPoint())
            return
        if len(paths) == 1:
            self.open_path(paths[0])
        else:
            self.open_all(paths, paths[0])

    def _ask(self, path: str, where: QPoint) -> None:
        from PySide6.QtCore import Qt  # its many enumerations take long to make: not before the first paint

        menu = self._drop_menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for name, words in (
            ("open", self.tr("Open in a tab of its own")),
            ("compare", self.tr("Compare with {name}").format(name=self.documents.current.title)),
        ):
            action = menu.addAction(words)
            action.setData((name, path))
            action.triggered.connect(self._on_drop_chosen)
        menu.popup(self.mapToGlobal(where))

    def _on_drop_chosen(self) -> None:
        action = self.sender()
        if not isinstance(action, QAction):
            return
        name, path = action.data()
        if name == "open":
            self.open_path(path)
        else:
            self.actions_table["compare"].trigger()
            self.session.compare(path)

    # --- what the documents say

    def _on_front_changed(self) -> None:
        """Another checkpoint is in front, or none."""
        document = self.documents.current
        title, digest, workspace = document.title, document.session.digest, document.workspace
        self.setWindowTitle(f"{title} – KVScope" if title else "KVScope")
        self.status.show_digest(digest, workspace.findings() if workspace is not None else ())
        if workspace is not None and workspace.built:
            self.actions_table["all_tensors"].setChecked(workspace.keys.all_tensors)
            self.actions_table["groups"].setChecked(workspace.groups_shown)
        if document.path is None:
            if workspace is not None:
                workspace.selection.clear()
            self.show_recent()
        self.enable_actions()

    def _on_opened(self, document: Document) -> None:
        if document.session.path is not None:
            self.settings.add_recent(document.session.path)
            self.show_recent()
        self._on_front_changed()

    def _on_digest_shown(self, _digest: Digest | None) -> None:
        self._on_front_changed()

    def _on_devices_listed(self) -> None:
        self.status.show_devices(self.workspace.gpu.devices())

    # --- menus

    def enable_actions(self) -> None:
        """Enable the actions that can do something now."""
        from app.actions import Needs

        given = Needs.NOTHING
        document = self.documents.current
        digest, workspace = document.session.digest, document.workspace
        if document.session.path is not None:
            given |= Needs.PATH
        if digest is not None:
            given |= Needs.CHECKPOINT
            findings = workspace.findings() if workspace is not None else digest.inspection.findings
            if any(finding.severity != "info" for finding in findings):
                given |= Needs.PROBLEMS
        if workspace is not None and digest is not None:
            given |= Needs.SELECTION if workspace.selection.ids else Needs.NOTHING
            given |= Needs.BACK if workspace.history.can_go_back else Needs.NOTHING
            given |= Needs.FORWARD if workspace.history.can_go_forward else Needs.NOTHING
            if workspace.built:
                stack = workspace.export.undo_stack
                given |= Needs.UNDO if stack.canUndo() else Needs.NOTHING
                given |= Needs.REDO if stack.canRedo() else Needs.NOTHING
        if len(self.documents.all()) > 1:
            given |= Needs.TABS
        if self.jobs.running():
            given |= Needs.RUNNING
        self.actions_table.enable(given)


def _import_core(progress: Progress) -> object:
    """The core, without a line of Qt: Qt's modules are imported in the GUI thread alone, or it crashes."""
    progress.start(QCoreApplication.translate("Window", "Getting ready"))
    import core.inspection
    import core.report
    from core.engines import DEFAULT_ENGINE, get_engine

    get_engine(DEFAULT_ENGINE).known_architectures()  # reads the survey that the architecture picker lists
    return core.inspection, core.report


def _local_paths(urls: list[QUrl]) -> list[str]:
    """The local files among what is dragged."""
    return [url.toLocalFile() for url in urls if url.isLocalFile()]
