"""One checkpoint's views around one selection: pickers, verdict, coverage, groups, keys, why, and the tabs below."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QSplitter, QStackedWidget, QTabWidget, QToolButton, QVBoxLayout, QWidget

from app.actions import Actions
from app.digest import Digest
from app.observation import observation_of
from app.panels.backends import BackendsPanel
from app.panels.banner import Banner
from app.panels.coverage import Coverage
from app.panels.export import ExportPanel
from app.panels.gpu import GpuPanel
from app.panels.groups import GroupsPanel
from app.panels.keys import KeysPanel
from app.panels.log import LogBridge, LogPanel
from app.panels.parts import Button, Note, surface
from app.panels.pickers import Picker
from app.panels.plot import PlotPanel
from app.panels.problems import ProblemsPanel
from app.panels.why import WhyPanel
from app.selection import Selection
from app.session import Session, cancelled
from app.settings import Settings
from app.theme.theme import theme
from core.architectures import known_architectures
from core.backends import BACKENDS
from core.engines import DEFAULT_ENGINE, ENGINES
from core.errors import KVScopeError
from core.quantization import KV_CACHE_DTYPES
from core.settings import Choice

TABS = ("problems", "backends", "plot", "export", "gpu", "log")
_DTYPES = ("bfloat16", "float16", "float32")


class Workspace(QWidget):
    """Everything shown about one session."""

    message = Signal(str)
    digest_shown = Signal(object)
    open_requested = Signal(str)

    def __init__(self, session: Session, actions: Actions, log: LogBridge, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.session = session
        self.selection = Selection(self)
        self._actions = actions
        self._pending: str | None = None
        jobs = session.jobs

        self.banner = Banner(actions["next_problem"], actions["export"])
        self.coverage = Coverage(self.selection)
        self.groups = GroupsPanel(self.selection, jobs)
        row_menu = [actions[name] for name in ("copy_key", "copy_row", "copy_why", "next_problem", "verify", "export")]
        self.keys = KeysPanel(self.selection, jobs, row_menu)
        self.why = WhyPanel(self.selection)
        self.problems = ProblemsPanel(self.selection)
        self.backends = BackendsPanel(self.selection, jobs)
        self.plot = PlotPanel(self.selection, jobs)
        self.export = ExportPanel(session, self.selection)
        self.gpu = GpuPanel(session, self.selection)
        self.log = LogPanel(log)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setIconSize(QSize(15, 15))
        self.tabs.setAccessibleName(self.tr("Details"))
        panels: dict[str, tuple[QWidget, str]] = {
            "problems": (self.problems, self.tr("Problems")),
            "backends": (self.backends, self.tr("Backends")),
            "plot": (self.plot, self.tr("Plot")),
            "export": (self.export, self.tr("Export preview")),
            "gpu": (self.gpu, self.tr("GPU")),
            "log": (self.log, self.tr("Log")),
        }
        for name in TABS:
            panel, title = panels[name]
            page = surface()
            layout = QVBoxLayout(page)
            layout.setContentsMargins(0, 0, 0, 0)
            layout.addWidget(panel)
            self.tabs.addTab(page, title)
        self._lay_out()
        self._connect()
        self._draw_icons()
        self._offer_choices()
        self._show_waiting()

    # --- construction

    def _lay_out(self) -> None:
        self.engine = Picker(self.tr("Engine"), "TensorRT-LLM 1.2.3")
        self.method = Picker(self.tr("Backend"), "Auto: compressed-tensors")
        self.architecture = Picker(self.tr("Architecture"), "Auto: Qwen3MoeForCausalLM")
        self.kv_cache_dtype = Picker(self.tr("KV cache dtype"), "Auto: auto → fp8_e4m3")
        self.dtype = Picker(self.tr("Model dtype"), "Auto: bfloat16")
        bar = QWidget()
        row = QHBoxLayout(bar)
        row.setContentsMargins(12, 7, 12, 8)
        row.setSpacing(10)
        buttons = QHBoxLayout()
        buttons.setSpacing(4)
        self.open_button = QToolButton()
        self.open_button.setObjectName("raised")
        self.open_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.open_button.setPopupMode(QToolButton.ToolButtonPopupMode.MenuButtonPopup)
        self.open_button.setText(self.tr("Open"))
        self.open_button.setAccessibleName(self.tr("Open"))
        self.open_button.setToolTip(self._actions["open_folder"].toolTip())
        self.open_button.clicked.connect(self._actions["open_folder"].trigger)
        self.reload_button = QToolButton()
        self.reload_button.setObjectName("raised")
        self.reload_button.setDefaultAction(self._actions["reload"])
        self.reload_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonIconOnly)
        self.reload_button.setAccessibleName(self.tr("Reload"))
        buttons.addWidget(self.open_button)
        buttons.addWidget(self.reload_button)
        row.addLayout(buttons)
        row.setAlignment(buttons, Qt.AlignmentFlag.AlignBottom)
        for picker, stretch in (
            (self.engine, 4), (self.method, 6), (self.architecture, 6), (self.kv_cache_dtype, 5), (self.dtype, 5),
        ):  # fmt: skip
            row.addWidget(picker, stretch)
        row.addStretch(1)
        ends = QHBoxLayout()
        ends.setSpacing(4)
        self.verify_button = Button(self.tr("Verify on GPU"), "gpu", tip=self._actions["verify"].toolTip())
        self.verify_button.clicked.connect(self._actions["verify"].trigger)
        self.export_button = Button(self.tr("Export…"), "export", tip=self._actions["export"].toolTip())
        self.export_button.clicked.connect(self._actions["export"].trigger)
        ends.addWidget(self.verify_button)
        ends.addWidget(self.export_button)
        row.addLayout(ends)
        row.setAlignment(ends, Qt.AlignmentFlag.AlignBottom)

        self.body = QSplitter(Qt.Orientation.Horizontal)
        for panel in (self.groups, self.keys, self.why):
            ground = surface()
            layout = QVBoxLayout(ground)
            layout.setContentsMargins(0, 0, 0, 0)
            layout.addWidget(panel)
            self.body.addWidget(ground)
        self.body.setSizes([200, 690, 380])
        for place, stretch in enumerate((0, 3, 2)):
            self.body.setStretchFactor(place, stretch)
        self.halves = QSplitter(Qt.Orientation.Vertical)
        self.halves.addWidget(self.body)
        self.halves.addWidget(self.tabs)
        self.halves.setSizes([360, 270])
        self.halves.setStretchFactor(0, 3)
        self.halves.setStretchFactor(1, 2)
        for splitter in (self.body, self.halves):
            splitter.setHandleWidth(1)
            splitter.setChildrenCollapsible(False)
        found = QWidget()
        shown = QVBoxLayout(found)
        shown.setContentsMargins(0, 0, 0, 0)
        shown.setSpacing(0)
        shown.addWidget(self.coverage)
        shown.addWidget(self.halves, 1)
        self._found = found
        self._waiting = surface()
        waiting = QVBoxLayout(self._waiting)
        self._note = Note("info")
        self.retry_button = Button(self.tr("Try again"), "reload")
        self.retry_button.clicked.connect(self._actions["reload"].trigger)
        self.other_button = Button(self.tr("Back to the start page"), "close")
        self.other_button.clicked.connect(self._actions["close"].trigger)
        line = QHBoxLayout()
        line.addStretch(1)
        line.addWidget(self.retry_button)
        line.addWidget(self.other_button)
        line.addStretch(1)
        waiting.addStretch(1)
        waiting.addWidget(self._note)
        waiting.addLayout(line)
        waiting.addStretch(2)
        self._body = QStackedWidget()
        self._body.addWidget(self._waiting)
        self._body.addWidget(found)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(0)
        rows.addWidget(bar)
        rows.addWidget(self.banner)
        rows.addWidget(self._body, 1)

    def _connect(self) -> None:
        session = self.session
        session.opening_started.connect(self._on_opening_started)
        session.checkpoint_inspected.connect(self._on_checkpoint_inspected)
        session.opening_failed.connect(self._on_opening_failed)
        session.choice_failed.connect(self._on_choice_failed)
        session.choices_changed.connect(self._show_choices)
        session.verification_changed.connect(self._on_verification_changed)
        self.export.open_requested.connect(self.open_requested)
        self.engine.picked.connect(self._on_engine_picked)
        self.method.picked.connect(self._on_method_picked)
        self.architecture.picked.connect(self._on_architecture_picked)
        self.kv_cache_dtype.picked.connect(self._on_kv_cache_dtype_picked)
        self.dtype.picked.connect(self._on_dtype_picked)
        for source in (self.coverage, self.groups, self.problems):
            source.filter_requested.connect(self._on_filter_requested)
        self.problems.fix_requested.connect(self._actions["export"].trigger)
        self.keys.all_tensors_changed.connect(self.groups.set_all_tensors)
        theme().changed.connect(self._draw_icons)

    def _draw_icons(self) -> None:
        self.open_button.setIcon(theme().icon("open-folder"))
        icons = {
            "problems": "problems",
            "backends": "backends",
            "plot": "plot",
            "export": "export",
            "gpu": "gpu",
            "log": "log",
        }
        for place, name in enumerate(TABS):
            self.tabs.setTabIcon(place, theme().icon(icons[name]))

    def _offer_choices(self) -> None:
        self.engine.offer([(engine.id, engine.title) for engine in ENGINES.values()], automatic=False)
        self.method.offer([(method, method) for method in sorted(BACKENDS)])
        self.architecture.offer([(name, name) for name in known_architectures()])
        self.kv_cache_dtype.offer([(dtype, dtype) for dtype in KV_CACHE_DTYPES if dtype != "auto"])
        self.dtype.offer([(dtype, dtype) for dtype in _DTYPES])

    # --- what others ask for

    def show_tab(self, name: str) -> None:
        """Bring a tab to the front and give it the keyboard."""
        self.tabs.setCurrentIndex(TABS.index(name))
        self.tabs.currentWidget().setFocus(Qt.FocusReason.ShortcutFocusReason)

    def show_groups(self, *, on: bool) -> None:
        """Show or hide the groups beside the keys."""
        ground = self.body.widget(0)
        if ground is not None:
            ground.setVisible(on)

    def current_tab(self) -> str:
        return TABS[self.tabs.currentIndex()]

    def select_when_open(self, key: str | None) -> None:
        """Select a key as soon as the checkpoint is there."""
        self._pending = key

    def problem_ids(self) -> list[str]:
        """The visible rows that an error or a warning concerns, in the table's order."""
        digest = self.session.digest
        if digest is None:
            return []
        concerned: set[str] = set()
        for finding in digest.inspection.findings:
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
        for name, splitter in (("body", self.body), ("halves", self.halves)):
            sizes = settings.sizes(f"window/{name}")
            if len(sizes) == splitter.count() and sum(sizes) > 0:
                splitter.setSizes(sizes)

    def save(self, settings: Settings) -> None:
        """Keep the sizes for the next run."""
        if self._body.currentWidget() is self._found:
            settings.set_sizes("window/body", self.body.sizes())
            settings.set_sizes("window/halves", self.halves.sizes())

    # --- what the session says

    def _on_opening_started(self, path: str) -> None:
        self.selection.clear()
        self.banner.show_message(self.tr("Opening"), path, icon="open-folder", tone="info")
        self._show_digest(None)
        self._show_waiting()

    def _show_waiting(self, words: str = "", *, icon: str = "info", failed: bool = False) -> None:
        self._note.say(
            words or self.tr("Reading headers, configs and scales …"), icon=icon, tone="error" if failed else "neutral"
        )
        self.retry_button.setVisible(failed)
        self.other_button.setVisible(failed)
        self._body.setCurrentWidget(self._waiting)

    def _on_opening_failed(self, path: str, error: KVScopeError) -> None:
        self._show_digest(None)
        if cancelled(error):
            self.banner.show_message(self.tr("Cancelled"), path, icon="cancel", tone="neutral")
            self._show_waiting(self.tr("Opening was cancelled."), icon="cancel", failed=True)
        else:
            name = Path(path).name or path
            self.banner.show_message(self.tr("Cannot be opened"), name, icon="error", tone="error")
            self._show_waiting(str(error), icon="error", failed=True)
        for picker in (self.method, self.architecture, self.kv_cache_dtype, self.dtype):
            picker.show_nothing()

    def _on_choice_failed(self, error: KVScopeError) -> None:
        self.message.emit(str(error))
        self._show_choices()

    def _on_checkpoint_inspected(self, digest: Digest) -> None:
        self._body.setCurrentWidget(self._found)
        self._show_digest(digest)
        wanted, self._pending = self._pending, None
        if wanted is not None and wanted in digest.by_id:
            self.selection.select([wanted], current=wanted, origin=self)
        elif wanted is not None:
            self.message.emit(self.tr("{key} is no scale of this checkpoint").format(key=wanted))

    def _show_digest(self, digest: Digest | None) -> None:
        if digest is not None and self.selection.ids:
            kept = [name for name in self.selection.ids if name in digest.by_id]
            self.selection.select(kept, origin=self)
        self.coverage.show_digest(digest)
        self.groups.show_digest(digest)
        self.keys.show_digest(digest)
        self.why.show_digest(digest)
        self.problems.show_digest(digest)
        self.backends.show_digest(digest)
        self.plot.show_digest(digest)
        self.export.show_digest(digest)
        self.gpu.show_digest(digest)
        self._show_choices()
        self._show_verdict()
        self._title_tabs()
        self.digest_shown.emit(digest)

    def _on_verification_changed(self) -> None:
        self._show_verdict()
        self._title_tabs()

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
            problems=sum(finding.severity != "info" for finding in inspection.findings),
            fixable=any(finding.remedy for finding in inspection.findings),
        )

    def _title_tabs(self) -> None:
        digest = self.session.digest
        count = len(digest.inspection.findings) if digest is not None else 0
        title = self.tr("Problems ({count})").format(count=count) if count else self.tr("Problems")
        self.tabs.setTabText(TABS.index("problems"), title)

    def _show_choices(self) -> None:
        digest, choices = self.session.digest, self.session.choices
        if digest is None:
            engine = choices.engine
            self.engine.show_choice(Choice(engine or DEFAULT_ENGINE, "chosen" if engine else "default"))
            for picker in (self.method, self.architecture, self.kv_cache_dtype, self.dtype):
                picker.show_nothing()
            return
        settings = digest.inspection.settings
        # The core is always told an engine; whether the user chose it is known here.
        self.engine.show_choice(settings.engine if choices.engine else replace(settings.engine, origin="default"))
        self.method.show_choice(settings.method)
        self.architecture.show_choice(settings.architecture)
        self.kv_cache_dtype.show_choice(settings.kv_cache_dtype, becomes=settings.kv_cache_dtype_resolved)
        self.dtype.show_choice(settings.dtype)

    # --- what the user picks

    def _on_engine_picked(self, value: str) -> None:
        self.session.choose(replace(self.session.choices, engine=value))

    def _on_method_picked(self, value: str) -> None:
        self.session.choose(replace(self.session.choices, method=value or None))

    def _on_architecture_picked(self, value: str) -> None:
        self.session.choose(replace(self.session.choices, architecture=value or None))

    def _on_kv_cache_dtype_picked(self, value: str) -> None:
        self.session.choose(replace(self.session.choices, kv_cache_dtype=value or None))

    def _on_dtype_picked(self, value: str) -> None:
        self.session.choose(replace(self.session.choices, dtype=value or None))

    def _on_filter_requested(self, query: str) -> None:
        self.keys.set_filter(query)
        self.keys.view.setFocus(Qt.FocusReason.OtherFocusReason)
