"""Exports and servers: scales taken from a checkpoint there, and an overlay for one there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.checkpoint import open_checkpoint
from core.errors import KVScopeError
from core.export import ExportPlan, WriteOptions, plan_export, prepare_export, write_export
from core.export.fixes import Fix, parse_fixes
from core.export.report import plan_as_data
from core.inspection import Inspection, inspect
from tests.core.diagnosis.build import COMPRESSED, Tensor, llama, look
from tests.core.diagnosis.examples import GOOD, K0
from tests.core.export.exporting import bytes_of, left_in, tensors_of
from tests.core.export.test_overlay import LLAMA, lost_layer
from tests.hub_server import Server


@pytest.fixture
def whole(hub_root: Path) -> None:
    """The Llama on the server."""
    shutil.copytree(LLAMA, hub_root / "org" / "llama", dirs_exist_ok=True)


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("fix", [True, False])
@pytest.mark.parametrize("address", ["hf://org/llama", "http://user:secret@{host}/files/org/llama?Signature=secret"])
def test_scales_come_from_an_address(address: str, fix: bool, server: Server, tmp_path: Path) -> None:
    address = address.format(host=server.url.removeprefix("http://"))
    inspection = inspect(lost_layer(tmp_path / "source"), kv_cache_dtype="fp8")
    if fix:
        plan = plan_export(inspection, fixes=parse_fixes([f"missing-scale={address}"]))
    else:
        plan = plan_export(inspection, scales_from=address)
    result = write_export(plan, tmp_path / "out")
    expected = inspect(LLAMA, kv_cache_dtype="fp8").deliveries.attention
    assert [layer.final for layer in result.after.deliveries.attention] == [layer.final for layer in expected]
    written = b"".join(bytes_of(tmp_path / "out").values()) + str(plan_as_data(plan)).encode()
    assert b"org/llama" in written
    assert b"secret" not in written


SIDE = {"kv_cache": {"dtype": "float8_e4m3fn", "scaling_factor": {"0": {"0": 0.5, "1": 0.25}}}}


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("fix", [True, False])
@pytest.mark.parametrize(
    "address",
    [
        "hf://org/llama/kv_cache_scales.json",
        "{url}/org/llama/resolve/main/kv_cache_scales.json",
        "http://user:secret@{host}/files/org/llama/kv_cache_scales.json?Signature=secret",
        "file://{root}/org/llama/kv_cache_scales.json",
    ],
)
def test_a_side_file_comes_from_an_address(
    address: str, fix: bool, server: Server, hub_root: Path, tmp_path: Path
) -> None:
    (hub_root / "org" / "llama" / "kv_cache_scales.json").write_text(json.dumps(SIDE))
    address = address.format(url=server.url, host=server.url.removeprefix("http://"), root=hub_root)
    inspection = inspect(lost_layer(tmp_path / "source"), kv_cache_dtype="fp8")
    server.set_faults()
    if fix:
        plan = plan_export(inspection, fixes=parse_fixes([f"missing-scale={address}"]))
    else:
        plan = plan_export(inspection, scales_from=address)
    assert all(request["path"].count(".safetensors") == 0 for request in server.requests())
    assert "kv_cache_scales.json" in plan.fixes[0].reason
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    first, second = (layer.final for layer in result.after.deliveries.attention)
    assert (first["k"], first["v"]) == (0.5, 0.5)
    assert (second["k"] == 0.25) is not fix
    written = b"".join(bytes_of(tmp_path / "out").values()) + str(plan_as_data(plan)).encode()
    assert b"kv_cache_scales.json" in written
    assert b"secret" not in written


@pytest.mark.usefixtures("whole")
def test_what_is_wrong_with_a_side_file_at_an_address_names_it(
    server: Server, hub_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hub_root / "org" / "llama"
    (folder / "large.json").write_text(json.dumps(SIDE) + " " * 20_000)
    (folder / "page.json").write_text("<html>please log in</html>")
    (folder / "list.json").write_text("[1]")
    (folder / "odd.json").write_text(json.dumps({"kv_cache": {"scaling_factor": {"0": {"0": -1.0}}}}))
    (folder / "index.json").write_text(json.dumps({"weight_map": {}}))
    monkeypatch.setattr("core.checkpoint.remote.bringing.LARGEST_CONFIG", 20_000)
    inspection = inspect(lost_layer(tmp_path / "source"), kv_cache_dtype="fp8")
    for name, said in (
        ("none.json", "there is no such file. Check the address."),
        ("large.json", " bytes long, more than the 20,000 that KVScope reads of such a file. "),
        ("page.json", "is a web page, saved in place of the file"),
        ("list.json", "holds no JSON object (at byte 0). Download or copy the file again."),
        ("odd.json", "kv_cache.scaling_factor.0.0 is -1.0, and a scale is a finite number above 0 (vLLM up to 0.6"),
        ("config.json", "is no side file of KV-cache scales that is known here. Known are "),
        ("index.json", "is the index of a checkpoint. Give the address of the folder that it lies in"),
    ):
        for address in (f"hf://org/llama/{name}", f"{server.url}/files/org/llama/{name}", f"file://{folder}/{name}"):
            with pytest.raises(KVScopeError) as error:
                plan_export(inspection, scales_from=address)
            assert str(error.value).startswith(f"{address}: ")
            assert said in str(error.value)


@pytest.mark.usefixtures("whole")
def test_what_is_wrong_with_an_address_names_it(server: Server, tmp_path: Path) -> None:
    inspection = inspect(lost_layer(tmp_path / "source"), kv_cache_dtype="fp8")
    for address, said in (
        ("hf://org/none", "hf://org/none: "),
        ("hf://org/qwen3", "hf://org/qwen3: has scales for layers 2-35, and this model has no attention layer there"),
    ):
        with pytest.raises(KVScopeError) as error:
            plan_export(inspection, scales_from=address)
        assert str(error.value).startswith(said)


@pytest.mark.parametrize("place", ["hf://org/lost", "{url}/files/org/lost"])
@pytest.mark.usefixtures("whole")
def test_an_overlay_is_written_without_a_download(place: str, server: Server, hub_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(hub_root / "org" / "lost", ignore_errors=True)
    source = lost_layer(hub_root / "org" / "lost")
    inspection = inspect(place.format(url=server.url), kv_cache_dtype="fp8")
    plan = plan_export(inspection, scales_from=str(LLAMA))
    out, options = tmp_path / "out", WriteOptions(overlay=True)
    server.set_faults()
    result = write_export(plan, out, options=options)
    assert server.requests() == []
    assert left_in(out) == ["kvscope-export.json", "model-kvscales.safetensors", "model.safetensors.index.json"]
    assert result.verdict_after == plan.verdict_predicted
    assert result.verdict_after.outcome == "ok"
    record = json.loads((out / "kvscope-export.json").read_text())
    assert {row["overlay"] for row in record["tensors"]} == {"model-kvscales.safetensors"}
    both = tmp_path / "both"
    shutil.copytree(source, both)
    shutil.copytree(out, both, dirs_exist_ok=True)
    after = inspect(both, kv_cache_dtype="fp8")
    assert after.verdict.outcome == "ok"
    assert [layer.final for layer in after.deliveries.attention] == [
        layer.final for layer in result.after.deliveries.attention
    ]
    again = write_export(plan, out, options=replace(options, resume=True))
    assert (again.bytes_written, again.verdict_after) == (0, result.verdict_after)


def test_an_overlay_brings_its_own_configs(server: Server, hub_root: Path, tmp_path: Path) -> None:
    """The verdict goes by the configs that come along."""
    dynamic = json.loads(json.dumps(COMPRESSED))
    dynamic["kv_cache_scheme"]["dynamic"] = True
    weights = {f"model.layers.{layer}.self_attn.k_proj.weight": Tensor([1.0], (1,)) for layer in range(2)}
    shutil.rmtree(hub_root / "org" / "dynamic", ignore_errors=True)
    look(hub_root / "org" / "dynamic", llama(dynamic), weights)
    plan = plan_export(inspect("hf://org/dynamic"), fixes=parse_fixes(["dynamic-scheme=0.05"]))
    result = write_export(plan, tmp_path / "out", options=WriteOptions(overlay=True))
    assert result.verdict_after.outcome == "ok"
    assert "config.json" in left_in(tmp_path / "out")
    shutil.copytree(tmp_path / "out", hub_root / "org" / "dynamic", dirs_exist_ok=True)
    assert inspect("hf://org/dynamic").verdict == result.verdict_after


@pytest.mark.usefixtures("server")
def test_a_plan_names_the_address_that_it_is_for(whole: None) -> None:
    assert plan_as_data(plan_export(inspect("hf://org/llama")))["source"] == "hf://org/llama"


@pytest.mark.usefixtures("server")
def test_an_overlay_that_cannot_be_names_the_address_and_a_way_that_leads_on(tmp_path: Path) -> None:
    remedy = "Download it first, and export that folder without --overlay."
    inspection = inspect("hf://org/qwen3")
    where = "model-00001-of-00003.safetensors, key 'model.layers.0.self_attn.k_proj.k_scale'"
    target = "model.layers.0.self_attn.attn.k_scale"
    for plan, said in (
        (
            plan_export(inspection, engine="sglang-0.5.23"),
            "hf://org/qwen3: SGLang 0.5.23 was not seen to honour an overlay.",
        ),
        (
            plan_export(inspection, fixes=parse_fixes(["factor=2"])),
            f"{where}: the tensor changes and keeps its name, and an overlay leaves the old one in its shard.",
        ),
        (
            plan_export(inspection, names="portable"),
            f"{where}: vLLM 0.33.0 loads it into {target}, and an overlay leaves the key in its shard.",
        ),
    ):
        with pytest.raises(KVScopeError) as error:
            write_export(plan, tmp_path / "out", options=WriteOptions(overlay=True))
        assert str(error.value) == f"{said} {remedy}"


@pytest.mark.parametrize("place", ["hf://org/renamed", "{url}/files/org/renamed"])
def test_an_overlay_renames_what_lies_at_an_address(place: str, server: Server, hub_root: Path, tmp_path: Path) -> None:
    """These names of a Gemma 3n are dropped without a word: their bytes are fetched for new ones, and nothing else."""
    source = hub_root / "org" / "renamed"
    shutil.rmtree(source, ignore_errors=True)
    weight = {"model.layers.0.mlp.up_proj.weight": Tensor([1.0] * 250_000, (500, 500))}
    old = {
        f"model.layers.{layer}.self_attn.{role}_proj.output_scale": Tensor([2.0**-power], (), "BF16")
        for power, (layer, role) in enumerate([(0, "k"), (0, "v"), (1, "k"), (1, "v")], start=3)
    }
    local = look(source, llama(COMPRESSED) | {"architectures": ["Gemma3nForCausalLM"]}, weight | old)
    server.set_faults()
    inspection = inspect(place.format(url=server.url))
    assert inspection.verdict == local.verdict
    assert local.verdict.outcome == "degraded"
    plan = plan_export(inspection)
    assert [edit.action for edit in plan.changes] == ["renamed"] * 4
    options = WriteOptions(overlay=True)
    predicted = prepare_export(plan, tmp_path / "out", options).plan
    result = write_export(plan, tmp_path / "out", options=options)
    assert sum(request["bytes"] for request in server.requests() if ".safetensors" in request["path"]) < 20_000
    assert result.verdict_after == predicted.verdict_predicted
    assert result.verdict_after.text == (
        "4 of 8 k and v scales reach the 2 attention layers of vLLM 0.33.0, but the other 4 end nowhere."
    )
    assert predicted.notes[-1] == (
        "Old names stay in their shards, where vLLM 0.33.0 makes nothing of them: the verdict counts them as scales "
        "that end nowhere."
    )
    stored = tensors_of(source / "model.safetensors")
    added = tensors_of(tmp_path / "out" / "model-kvscales.safetensors")
    assert added == {key.replace("k_proj.output", "k").replace("v_proj.output", "v"): stored[key] for key in old}
    shutil.copytree(source, tmp_path / "both")
    shutil.copytree(tmp_path / "out", tmp_path / "both", dirs_exist_ok=True)
    both = inspect(tmp_path / "both")
    assert both.verdict == result.verdict_after
    assert [(layer.final["k"], layer.final["v"]) for layer in both.deliveries.attention] == [
        (2.0**-3, 2.0**-4),
        (2.0**-5, 2.0**-6),
    ]


@pytest.mark.usefixtures("whole")
def test_what_is_wrong_with_a_file_at_an_address_names_the_address(
    server: Server, hub_root: Path, tmp_path: Path
) -> None:
    """And not where its copy lies on this machine."""
    for name in ("alike", "bare"):
        shutil.rmtree(hub_root / "org" / name, ignore_errors=True)
    look(hub_root / "org" / "alike", llama(COMPRESSED), GOOD | {K0.replace("k_scale", "k_proj.k_scale"): 0.5})
    look(hub_root / "org" / "bare", {}, {"weight": 1.0})

    ways: dict[str, Callable[[Inspection], ExportPlan]] = {
        "alike": lambda inspection: plan_export(inspection, names="portable"),
        "bare": lambda inspection: plan_export(inspection, fixes=[Fix("declare")], scales_from="hf://org/llama"),
    }
    for name, way in ways.items():
        for address in (f"hf://org/{name}", f"{server.url}/files/org/{name}/model.safetensors"):
            inspection = inspect(address)
            with pytest.raises(KVScopeError) as error:
                way(inspection)
            assert str(error.value).startswith(address)
            assert str(tmp_path) not in str(error.value)
    (hub_root / "org" / "alike" / "config.json").write_text("{")
    with pytest.raises(KVScopeError) as broken:
        open_checkpoint("hf://org/alike").config("config.json")
    assert str(broken.value).startswith("hf://org/alike: config.json: is not valid JSON")
