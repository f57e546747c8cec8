"""Conversions between naming conventions: followed as asked, values kept, configs made to agree."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from core.diagnosis import Thresholds
from core.errors import ExportError
from core.export import plan_export, write_export
from core.export.config_files import ConfigDraft
from core.export.fixes import Fix
from core.export.names import CONVENTIONS
from core.export.report import plan_as_data, plan_text
from core.inspection import Inspection, inspect
from core.naming.conventions import recognise
from core.naming.scales import KVScale
from tests.core.diagnosis.build import COMPRESSED, MODELOPT, PER_HEAD, Folder, Tensor, llama, look, scales
from tests.core.diagnosis.examples import GOOD, K0
from tests.places import CHECKPOINTS, SAMPLES

ROUND = ("portable", "modelopt", "quark", "compressed-tensors", "portable")
CONVERTED = [
    SAMPLES / "modelopt/qwen3-36layers-fp8-kvfp8",
    SAMPLES / "llmcompressor/llama-32layers-kv_attn_head",
    SAMPLES / "llmcompressor/llama-attn_fp8_tensor",
    SAMPLES / "quark/gemma3-26layers-fp8-kvfp8",
    CHECKPOINTS / "llmcompressor/whisper-kvonly",
    CHECKPOINTS / "llmcompressor/gemma3vlm-fp8-kv",
    CHECKPOINTS / "llmcompressor/nemotronh-kvonly",
    CHECKPOINTS / "modelopt/phi3-fp8-kvfp8",
    CHECKPOINTS / "quark/llama-fp8-kvfp8",
    CHECKPOINTS / "quark/qwen3-fp8-kvfp8",
]
SHAPES: dict[str, set[tuple[int, ...]]] = {
    "modelopt": {()},
    "quark": {()},
    "compressed-tensors": {(1,)},
    "vllm-runtime": {()},
}


def by_place(found: Sequence[KVScale]) -> dict[tuple[str, str, str], tuple[str, tuple[float, ...]]]:
    """Type and values by module, role and kind: all that a conversion must keep."""
    return {(scale.module, scale.role, scale.kind): (scale.dtype, scale.values) for scale in found}


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)  # NaN equals NaN


@pytest.mark.parametrize("source", CONVERTED, ids=lambda path: path.name)
def test_a_round_through_all_conventions_keeps_every_value(source: Path, tmp_path: Path) -> None:
    inspection = inspect(source)
    start = by_place(inspection.scales)
    names: list[set[str]] = []
    for number, convention in enumerate(ROUND):
        plan = plan_export(inspection, names=convention)
        result = write_export(plan, tmp_path / str(number))
        inspection = result.after
        assert same(by_place(inspection.scales), start), convention
        names.append({scale.key for scale in inspection.scales})
        named = [scale for scale in inspection.scales if scale.role in {"k", "v"} and scale.kind == "scale"]
        wanted = "portable" if convention == "compressed-tensors" else convention
        assert {scale.convention for scale in named} == {wanted}
        either: set[tuple[int, ...]] = {(), (1,)}
        shapes = {scale.shape for scale in named if scale.numel == 1}
        assert shapes <= SHAPES.get(convention, either)
    assert names[0] == names[4]
    assert names[0].isdisjoint({name for name in names[1] if name.endswith(("k_scale", "v_scale"))})
    weights = {name for name in inspection.checkpoint.catalog.names if not name.endswith(("_scale", "zero_point"))}
    assert weights <= set(inspect(source).checkpoint.catalog.names)


def test_every_real_checkpoint_goes_round_on_paper(checkpoint_folder: Path) -> None:
    """Each convention is planned for each checkpoint: names of that convention, and no value changes."""
    inspection = inspect(checkpoint_folder)
    for convention in CONVENTIONS:
        plan = plan_export(inspection, names=convention.id)
        assert plan.asked
        assert not any(edit.values for edit in plan.edits)
        for edit in plan.edits:
            twice = edit.action == "dropped" and "under another name already" in edit.reason
            assert twice or edit.action in {"kept", "renamed", "reshaped", "duplicated"}, edit
            found, old = recognise(edit.new_key or ""), recognise(edit.key)
            if edit.action == "renamed" and found is not None and old is not None:
                assert (found.module, found.kind, found.layer) == (old.module, old.kind, old.layer), edit
                assert found.convention.id == {"compressed-tensors": "portable"}.get(convention.id, convention.id)


@pytest.mark.parametrize("first", ["as-is", "vllm-runtime"])
def test_zero_points_keep_their_names_where_the_convention_has_none_and_the_plan_says_so(
    first: str, tmp_path: Path
) -> None:
    before = write_export(
        plan_export(inspect(SAMPLES / "llmcompressor/llama-attn_fp8_tensor"), names=first), tmp_path / "first"
    ).after
    zero_points = {scale.key for scale in before.scales if scale.kind == "zero_point"}
    assert len(zero_points) == 6
    plan = plan_export(before, names="modelopt")
    kept = {edit.key for edit in plan.edits if edit.action == "kept"}
    (told,) = (note for note in plan.notes if "has no name for zero points" in note)
    assert kept == zero_points
    assert told == (
        f"The convention 'modelopt' has no name for zero points: 6 keep the names that they have "
        f"({min(zero_points)}). They are all zero; --fix zero-points leaves them out."
    )
    record = json.loads((write_export(plan, tmp_path / "kept").out / "kvscope-export.json").read_text())
    assert told in record["notes"]
    without = plan_export(before, names="modelopt", fixes=[Fix("zero-points")])
    assert not any("zero point" in note for note in without.notes)
    after = write_export(without, tmp_path / "without").after
    assert not any(scale.kind == "zero_point" for scale in after.scales)


def test_zero_points_that_are_not_zero_are_not_offered_to_be_left_out(tmp_path: Path) -> None:
    made = {**GOOD, K0.replace("k_scale", "k_zero_point"): Tensor([3.0], (1,))}
    folder = look(tmp_path / "made", llama(COMPRESSED), made)
    (told,) = (note for note in plan_export(folder, names="modelopt").notes if "no name for zero points" in note)
    assert told.endswith("Not all of them are zero, and without them the scales do not fit.")
    assert not any("zero point" in note for note in plan_export(folder, names="quark").notes)


def test_a_common_scale_is_split_where_a_convention_has_none(tmp_path: Path) -> None:
    common = {f"model.layers.{layer}.self_attn.kv_scale": 0.03 for layer in range(2)}
    plan = plan_export(look(tmp_path / "made", llama(COMPRESSED), common), names="modelopt")
    assert sorted((edit.action, str(edit.new_key)) for edit in plan.edits if "layers.0" in edit.key) == [
        ("duplicated", "model.layers.0.self_attn.v_proj.v_scale"),
        ("renamed", "model.layers.0.self_attn.k_proj.k_scale"),
    ]
    assert write_export(plan, tmp_path / "out").verdict_after.outcome == "ok"


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1), ()])
@pytest.mark.parametrize(
    ("convention", "wanted"),
    [("modelopt", ()), ("quark", ()), ("compressed-tensors", (1,)), ("portable", None), ("vllm-runtime", ())],
)
def test_one_number_takes_the_shape_of_the_convention(
    tmp_path: Path, shape: tuple[int, ...], convention: str, wanted: tuple[int, ...] | None
) -> None:
    tensors = {key: Tensor([0.03], shape) for key in GOOD}
    result = write_export(
        plan_export(look(tmp_path / "made", llama(MODELOPT), tensors), names=convention), tmp_path / "out"
    )
    expected: tuple[int, ...] = wanted if wanted is not None else shape if len(shape) < 2 else (1,)
    assert {scale.shape for scale in result.after.scales} == {expected}


def test_what_a_convention_has_no_name_for_stays_and_is_said(shared: Path) -> None:
    plan = plan_export(inspect(shared / "checkpoints/quark/llama-fp8-kvfp8-attnfp8"), names="modelopt")
    kept = [edit.key for edit in plan.edits if edit.action == "kept"]
    assert [key.rpartition(".")[2] for key in kept] == ["prob_output_scale"] * 2
    assert ("modelopt has no name for the scale of prob", tuple(kept)) in [
        (found.reason, found.keys) for found in plan.unreachable
    ]


def test_a_cache_quantized_alone_changes_its_method_with_its_names(shared: Path, tmp_path: Path) -> None:
    plan = plan_export(inspect(shared / "checkpoints/modelopt/llama-bf16-kvfp8"), names="compressed-tensors")
    assert plan.verdict_before.outcome == "fails"
    assert plan.verdict_predicted.outcome == "ok"
    fields = {change.field: change.after for edit in plan.config_edits for change in edit.changes}
    assert fields["quantization_config.quant_method"] == "compressed-tensors"
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert {scale.key for scale in result.after.scales} == {
        f"model.layers.{layer}.self_attn.{role}_scale" for layer in range(2) for role in "kv"
    }


def test_a_method_that_describes_weights_stays(samples: Path) -> None:
    for convention in ("compressed-tensors", "quark"):
        plan = plan_export(inspect(samples / "modelopt/qwen3-36layers-fp8-kvfp8"), names=convention)
        assert plan.config_edits == ()


def undeclared(path: Path, quantization: Mapping[str, object]) -> Inspection:
    silent = {name: value for name, value in quantization.items() if name != "kv_cache_scheme"}
    return look(path, llama(silent), GOOD)


def test_a_scheme_that_nothing_declared_follows_the_names(tmp_path: Path) -> None:
    plan = plan_export(undeclared(tmp_path / "ct", COMPRESSED), names="compressed-tensors")
    assert [c.field for edit in plan.config_edits for c in edit.changes] == ["quantization_config.kv_cache_scheme"]
    plan = plan_export(undeclared(tmp_path / "mo", MODELOPT), names="modelopt")
    assert [c.field for edit in plan.config_edits for c in edit.changes] == ["quantization_config.kv_cache_quant_algo"]
    assert plan.verdict_predicted.outcome == "ok"


def test_mla_is_said_to_be_out_of_reach_under_every_name(samples: Path) -> None:
    for convention in ("portable", "modelopt", "vllm-runtime"):
        plan = plan_export(inspect(samples / "modelopt/deepseekv3-30layers-fp8-kvfp8"), names=convention)
        (unreachable,) = plan.unreachable
        assert len(unreachable.keys) == 60
        assert unreachable.reason == (
            "no spelling leads to the parameters of vLLM 0.33.0's MLAAttention layers: its own renaming goes past them"
        )


def test_each_engine_is_a_target(samples: Path) -> None:
    inspection = inspect(samples / "quark/gemma3-26layers-fp8-kvfp8", kv_cache_dtype="fp8")
    for engine, names in (("vllm-0.33.0", "portable"), ("vllm-0.23.0", "as-is"), ("sglang-0.5.23", "as-is")):
        plan = plan_export(inspection, engine=engine)
        assert (plan.engine, plan.names, plan.asked) == (engine, names, False)
        assert plan.predicted.load.outcome == "loads"


def test_garbage_that_would_arrive_is_warned_of() -> None:
    """SGLang passes over the names of Whisper's scales; under names that land, the uninitialised ones stop it."""
    inspection = inspect(CHECKPOINTS / "llmcompressor/whisper-kvonly", engine="sglang-0.5.23", kv_cache_dtype="fp8")
    plan = plan_export(inspection)
    assert (plan.verdict_before.outcome, plan.verdict_predicted.outcome) == ("degraded", "fails")
    assert plan.notes[-1] == (
        "SGLang 0.5.23 passes these scales over as they are; under names that it takes, it stops at "
        "decoder.layers.0.encoder_attn.attn: mend their values as well, or keep the names (--names as-is)."
    )
    mended = plan_export(inspection, fixes=[Fix("uninitialised", "median")])
    assert mended.verdict_predicted.outcome != "fails"
    assert not any("passes these scales over" in note for note in mended.notes)


