from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.digest import Digest, digest
from app.status import Status
from core.inspection import inspect
from tests.app.conftest import SAMPLES

Digested = Callable[[str], Digest]


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_scale_has_a_row_and_every_layer_a_column(digested: Digested, sample: str) -> None:
    found = digested(sample)
    inspection = found.inspection
    rows = [row for row in found.rows if row.scale is not None]
    assert sorted(row.key for row in rows) == sorted(scale.key for scale in inspection.scales)
    assert len({row.id for row in found.rows}) == len(found.rows) == sum(found.counts.values())
    assert {layer.path for layer in inspection.deliveries.attention} <= {column.path for column in found.columns}
    assert set(found.by_id) >= {name for column in found.columns for cell in column.cells.values() for name in cell.ids}


def test_what_loads_is_loaded(digested: Digested) -> None:
    found = digested("modelopt/qwen3-36layers-fp8-kvfp8")
    assert found.counts == {Status.LOADED: 72}
    assert found.roles == ("k", "v")
    assert [column.layer for column in found.columns] == list(range(36))
    assert all(column.cells[role].status is Status.LOADED for column in found.columns for role in ("k", "v"))
    row = found.by_id["model.layers.7.self_attn.k_proj.k_scale"]
    assert (row.target, row.reached, row.layer, row.role) == ("model.layers.7.self_attn.attn.k_scale", True, 7, "k")


def test_what_is_dropped_is_dropped_in_table_and_strip(digested: Digested) -> None:
    found = digested("modelopt/deepseekv3-30layers-fp8-kvfp8")
    assert found.counts == {Status.DROPPED: 60}
    assert {column.cells["k"].status for column in found.columns} == {Status.DROPPED}
    assert all(row.attention is not None and row.attention.final["k"] == 1.0 for row in found.rows)


def test_a_load_that_raises_leaves_the_rest_unreached(digested: Digested) -> None:
    found = digested("quark/gemma3-26layers-fp8-kvfp8")
    assert found.counts == {Status.RAISES: 1, Status.NOT_REACHED: 51}
    raising = next(row for row in found.rows if row.status is Status.RAISES)
    assert raising.key == found.inspection.deliveries.load.key


def test_doubtful_values_are_suspicious(digested: Digested) -> None:
    found = digested("llmcompressor/llama-attn_fp8_tensor")
    assert {row.role for row in found.rows if row.status is Status.SUSPICIOUS} == {"q"}
    assert found.roles == ("k", "v", "q")


def test_encoder_scales_do_not_stand_for_decoder_layers(shared: Path) -> None:
    found = digest(inspect(shared / "checkpoints" / "llmcompressor" / "whisper-kvonly"))
    encoder = [row for row in found.rows if row.key.startswith("model.encoder.")]
    assert encoder
    assert {row.status for row in encoder} == {Status.IGNORED}
    assert {row.attention for row in encoder} == {None}
    groups = [column.group for column in found.columns]
    assert groups == sorted(groups)
    assert len(set(groups)) == 3


def test_an_ignored_layer_shows_as_missing(shared: Path) -> None:
    found = digest(inspect(shared / "checkpoints" / "modelopt" / "llama-fp8-kvfp8-layer0off"))
    missing = [row for row in found.rows if row.missing]
    assert [(row.layer, row.role, row.status) for row in missing] == [
        (0, "k", Status.MISSING),
        (0, "v", Status.MISSING),
    ]
    assert found.columns[0].cells["k"].status is Status.MISSING
    assert found.columns[0].cells["k"].ids == (missing[0].id,)
    assert found.columns[1].cells["k"].status is Status.LOADED


def test_findings_lead_to_rows(digested: Digested) -> None:
    found = digested("llmcompressor/llama-attn_fp8_tensor")
    for finding in found.inspection.findings:
        ids = found.ids_of(finding)
        assert ids
        assert all(found.by_id[name].key in finding.keys or found.by_id[name].layer in finding.layers for name in ids)
