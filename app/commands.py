"""What each action does: one method for each id of :mod:`app.actions`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QFileDialog

from app import text
from app.theme.theme import MODES, Mode, theme

if TYPE_CHECKING:
    from app.window import Window
    from core.errors import KVScopeError
    from core.progress import Progress

_COPIED_AT_ONCE = 200
"""Rows that are written in the time that a window may halt."""


class Commands(QObject):
    """The slots behind menus, tool bar and shortcuts."""

    def __init__(self, window: Window) -> None:
        super().__init__(window)
        self._window = window

    def slot(self, name: str) -> Callable[[], None]:
        """The method of an action."""
        found: Callable[[], None] = getattr(self, name)
        return found

    def check_theme(self) -> None:
        """Tick the theme in force in its menu."""
        self._window.actions_table[f"theme_{theme().mode}"].setChecked(True)

    def open_file(self) -> None:
        chosen, _ = QFileDialog.getOpenFileName(
            self._window,
            self.tr("Open a file"),
            self._last_folder(),
            self.tr("Checkpoints (*.safetensors *.json *.bin *.pt *.pth);;All files (*)"),
        )
        if chosen:
            self._remember_folder(chosen)
            self._window.open_path(chosen)

    def open_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(
            self._window, self.tr("Open a checkpoint folder"), self._last_folder()
        )
        if chosen:
            self._remember_folder(chosen)
            self._window.open_path(chosen)

    def open_address(self) -> None:
        from app.dialogs import AddressDialog

        dialog = AddressDialog(self._window)
        dialog.chosen.connect(self._window.open_path)
        dialog.open()

    def _last_folder(self) -> str:
        return self._window.settings.text("folder", str(Path.home()))

    def _remember_folder(self, chosen: str) -> None:
        self._window.settings.set_text("folder", str(Path(chosen).parent))

    def close(self) -> None:
        documents = self._window.documents
        documents.close_at(documents.all().index(documents.current))

    def back(self) -> None:
        self._window.workspace.history.go(-1)

    def forward(self) -> None:
        self._window.workspace.history.go(1)

    def undo(self) -> None:
        if not self._window.workspace.export.writing:
            self._window.workspace.export.undo_stack.undo()

    def redo(self) -> None:
        if not self._window.workspace.export.writing:
            self._window.workspace.export.undo_stack.redo()

    def next_tab(self) -> None:
        self._window.documents.step(1)

    def previous_tab(self) -> None:
        self._window.documents.step(-1)

    def quit(self) -> None:
        self._window.close()

    def copy_key(self) -> None:
        digest = self._window.session.digest
        if digest is None:
            return
        from app.table_text import keys_text

        ids = self._window.workspace.selection.ids
        self._copy(
            partial(keys_text, digest, ids),
            len(ids),
            lambda count: text.plural(count, self.tr("{count} key copied"), self.tr("{count} keys copied")),
        )

    def copy_row(self) -> None:
        digest = self._window.session.digest
        if digest is None:
            return
        from app.table_text import rows_json

        ids = self._window.workspace.selection.ids
        self._copy(
            partial(rows_json, digest, ids),
            len(ids),
            lambda count: text.plural(
                count, self.tr("{count} row copied as JSON"), self.tr("{count} rows copied as JSON")
            ),
        )

    def copy_text(self) -> None:
        self._copy_table(separator="\t")

    def copy_csv(self) -> None:
        self._copy_table(separator=",")

    def _copy_table(self, *, separator: str) -> None:
        from app.table_text import table_text

        workspace = self._window.workspace
        ids = workspace.selection.ids
        self._copy(
            partial(table_text, workspace.keys.table.shown(), ids, separator, workspace.keys.columns_shown()),
            len(ids),
            lambda count: text.plural(count, self.tr("{count} row copied"), self.tr("{count} rows copied")),
        )

    def _copy(self, make: Callable[[Progress], tuple[str, int]], rows: int, said: Callable[[int], str]) -> None:
        """Put what ``make`` writes of so many rows on the clipboard; of many, in a job."""
        from core.progress import Progress

        def done(made: tuple[str, int]) -> None:
            words, count = made
            QGuiApplication.clipboard().setText(words)
            self._window.say(said(count))

        if rows <= _COPIED_AT_ONCE:
            done(make(Progress()))
        else:
            self._window.session.jobs.start(
                self.tr("Copying"), make, done=done, failed=self._on_copy_failed, lane="copy"
            )

    def _on_copy_failed(self, error: KVScopeError) -> None:
        from app.session import cancelled

        self._window.say(self.tr("Copying was cancelled.") if cancelled(error) else text.complaint(error))

    def copy_why(self) -> None:
        self._window.workspace.why.refresh()
        self._window.workspace.why.copy_text()
        self._window.say(self.tr("Story copied"))

    def find(self) -> None:
        line = self._window.workspace.keys.filter
        line.setFocus()
        line.selectAll()

    def clear_filter(self) -> None:
        self._window.workspace.keys.clear_filter()

    def all_tensors(self) -> None:
        self._window.workspace.keys.set_all_tensors(self._window.actions_table["all_tensors"].isChecked())

    def groups(self) -> None:
        self._window.workspace.show_groups(on=self._window.actions_table["groups"].isChecked())

    def show_problems(self) -> None:
        self._window.workspace.show_tab("problems")

    def show_engines(self) -> None:
        self._window.workspace.show_tab("engines")

    def show_backends(self) -> None:
        self._window.workspace.show_tab("backends")

    def show_plot(self) -> None:
        self._window.workspace.show_tab("plot")

    def show_export(self) -> None:
        self._window.workspace.show_tab("export")

    def show_gpu(self) -> None:
        self._window.workspace.show_tab("gpu")

    def show_config(self) -> None:
        self._window.workspace.show_tab("config")

    def show_log(self) -> None:
        self._window.workspace.show_tab("log")

    def theme_system(self) -> None:
        self._set_theme("system")

    def theme_light(self) -> None:
        self._set_theme("light")

    def theme_dark(self) -> None:
        self._set_theme("dark")

    def toggle_theme(self) -> None:
        self._set_theme("light" if theme().colours.dark else "dark")

    def _set_theme(self, mode: Mode) -> None:
        if mode in MODES:
            theme().set_mode(mode)
            self._window.settings.set_text("theme", mode)
            self.check_theme()

    def reload(self) -> None:
        self._window.session.reload()

    def stop(self) -> None:
        self._window.jobs.cancel_all()

    def next_problem(self) -> None:
        self._window.workspace.go_to_problem(1)

    def previous_problem(self) -> None:
        self._window.workspace.go_to_problem(-1)

    def export(self) -> None:
        self._window.workspace.show_tab("export")

    def compare(self) -> None:
        self._window.workspace.show_tab("compare")

    def copy_command(self) -> None:
        session = self._window.session
        if session.path is None:
            return
        from app.shell import check_command

        QGuiApplication.clipboard().setText(check_command(session.path, session.choices, session.thresholds))
        self._window.say(self.tr("Command copied"))

    def rules(self) -> None:
        from app.rules_editor import RulesEditor

        session = self._window.session
        for editor in self._window.findChildren(RulesEditor):
            if editor.session is session and editor.isVisible():
                editor.raise_()
                editor.activateWindow()
                return
        RulesEditor(session, self._window).show()

    def settings(self) -> None:
        from app.preferences import Preferences

        Preferences(self._window).open()

    def copy_report(self) -> None:
        inspection = self._window.session.inspection
        if inspection is None:
            return

        def work() -> str:
            from core.report import json_text, report

            return json_text(report(inspection))

        def done(words: str) -> None:
            QGuiApplication.clipboard().setText(words)
            self._window.say(self.tr("Report copied as JSON"))

        self._report(work, done)

    def save_report(self) -> None:
        inspection = self._window.session.inspection
        if inspection is None:
            return
        from app.saving import ask_where

        name = inspection.checkpoint.path.name or "checkpoint"
        path = ask_where(
            self._window,
            self.tr("Save the report"),
            str(Path(self._last_folder()) / f"{name}-kvscope.html"),
            self.tr("HTML (*.html);;JSON (*.json);;Text (*.txt)"),
        )
        if path is None:
            return

        def work() -> str:
            from core.report import html_report, json_text, report, text_report

            writers = {".txt": text_report, ".html": html_report}
            writer = writers.get(path.suffix.lower())
            words = writer(inspection) if writer is not None else json_text(report(inspection))
            try:
                path.write_text(words, "utf-8", "backslashreplace")  # the name of a file may be any bytes
            except OSError as error:
                return self.tr("{path} was not written: {error}").format(path=path, error=error.strerror)
            return self.tr("Report saved to {path}").format(path=path)

        self._report(work, self._window.say)

    def _report(self, work: Callable[[], str], done: Callable[[str], None]) -> None:
        """Make a report in a job: it tells of other engines and an export too, which may take a tenth of a second."""
        title = self.tr("Writing the report")

        def run(progress: Progress) -> str:
            progress.start(title)
            return work()

        self._window.session.jobs.start(title, run, done=done, failed=self._on_report_failed)

    def _on_report_failed(self, error: KVScopeError) -> None:
        from app.session import cancelled

        self._window.say(self.tr("The report was cancelled.") if cancelled(error) else text.complaint(error))

    def verify(self) -> None:
        self._window.workspace.show_tab("gpu")
        self._window.workspace.gpu.verify()

    def reset_choices(self) -> None:
        self._window.session.reset_choices()

    def commands(self) -> None:
        from app.dialogs import CommandPalette

        CommandPalette(self._window.actions_table, self._window).open()

    def clear_recent(self) -> None:
        self._window.settings.clear_recent()
        self._window.show_recent()

    def shortcuts(self) -> None:
        from app.shortcuts import Shortcuts

        Shortcuts(self._window.actions_table, self._window.settings, self._window).open()

    def about(self) -> None:
        from app.dialogs import About

        About(self._window).open()
