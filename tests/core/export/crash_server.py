"""The process that forks exports to be killed, from the test's side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]


class Crashing:
    """The process that forks exports."""

    def __init__(self, sources: Sequence[tuple[Path, str | None]]) -> None:
        arguments = [f"{path}={names or ''}" for path, names in sources]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.core.export.crashing", *arguments],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def export(self, source: int, out: Path, *, resume: bool = False, **how: float | bool) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"source": source, "out": str(out), "resume": resume, **how}) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer
