"""The GPU: run the real loader on a device, and hold what each layer got against the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication, QShowEvent
from PySide6.QtWidgets import QSpinBox, QTabWidget, QWidget

from app import text
from app.digest import Digest
from app.models.records import Record, RecordTable
from app.observation import Observation, observation_of
from app.panels.forward import ForwardView
from app.panels.held import HeldView
from app.panels.layouts import grow, horizontal, split, stacked, vertical
from app.panels.parts import Button, CheckBox, Chip, Note, label
from app.panels.reading import ElidedBox, Page, Passage
from app.panels.tables import Table
from app.selection import Selection
from app.session import Session, cancelled
from app.shell import verify_command
from app.theme.palettes import Tone
from app.theme.theme import theme
from core.engines import DEFAULT_ENGINE, get_engine
from core.errors import KVScopeError
from core.progress import Progress

if TYPE_CHECKING:
    from core.loading.devices import Device
    from core.loading.verification import Verification

LANE = "verify"


class GpuPanel(QWidget):
    """Device, run, steps, and every value that was read back. PyTorch is imported when this is first used."""

    devices_listed = Signal()

    def __init__(self, session: Session, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._session = session
        self._selection = selection
        self._digest: Digest | None = None
        self._devices: tuple[Device, ...] | None = None
        self._listing = False
        self._running = False
        self._run_when_listed = False

        self._make_controls()
        self._make_tables()
        self._note = Note("gpu")
        command = horizontal(self._command, self.copy_button)
        grow(command, self._command)
        command.setAlignment(self._command, Qt.AlignmentFlag.AlignVCenter)
        result = horizontal(self._chip, self._text, spacing=8)
        grow(result, self._text)
        result.setAlignment(self._chip, Qt.AlignmentFlag.AlignTop)
        run = horizontal(self.device, self.run_button, self.cancel_button)
        grow(run, self.device)
        left, right = Page(), QWidget()
        attention = horizontal(self.forward, self.projections, 1, spacing=12)
        ranks = horizontal(label(self.tr("Ranks")), self.ranks, self.all_weights, 1, spacing=8)
        parts = (run, attention, ranks, result, self.steps_view, self._reason, command, 1)
        vertical(*parts, parent=left.page, margins=(12, 10, 6, 8), spacing=8)
        self._right = stacked(right, self._note, self.views)
        vertical(split(Qt.Orientation.Horizontal, (left, 440, 2), (right, 660, 3)), parent=self)
        theme().changed.connect(self.steps.refresh_theme)
        self._show_result()
        self._show_reason()
        self._enable()

    def _make_controls(self) -> None:
        self.device = ElidedBox()
        self.device.setAccessibleName(self.tr("Device"))
        self.device.addItem(self.tr("looking for devices …"), "")
        self.run_button = Button(self.tr("Run the loader"), "play", primary=True)
        self.run_button.clicked.connect(self.run)
        self.cancel_button = Button(self.tr("Cancel"), "cancel")
        self.cancel_button.clicked.connect(self._on_cancel_clicked)
        self.all_weights = CheckBox(self.tr("Load every tensor, not the scales alone"))
        self.all_weights.setToolTip(
            self.tr("The whole model must fit on the device; each tensor is compared bit for bit")
        )
        self.forward = CheckBox(self.tr("Run the attention too"))
        self.forward.setToolTip(
            self.tr("Writes keys and values to a paged float8 cache and measures what the scales cost the output")
        )
        self.forward.toggled.connect(self._on_options_changed)
        self.projections = CheckBox(self.tr("with the checkpoint's projections"))
        self.projections.setToolTip(
            self.tr("Keys and values from the layers' own weights, where PyTorch can read them; drawn otherwise")
        )
        self.projections.toggled.connect(self._on_options_changed)
        self.ranks = QSpinBox()
        self.ranks.setRange(1, 64)
        self.ranks.setAccessibleName(self.tr("Tensor-parallel ranks"))
        self.ranks.setToolTip(self.tr("Each rank is a process of its own, with CUDA on a GPU of its own"))
        self.ranks.valueChanged.connect(self._on_options_changed)
        self._reason = Passage()
        self._reason.setAccessibleName(self.tr("Why CUDA cannot be used here"))
        self._command = Passage("", fixed=True)
        self._command.setAccessibleName(self.tr("Command for a machine with a GPU"))
        self.copy_button = Button(self.tr("Copy command"), "copy", flat=True)
        self.copy_button.clicked.connect(self._on_copy_clicked)
        self._chip = Chip()
        self._text = Passage()

    def _make_tables(self) -> None:
        self.steps = RecordTable([self.tr("Step"), self.tr("Time"), self.tr("What it did")], [1], self)
        self.steps_view = Table(self.steps, self.tr("Steps"), {0: "read back parameters", 1: "999.99 ms"})
        self._held_page = HeldView()
        self._held_page.value_chosen.connect(self._on_value_chosen)
        self.held, self.held_view = self._held_page.table, self._held_page.view
        self.only_differences = self._held_page.only_differences
        self.attention = ForwardView()
        self.attention.layer_chosen.connect(self._on_layer_chosen)
        self.views = QTabWidget()
        self.views.setDocumentMode(True)
        self.views.setAccessibleName(self.tr("Results of the run"))
        self.views.addTab(self._held_page, self.tr("Values"))
        self.views.addTab(self.attention, self.tr("Attention"))

    # --- content

    def show_digest(self, digest: Digest | None) -> None:
        self._digest = digest
        self._session.jobs.cancel(LANE)
        self._running = self._run_when_listed = False
        self._show_result()
        self._show_reason()
        self._enable()

    @property
    def note(self) -> str:
        """What stands in place of the table of values."""
        return self._note.text

    @property
    def reason(self) -> str:
        """Why CUDA cannot be used, "" where it can."""
        return self._reason.toPlainText()

    def observation(self) -> Observation:
        """Whether the loader has confirmed the prediction, contradicted it, or has not run to a result."""
        return observation_of(self._session.verification)

    def devices(self) -> tuple[Device, ...]:
        """The devices found; () until they are listed."""
        return self._devices or ()

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self.list_devices()

    def list_devices(self) -> None:
        """Find out, once and in a job, which devices there are."""
        if self._devices is not None or self._listing:
            return
        self._listing = True

        def work(progress: Progress) -> tuple[Device, ...]:
            progress.start(self.tr("importing PyTorch"))
            from core.loading.devices import list_devices

            return list_devices()

        self._session.jobs.start(
            self.tr("Looking for devices"), work, done=self._on_listed, failed=self._on_listing_failed, lane="devices"
        )

    def verify(self) -> None:
        """Run on the best device, as soon as the devices are known."""
        if self._devices is None:
            self._run_when_listed = True
            self.list_devices()
        else:
            self.run()

    def run(self) -> None:
        """Run the loader on the device chosen."""
        digest, device = self._digest, self.device.currentData()
        if digest is None or self._running or not device or self._refusal():
            return
        self._running = True
        self._session.set_verification(None)
        self._show_result()
        self._enable()
        inspection = digest.inspection
        ranks = self.ranks.value()
        weights: Literal["all", "scales"] = "all" if self.all_weights.isChecked() and ranks == 1 else "scales"
        attention = self.forward.isChecked() and ranks == 1
        projections = self.projections.isChecked()

        def work(progress: Progress) -> Verification:
            progress.start(self.tr("importing PyTorch"))
            from core.loading.forward_result import ForwardOptions
            from core.loading.verify import verify

            return verify(
                inspection,
                device=device,
                weights=weights,
                tensor_parallel=ranks,
                forward=ForwardOptions(projections=projections) if attention else None,
                progress=progress,
            )

        self._session.jobs.start(
            self.tr("Running the loader on {device}").format(device=device),
            work,
            done=self._on_verified,
            failed=self._on_failed,
            lane=LANE,
        )

    # --- results

    def _on_listed(self, devices: tuple[Device, ...]) -> None:
        self._listing = False
        self.show_devices(devices)
        if self._run_when_listed:
            self._run_when_listed = False
            self.run()

    def show_devices(self, devices: tuple[Device, ...]) -> None:
        """Offer the devices that work; say why the others do not."""
        self._devices = devices
        self.device.clear()
        for device in devices:
            if device.usable:
                size = f", {text.size(device.memory)}" if device.memory else ""
                self.device.addItem(f"{device.id}  {device.name}{size}", device.id)
        gpus = [number for number, device in enumerate(d for d in devices if d.usable) if device.id != "cpu"]
        self.device.setCurrentIndex(gpus[0] if gpus else 0)
        self._show_reason()
        self._enable()
        self.devices_listed.emit()

    def _on_listing_failed(self, error: KVScopeError) -> None:
        self._listing = self._run_when_listed = False
        self.device.setItemText(0, self.tr("no device"))
        self._reason.setPlainText(text.complaint(error))
        self._reason.show()

    def _on_verified(self, verification: Verification) -> None:
        self._running = False
        self._session.set_verification(verification)
        self._show_result()
        self._enable()

    def _on_failed(self, error: KVScopeError) -> None:
        self._running = False
        self._enable()
        words = self.tr("Cancelled. Run it again when you like.") if cancelled(error) else text.complaint(error)
        self._say(words, "cancel" if cancelled(error) else "error", "neutral" if cancelled(error) else "error")

    def _show_reason(self) -> None:
        """Why there is no CUDA, and the command that would do the same elsewhere."""
        reasons = [device.reason for device in self.devices() if device.reason is not None]
        if self._refusal():  # no GPU would help
            reasons = []
        self._reason.setVisible(bool(reasons))
        self._command.setVisible(bool(reasons))
        self.copy_button.setVisible(bool(reasons))
        if not reasons:
            self._reason.clear()
        else:
            self._reason.setPlainText(
                self.tr("CUDA cannot be used here: {reason}. On a machine with a GPU, run:").format(
                    reason=text.spoken(reasons[0])
                )
            )
            self._command.setPlainText(self.command())

    def command(self) -> str:
        """The command line that verifies this checkpoint on a GPU."""
        path = self._digest.inspection.checkpoint.place if self._digest is not None else "PATH"
        options = ["--tensor-parallel", str(self.ranks.value())] if self.ranks.value() > 1 else []
        if self.forward.isChecked() and self.ranks.value() == 1:
            options += ["--forward", *(["--projections"] if self.projections.isChecked() else [])]
        return verify_command(path, self._session.choices, *options)

    def _show_result(self) -> None:
        done: Verification | None = self._session.verification
        self._chip.setVisible(done is not None)
        self._text.setVisible(done is not None)
        self.steps_view.setVisible(done is not None)
        if done is None:
            self.steps.set_records(())
            if self._refusal():
                self._say(self._refusal(), "info", "neutral")
            elif self._running:
                self._say(self.tr("The loader runs …"), "play", "neutral")
            else:
                self._say(
                    self.tr(
                        "Runs the unified loader on the scales and compares, layer by layer, what the attention layers "
                        "hold with what was predicted. PREDICTED becomes OBSERVED."
                    ),
                    "gpu",
                    "neutral",
                )
            return
        words: dict[Observation, tuple[str, Tone]] = {
            "observed": (self.tr("OBSERVED"), "ok"),
            "contradicted": (self.tr("CONTRADICTED"), "error"),
            "predicted": (self.tr("NOT RUN"), "neutral"),
        }
        if done.agreed and not done.confirmed:
            words["predicted"] = (self.tr("AGREES"), "info")
        self._chip.show_word(*words[self.observation()])
        self._text.setPlainText(text.spoken(done.text))
        self.steps.set_records(
            [
                Record(
                    (text.spoken(step.name), text.milliseconds(step.seconds * 1000), text.spoken(step.detail)),
                    tip=text.spoken(step.detail),
                )
                for step in done.steps
            ]
        )
        self._fit_steps()
        self._held_page.show_verification(done)
        self.attention.show_forward(done.forward)
        if done.layers:
            self._right.setCurrentWidget(self.views)
            if done.forward is not None:
                self.views.setCurrentWidget(self.attention)
        else:
            self._say(
                text.spoken(done.text),
                "error" if self.observation() == "contradicted" else "info",
                words[self.observation()][1],
            )

    def _fit_steps(self) -> None:
        """As high as its rows: the page around it scrolls."""
        rows = self.steps.rowCount() * self.steps_view.verticalHeader().defaultSectionSize()
        bar = self.steps_view.horizontalScrollBar().sizeHint().height()
        self.steps_view.setFixedHeight(rows + self.steps_view.horizontalHeader().sizeHint().height() + bar)

    def _say(self, words: str, icon: str, tone: Tone) -> None:
        self._note.say(words, icon=icon, tone=tone)
        self._right.setCurrentWidget(self._note)

    def _enable(self) -> None:
        ready = self._digest is not None and self._devices is not None and self._refusal() == ""
        self.device.setEnabled(self._devices is not None and not self._running)
        alone = self.ranks.value() == 1
        self.ranks.setEnabled(not self._running)
        self.all_weights.setEnabled(alone and not self._running)
        self.forward.setEnabled(alone and not self._running)
        self.projections.setEnabled(alone and self.forward.isChecked() and not self._running)
        self.run_button.setEnabled(ready and not self._running)
        self.cancel_button.setVisible(self._running)

    def _refusal(self) -> str:
        """Why the loader cannot stand in for the chosen engine; "" where it can."""
        if self._digest is None:
            return ""
        engine = get_engine(str(self._digest.inspection.settings.engine.value))
        if engine.verifiable:
            return ""
        return self.tr(
            "The loader that KVScope runs is that of {default}, not of {engine}: choose it to verify."
        ).format(default=get_engine(DEFAULT_ENGINE).title, engine=engine.title)

    # --- what the user does

    def _on_options_changed(self) -> None:
        self._show_reason()
        self._enable()

    def _on_cancel_clicked(self) -> None:
        for job in self._session.jobs.running():
            if job.lane == LANE:
                job.cancel()

    def _on_copy_clicked(self) -> None:
        QGuiApplication.clipboard().setText(self.command())

    def _on_value_chosen(self, path: str, role: str) -> None:
        self._select(path, (role,))

    def _on_layer_chosen(self, path: str) -> None:
        self._select(path, ("k", "v"))

    def _select(self, path: str, roles: tuple[str, ...]) -> None:
        """Select the rows of these roles of a layer; one scale for both stands for k."""
        if self._digest is None:
            return
        wanted = {*roles, *(["kv"] if "k" in roles else [])}
        ids = [
            row.id
            for row in self._digest.rows
            if row.attention is not None and row.attention.path == path and row.role in wanted
        ]
        if ids:
            self._selection.select(ids, origin=self)
