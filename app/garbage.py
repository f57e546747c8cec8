"""Python's cyclic garbage collector, kept to the GUI thread.

CPython collects wherever an allocation happens to cross its threshold, also in a job's thread. Widgets are full of
cycles; one that is collected there is deleted there, and Qt crashes. So automatic collection is off, and a timer of the
GUI thread collects by the interpreter's own thresholds: among them that everything is looked at only when a quarter of
it is new. With PyTorch imported that takes a fifth of a second.
"""

from __future__ import annotations

import gc

from PySide6.QtCore import QObject, QTimer

INTERVAL_MS = 500


class GuiThreadCollector(QObject):
    """Collects garbage in the thread that made it, as long as it lives."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        gc.disable()
        self._oldest = 0  # how many objects were left when everything was looked at last
        self._timer = QTimer(self)
        self._timer.setInterval(INTERVAL_MS)
        self._timer.timeout.connect(self.collect_due)
        self._timer.start()

    def collect_due(self) -> None:
        """Collect the oldest generation that is over its threshold; nothing when none is."""
        due = [
            generation
            for generation, (count, threshold) in enumerate(zip(gc.get_count(), gc.get_threshold(), strict=True))
            if threshold and count > threshold
        ]
        if 2 in due and not (1 in due and self._much_is_new()):
            due.remove(2)
        if due:
            gc.collect(due[-1])
        if 2 in due:
            self._oldest = len(gc.get_objects(2))

    def _much_is_new(self) -> bool:
        return len(gc.get_objects(2)) - self._oldest > self._oldest // 4
