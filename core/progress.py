"""How long work reports where it is and learns that it should stop. Qt-free; the window polls it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from core.errors import CancelledError


@dataclass(slots=True)
class Progress:
    """A job's position, written by the job and read by whoever shows it; cheap enough to touch per shard.

    ``total`` is 0 while it is not known. ``unit`` is what ``done`` counts ("shards", "bytes", "layers").
    """

    what: str = ""
    unit: str = ""
    done: int = 0
    total: int = 0
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)

    def start(self, what: str, *, total: int = 0, unit: str = "") -> None:
        """Begin a new phase."""
        self.check()
        self.what, self.unit, self.done, self.total = what, unit, 0, total

    def advance(self, by: int = 1) -> None:
        """Count ``by`` more units done; raises CancelledError when the user asked to stop."""
        self.done += by
        self.check()

    def beside(self) -> Progress:
        """Another one, for work that goes on at the same time and stops along with this."""
        return Progress(_stop=self._stop)

    def cancel(self) -> None:
        """Ask the job to stop at its next check."""
        self._stop.set()

    @property
    def cancelled(self) -> bool:
        return self._stop.is_set()

    def check(self) -> None:
        """Raise CancelledError when the user asked to stop."""
        if self._stop.is_set():
            raise CancelledError(self.what)
