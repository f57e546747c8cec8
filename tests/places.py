"""Where the checkpoints are that tests read."""

from __future__ import annotations

import os
from pathlib import Path

from resources import resource

REPOSITORY = Path(__file__).parent.parent
SAMPLES = resource("samples")
CHECKPOINTS = REPOSITORY / "tests" / "checkpoints"


def shared_folder() -> Path | None:
    """The folder with every real checkpoint and what real engines did with them, where this machine has it.

    KVSCOPE_SHARED names it; otherwise ``shared`` beside the repository. Raises NotADirectoryError when the variable
    names no such folder.
    """
    named = os.environ.get("KVSCOPE_SHARED")
    folder = Path(named) if named else REPOSITORY.parent / "shared"
    if (folder / "checkpoints").is_dir():
        return folder
    if named:
        raise NotADirectoryError(f"KVSCOPE_SHARED={named} has no folder 'checkpoints'")
    return None


def checkpoint_folders() -> dict[str, Path]:
    """Every real checkpoint at hand, by ``tool/name``: all shared ones, or those in the repository where none are."""
    shared = shared_folder()
    roots = [shared / "checkpoints"] if shared else [SAMPLES, CHECKPOINTS]
    found = (path for root in roots for path in root.glob("*/*/") if path.is_dir())
    return {f"{path.parent.name}/{path.name}": path for path in sorted(found)}
