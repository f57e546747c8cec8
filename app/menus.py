"""The menu bar, and the menus whose entries come and go: recent, samples, engines, backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from PySide6.QtCore import QObject
from PySide6.QtGui import QAction, QActionGroup
from PySide6.QtWidgets import QMenu

from app.actions import Actions
from app.panels.welcome import Sample

if TYPE_CHECKING:
    from app.window import Window


class Menus(QObject):
    """Fills the window's menu bar from the table of actions."""

    def __init__(self, window: Window, actions: Actions, samples: tuple[Sample, ...]) -> None:
        super().__init__(window)
        self._window = window
        self._actions = actions
        self._menus = actions.fill(window.menuBar())
        self._choice_groups: dict[str, QActionGroup] = {}
        self._open_menu: QMenu | None = None
        self._menus["engines"].aboutToShow.connect(self._fill_engines)
        self._menus["backends"].aboutToShow.connect(self._fill_backends)
        self._fill_samples(samples)

    def __getitem__(self, name: str) -> QMenu:
        return self._menus[name]

    def open_menu(self) -> QMenu:
        """What the arrow beside Open offers: one menu, whichever checkpoint's bar it drops from."""
        if self._open_menu is not None:
            return self._open_menu
        menu = self._open_menu = QMenu(self._window)
        menu.addAction(self._actions["open_file"])
        menu.addAction(self._actions["open_folder"])
        menu.addMenu(self._menus["recent"])
        menu.addMenu(self._menus["samples"])
        return menu

    def _fill_samples(self, samples: tuple[Sample, ...]) -> None:
        menu = self._menus["samples"]
        for sample in samples:
            action = menu.addAction(sample.title)
            action.setToolTip(sample.story)
            action.setData(str(sample.path))
            action.triggered.connect(self._on_path_action)
        menu.setEnabled(bool(samples))

    def show_recent(self, paths: list[str]) -> None:
        """List what was opened before."""
        menu = self._menus["recent"]
        menu.clear()
        for path in paths:
            action = menu.addAction(path)
            action.setData(path)
            action.triggered.connect(self._on_path_action)
        menu.setEnabled(bool(paths))

    def _on_path_action(self) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self._window.open_path(action.data())

    def _fill_engines(self) -> None:
        from core.engines import DEFAULT_ENGINE, ENGINES

        current = self._window.session.choices.engine or DEFAULT_ENGINE
        entries = [(engine.id, engine.title) for engine in ENGINES.values()]
        self._fill_choices("engines", entries, current, self._on_engine_action)

    def _fill_backends(self) -> None:
        from core.engines import DEFAULT_ENGINE, get_engine
        from core.engines.variants import methods_of

        engine = get_engine(self._window.session.choices.engine or DEFAULT_ENGINE)
        entries = [("", self.tr("Automatic")), *((method, method) for method in methods_of(engine))]
        self._fill_choices("backends", entries, self._window.session.choices.method or "", self._on_backend_action)

    def _fill_choices(
        self, menu_name: str, entries: list[tuple[str, str]], current: str, slot: Callable[[], None]
    ) -> None:
        menu = self._menus[menu_name]
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
            self._window.session.choose(self._window.session.choices.with_engine(action.data()))

    def _on_backend_action(self) -> None:
        action = self.sender()
        if isinstance(action, QAction):
            self._window.session.choose(replace(self._window.session.choices, method=action.data() or None))
