"""Exports of what is rarely met: the same key in two shards, values that cannot be read, names that promise more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.engines import ENGINES
from core.errors import ExportError, UsageError
from core.export import plan_export, prepare_export, write_export
from core.export.fixes import parse_fixes
from core.inspection import inspect
from core.matrix import matrix
from core.report import text_report
from tests.core.checkpoint.writing import header, pack
from tests.core.diagnosis.build import MODELOPT, llama
from tests.core.export.exporting import tensors_of

CONFIG = llama(MODELOPT)
QUARTER, EIGHTH = b"\0\0\x80\x3e", b"\0\0\0\x3e"
NAMES = [f"model.layers.{layer}.self_attn.{role}_proj.{role}_scale" for layer in range(2) for role in "kv"]
ODD: dict[str, tuple[str, tuple[int, ...], int]] = {
    "complex": ("C64", (), 8),
    "one complex": ("C64", (1,), 8),
    "half a byte": ("F4", (2,), 1),
    "none": ("F32", (0,), 0),
}


def _shard(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    tree = header({name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()})
    path.write_bytes(pack(tree, b"".join(data for *_, data in tensors.values())))


def _single(folder: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]], config: object = CONFIG) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    _shard(folder / "model.safetensors", tensors)
    return folder


def _scales(names: list[str], data: bytes = QUARTER) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return dict.fromkeys(names, ("F32", (), data))


@pytest.mark.parametrize("fixes", [(), ("duplicate-key",)])
def test_a_key_in_two_shards_is_renamed_in_both_and_in_the_index(tmp_path: Path, fixes: tuple[str, ...]) -> None:
    folder, files = tmp_path / "in", ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for file, names in zip(files, (NAMES[:3], [NAMES[0], NAMES[3]]), strict=True):
        _shard(folder / file, _scales(names))
    weight_map = dict.fromkeys(NAMES[1:3], files[0]) | dict.fromkeys((NAMES[0], NAMES[3]), files[1])
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    plan = plan_export(inspect(folder), names="portable", fixes=parse_fixes(fixes))
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after == plan.verdict_predicted
    written = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())["weight_map"]
    assert set(written) == {name.replace("k_proj.", "").replace("v_proj.", "") for name in NAMES}
    assert set(written.values()) == set(files)
    in_first = tensors_of(tmp_path / "out" / files[0])
    assert ("model.layers.0.self_attn.k_scale" in in_first) is (not fixes)


@pytest.mark.parametrize("odd", ODD)
def test_a_value_that_cannot_be_read_breaks_no_prediction_and_no_repair(tmp_path: Path, odd: str) -> None:
    dtype, shape, size = ODD[odd]
    folder = _single(tmp_path / "in", _scales(NAMES[:3]) | {NAMES[3]: (dtype, shape, bytes(size))})
    for engine in ENGINES:
        found = inspect(folder, engine=engine)
        assert text_report(found)
        if size:
            assert found.verdict.outcome in ("unknown", "fails")
    found = inspect(folder)
    assert matrix(found)
    for fix in ("per-head", "swap", "factor=2", "shape", "unreadable-scale=median"):
        try:
            plan = plan_export(found, fixes=parse_fixes([fix]))
        except UsageError as error:
            assert str(error)  # noqa: PT017 - not every repair applies
        else:
            assert text_report(found)
            assert plan.verdict_predicted.text
    sound = _single(tmp_path / "sound", _scales(NAMES, EIGHTH))
    plan = plan_export(found, scales_from=str(sound))
    assert plan.verdict_predicted.outcome == ("fails" if shape == (2,) else "ok")
    assert write_export(plan, tmp_path / "out").verdict_after == plan.verdict_predicted


def test_scales_take_the_place_of_amaxes_under_names_of_scales(tmp_path: Path) -> None:
    amaxes = [f"model.layers.{layer}.self_attn.{role}_bmm_quantizer._amax" for layer in range(2) for role in "kv"]
    folder = _single(tmp_path / "in", dict.fromkeys(amaxes, ("F32", (), b"\0\0\xa0\x41")))  # 20.0
    sound = _single(tmp_path / "sound", _scales(NAMES, EIGHTH))
    plan = plan_export(inspect(folder), scales_from=str(sound))
    write_export(plan, tmp_path / "out")
    written = tensors_of(tmp_path / "out/model.safetensors")
    assert {name.rsplit(".", 1)[1] for name in written} == {"k_scale", "v_scale"}
    assert {data for *_, data in written.values()} == {EIGHTH}
    assert not [found for found in plan.findings_predicted if found.code == "amax-stored"]


def test_a_file_that_repeats_a_key_is_not_taken_into_the_index(tmp_path: Path) -> None:
    folder = _single(tmp_path / "in", _scales(NAMES[:3]))
    _shard(folder / "more.safetensors", _scales(NAMES[2:], EIGHTH))
    weight_map = dict.fromkeys(NAMES[:3], "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with pytest.raises(UsageError):
        plan_export(inspect(folder), fixes=parse_fixes(["unindexed-scales"]))


@pytest.mark.parametrize("factor", ["1e300", "1e-300", "0", "-1", "nan"])
def test_a_factor_that_float32_does_not_hold_is_refused(tmp_path: Path, factor: str) -> None:
    folder = _single(tmp_path / "in", _scales(NAMES))
    with pytest.raises(UsageError, match="is no choice for --fix factor"):
        plan_export(inspect(folder), fixes=parse_fixes([f"factor={factor}"]))


def test_names_that_no_file_can_have_are_refused(tmp_path: Path) -> None:
    plan = plan_export(inspect(_single(tmp_path / "in", _scales(NAMES))), names="portable")
    with pytest.raises(ExportError, match="cannot be looked at"):
        prepare_export(plan, tmp_path / ("x" * 300))
    with pytest.raises(UsageError, match="does not exist"):
        plan_export(inspect(tmp_path / "in"), scales_from="~nobody-of-that-name/x")