# ---------------------------------------------------------------------------------------------------- config files
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_diff_of_a_config_shows_what_changes_and_nothing_else(tmp_path: Path, end: str) -> None:
    inspection = look(tmp_path, llama(COMPRESSED), GOOD)
    text = (json.dumps(llama(COMPRESSED), indent=4) + "\n").replace("\n", end)
    (tmp_path / "config.json").write_text(text, newline="")
    draft = ConfigDraft(inspect(tmp_path).checkpoint)
    assert draft.set("config.json", ("quantization_config", "kv_cache_scheme", "symmetric"), False, "Because.")
    assert not draft.set("config.json", ("quantization_config", "kv_cache_scheme", "symmetric"), False, "Because.")
    (edit,) = draft.edits()
    assert edit.reason == "Because."
    assert edit.text == text.replace('"symmetric": true', '"symmetric": false')
    assert [line for line in edit.diff.splitlines()[2:] if line[0] in "+-"] == [
        '-            "symmetric": true,',
        '+            "symmetric": false,',
    ]
    assert draft.declaration().kv_scheme is not None
    assert draft.declaration().kv_scheme.symmetric is False  # type: ignore[union-attr]
    assert inspection.declaration.kv_scheme.symmetric is True  # type: ignore[union-attr]


def test_a_config_on_one_line_has_a_diff_that_can_be_read(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(COMPRESSED), GOOD)
    draft = ConfigDraft(inspection.checkpoint)
    draft.set("config.json", ("vocab_size",), 7, "Because.")
    (edit,) = draft.edits()
    assert edit.text == json.dumps(llama(COMPRESSED) | {"vocab_size": 7})
    assert '-  "vocab_size": 128,' in edit.diff.splitlines()


