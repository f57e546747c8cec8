"""How much of a result is compared with its source, and what the record and the dry run say about it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.diagnosis.thresholds import Thresholds
from core.errors import ExportError
from core.export import ExportPlan, WriteOptions, plan_export, prepare_export, write_export
from core.export import placement as placing
from core.export.options import Level, Mode
from core.export.prepare import prepared_as_data, prepared_text
from core.export.report import plan_as_data, result_text
from core.inspection import inspect
from tests.core.export.exporting import Interrupted, Stored, bytes_of, plan_of, shard_bytes, tensors_of

SHARDED = "llmcompressor/llama-32layers-kv_attn_head"
QUARK = "quark/gemma3-26layers-fp8-kvfp8"


def spoiling(out: Path, name: str, spoil: Callable[[bytearray], None]) -> Interrupted:
    """Changes a written file behind the export's back, when the comparison begins."""

    def action() -> None:
        path = out.with_name(f"{out.name}.kvscope-unfinished") / "files" / name
        data = bytearray(path.read_bytes())
        spoil(data)
        path.write_bytes(data)

    return Interrupted(phase="Verifying", at=0, action=action)


class Early(Interrupted):
    """Acts before the first comparison of a phase."""

    def start(self, what: str, *, total: int = 0, unit: str = "") -> None:
        Interrupted.start(self, what, total=total, unit=unit)
        self.advance(0)


def early(out: Path, name: str, spoil: Callable[[bytearray], None]) -> Early:
    return Early(phase="Verifying", at=0, action=spoiling(out, name, spoil).action)


def last_byte(data: bytearray) -> None:
    data[-1] ^= 1


def every_byte(data: bytearray) -> None:
    begin = 8 + int.from_bytes(data[:8], "little")
    data[begin:] = bytes(byte ^ 1 for byte in data[begin:])


