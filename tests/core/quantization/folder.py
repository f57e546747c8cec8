"""A config source for tests: a real folder, or files given as Python objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Folder:
    """The JSON files of a folder, read the way the checkpoint layer hands them over."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def config(self, name: str, /) -> Mapping[str, Any] | None:
        path = self.root / name
        loaded: Mapping[str, Any] | None = json.loads(path.read_bytes()) if path.is_file() else None
        return loaded

    def config_names(self) -> list[str]:
        return sorted(path.name for path in self.root.glob("*.json"))


class Files:
    """Config files by name; a value that is an exception is raised when the file is asked for."""

    def __init__(self, **files: Any) -> None:
        self.files = {f"{name}.json": value for name, value in files.items()}

    def config(self, name: str, /) -> Mapping[str, Any] | None:
        value = self.files.get(name)
        if isinstance(value, Exception):
            raise value
        loaded: Mapping[str, Any] | None = value
        return loaded

    def config_names(self) -> list[str]:
        return list(self.files)
