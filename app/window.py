"""The main window: menus, the start page or a checkpoint's workspace, and the status bar."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtGui import (
    QAction,
    QActionGroup,
    QCloseEvent,
    QDragEnterEvent,
    QDragLeaveEvent,
    QDropEvent,
    QGuiApplication,
    QShowEvent,
)
from PySide6.QtWidgets import QFileDialog, QMainWindow, QMenu, QStackedWidget, QWidget

from app import text
from app.actions import Actions, Needs
from app.jobs import Jobs
from app.panels.log import LogBridge
from app.panels.status import StatusBar
from app.panels.welcome import Sample, Welcome, bundled_samples
from app.session import Choices, Session
from app.settings import Settings
from app.theme.theme import MODES, Mode, theme
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

        self.actions_table = Actions(self, self._handler)
        self.menus = self.actions_table.fill(self.menuBar())
        self._choice_groups: dict[str, QActionGroup] = {}
        self.menus["engines"].aboutToShow.connect(self._fill_engines)
        self.menus["backends"].aboutToShow.connect(self._fill_backends)
        self.welcome = Welcome(self.actions_table["open_file"], self.actions_table["open_folder"])
        self.welcome.open_requested.connect(self.open_path)
        self.welcome.show_samples(self._samples)
        self.pages = QStackedWidget()
        self.pages.addWidget(self.welcome)
        self.setCentralWidget(self.pages)
        self.status = StatusBar(self.jobs)
        self.setStatusBar(self.status)
        self._fill_samples()
        self._refresh_recent()
        self._check_theme()

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
            made.header.set_open_menu(self._open_menu())
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
            self._refresh_recent()
        self._enable_actions()

    def _on_opening_failed(self, path: str, error: KVScopeError) -> None:
        self._enable_actions()

    def _on_checkpoint_closed(self) -> None:
        self.setWindowTitle("KVScope")
        self.status.show_digest(None)
        if self._workspace is not None:
            self._workspace.selection.clear()
        self.pages.setCurrentWidget(self.welcome)
        self.welcome.show_recent(self.settings.recent())
        self._enable_actions()

    def _on_devices_listed(self) -> None:
        self.status.show_devices(self.workspace.gpu.devices())

    # --- menus

    def _handler(self, name: str) -> Callable[[], None]:
        slot: Callable[[], None] = getattr(self, f"_on_{name}")
        return slot

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

    def _open_menu(self) -> QMenu:
        menu = QMenu(self)
        menu.addAction(self.actions_table["open_file"])
        menu.addAction(self.actions_table["open_folder"])
        menu.addMenu(self.menus["recent"])
        menu.addMenu(self.menus["samples"])
        return menu

    def _fill_samples(self) -> None:
        menu = self.menus["samples"]
        for sample in self._samples:
            action = menu.addAction(sample.title)
            action.setToolTip(sample.story)
            action.setData(str(sample.path))
            action.triggered.connect(self._on_path_action)
        menu.setEnabled(bool(self._samples))

    def _refresh_recent(self) -> None:
        menu = self.menus["recent"]
        menu.clear()
        paths = self.settings.recent()
        for path in paths:
            action = menu.addAction(path)
            action.setData(path)
            action.triggered.connect(self._on_path_action)
        menu.setEnabled(bool(paths))
        if self.pages.currentWidget() is self.welcome:
            self.welcome.show_recent(paths)

    def _on_path_action(self) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self.open_path(action.data())

    def _fill_engines(self) -> None:
        from core.engines import DEFAULT_ENGINE, ENGINES

        current = self.session.choices.engine or DEFAULT_ENGINE
        entries = [(engine.id, engine.title) for engine in ENGINES.values()]
        self._fill_choices("engines", entries, current, self._on_engine_action)

    def _fill_backends(self) -> None:
        from core.backends import BACKENDS

        entries = [("", self.tr("Automatic")), *((method, method) for method in sorted(BACKENDS))]
        self._fill_choices("backends", entries, self.session.choices.method or "", self._on_backend_action)

    def _fill_choices(
        self, menu_name: str, entries: list[tuple[str, str]], current: str, slot: Callable[[], None]
    ) -> None:
        menu = self.menus[menu_name]
        menu.clear()
        group = self._choice_groups.pop(menu_name, None)
        if group is not None:
            group.deleteLater()
        group = self._choice_groups[menu_name] = QActionGroup(menu)
        for value, title in entries:
            action = QAction(title, menu)
            action.setCheckable(True)
            action.setChecked(value == current)
            action.setData(value)
            action.triggered.connect(slot)
            group.addAction(action)
            menu.addAction(action)

    def _on_engine_action(self) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self.session.choose(replace(self.session.choices, engine=action.data()))

    def _on_backend_action(self) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self.session.choose(replace(self.session.choices, method=action.data() or None))

    def _check_theme(self) -> None:
        self.actions_table[f"theme_{theme().mode}"].setChecked(True)

    # --- actions: one slot for each id of app.actions

    def _on_open_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self,
            self.tr("Open a file"),
            self._last_folder(),
            self.tr("Checkpoints (*.safetensors *.json *.bin *.pt *.pth);;All files (*)"),
        )
        if chosen:
            self._remember_folder(chosen)
            self.open_path(chosen)

    def _on_open_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, self.tr("Open a checkpoint folder"), self._last_folder())
        if chosen:
            self._remember_folder(chosen)
            self.open_path(chosen)

    def _last_folder(self) -> str:
        return self.settings.text("folder", str(Path.home()))

    def _remember_folder(self, chosen: str) -> None:
        self.settings.set_text("folder", str(Path(chosen).parent))

    def _on_close(self) -> None:
        self.session.close()

    def _on_quit(self) -> None:
        self.close()

    def _on_copy_key(self) -> None:
        digest = self.session.digest
        if digest is None:
            return
        chosen = self.workspace.selection.ids
        ordered = [row.key or row.target for row in digest.rows if row.id in chosen]
        ordered += sorted(name for name in chosen if name not in digest.by_id)
        QGuiApplication.clipboard().setText("\n".join(ordered))
        self.say(text.plural(len(ordered), self.tr("{count} key copied"), self.tr("{count} keys copied")))

    def _on_copy_row(self) -> None:
        digest = self.session.digest
        if digest is None:
            return
        from app.story import row_as_dict

        chosen = self.workspace.selection.ids
        rows = [row_as_dict(row) for row in digest.rows if row.id in chosen]
        found = rows[0] if len(rows) == 1 else rows
        QGuiApplication.clipboard().setText(json.dumps(found, indent=2, ensure_ascii=False))
        self.say(text.plural(len(rows), self.tr("{count} row copied as JSON"), self.tr("{count} rows copied as JSON")))

    def _on_copy_why(self) -> None:
        self.workspace.why.refresh()
        self.workspace.why.copy_text()
        self.say(self.tr("Story copied"))

    def _on_find(self) -> None:
        line = self.workspace.keys.filter
        line.setFocus()
        line.selectAll()

    def _on_clear_filter(self) -> None:
        self.workspace.keys.clear_filter()

    def _on_all_tensors(self) -> None:
        self.workspace.keys.set_all_tensors(self.actions_table["all_tensors"].isChecked())

    def _on_groups(self) -> None:
        self.workspace.show_groups(on=self.actions_table["groups"].isChecked())

    def _on_show_problems(self) -> None:
        self.workspace.show_tab("problems")

    def _on_show_backends(self) -> None:
        self.workspace.show_tab("backends")

    def _on_show_plot(self) -> None:
        self.workspace.show_tab("plot")

    def _on_show_export(self) -> None:
        self.workspace.show_tab("export")

    def _on_show_gpu(self) -> None:
        self.workspace.show_tab("gpu")

    def _on_show_log(self) -> None:
        self.workspace.show_tab("log")

    def _on_theme_system(self) -> None:
        self._set_theme("system")

    def _on_theme_light(self) -> None:
        self._set_theme("light")

    def _on_theme_dark(self) -> None:
        self._set_theme("dark")

    def _on_toggle_theme(self) -> None:
        self._set_theme("light" if theme().colours.dark else "dark")

    def _set_theme(self, mode: Mode) -> None:
        if mode in MODES:
            theme().set_mode(mode)
            self.settings.set_text("theme", mode)
            self._check_theme()

    def _on_reload(self) -> None:
        self.session.reload()

    def _on_stop(self) -> None:
        self.jobs.cancel_all()

    def _on_next_problem(self) -> None:
        self.workspace.go_to_problem(1)

    def _on_previous_problem(self) -> None:
        self.workspace.go_to_problem(-1)

    def _on_export(self) -> None:
        self.workspace.show_tab("export")

    def _on_copy_report(self) -> None:
        inspection = self.session.inspection
        if inspection is not None:
            from core.report import json_text, report

            QGuiApplication.clipboard().setText(json_text(report(inspection)))
            self.say(self.tr("Report copied as JSON"))

    def _on_save_report(self) -> None:
        inspection = self.session.inspection
        if inspection is None:
            return
        name = inspection.checkpoint.path.stem or "checkpoint"
        chosen, _ = QFileDialog.getSaveFileName(
            self,
            self.tr("Save the report"),
            str(Path(self._last_folder()) / f"{name}-kvscope.json"),
            self.tr("JSON (*.json);;Text (*.txt);;HTML (*.html)"),
        )
        if not chosen:
            return
        from core.report import html_report, json_text, report, text_report

        writers = {".txt": text_report, ".html": html_report}
        path = Path(chosen)
        writer = writers.get(path.suffix.lower())
        try:
            path.write_text(writer(inspection) if writer is not None else json_text(report(inspection)), "utf-8")
        except OSError as error:
            self.say(self.tr("{path} was not written: {error}").format(path=path, error=error.strerror))
        else:
            self.say(self.tr("Report saved to {path}").format(path=path))

    def _on_verify(self) -> None:
        self.workspace.show_tab("gpu")
        self.workspace.gpu.verify()

    def _on_reset_choices(self) -> None:
        self.session.reset_choices()

    def _on_commands(self) -> None:
        from app.dialogs import CommandPalette

        CommandPalette(self.actions_table, self).open()

    def _on_clear_recent(self) -> None:
        self.settings.clear_recent()
        self._refresh_recent()

    def _on_shortcuts(self) -> None:
        from app.dialogs import ShortcutHelp

        ShortcutHelp(self.actions_table, self).open()

    def _on_about(self) -> None:
        from app.dialogs import About

        About(self).open()


def _import_core(progress: Progress) -> object:
    progress.start("importing")
    import app.workspace
    from core.architectures import known_architectures

    known_architectures()  # reads the survey that the architecture picker lists
    return app.workspace


def _local_path(urls: list[QUrl]) -> str | None:
    """The first local file among what is dragged."""
    return next((url.toLocalFile() for url in urls if url.isLocalFile()), None)