@pytest.mark.parametrize("mode", ["copy", "link"])
def test_all_finds_one_flipped_bit_anywhere(samples: Path, tmp_path: Path, mode: Mode) -> None:
    name = "model-00002-of-00003.safetensors"
    options = WriteOptions(verify="all", mode=mode)
    plan = plan_of(samples / SHARDED, names="modelopt")
    with pytest.raises(
        ExportError, match=rf"^{name}, key '[\w.]+': the written bytes differ from the source's at byte"
    ):
        write_export(plan, tmp_path / "out", options=options, progress=early(tmp_path / "out", name, last_byte))
    with pytest.raises(
        ExportError, match=r"^recipe.yaml: the written bytes differ from the source's at byte \d+. Check"
    ):
        write_export(
            plan, tmp_path / "out", options=options, progress=early(tmp_path / "out", "recipe.yaml", last_byte)
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model-00001-of-00003.safetensors", "recipe.yaml"])
def test_sample_finds_a_file_that_is_another(samples: Path, tmp_path: Path, name: str) -> None:
    plan = plan_of(samples / SHARDED, names="modelopt")
    with pytest.raises(ExportError, match=rf"^{name}.*: the written bytes differ from the source's at byte \d+. Check"):
        write_export(
            plan,
            tmp_path / "out",
            options=WriteOptions(verify="sample"),
            progress=early(tmp_path / "out", name, every_byte if name.startswith("model") else last_byte),
        )


@pytest.mark.parametrize("level", ["all", "sample", "none"])
def test_a_changed_header_or_text_is_found_at_every_level(samples: Path, tmp_path: Path, level: Level) -> None:
    def rename(data: bytearray) -> None:
        data[:] = data.replace(b"model.norm.weight", b"model.n0rm.weight")

    plan = plan_of(samples / SHARDED, names="modelopt")
    name = "model.safetensors.index.json"
    with pytest.raises(ExportError, match=rf"^{name}: the written text is not the planned one. Check the disk"):
        write_export(
            plan, tmp_path / "out", options=WriteOptions(verify=level), progress=early(tmp_path / "out", name, rename)
        )
    name = "model-00003-of-00003.safetensors"
    message = "does not agree" if level == "none" else "lacks a tensor"
    with pytest.raises(ExportError, match=message):
        write_export(
            plan, tmp_path / "out", options=WriteOptions(verify=level), progress=early(tmp_path / "out", name, rename)
        )


def test_a_file_that_grew_is_found(samples: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"^recipe.yaml: the copy has \d+ bytes and not \d+. Check the disk and"):
        write_export(
            plan_of(samples / SHARDED),
            tmp_path / "out",
            progress=early(tmp_path / "out", "recipe.yaml", lambda data: data.extend(b"more")),
        )


def test_new_values_are_read_back(samples: Path, tmp_path: Path) -> None:
    plan = plan_of(samples / QUARK)
    first = replace(plan.changes[0], values=(0.123,), new_dtype="F32")
    plan = replace(plan, edits=(first, *plan.changes[1:]))
    bits = b"\x6d\xe7\xfb\x3d"

    def spoil(data: bytearray) -> None:
        assert data.count(bits) == 1
        data[:] = data.replace(bits, b"\x00\x00\x00\x00")

    with pytest.raises(ExportError, match=rf"key '{first.new_key}': the written values are not those planned. Check"):
        write_export(plan, tmp_path / "out", progress=early(tmp_path / "out", "model.safetensors", spoil))


def many(folder: Path, samples: Path) -> ExportPlan:
    """A checkpoint with a shard of 1,000 tensors, of which a sample sees a part."""
    shutil.copytree(samples / QUARK, folder, copy_function=shutil.copyfile)
    stored = [Stored(name, *tensor) for name, tensor in tensors_of(folder / "model.safetensors").items()]
    stored += [Stored(f"more.{number}", "U8", (64,), os.urandom(64)) for number in range(1000)]
    (folder / "model.safetensors").write_bytes(shard_bytes(stored))
    return plan_of(folder)


def test_each_level_says_what_it_compared(samples: Path, tmp_path: Path) -> None:
    plan = many(tmp_path / "source", samples)
    counted = {}
    for level in ("all", "sample", "none"):
        result = write_export(plan, tmp_path / level, options=WriteOptions(verify=level))
        counted[level] = result.verified
        record = json.loads((tmp_path / level / "kvscope-export.json").read_text())
        assert record["writing"]["verify"] == level
        for each in record["files"]:
            data = (tmp_path / level / each["file"]).read_bytes()
            assert each["size"] == len(data)
            assert each["sha256"] == (hashlib.sha256(data).hexdigest() if level == "all" else None), each
        told = result_text(result)
        words = {
            "all": "tensors compared with the source: equal",
            "sample": "compared with the source in samples: equal",
        }
        assert words.get(level, "nothing was compared with the source") in told
    assert counted["all"] == 1757
    assert 256 <= counted["sample"] < 400
    assert counted["none"] == 0


def test_by_default_all_is_compared_up_to_a_size_and_samples_beyond(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(samples / QUARK)
    prepared = prepare_export(plan, tmp_path / "out")
    assert prepared.placement.verify == "all"
    assert "proof: Every byte that comes from the source is compared with it." in prepared_text(prepared)
    monkeypatch.setattr(placing, "VERIFY_ALL_UP_TO", 1000)
    prepared = prepare_export(plan, tmp_path / "out")
    assert prepared.placement.verify == "sample"
    assert "proof: Samples of every shard are compared with the source: " in prepared_text(prepared)
    assert prepare_export(plan, tmp_path / "out", WriteOptions(verify="all")).placement.verify == "all"
    linked = prepare_export(plan_of(samples / SHARDED), tmp_path / "out", WriteOptions(mode="link"))
    assert linked.placement.verify == "sample"  # configs are copied
    monkeypatch.setattr(placing, "VERIFY_ALL_UP_TO", 100_000)  # linked shards need no comparison
    linked = prepare_export(plan_of(samples / SHARDED), tmp_path / "out", WriteOptions(mode="link"))
    assert linked.placement.verify == "all"


@pytest.mark.parametrize("mode", [None, "link", "copy"])
@pytest.mark.parametrize(("sample", "names"), [(QUARK, None), (SHARDED, "modelopt"), (SHARDED, None)])
def test_the_dry_run_is_the_plan_that_the_run_records(
    samples: Path, tmp_path: Path, sample: str, names: str | None, mode: Mode | None
) -> None:
    source = tmp_path / "source"
    shutil.copytree(samples / sample, source, copy_function=shutil.copyfile)
    before = sorted(bytes_of(tmp_path))
    plan, options = plan_of(source, names=names), WriteOptions(mode=mode)
    dry: dict[str, Any] = {**plan_as_data(plan), **prepared_as_data(prepare_export(plan, tmp_path / "out", options))}
    assert sorted(bytes_of(tmp_path)) == before
    write_export(plan_of(source, names=names), tmp_path / "out", options=options)
    record = json.loads((tmp_path / "out" / "kvscope-export.json").read_text())

    assert record["plan_digest"] == dry["plan_digest"]
    assert record["writing"] == dry["writing"]
    fields = ("file", "action", "new_key", "reason")
    changes = [edit for edit in dry["edits"] if edit["action"] != "kept"]
    assert [[row[name] for name in fields] for row in record["tensors"]] == [
        [edit[name] for name in fields] for edit in changes
    ]
    written = {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    del written["kvscope-export.json"]
    assert {file["file"]: file["size"] for file in dry["writing"]["files"]} == written
    assert record["notes"] == dry["notes"]


def test_a_result_is_judged_with_the_limits_that_the_plan_was_made_with(samples: Path, tmp_path: Path) -> None:
    plan = plan_export(inspect(samples / QUARK, kv_cache_dtype="fp8", thresholds=Thresholds(large=1e-4)))
    result = write_export(plan, tmp_path / "out")
    assert {found.code for found in result.after.findings} == {found.code for found in plan.findings_predicted}
    assert {found.code for found in result.after.findings} != {
        found.code for found in inspect(tmp_path / "out", kv_cache_dtype="fp8").findings
    }