def test_a_second_config_follows_the_first(tmp_path: Path) -> None:
    """AutoRound writes the quantization dict twice."""
    tensors = {key: Tensor([0.03, 0.02], [2]) for key in GOOD}
    files = {"quantization_config.json": PER_HEAD}
    folder = Folder(tmp_path, llama(PER_HEAD), {"model.safetensors": tensors}, files=files)
    plan = plan_export(inspect(folder.write()), fixes=[Fix("per-head")])
    assert {edit.file: [change.after for change in edit.changes] for edit in plan.config_edits} == {
        "config.json": ["tensor"],
        "quantization_config.json": ["tensor"],
    }


def test_control_characters_in_a_config_do_not_matter(tmp_path: Path) -> None:
    look(tmp_path, llama(COMPRESSED), GOOD)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"llama"', '"lla\tma"'))
    draft = ConfigDraft(inspect(tmp_path).checkpoint)
    draft.set("config.json", ("vocab_size",), 7, "Because.")
    assert json.loads(draft.edits()[0].text)["model_type"] == "lla\tma"


def test_the_users_limits_hold_for_the_result(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(MODELOPT), GOOD, thresholds=Thresholds(notable=0.02))
    plan = plan_export(inspection, fixes=[Fix("above-half", "0.015")])
    assert {edit.values for edit in plan.edits if edit.values} == {(0.014999999664723873,)}
    assert "above-half" not in {found.code for found in plan.findings_predicted}
    assert "above-half" in {found.code for found in plan_export(inspection).findings_predicted}


