"""One checkpoint's views around one selection: pickers, verdict, coverage, groups, keys, why, and the tabs below."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtWidgets import QAbstractItemView, QStackedWidget, QTabWidget, QWidget

from app.actions import Actions
from app.digest import Digest
from app.history import History
from app.observation import observation_of
from app.panels.banner import Banner
from app.panels.header import Header
from app.panels.layouts import grow, split, vertical
from app.panels.log import LogBridge
from app.panels.parts import surface
from app.panels.reading import Page, Passage
from app.panels.waiting import Waiting
from app.selection import Selection
from app.session import Session, cancelled
from app.settings import Settings
from app.text import complaint
from app.theme.theme import theme
from core.diagnosis import mended_by_export
from core.diagnosis.finding import Finding
from core.engines import ENGINES
from core.errors import KVScopeError

TABS = ("problems", "engines", "backends", "plot", "compare", "export", "gpu", "config", "log")
_ROW_ACTIONS = ("copy_key", "copy_row", "copy_text", "copy_csv", "copy_why", "next_problem", "verify", "export")


class Workspace(QWidget):
    """Everything shown about one session."""

    message = Signal(str)
    digest_shown = Signal(object)
    findings_changed = Signal()
    """What a run of the loader adds to the findings came or went."""
    open_requested = Signal(str)
    completed = Signal()
    """Every panel is there."""

    def __init__(
        self,
        session: Session,
        actions: Actions,
        log: LogBridge,
        parent: QWidget | None = None,
        *,
        at_once: bool = True,
    ) -> None:
        super().__init__(parent)
        self.session = session
        self.selection = Selection(self)
        self.history = History(self.selection, self)
        self._actions = actions
        self._pending: str | None = None
        self._built = False
        self.header = Header(session, actions)
        self.banner = Banner(actions["next_problem"])
        self.waiting = Waiting(actions["reload"], actions["close"])
        self._pages = QStackedWidget()
        self._pages.addWidget(self.waiting)
        grow(vertical(self.header, self.banner, self._pages, parent=self), self._pages)
        session.opening_started.connect(self._on_opening_started)
        session.checkpoint_inspected.connect(self._on_checkpoint_inspected)
        session.opening_failed.connect(self._on_opening_failed)
        session.choice_failed.connect(self._on_choice_failed)
        session.verification_changed.connect(self._on_verification_changed)
        self._steps = self._build(log)
        if at_once:
            self.finish()
        else:
            QTimer.singleShot(0, self, self._step)

    @property
    def built(self) -> bool:
        """Whether all panels are there."""
        return self._built

    def finish(self) -> None:
        """Build at once what is not built yet."""
        for _ in self._steps:
            pass

    def _step(self) -> None:
        """Build one panel, then let the window handle events: all together would halt it for a third of a second."""
        try:
            next(self._steps)
        except StopIteration:
            return
        QTimer.singleShot(0, self, self._step)

    def _build(self, log: LogBridge) -> Iterator[None]:
        """The panels, one by one; each with its module, for Qt's modules may be imported in this thread alone."""
        selection, jobs = self.selection, self.session.jobs
        yield
        from app.panels.keys import KeysPanel

        self.keys = KeysPanel(selection, jobs, [self._actions[name] for name in _ROW_ACTIONS])
        self._found = QWidget()
        self.body = split(Qt.Orientation.Horizontal)
        self.halves = split(Qt.Orientation.Vertical)
        self.halves.addWidget(self.body)
        yield
        from app.panels.coverage import Coverage
        from app.panels.groups import GroupsPanel

        self.coverage = Coverage(selection)
        self.groups = GroupsPanel(selection, jobs)
        grow(vertical(self.coverage, self.halves, parent=self._found), self.halves)
        yield
        from app.panels.why import WhyPanel

        self.why = WhyPanel(selection)
        for panel, least, stretch in ((self.groups, 120, 0), (self.keys, 300, 3), (self.why, 260, 2)):
            ground = _on_surface(panel)
            ground.setMinimumWidth(least)
            self.body.addWidget(ground)
            self.body.setStretchFactor(self.body.count() - 1, stretch)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setIconSize(QSize(15, 15))
        self.tabs.setAccessibleName(self.tr("Details"))
        self.halves.addWidget(self.tabs)
        yield
        yield from self._build_tabs(log)
        self._complete()

    def _build_tabs(self, log: LogBridge) -> Iterator[None]:
        session, selection = self.session, self.selection
        from app.panels.problems import ProblemsPanel

        self.problems = ProblemsPanel(selection)
        self._add_tab(self.problems, self.tr("Problems"))
        yield
        from app.panels.engines import EnginesPanel

        self.engines = EnginesPanel(session, selection)
        self._add_tab(self.engines, self.tr("Engines"))
        yield
        from app.panels.backends import BackendsPanel

        self.backends = BackendsPanel(selection, session.jobs)
        self._add_tab(self.backends, self.tr("Backends"))
        yield
        from app.panels.plot import PlotPanel

        self.plot = PlotPanel(selection)
        self._add_tab(self.plot, self.tr("Plot"))
        yield
        from app.panels.compare import ComparePanel

        self.compare = ComparePanel(session, selection)
        self._add_tab(self.compare, self.tr("Compare"))
        yield
        from app.panels.export import ExportPanel

        self.export = ExportPanel(session, selection)
        self._add_tab(self.export, self.tr("Export preview"))
        yield
        from app.panels.gpu import GpuPanel

        self.gpu = GpuPanel(session, selection)
        self._add_tab(self.gpu, self.tr("GPU"))
        yield
        from app.panels.config import ConfigPanel

        self.config = ConfigPanel()
        self._add_tab(self.config, self.tr("Config"))
        yield
        from app.panels.log import LogPanel

        self.log = LogPanel(log)
        self._add_tab(self.log, self.tr("Log"))
        yield

    def _add_tab(self, panel: QWidget, title: str) -> None:
        name = TABS[self.tabs.count()]
        self.tabs.addTab(_on_surface(panel), theme().icon(name), title)

    def _complete(self) -> None:
        """All panels are there: connect them, and show what the session has found meanwhile."""
        self.body.setSizes([244, 656, 380])
        self.halves.setSizes([360, 270])
        for splitter in (self.body, self.halves):
            splitter.setChildrenCollapsible(False)
        self.halves.setStretchFactor(0, 3)
        self.halves.setStretchFactor(1, 2)
        self._pages.addWidget(self._found)
        self._connect()
        self._built = True
        self.completed.emit()
        if self.session.digest is not None:
            self._on_checkpoint_inspected(self.session.digest)

    def _connect(self) -> None:
        session = self.session
        session.compared_changed.connect(self.plot.show_compared)
        self.export.open_requested.connect(self.open_requested)
        for source in (self.coverage, self.groups, self.problems):
            source.filter_requested.connect(self._on_filter_requested)
        self.problems.fix_requested.connect(self._on_fix_requested)
        self.banner.fix_requested.connect(self._on_fix_of_all_requested)
        self.keys.all_tensors_changed.connect(self.groups.set_all_tensors)
        theme().changed.connect(self._draw_icons)

    def _draw_icons(self) -> None:
        for place, name in enumerate(TABS):
            self.tabs.setTabIcon(place, theme().icon(name))

    # --- what others ask for

    def show_tab(self, name: str) -> None:
        """Bring a tab to the front and give it the keyboard."""
        self.tabs.setCurrentIndex(TABS.index(name))
        # The bar, where the panel still waits for a result: from there Tab leads on.
        control = _first_control(self.tabs.currentWidget()) or self.tabs.tabBar()
        control.setFocus(Qt.FocusReason.ShortcutFocusReason)

    def show_groups(self, *, on: bool) -> None:
        """Show or hide the groups beside the keys."""
        ground = self.body.widget(0)
        if ground is not None:
            ground.setVisible(on)

    @property
    def groups_shown(self) -> bool:
        """Whether the groups stand beside the keys."""
        ground = self.body.widget(0)
        return ground is not None and not ground.isHidden()

    def current_tab(self) -> str:
        return TABS[self.tabs.currentIndex()]

    def select_when_open(self, key: str | None) -> None:
        """Select a key as soon as the checkpoint is there."""
        self._pending = key

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong by the rules, and before it what the loader's run says against the prediction."""
        if self._built:
            return self.problems.table.findings()
        inspection = self.session.inspection
        return inspection.findings if inspection is not None else ()

    def problem_ids(self) -> list[str]:
        """The visible rows that an error or a warning concerns, in the table's order."""
        digest = self.session.digest
        if digest is None:
            return []
        concerned: set[str] = set()
        for finding in self.findings():
            if finding.severity != "info":
                concerned.update(digest.ids_of(finding))
        return [name for name in self.keys.table.visible_ids() if name in concerned]

    def go_to_problem(self, step: int) -> None:
        """Select the next (1) or previous (-1) row with a problem, counted from the current one."""
        ids = self.problem_ids()
        if not ids and self.keys.table.query.terms:
            self.keys.clear_filter()
            ids = self.problem_ids()
        if not ids:
            self.show_tab("problems")
            self.problems.choose(0)
            return
        table = self.keys.table
        places = [place for name in ids if (place := table.position_of(name)) is not None]
        current = self.selection.current
        here = table.position_of(current) if current is not None else None
        if here is None:
            target = places[0] if step > 0 else places[-1]
        else:
            ahead = [place for place in places if (place > here if step > 0 else place < here)]
            if not ahead:
                self.message.emit(
                    self.tr("Continued from the top") if step > 0 else self.tr("Continued from the bottom")
                )
                ahead = places
            target = ahead[0] if step > 0 else ahead[-1]
        name = table.id_at(target)
        if name is not None:
            self.selection.select([name], current=name, origin=self)

    def restore(self, settings: Settings) -> None:
        """Take the sizes of the last run."""
        self.keys.order_columns(settings.sizes("keys/order"))
        self.keys.hide_columns(settings.sizes("keys/hidden"))
        for name, splitter in (("body", self.body), ("halves", self.halves)):
            sizes = settings.sizes(f"window/{name}")
            if len(sizes) == splitter.count() and sum(sizes) > 0:
                splitter.setSizes(sizes)

    def save(self, settings: Settings) -> None:
        """Keep the sizes for the next run."""
        if self._built and self._pages.currentWidget() is self._found:
            settings.set_sizes("keys/order", self.keys.columns_ordered())
            settings.set_sizes("keys/hidden", self.keys.columns_hidden())
            settings.set_sizes("window/body", self.body.sizes())
            settings.set_sizes("window/halves", self.halves.sizes())

    # --- what the session says

    def _on_opening_started(self, path: str) -> None:
        self.selection.clear()
        self.history.clear()
        self._show_digest(None)
        self.banner.show_message(self.tr("Opening"), path, icon="open-folder", tone="info")
        self.waiting.show_progress()
        self._pages.setCurrentWidget(self.waiting)

    def _on_opening_failed(self, path: str, error: KVScopeError) -> None:
        self._show_digest(None)
        if cancelled(error):
            self.banner.show_message(self.tr("Cancelled"), path, icon="cancel", tone="neutral")
            self.waiting.show_cancelled()
        else:
            self.banner.show_message(self.tr("Cannot be opened"), Path(path).name or path, icon="error", tone="error")
            self.waiting.show_failure(error)
        self._pages.setCurrentWidget(self.waiting)

    def _on_choice_failed(self, error: KVScopeError) -> None:
        self.message.emit(complaint(error))

    def _on_checkpoint_inspected(self, digest: Digest) -> None:
        if not self._built:
            return  # shown when the last panel is there
        new = self._pages.currentWidget() is not self._found
        if new:
            self._pages.setCurrentWidget(self._found)
            self.keys.view.setFocus(Qt.FocusReason.OtherFocusReason)
        self._show_digest(digest)
        if new:
            QTimer.singleShot(0, self.keys, self.keys.show_current)  # the table has its size only then
        wanted, self._pending = self._pending, None
        if wanted is None:
            if new and not self.selection.ids:
                # In the name of the problems, which show the worst one: it may concern no row, and the row another one.
                self.selection.select(digest.telling, origin=self.problems)
            return
        if wanted in digest.by_id:
            self.selection.select([wanted], current=wanted, origin=self)
        elif len(digest.inspection.checkpoint.catalog.rows_of(wanted)):
            self.keys.set_all_tensors(True)
            self.selection.select([wanted], current=wanted, origin=self)
        else:
            self.message.emit(self.tr("{key} is not in this checkpoint").format(key=wanted))

    def _show_digest(self, digest: Digest | None) -> None:
        if not self._built:
            self.header.show_digest(digest)
            return
        if digest is not None and self.selection.ids:
            # Another checkpoint begins without a selection: this is the same one, with other choices.
            kept = [name for name in self.selection.ids if name in digest.by_id]
            others = self.selection.ids - digest.by_id.keys()
            if others:
                from app.models.tensors import ids_held

                kept += ids_held(digest.inspection.checkpoint.catalog, others)
            self.selection.select(kept, origin=self)
        self.header.show_digest(digest)
        self.coverage.show_digest(digest)
        self.groups.show_digest(digest)
        self.keys.show_digest(digest)
        self.why.show_digest(digest)
        self.problems.show_digest(digest)
        self.engines.show_digest(digest)
        self.backends.show_digest(digest)
        self.plot.show_digest(digest)
        self.compare.show_digest(digest)
        self.export.show_digest(digest)
        self.gpu.show_digest(digest)
        self.config.show_digest(digest)
        self._show_verdict()
        self._title_tabs()
        self.digest_shown.emit(digest)

    def _on_verification_changed(self) -> None:
        if self._built:
            self.problems.show_verification(self.session.verification)
        self._show_verdict()
        self._title_tabs()
        self.findings_changed.emit()

    def _show_verdict(self) -> None:
        digest = self.session.digest
        if digest is None:
            return
        inspection, verification = digest.inspection, self.session.verification
        engine = ENGINES.get(inspection.settings.engine.value or "")
        where = self.tr("{name} in {engine}").format(
            name=inspection.checkpoint.path.name or str(inspection.checkpoint.path),
            engine=engine.title if engine is not None else inspection.settings.engine.value,
        )
        self.banner.show_verdict(
            inspection.verdict,
            where=where,
            observation=observation_of(verification),
            contradiction=verification.text if verification is not None else "",
            problems=self._problems(),
            fixable=bool(mended_by_export(inspection.findings)),
        )

    def _problems(self) -> int:
        """Findings that are more than a remark: what the status bar counts too."""
        return sum(finding.severity != "info" for finding in self.findings())

    def _title_tabs(self) -> None:
        if not self._built:
            return
        count = self._problems()
        title = self.tr("Problems ({count})").format(count=count) if count else self.tr("Problems")
        self.tabs.setTabText(TABS.index("problems"), title)

    def _on_fix_requested(self) -> None:
        """Show the export with the repair of the problem on view."""
        finding = self.problems.detail.finding
        if finding is not None:
            self.export.choose_fixes((finding,))
        self._actions["export"].trigger()

    def _on_fix_of_all_requested(self) -> None:
        """Show the export with the repairs of all that decides the verdict."""
        digest = self.session.digest
        if digest is not None:
            self.export.choose_fixes(mended_by_export(digest.inspection.findings))
        self._actions["export"].trigger()

    def _on_filter_requested(self, query: str) -> None:
        self.keys.set_filter(query)
        self.keys.view.setFocus(Qt.FocusReason.OtherFocusReason)


def _first_control(panel: QWidget) -> QWidget | None:
    """A panel's table or list, else the first control that takes the keyboard.

    Not by nextInFocusChain(): PySide then takes widgets for each other's children, and the process dies when they are
    collected.
    """
    found = [
        widget
        for widget in panel.findChildren(QWidget)
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and widget.isVisibleTo(panel) and widget.isEnabled()
    ]
    views = (widget for widget in found if isinstance(widget, QAbstractItemView))
    others = (widget for widget in found if not isinstance(widget, Page | Passage))  # texts that only scroll
    return next(itertools.chain(views, others), None)


def _on_surface(panel: QWidget) -> QWidget:
    """The panel on the ground that lists and tables have."""
    ground = surface()
    vertical(panel, parent=ground)
    return ground
