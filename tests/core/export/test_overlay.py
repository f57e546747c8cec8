"""Overlays: one small shard more, where the engine takes it and makes nothing of what stays."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import ExportError
from core.export import ConfigEdit, ExportPlan, TensorEdit, WriteOptions, plan_export, prepare_export, write_export
from core.export.fixes import Fix
from core.export.judging import judge_beside
from core.export.overlay import HONOURED_BY
from core.inspection import inspect
from tests.core.diagnosis.build import COMPRESSED, llama, look
from tests.core.export.exporting import Tensor, bytes_of, float32, left_in, made_from, plan_of, tensors_of

LLAMA = Path(__file__).parents[2] / "checkpoints/quark/llama-fp8-kvfp8"
OVERLAY = WriteOptions(overlay=True)


def lost_layer(folder: Path) -> Path:
    """The Llama without the scales of its first layer."""

    def change(tensors: dict[str, Tensor]) -> None:
        for role in "kv":
            del tensors[f"model.layers.0.self_attn.{role}_proj.output_scale"]

    return made_from(LLAMA, folder, change)


@pytest.fixture
def plan(tmp_path: Path) -> ExportPlan:
    source = lost_layer(tmp_path / "source")
    return plan_export(inspect(source, kv_cache_dtype="fp8"), scales_from=str(LLAMA))


def test_missing_scales_come_in_a_shard_of_their_own(plan: ExportPlan, tmp_path: Path) -> None:
    before = bytes_of(plan.root)
    result = write_export(plan, tmp_path / "out", options=OVERLAY)
    assert result.verdict_after == plan.verdict_predicted
    assert result.verdict_after.outcome == "ok"
    assert (tmp_path / "out" / "model.safetensors").samefile(plan.root / "model.safetensors")
    assert result.linked == len(before["model.safetensors"])
    added = tensors_of(tmp_path / "out" / "model-kvscales.safetensors")
    original = tensors_of(LLAMA / "model.safetensors")
    assert len(added) == 2
    values = {original[f"model.layers.0.self_attn.{role}_proj.output_scale"][2] for role in "kv"}
    assert {data[2:] for _, _, data in added.values()} == values  # bfloat16 is the upper half of F32
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert {key for key, file in index["weight_map"].items() if file == "model-kvscales.safetensors"} == set(added)
    assert len(index["weight_map"]) == len(original)
    both = [*added.values(), *tensors_of(plan.root / "model.safetensors").values()]
    assert index["metadata"]["total_size"] == sum(len(data) for _, _, data in both)
    assert result.after.checkpoint.index is not None
    assert result.after.checkpoint.index.agrees
    record = json.loads((tmp_path / "out" / "kvscope-export.json").read_text())
    assert {row["overlay"] for row in record["tensors"]} == {"model-kvscales.safetensors"}
    assert bytes_of(plan.root) == before


@pytest.mark.parametrize("engine", HONOURED_BY)
def test_each_vllm_ends_with_the_scales_of_an_overlay(engine: str, tmp_path: Path) -> None:
    source = lost_layer(tmp_path / "source")
    before = inspect(source, engine=engine, kv_cache_dtype="fp8")
    plan = plan_export(before, scales_from=str(LLAMA))
    assert before.verdict.outcome == "degraded"
    result = write_export(plan, tmp_path / "out", options=OVERLAY)
    assert result.after.settings.engine.value == engine
    assert result.verdict_after.outcome == "ok"
    expected = inspect(LLAMA, engine=engine, kv_cache_dtype="fp8").deliveries.attention
    assert [layer.final for layer in result.after.deliveries.attention] == [layer.final for layer in expected]


@pytest.mark.parametrize("odd", ["", "\ufeff", "\t\x01"])
def test_an_overlay_can_be_laid_over_an_overlay(plan: ExportPlan, tmp_path: Path, odd: str) -> None:
    write_export(plan, tmp_path / "out", options=replace(OVERLAY, mode="copy"))
    old = tmp_path / "out" / "model.safetensors.index.json"
    text = old.read_text()  # a byte order mark, control characters in a string: it opens all the same
    old.write_text(odd + text if odd == "\ufeff" else text.replace("{", f'{{"by": "{odd}",', 1))
    second = plan_of(tmp_path / "out")
    extra = TensorEdit(
        key="", file="model.safetensors", action="added", reason="a test", new_key="note.k", new_dtype="F32",
        new_shape=(1,), values=(2.0,),
    )  # fmt: skip
    result = write_export(replace(second, edits=(extra,)), tmp_path / "again", options=replace(OVERLAY, mode="copy"))
    assert list(tensors_of(tmp_path / "again" / "model-kvscales-2.safetensors")) == ["note.k"]
    index = json.loads((tmp_path / "again" / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["note.k"] == "model-kvscales-2.safetensors"
    assert result.after.checkpoint.index is not None
    assert result.after.checkpoint.index.agrees


def test_configs_and_an_index_that_was_mended_come_along(plan: ExportPlan, tmp_path: Path) -> None:
    write_export(plan, tmp_path / "out", options=replace(OVERLAY, mode="copy"))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    edits = tuple(
        ConfigEdit(file=file, changes=(), text=json.dumps(value), diff="", reason="a test")
        for file, value in (("model.safetensors.index.json", index | {"metadata": {"mended": 1}}), ("new.json", {}))
    )
    extra = TensorEdit(
        key="", file="model.safetensors", action="added", reason="a test", new_key="note.k", new_dtype="F32",
        new_shape=(1,), values=(2.0,),
    )  # fmt: skip
    second = replace(plan_of(tmp_path / "out"), edits=(extra,), config_edits=edits)
    write_export(second, tmp_path / "again", options=replace(OVERLAY, mode="copy"))
    written = json.loads((tmp_path / "again" / "model.safetensors.index.json").read_text())
    assert written["metadata"] == {"mended": 1}
    assert "note.k" in written["weight_map"]
    assert (tmp_path / "again" / "new.json").read_text() == "{}"


def test_an_overlay_of_nothing_links_all_shards(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = write_export(plan_of(LLAMA), out, options=replace(OVERLAY, mode="copy"))
    assert set(bytes_of(out)) == {*bytes_of(LLAMA), "kvscope-export.json"}
    assert result.linked == 0


def refused(plan: ExportPlan, out: Path, message: str) -> None:
    with pytest.raises(ExportError) as error:
        prepare_export(plan, out, OVERLAY)
    assert str(error.value) == message
    with pytest.raises(ExportError):
        write_export(plan, out, options=OVERLAY)
    assert left_in(out.parent) in (["source"], [])


def test_old_names_that_raise_are_no_ground_for_an_overlay(samples: Path, tmp_path: Path) -> None:
    refused(
        plan_of(samples / "quark/gemma3-26layers-fp8-kvfp8"),
        tmp_path / "out",
        "model.safetensors, key 'model.layers.0.self_attn.k_proj.output_scale': vLLM 0.33.0 raises AttributeError: "
        "'QKVParallelLinear' object has no attribute 'data', and an overlay leaves the key in its shard. Export "
        "without --overlay.",
    )


def test_old_names_that_load_are_no_ground_for_an_overlay(tmp_path: Path) -> None:
    refused(
        plan_of(LLAMA, names="portable"),
        tmp_path / "out",
        "model.safetensors, key 'model.layers.0.self_attn.k_proj.output_scale': vLLM 0.33.0 loads it into "
        "model.layers.0.self_attn.attn.k_scale, and an overlay leaves the key in its shard. Export without --overlay.",
    )


def test_a_tensor_that_keeps_its_name_is_no_ground_for_an_overlay(plan: ExportPlan, tmp_path: Path) -> None:
    key = "model.layers.1.self_attn.k_proj.output_scale"
    edit = TensorEdit(
        key=key,
        file="model.safetensors",
        action="renamed",
        reason="a test",
        new_key=key,
        values=(1.0,),
        new_dtype="F32",
    )
    refused(
        replace(plan, edits=(*plan.edits, edit)),
        tmp_path / "out",
        f"model.safetensors, key '{key}': the tensor changes and keeps its name, and an overlay leaves the old one in "
        "its shard. Export without --overlay.",
    )


def test_an_engine_that_was_not_seen_to_honour_one_gets_none(tmp_path: Path) -> None:
    source = lost_layer(tmp_path / "source")
    plan = plan_export(inspect(source, engine="sglang-0.5.23", kv_cache_dtype="fp8_e4m3"))
    assert plan.engine not in HONOURED_BY
    refused(
        plan, tmp_path / "out", f"{source}: SGLang 0.5.23 was not seen to honour an overlay. Export without --overlay."
    )


def test_an_engine_that_would_end_elsewhere_is_noticed(plan: ExportPlan, tmp_path: Path) -> None:
    wrong = replace(plan, predicted=replace(plan.predicted, attention=plan.predicted.attention[:1]))
    refused(
        wrong,
        tmp_path / "out",
        f"{plan.root}: vLLM 0.33.0 would not end with the planned scales, as the old names stay beside the new. "
        "Export without --overlay.",
    )


@pytest.fixture
def misled(plan: ExportPlan) -> ExportPlan:
    """A plan whose configs lead the engine elsewhere."""
    edit = ConfigEdit(
        file="config.json", changes=(), text='{"architectures": ["Qwen3ForCausalLM"]}', diff="", reason=""
    )
    return replace(plan, config_edits=(edit,))


def test_configs_that_lead_elsewhere_are_noticed_before_anything_is_written(misled: ExportPlan, tmp_path: Path) -> None:
    refused(
        misled,
        tmp_path / "out",
        f"{misled.root}: vLLM 0.33.0 would not end with the planned scales, as the old names stay beside the new. "
        "Export without --overlay.",
    )


def test_a_result_that_ends_elsewhere_is_taken_back(
    misled: ExportPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.export.overlay._refuse_what_stays", lambda *_: None)  # as if it had not been noticed
    with pytest.raises(
        ExportError, match=r"out: vLLM 0.33.0 does not end with the planned scales. Export without --ov"
    ):
        write_export(misled, tmp_path / "out", options=OVERLAY)
    assert left_in(tmp_path) == ["source"]


def test_a_dry_run_refuses_what_the_run_refuses(shared: Path, tmp_path: Path) -> None:
    """The engine refuses this checkpoint until its cache is declared, and then loads the old names."""
    side = tmp_path / "side.json"
    side.write_text(json.dumps({"kv_cache": {"scaling_factor": {"0": {"0": 0.5, "1": 0.25}}}}))
    before = inspect(shared / "checkpoints/modelopt/llama-bf16-kvfp8", engine="vllm-0.22.1", kv_cache_dtype="fp8")
    plan = plan_export(before, names="vllm-runtime", fixes=[Fix("declare")], scales_from=str(side))
    assert plan.verdict_before.outcome == "fails"
    said = "vLLM 0.22.1 loads it into model.layers.0.self_attn.attn.k_scale, and an overlay leaves the key in its shard"
    for refusing in (prepare_export, write_export):
        with pytest.raises(ExportError, match=said):
            refusing(plan, tmp_path / "out", options=OVERLAY)
    assert left_in(tmp_path) == ["side.json"]


@pytest.mark.parametrize(
    ("name", "engine"),
    [("llmcompressor/llama-kv_int8_sym", "vllm-0.33.0"), ("llmcompressor/llama-fp8-attn_fp8", "vllm-0.22.1")],
)
def test_an_engine_that_does_not_load_the_model_proves_no_overlay(
    name: str, engine: str, shared: Path, tmp_path: Path
) -> None:
    """It refuses the one, and stops at the other before it comes to the names that stay."""
    plan = plan_export(inspect(shared / "checkpoints" / name, engine=engine), names="quark")
    assert plan.verdict_predicted.outcome == "fails"
    refused(
        plan,
        tmp_path / "out",
        "model.safetensors, key 'model.layers.0.self_attn.k_scale': what vLLM "
        f"{engine.removeprefix('vllm-')} makes of it is not known, and an overlay leaves the key in its shard. "
        "Export without --overlay.",
    )


def test_an_overlay_is_predicted_in_the_order_in_which_it_is_read(tmp_path: Path) -> None:
    """The overlay's file comes before the shard's."""
    old = {f"model.layers.{layer}.self_attn.{role}_proj.output_scale": 0.03 for layer in range(2) for role in "kv"}
    config = llama(COMPRESSED) | {"architectures": ["Gemma3nForCausalLM"]}
    plan = plan_export(look(tmp_path / "source", config, old))
    predicted = judge_beside(plan, {})
    after = write_export(plan, tmp_path / "out", options=OVERLAY).after
    assert [tensor.key for tensor in predicted.tensors] == [tensor.key for tensor in after.tensors]
    assert [scale.file for scale in predicted.scales] == [scale.file for scale in after.scales]
    assert predicted.verdict == after.verdict


def test_more_than_scales_is_too_much(plan: ExportPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.export.overlay._LARGEST", 3)
    refused(
        plan,
        tmp_path / "out",
        f"{plan.root}: more than scales would change, and an overlay is for scales. Export without --overlay.",
    )


def test_values_of_the_right_type_are_written(plan: ExportPlan, tmp_path: Path) -> None:
    edits = tuple(
        replace(edit, values=(0.5,), new_dtype="F32") if edit.action == "added" else edit for edit in plan.edits
    )
    prepared = prepare_export(replace(plan, edits=edits), tmp_path / "out", OVERLAY)
    assert prepared.overlay == "model-kvscales.safetensors"
    (tmp_path / "overlay").write_bytes(prepared.texts[prepared.overlay])
    assert set(tensors_of(tmp_path / "overlay").values()) == {float32(0.5)}