def test_configs_that_cannot_be_changed_say_so(tmp_path: Path) -> None:
    draft = ConfigDraft(look(tmp_path, llama(COMPRESSED), GOOD).checkpoint)
    with pytest.raises(ExportError) as error:
        draft.set("config.json", ("vocab_size", "inner"), 7, "Because.")
    assert str(error.value) == (
        f"{tmp_path / 'config.json'}: vocab_size is no object, and inner cannot be written into it. Correct the file"
    )
    assert draft.value("config.json", ("absent", "field")) is None
    assert draft.value("absent.json", ("field",)) is None
    draft.set("config.json", ("vocab_size",), 7, "Because.")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ExportError) as error:
        draft.edits()
    assert str(error.value) == (
        f"{tmp_path / 'config.json'}: cannot be written anew. It changed since the checkpoint was opened; open it again"
    )


# -------------------------------------------------------------------------------------------------- hostile folders
@pytest.mark.parametrize("name", ["with a space", "Schlüssel-Ω-模型", "quote'\"$(id)", "-leading"])
def test_odd_names_of_folders(name: str, tmp_path: Path) -> None:
    folder = Folder(tmp_path / name, llama(MODELOPT), {"model.safetensors": scales([0.03, 0.04], [0.0, 0.02])}).write()
    plan = plan_export(inspect(folder), names="modelopt")
    result = write_export(plan, tmp_path / f"{name} out")
    assert {scale.key for scale in result.after.scales} >= {"model.layers.0.self_attn.k_proj.k_scale"}
    assert json.loads((tmp_path / f"{name} out" / "kvscope-export.json").read_text())["source"] == name


def test_odd_names_of_tensors(tmp_path: Path) -> None:
    odd = {"modèle.layers.0.self attn.k_scale": 0.03, "模型.layers.0.self_attn.v_scale": 0.02}
    plan = plan_export(look(tmp_path / "made", llama(COMPRESSED), GOOD | odd), names="modelopt")
    keys = {edit.new_key for edit in plan.edits}
    assert {"modèle.layers.0.self attn.k_proj.k_scale", "模型.layers.0.self_attn.v_proj.v_scale"} <= keys
    result = write_export(plan, tmp_path / "out")
    assert keys == {scale.key for scale in result.after.scales}


# ------------------------------------------------------------------------------------------------------- the report
def test_the_plan_tells_its_repairs_and_what_is_left(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(MODELOPT), {K0: 0.03} | scales([None, 0.0], [0.0, 0.02]))
    plan = plan_export(inspection)
    assert "  can be mended: Scales of exactly zero: --fix zero=median|other|NUMBER|PATH|drop" in plan_text(plan)
    data = plan_as_data(plan)
    assert data["repairs_left"] == ["--fix zero=median|other|NUMBER|PATH|drop"]
    assert (data["names_asked"], data["fixes"]) == (False, [])
