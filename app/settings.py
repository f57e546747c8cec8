"""What the window remembers between runs: recent checkpoints, theme, sizes. Nothing of a checkpoint's content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QSettings

if TYPE_CHECKING:
    from core.diagnosis import Thresholds

ORGANIZATION = "kvscope"
APPLICATION = "kvscope"
RECENT_MAX = 10


class Settings:
    """A typed face on QSettings; a value of an unexpected type reads as its default."""

    def __init__(self) -> None:
        self._store = QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, ORGANIZATION, APPLICATION)

    def recent(self) -> list[str]:
        """Paths opened before, the latest first. They may be gone by now."""
        stored = self._store.value("recent", [])
        if isinstance(stored, str):  # a list of one comes back from an INI file as a string
            return [stored] if stored else []
        return [str(path) for path in stored] if isinstance(stored, list) else []

    def add_recent(self, path: str) -> None:
        """Put a path first in the recent list."""
        path = _absolute(path)
        others = [known for known in self.recent() if known != path]
        self._set("recent", [path, *others][:RECENT_MAX])

    def clear_recent(self) -> None:
        self._store.remove("recent")

    def open(self) -> tuple[list[str], str]:
        """The checkpoints that were open when the window was closed last, and the one that was in front."""
        stored = self._store.value("open/paths", [])
        paths = [stored] if isinstance(stored, str) else stored
        return [str(path) for path in paths if path] if isinstance(paths, list) else [], self.text("open/front")

    def set_open(self, paths: Sequence[str], front: str | None) -> None:
        """Remember what is open."""
        self._set("open/paths", [_absolute(path) for path in paths])
        self._set("open/front", "" if front is None else _absolute(front))

    def thresholds(self) -> Thresholds | None:
        """The limits of the rules where the user set some; None while all are the core's own."""
        from core.diagnosis import Thresholds

        known = {row.name: row.value for row in Thresholds().table()}
        found: dict[str, Any] = {}
        for name, own in known.items():
            try:
                value = float(self.text(f"thresholds/{name}"))
            except ValueError:
                continue
            if value > 0 and value != own:
                found[name] = int(value) if isinstance(own, int) else value
        return Thresholds(**found) if found else None

    def set_thresholds(self, thresholds: Thresholds) -> None:
        """Remember limits; those that are the core's own follow it."""
        own = {row.name: row.value for row in type(thresholds)().table()}
        for row in thresholds.table():
            if row.value == own[row.name]:
                self._store.remove(f"thresholds/{row.name}")
            else:
                self._set(f"thresholds/{row.name}", repr(row.value))

    def keys(self) -> dict[str, tuple[str, ...]]:
        """The shortcuts that the user chose, by the id of the action; () where it shall have none."""
        self._store.beginGroup("keys")
        found = {name: tuple(self.text(name).split("\t")) for name in self._store.childKeys()}
        self._store.endGroup()
        return {name: tuple(key for key in keys if key) for name, keys in found.items()}

    def set_keys(self, keys: Mapping[str, Sequence[str]]) -> None:
        """Remember shortcuts, and only these."""
        self._store.remove("keys")
        for name, sequences in keys.items():
            self._set(f"keys/{name}", "\t".join(sequences))

    def text(self, key: str, default: str = "") -> str:
        value = self._store.value(key, default)
        return value if isinstance(value, str) else default

    def set_text(self, key: str, value: str) -> None:
        self._set(key, value)

    def sizes(self, key: str) -> list[int]:
        """A splitter's sizes, [] when none are stored or they are damaged."""
        stored = self._store.value(key, [])
        values = [stored] if isinstance(stored, str) else stored
        if not isinstance(values, list):
            return []
        try:
            return [int(value) for value in values]
        except (TypeError, ValueError):
            return []

    def set_sizes(self, key: str, sizes: Sequence[int]) -> None:
        self._set(key, [str(size) for size in sizes])

    def _set(self, key: str, value: object) -> None:
        self._store.setValue(key, value)


def _absolute(path: str) -> str:
    """A path that means the same from every folder; an address does already."""
    return path if "://" in path else str(Path(path).absolute())
