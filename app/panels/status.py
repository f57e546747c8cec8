"""The status bar: what is open, what runs and how far it is, what was found, and whether there is a CUDA driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtWidgets import QProgressBar, QStatusBar, QWidget

from app import text
from app.jobs import Job, Jobs
from app.panels.parts import label, tool_button

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.digest import Digest
    from core.diagnosis.finding import Finding
    from core.loading.devices import Device


class StatusBar(QStatusBar):
    """Shows a job once it has run for a while, with its progress and a button that cancels it."""

    def __init__(self, jobs: Jobs, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._jobs = jobs
        self._shown: Job | None = None
        self.setSizeGripEnabled(False)
        self.files = label(dim=True)
        self.files.setContentsMargins(10, 0, 10, 0)
        self.job = label()
        self.bar = QProgressBar()
        self.bar.setFixedWidth(140)
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName(self.tr("Progress"))
        self.cancel = tool_button("cancel", self.tr("Cancel this job"), self._on_cancel_clicked)
        self.counts = label(dim=True)
        self.device = label(dim=True)
        self.device.setContentsMargins(10, 0, 10, 0)
        self.addWidget(self.files)
        for widget in (self.job, self.bar, self.cancel, self.counts, self.device):
            self.addPermanentWidget(widget)
        for widget in (self.job, self.bar, self.cancel):
            widget.hide()
        jobs.progressed.connect(self._on_progressed)
        jobs.job_ended.connect(self._on_job_ended)

    def show_digest(self, digest: Digest | None, findings: Sequence[Finding] = ()) -> None:
        """Say what is open, and how much is wrong with it."""
        if digest is None:
            self.files.clear()
            self.counts.clear()
            return
        checkpoint = digest.inspection.checkpoint
        parts = [
            text.plural(len(checkpoint.shards), self.tr("{count} file"), self.tr("{count} files")),
            text.plural(checkpoint.tensor_count, self.tr("{count} tensor"), self.tr("{count} tensors")),
            text.plural(len(digest.inspection.scales), self.tr("{count} scale"), self.tr("{count} scales")),
            text.size(checkpoint.total_bytes),
        ]
        self.files.setText("  ·  ".join(parts))
        self.files.setToolTip(checkpoint.place)
        severities = [finding.severity for finding in findings]
        found = [
            text.plural(number, one, many)
            for number, one, many in (
                (len(checkpoint.faults), self.tr("{count} faulty file"), self.tr("{count} faulty files")),
                (severities.count("error"), self.tr("{count} error"), self.tr("{count} errors")),
                (severities.count("warning"), self.tr("{count} warning"), self.tr("{count} warnings")),
            )
            if number
        ]
        self.counts.setText("  ·  ".join(found) or self.tr("no problems"))

    def show_driver(self) -> None:
        """Whether the CUDA driver is there; PyTorch is not imported for it."""
        if cuda_driver_present():
            self.device.setText(self.tr("CUDA driver found"))
            self.device.setToolTip(self.tr("The GPU tab lists the devices"))
        else:
            self.device.setText(self.tr("no CUDA driver"))
            self.device.setToolTip(self.tr("libcuda.so.1 is not on this machine; the loader can run on the CPU"))

    def show_devices(self, devices: tuple[Device, ...]) -> None:
        """The CUDA device, or why there is none, once PyTorch has been asked."""
        gpus = [device for device in devices if device.id != "cpu" and device.usable]
        if gpus:
            self.device.setText(f"{gpus[0].id}: {gpus[0].name}" + (f" +{len(gpus) - 1}" if len(gpus) > 1 else ""))
            self.device.setToolTip("\n".join(f"{device.id}: {device.name}" for device in gpus))
            return
        reasons = [device.reason for device in devices if device.reason]
        self.device.setText(self.tr("no CUDA device"))
        self.device.setToolTip(text.spoken(reasons[0]) if reasons else "")

    def _on_progressed(self) -> None:
        slow = [job for job in self._jobs.running() if job.slow]
        for widget in (self.job, self.bar, self.cancel):
            widget.setVisible(bool(slow))
        if not slow:
            self._shown = None
            return
        job = self._shown = slow[-1]
        progress = job.progress
        others = f"  (+{len(slow) - 1})" if len(slow) > 1 else ""
        if progress.cancelled:
            self.job.setText(self.tr("Cancelling {job} …").format(job=job.title))
            self.bar.setRange(0, 0)
            return
        where = text.spoken(progress.what)
        where = where if where != job.title else ""
        amount = ""
        if progress.total:
            if progress.unit == "bytes":
                amount = f"{text.size(progress.done)} / {text.size(progress.total)}"
            else:
                amount = f"{text.count(progress.done)} / {text.count(progress.total)} {text.spoken(progress.unit)}"
        self.job.setText("  ·  ".join(part for part in (job.title, where, amount) if part) + others)
        # Scaled to thousandths: byte counts pass what the bar's 32-bit range holds.
        self.bar.setRange(0, 1000 if progress.total else 0)
        if progress.total:
            self.bar.setValue(min(1000, progress.done * 1000 // progress.total))

    def _on_job_ended(self) -> None:
        if not self._jobs.running():
            for widget in (self.job, self.bar, self.cancel):
                widget.hide()
            self._shown = None

    def _on_cancel_clicked(self) -> None:
        if self._shown is not None:
            self._shown.cancel()
            self._on_progressed()


def cuda_driver_present() -> bool:
    """Whether the CUDA driver's library can be loaded."""
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
