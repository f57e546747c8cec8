"""What an export says while it is written and afterwards can be said in another language."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.export import WriteOptions, prepare_export, prepare_in_place, write_export
from core.export.options import Level, Mode
from core.progress import Progress
from core.wording import Sentence
from tests.core.export.exporting import plan_of
from tests.core.spoken import left_in_english

SAMPLE = "quark/gemma3-26layers-fp8-kvfp8"


@pytest.fixture
def source(samples: Path, tmp_path: Path) -> Path:
    """On the file system of the exports, so that links are possible."""
    return Path(shutil.copytree(samples / SAMPLE, tmp_path / "source", copy_function=shutil.copyfile))


class Told(Progress):
    """Remembers its phases."""

    phases: list[str]

    def start(self, what: str, *, total: int = 0, unit: str = "") -> None:
        self.phases.append(what)
        super().start(what, total=total, unit=unit)


@pytest.mark.parametrize("verify", ["all", "sample", "none", None])
@pytest.mark.parametrize("mode", ["copy", "link", None])
def test_how_files_are_written_and_compared(
    source: Path, tmp_path: Path, mode: Mode | None, verify: Level | None
) -> None:
    prepared = prepare_export(plan_of(source), tmp_path / "out", WriteOptions(mode=mode, verify=verify))
    for why in (prepared.placement.mode_why, prepared.placement.verify_why):
        assert isinstance(why, Sentence)
        assert left_in_english(why) == []


def test_an_overlay_and_an_export_in_place(source: Path, tmp_path: Path) -> None:
    overlay = prepare_export(plan_of(source, names="as-is"), tmp_path / "out", WriteOptions(overlay=True))
    assert "hard links, as an overlay leaves them alone" in overlay.placement.mode_why
    assert left_in_english(overlay.placement.mode_why) == []
    placement = prepare_in_place(plan_of(source)).prepared.placement
    assert left_in_english(placement.mode_why) == left_in_english(placement.verify_why) == []


def test_phases_and_notes_of_an_export(source: Path, tmp_path: Path) -> None:
    plan, options = plan_of(source), WriteOptions(resume=True)
    progress = Told()
    progress.phases = []
    write_export(plan, tmp_path / "out", options=options, progress=progress)
    assert progress.phases[:2] == ["Copying", "Verifying"]
    assert all(isinstance(phase, Sentence) for phase in progress.phases[:3])
    again = write_export(plan, tmp_path / "out", options=options)
    assert again.notes == ("The export was finished already; nothing was written.",)
    assert [left for note in again.notes for left in left_in_english(note)] == []
