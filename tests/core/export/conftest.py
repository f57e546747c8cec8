"""Real file systems for tests of the export; where this machine lets none be mounted, those tests are deselected."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from tests.core.spoken import every_error_spoken

KINDS = ("ext4", "xfs", "btrfs", "tmpfs")
CLONING = ("xfs", "btrfs")
_IMAGE = 320 << 20  # the least that XFS takes; the image is sparse
_QUIET = {"ext4": ["-q", "-F"], "xfs": ["-q"], "btrfs": ["-q"]}


@contextmanager
def mounted(kind: str, size: int = _IMAGE, *, read_only: bool = False) -> Iterator[Path]:
    """A new, empty file system of a kind, mounted for everybody.

    Raises:
        OSError: the machine has no such thing, or does not let us.
    """
    top = Path(tempfile.mkdtemp(prefix="kvscope-"))
    place = top / "mounted"
    place.mkdir()
    try:
        if kind == "tmpfs":
            _run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place))
        else:
            with (top / "image").open("wb") as image:
                image.truncate(size)
            _run(f"mkfs.{kind}", *_QUIET[kind], str(top / "image"))
            _run("mount", "-o", "loop", str(top / "image"), str(place))
        try:
            yield place
        finally:
            _run("umount", str(place))
    finally:
        shutil.rmtree(top)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()}")


@cache
def mountable(kind: str) -> bool:
    """Whether this machine lets us, found out by doing it."""
    if os.geteuid() != 0:
        return False
    try:
        with mounted(kind):
            return True
    except OSError:
        return False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    without = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        kind = callspec.params.get("file_system") if callspec is not None else None
        if isinstance(kind, str) and not mountable(kind):
            without.append(item)
    if without:
        config.hook.pytest_deselected(items=without)
        items[:] = [item for item in items if item not in without]


@pytest.fixture
def file_system(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of the kind that the test names."""
    with mounted(request.param) as place:
        yield place


@pytest.fixture(autouse=True)
def sentences() -> Iterator[None]:
    """Fails a test in which an error says anything that no template says, so that no other language could."""
    with every_error_spoken():
        yield
