"""Every real checkpoint, exported for vLLM 0.33.0 and judged anew, without repairs and with the usual ones."""

from __future__ import annotations

from pathlib import Path

from tests.core.export.every_checkpoint import Exported, export_one, table

BETTER = {"fails": 0, "unknown": 1, "degraded": 2, "ok": 3}


def test_an_export_never_makes_it_worse(checkpoint_folder: Path, tmp_path: Path) -> None:
    name = f"{checkpoint_folder.parent.name}/{checkpoint_folder.name}"
    plain = export_one(name, checkpoint_folder, tmp_path / "plain", repairs=False)
    mended = export_one(name, checkpoint_folder, tmp_path / "mended", repairs=True)
    for row in (plain, mended):
        assert row.refused == ""
        assert row.after is not None
        assert BETTER[row.after.outcome] >= BETTER[row.before.outcome]
        assert row.do >= row.do_before
    assert plain.fixes == ()
    assert plain.after is not None
    assert mended.after is not None
    assert BETTER[mended.after.outcome] >= BETTER[plain.after.outcome]
    if mended.after.outcome == "ok" and mended.after.text.startswith("All"):
        assert mended.do == mended.can


def test_the_table_counts(tmp_path: Path, shared: Path) -> None:
    rows: list[Exported] = []
    for number, name in enumerate(
        ("quark/gemma3-fp8-kvfp8", "modelopt/deepseekv3-fp8-kvfp8", "modelopt/llama-fp8-kvfp8")
    ):
        rows.append(export_one(name, shared / "checkpoints" / name, tmp_path / str(number), repairs=False))
    lines = table(rows).splitlines()
    assert lines[0].split() == ["quark/gemma3-fp8-kvfp8", "fails", "->", "ok", "0", "->", "2", "of", "2"]
    assert lines[-3:] == [
        "3 checkpoints, before: 1 ok, 1 degraded, 1 fails, 0 unknown, 0 refused",
        "3 checkpoints, after:  2 ok, 1 degraded, 0 fails, 0 unknown, 0 refused",
        "layers with k and v from the checkpoint: 2 before, 4 after, of 6 that can",
    ]
