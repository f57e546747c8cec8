"""Where to save something: a name that says what the file is, also where its ending was not typed."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from PySide6.QtWidgets import QFileDialog, QWidget


def ask_where(parent: QWidget, title: str, suggested: str, kinds: str, known: Collection[str] = ()) -> Path | None:
    """The file the user names, None where none is. Without one of the ``known`` endings (else those of ``kinds``) it
    gets that of the chosen kind; and as nobody agreed to replace a file of that longer name, the question comes again.
    """
    endings = known or re.findall(r"\*(\.\w+)", kinds)
    while True:
        chosen, kind = QFileDialog.getSaveFileName(parent, title, suggested, kinds)
        if not chosen:
            return None
        path = Path(chosen)
        if path.suffix.lower() in endings:
            return path
        path = path.with_name(path.name + re.findall(r"\*(\.\w+)", kind or kinds)[0])
        if not path.exists():
            return path
        suggested = str(path)
