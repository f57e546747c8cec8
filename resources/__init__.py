"""Files the program reads at run time: sample checkpoints, icons, architecture and engine data."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def resource(*parts: str) -> Path:
    """Where the bundled file or folder is, e.g. ``resource("samples", "samples.json")``.

    Raises FileNotFoundError, naming the path, when it is not there: the installation is then incomplete.
    """
    path = _HERE.joinpath(*parts)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: KVScope is not completely installed")
    return path
