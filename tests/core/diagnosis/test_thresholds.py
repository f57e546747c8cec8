from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from core.diagnosis import Thresholds
from tests.core.diagnosis.build import MODELOPT, codes, llama, look, scales


def test_every_threshold_is_explained() -> None:
    rows = Thresholds(tiny=1e-4).table()
    assert [row.name for row in rows] == [field.name for field in fields(Thresholds)]
    assert all(row.meaning and row.source for row in rows)
    assert {row.name: row.value for row in rows}["tiny"] == 1e-4


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Thresholds(tiny=0.02), "tiny"),
        (Thresholds(large=0.025), "large"),
        (Thresholds(notable=0.035), "above-half"),
        (Thresholds(misread_median=0.009), "amax-stored"),
        (Thresholds(outlier_ratio=1.5), "outlier"),
        (Thresholds(absurd=0.02), "uninitialised"),
        (Thresholds(pair_ratio=1.2), "pair-ratio"),
    ],
)
def test_another_threshold_decides_otherwise(limits: Thresholds, code: str, tmp_path: Path) -> None:
    tensors = scales([0.03, 0.02, 0.05], [0.01, 0.01, 0.01])
    config = llama(MODELOPT, layers=3)
    assert code not in codes(look(tmp_path / "default", config, tensors))
    assert code in codes(look(tmp_path / "changed", config, tensors, thresholds=limits), "error", "warning")
