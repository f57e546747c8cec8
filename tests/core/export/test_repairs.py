"""Repairs: each an explicit choice, with its reason, applied to what findings name and to nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from core.diagnosis import BY_ITSELF, RULES, WISHES, options_of
from core.diagnosis.options import usage
from core.errors import KVScopeError, UsageError
from core.export import ExportPlan, plan_export, write_export
from core.export.config_files import ConfigDraft
from core.export.declaring import declare_fp8
from core.export.fixes import Fix, parse_fixes
from core.inspection import Inspection, inspect
from tests.core.diagnosis.build import COMPRESSED, MODELOPT, Folder, Tensor, finding, llama, look, scales
from tests.core.diagnosis.examples import EXAMPLES, GOOD, K0, K1, V0, V1
from tests.core.export.exporting import said_by, tensors_of
from tests.core.spoken import left_in_english
from tests.places import CHECKPOINTS, SAMPLES

CODES = sorted({rule.code for rule in RULES})
LOSES = {  # what cannot be mended by that choice in the example, and what is then said
    ("exactly-one", "median"): "there is no sound k scale to take the median of",
    ("exactly-one", "other"): "the v scale of layer 0 cannot stand for k: it is 1.0, as doubtful itself",
    ("negative", "other"): "the v scale of layer 0 cannot stand for k: it is -1.0",
    ("outlier", "PATH"): "has no k scale for layer 3",
    ("pair-ratio", "PATH"): "has no k scale for layer 3",
}


@pytest.fixture
def side_file(tmp_path: Path) -> Path:
    path = tmp_path / "side.json"
    path.write_text(json.dumps({"kv_cache": {"scaling_factor": {"0": {"0": 0.03, "1": 0.04}}}}))
    return path


def mended(inspection: Inspection, *fixes: str, scales_from: str | None = None) -> ExportPlan:
    return plan_export(inspection, fixes=parse_fixes(fixes), scales_from=scales_from)


def values(plan: ExportPlan) -> dict[str, tuple[float, ...]]:
    """The values written anew, rounded for reading, by name."""
    return {edit.new_key or edit.key: tuple(round(v, 6) for v in edit.values) for edit in plan.edits if edit.values}


def refusal(inspection: Inspection, *fixes: str) -> str:
    with pytest.raises(UsageError) as error:
        mended(inspection, *fixes)
    return str(error.value)


@pytest.mark.parametrize("code", CODES)
def test_every_choice_of_every_finding(code: str, tmp_path: Path, side_file: Path) -> None:
    """Each choice either mends what the finding says, or one sentence says why it cannot."""
    inspection = EXAMPLES[code](tmp_path / "made")
    found = finding(inspection, code)
    for option in options_of(found):
        typed = {"NUMBER": "0.05", "xNUMBER": "x0.5", "PATH": str(side_file)}
        if code == "amax-stored" and option.value == "NUMBER":
            typed["NUMBER"] = "240"
        fix = Fix(code, typed.get(option.value, option.value))
        if (code, option.value) in LOSES:
            assert LOSES[code, option.value] in refusal(inspection, f"{fix.code}={fix.value}")
            continue
        plan = plan_export(inspection, fixes=[fix])
        (applied,) = plan.fixes
        assert (applied.code, applied.value) == (fix.code, fix.value)
        assert applied.reason.endswith(".")
        assert [left for text in said_by(plan) for left in left_in_english(text)] == []
        if found.remedy in BY_ITSELF:
            continue
        touched = {edit.key or edit.new_key for edit in plan.edits if code in edit.fixes}
        assert touched == set(applied.keys)
        assert touched or plan.config_edits
        for edit in plan.edits:
            assert code in edit.fixes or edit.action in {"kept", "renamed", "duplicated"}, edit
        assert option.value == "xNUMBER" or code not in {left.code for left in plan.findings_predicted}, option


def test_findings_with_a_repair_name_it(tmp_path: Path) -> None:
    for code in CODES:
        inspection = EXAMPLES[code](tmp_path / code)
        for found in inspection.findings:
            options = options_of(found)
            assert bool(options) == bool(found.remedy), code
            assert re.fullmatch(r"--fix [a-z-]+(\[?=[\w|]+\]?)?", usage(found.code, options)) if options else True


def test_the_median_leaves_doubtful_values_out(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(MODELOPT, layers=4), scales([0.03, 0.04, 0.05, 0.0], [0.01, 0.02, 0.02, 0.02]))
    plan = mended(inspection, "zero=median")
    key = "model.layers.3.self_attn.k_scale"
    assert values(plan) == {key: (0.04,)}
    assert [edit.action for edit in plan.edits if edit.key == key] == ["repaired"]
    (reason,) = {edit.reason for edit in plan.edits if edit.key == key}
    assert reason == (
        "Scales of exactly zero: 0.0 becomes 0.04, the median of the k scales. vLLM 0.33.0 loads "
        "model.layers.3.self_attn.k_scale into model.layers.3.self_attn.attn.k_scale."
    )
    assert plan.verdict_predicted.outcome == "ok"


def test_an_amax_is_divided_by_the_largest_number_of_the_format(tmp_path: Path) -> None:
    plan = mended(EXAMPLES["amax-stored"](tmp_path / "fp8"), "amax-stored")
    assert values(plan)[K0] == (round(15 / 448, 6),)
    plan = mended(EXAMPLES["amax-stored"](tmp_path / "own"), "amax-stored=240")
    assert values(plan)[V1] == (round(20 / 240, 6),)


def test_an_amax_under_a_name_of_its_own_becomes_a_scale_and_is_declared(tmp_path: Path) -> None:
    source = CHECKPOINTS / "modelopt/llama-fp8-kvfp8-hfsave"
    inspection = inspect(source, kv_cache_dtype="fp8")
    plan = mended(inspection, "amax-stored", "declare", "leftovers")
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    after = {scale.key: scale.values for scale in result.after.scales}
    for scale in inspection.scales:
        (stored,) = after[f"{scale.module}.{scale.role}_scale"]
        assert stored == pytest.approx(scale.values[0] / 448, rel=1e-7)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["kv_cache_scheme"] == {
        "num_bits": 8,
        "type": "float",
        "strategy": "tensor",
        "dynamic": False,
        "symmetric": True,
    }
    record = json.loads((tmp_path / "out" / "kvscope-export.json").read_text())
    assert [fix["code"] for fix in record["fixes"]] == ["declare", "amax-stored", "leftovers"]
    assert {(row["action"], *row["fixes"]) for row in record["tensors"]} == {
        ("repaired", "amax-stored"),
        ("dropped", "leftovers"),
    }


def test_what_quantizers_left_behind_can_be_left_out(tmp_path: Path) -> None:
    """Fed whole to vLLM 0.33.0, this checkpoint stops at the first of them; without them it loads."""
    inspection = inspect(CHECKPOINTS / "modelopt/llama-fp8-kvfp8-hfsave", kv_cache_dtype="fp8")
    plan = mended(inspection, "amax-stored", "declare")
    assert plan.verdict_predicted.outcome == "fails"
    assert plan.notes[0] == (
        "28 tensors that quantizers left behind (model.layers.0.mlp.down_proj.input_quantizer._amax) are no part of "
        "the model: vLLM 0.33.0 may stop at them. --fix leftovers leaves them out."
    )
    plan = mended(inspection, "amax-stored", "declare", "leftovers")
    assert not any("left behind" in note for note in plan.notes)
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    names = set(result.after.checkpoint.catalog.names)
    assert not any("quantizer" in name for name in names)
    assert len(names) == len(inspection.checkpoint.catalog) - 28


def test_scales_are_not_dropped_where_a_declaration_would_do(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(None), GOOD, kv_cache_dtype="fp8")
    plan = plan_export(inspection)
    assert {edit.action for edit in plan.edits} == {"kept"}
    assert plan.unreachable[0].reason.startswith("vLLM 0.33.0 gives Attention layers no parameters for scales")
    assert mended(inspection, "load-raises").verdict_predicted.outcome == "ok"


def test_a_reciprocal_is_inverted(tmp_path: Path) -> None:
    plan = mended(EXAMPLES["reciprocal-stored"](tmp_path), "reciprocal-stored")
    assert values(plan)[K1] == (0.025,)


def test_a_factor_applies_to_k_and_v_alone(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(COMPRESSED), scales([0.03, 0.04], [0.01, 0.02], q=[0.5, 0.5]))
    plan = mended(inspection, "factor=2")
    assert values(plan) == {K0: (0.06,), V0: (0.02,), K1: (0.08,), V1: (0.04,)}


def test_global_scales_of_an_nvfp4_cache_become_fp8_scales(shared: Path) -> None:
    inspection = inspect(shared / "checkpoints/quark/llama-fp8-kvnvfp4", kv_cache_dtype="fp8")
    plan = mended(inspection, "load-raises")
    for scale, edit in zip(inspection.scales, plan.edits, strict=True):
        assert edit.values[0] == pytest.approx(scale.values[0] * 6, rel=1e-7)
        assert edit.new_key == f"{scale.module}.{scale.role}_scale"
    assert plan.verdict_predicted.outcome == "ok"


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("llmcompressor/llama-kv_int8_sym", "quantization_config.kv_cache_scheme.type", "float"),
        (
            "quark/llama-fp8-kvint8sym",
            "quantization_config.kv_cache_quant_config.*k_proj.output_tensors.dtype",
            "fp8_e4m3",
        ),
    ],
)
def test_an_int8_cache_becomes_an_fp8_cache(shared: Path, tmp_path: Path, name: str, field: str, value: str) -> None:
    inspection = inspect(shared / "checkpoints" / name, kv_cache_dtype="fp8")
    assert inspection.deliveries.load.outcome == "refused"
    plan = mended(inspection, "load-refused")
    assert (field, value) in [(change.field, change.after) for edit in plan.config_edits for change in edit.changes]
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert {scale.kind for scale in result.after.scales} == {"scale"}
    before = {scale.key: scale.values[0] for scale in inspection.scales if scale.kind == "scale"}
    for scale in result.after.scales:
        assert scale.values[0] == pytest.approx(before[scale.key] * 127 / 448, rel=1e-6)


def test_an_int8_cache_in_other_words_is_not_declared_anew(tmp_path: Path) -> None:
    quantization = {"quant_method": "auto-round", "static_kv_dtype": "int8", "bits": 4, "group_size": 128}
    inspection = look(tmp_path, llama(quantization), GOOD)
    with pytest.raises(UsageError) as error:
        declare_fp8(ConfigDraft(inspection.checkpoint), inspection.declaration)
    assert str(error.value) == (
        "config.json: an INT8 cache is declared in words of which no FP8 counterpart is known. "
        "Calibrate the KV cache for FP8"
    )


def test_swapping_exchanges_the_values_of_each_layer(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(COMPRESSED), GOOD | {V0: Tensor([0.0625], [1], "BF16")})
    plan = mended(inspection, "swap")
    assert values(plan) == {K0: (0.0625,), V0: (0.03,), K1: (0.02,), V1: (0.04,)}


def test_one_scale_a_layer_in_place_of_one_a_head(tmp_path: Path) -> None:
    source = SAMPLES / "llmcompressor/llama-32layers-kv_attn_head"
    inspection = inspect(source)
    plan = mended(inspection, "per-head")
    assert len(plan.changes) == 64
    (config,) = plan.config_edits
    changes = [(change.field, change.before, change.after) for change in config.changes]
    assert changes == [("quantization_config.kv_cache_scheme.strategy", "attn_head", "tensor")]
    assert (config.diff.count("\n-"), config.diff.count("\n+")) == (1, 2)  # the one line, and the file's name
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    before = {scale.key: max(scale.values) for scale in inspection.scales}
    assert {scale.key: scale.values for scale in result.after.scales} == {k: (v,) for k, v in before.items()}
    assert {scale.shape for scale in result.after.scales} == {(1,)}
    (shard,) = {scale.file for scale in result.after.scales if scale.layer == 0}
    dtypes = {tensor[0] for name, tensor in tensors_of(tmp_path / "out" / shard).items() if name.endswith("k_scale")}
    assert dtypes == {"BF16"}  # the largest of them is exact in the stored type


def test_missing_scales_stand_beside_the_weights_of_their_layer(shared: Path, tmp_path: Path) -> None:
    plan = mended(inspect(shared / "checkpoints/modelopt/llama-fp8-kvfp8-layer0off"), "missing-scale=median")
    added = [edit for edit in plan.edits if edit.action == "added"]
    assert [edit.new_key for edit in added] == ["model.layers.0.self_attn.k_scale", "model.layers.0.self_attn.v_scale"]
    assert {(edit.file, edit.new_dtype, edit.new_shape) for edit in added} == {("model.safetensors", "F32", ())}
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert [layer.source["v"] for layer in result.after.deliveries.attention] == ["checkpoint", "checkpoint"]


def test_scales_are_set_where_none_were_stored(shared: Path, tmp_path: Path) -> None:
    plan = mended(inspect(shared / "checkpoints/llmcompressor/llama-kv_dynamic"), "dynamic-scheme=0.05")
    assert [(c.field, c.before, c.after) for edit in plan.config_edits for c in edit.changes] == [
        ("quantization_config.kv_cache_scheme.dynamic", True, False)
    ]
    assert write_export(plan, tmp_path / "out").verdict_after.outcome == "ok"


@pytest.mark.parametrize("engine", ["sglang-0.5.23", "vllm-0.33.0", "vllm-0.22.1"])
@pytest.mark.parametrize("scales_from", [None, "llmcompressor/llama-kvonly_tensor"])
def test_a_dynamic_scheme_becomes_static_before_scales_are_placed(
    engine: str, scales_from: str | None, shared: Path, tmp_path: Path
) -> None:
    inspection = inspect(shared / "checkpoints/llmcompressor/llama-kv_dynamic", engine=engine)
    fixes = [] if scales_from else ["dynamic-scheme=0.05"]
    source = str(shared / "checkpoints" / scales_from) if scales_from else None
    plan = mended(inspection, *fixes, scales_from=source)
    assert [edit.action for edit in plan.edits] == ["added"] * 4
    assert write_export(plan, tmp_path / "out").verdict_after.outcome == "ok"


def test_scales_for_a_checkpoint_that_declares_nothing(side_file: Path, tmp_path: Path) -> None:
    """Layers have a place for scales once the cache is declared; without it nothing is written that promises some."""
    weights = {name.replace("k_scale", "weight").replace("v_scale", "weight"): Tensor([1.0], (1,)) for name in GOOD}
    inspection = look(tmp_path / "plain", llama(None), weights)
    with pytest.raises(UsageError) as error:
        mended(inspection, scales_from=str(side_file))
    assert str(error.value) == (
        f"{side_file}: vLLM 0.33.0 gives these attention layers no parameters for scales. Add --fix declare where "
        "nothing declares the KV cache, or choose another engine"
    )
    plan = mended(inspection, "declare", scales_from=str(side_file))
    assert [fix.code for fix in plan.fixes] == ["declare", "scales-from"]
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert [layer.final["k"] for layer in result.after.deliveries.attention] == pytest.approx([0.03, 0.04])


@pytest.mark.parametrize("fix", ["load-refused", "declare"])
def test_scales_come_after_the_declaration_without_which_the_engine_builds_nothing(
    fix: str, shared: Path, side_file: Path, tmp_path: Path
) -> None:
    inspection = inspect(shared / "checkpoints/modelopt/llama-bf16-kvfp8")
    assert inspection.verdict.outcome == "fails"
    plan = mended(inspection, fix, scales_from=str(side_file))
    assert [fix.code for fix in plan.fixes] == [fix, "scales-from"]
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert [layer.final["k"] for layer in result.after.deliveries.attention] == pytest.approx([0.03, 0.04])


def test_a_doubtful_value_stands_for_no_other(shared: Path) -> None:
    inspection = inspect(shared / "checkpoints/llmcompressor/v0122-llama-fp8-kv_ignore_l0")
    assert "cannot stand for k: it is 2.7529e-21, as doubtful itself" in refusal(inspection, "uninitialised=other")


def test_a_cache_quantized_alone_is_declared_as_an_engine_takes_it(shared: Path, tmp_path: Path) -> None:
    plan = mended(inspect(shared / "checkpoints/modelopt/llama-bf16-kvfp8"), "load-refused")
    assert {edit.action for edit in plan.edits} == {"kept"}
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.text == "All 4 k and v scales reach the 2 attention layers of vLLM 0.33.0."
    kept = {"producer", "ignore"}
    before = plan.before.declaration.declared
    after = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}


def test_zero_points_that_are_all_zero_make_a_scheme_symmetric(tmp_path: Path) -> None:
    scheme = {**COMPRESSED["kv_cache_scheme"], "symmetric": False}  # type: ignore[dict-item]
    zeros = {f"{key}_zero_point".replace("_scale", ""): Tensor([0.0], [1]) for key in (K0, V0, K1, V1)}
    inspection = look(tmp_path / "made", llama(COMPRESSED | {"kv_cache_scheme": scheme}), GOOD | zeros)
    assert finding(inspection, "load-refused").remedy == "drop"
    plan = mended(inspection, "load-refused")
    assert [edit.action for edit in plan.edits].count("dropped") == 4
    assert [change.after for edit in plan.config_edits for change in edit.changes] == [True]
    assert plan.verdict_predicted.outcome == "ok"


def test_offsets_that_meant_something_are_missed(shared: Path) -> None:
    plan = mended(inspect(shared / "checkpoints/quark/llama-fp8-kvint8asym", kv_cache_dtype="fp8"), "load-raises")
    assert plan.notes[-2:] == (
        "The scales were calibrated together with the offsets left out: large values may be clipped.",
        (
            "The scales are those of INT8, one scale per tensor, static, with zero points, amax / 127; an FP8 cache "
            "wants amax / 448: --fix factor=0.2835 makes them so."
        ),
    )


def test_of_two_tensors_for_one_parameter_the_one_that_wins_stays(tmp_path: Path) -> None:
    inspection = EXAMPLES["conflict"](tmp_path)
    ends = inspection.deliveries.attention[0].final["k"]
    plan = mended(inspection, "conflict")
    (dropped,) = [edit.key for edit in plan.edits if edit.action == "dropped"]
    assert dropped == "model.layers.0.self_attn.k_proj.k_scale" or ends == plan.predicted.attention[0].final["k"]
    assert plan.predicted.attention[0].final["k"] == ends


def test_a_key_in_two_shards_stays_in_the_last(tmp_path: Path) -> None:
    inspection = EXAMPLES["duplicate-key"](tmp_path / "made")
    plan = mended(inspection, "duplicate-key")
    result = write_export(plan, tmp_path / "out")
    assert result.after.checkpoint.catalog.duplicates == ()
    assert "duplicate-key" not in {found.code for found in result.after.findings}
    names = set(inspection.checkpoint.catalog.names)
    assert set(result.after.checkpoint.catalog.names) == names
    assert result.after.checkpoint.index is None or result.after.checkpoint.index.agrees


def test_the_index_is_written_anew_where_it_disagrees(tmp_path: Path) -> None:
    inspection = EXAMPLES["index-disagrees"](tmp_path / "made")
    plan = mended(inspection, "index-disagrees")
    assert plan.changes == ()
    (config,) = plan.config_edits
    assert config.file == "model.safetensors.index.json"
    result = write_export(plan, tmp_path / "out")
    assert result.after.checkpoint.index is not None
    assert result.after.checkpoint.index.agrees
    assert "index-disagrees" not in {found.code for found in result.after.findings}
    renamed = write_export(plan_export(inspection, names="modelopt", fixes=[Fix("index-disagrees")]), tmp_path / "both")
    assert renamed.after.checkpoint.index is not None
    assert renamed.after.checkpoint.index.agrees


def test_an_overlay_that_the_index_left_out_is_entered(tmp_path: Path) -> None:
    inspection = EXAMPLES["unindexed-scales"](tmp_path / "made")
    assert inspection.verdict.outcome == "degraded"
    plan = mended(inspection, "unindexed-scales")
    assert "unindexed-scales" not in {found.code for found in plan.findings_predicted}
    assert plan.verdict_predicted.text.startswith("All 4 k and v scales reach")
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after == plan.verdict_predicted
    assert {scale.file for scale in result.after.scales} == {"model-kvscales.safetensors"}
    renamed = write_export(
        plan_export(inspection, names="modelopt", fixes=[Fix("unindexed-scales")]), tmp_path / "both"
    )
    assert renamed.verdict_after.outcome == result.verdict_after.outcome
    assert {scale.convention for scale in renamed.after.scales} == {"modelopt"}


def test_repairs_follow_each_other(tmp_path: Path) -> None:
    """Median and declaration see what other repairs left, in whatever order they are asked for."""
    made = {K0: 15.0, V0: 6.0, K1: 40.0, V1: 0.0}
    inspection = look(tmp_path, llama(MODELOPT), made)
    one = mended(inspection, "zero=median", "amax-stored")
    other = mended(inspection, "amax-stored", "zero=median")
    assert one.edits == other.edits
    assert values(one)[V1] == (round(6 / 448, 6),)


def test_what_another_repair_mended_is_left_alone(tmp_path: Path) -> None:
    amaxes = {f"model.layers.{n}.self_attn.{role}_bmm_quantizer._amax": 4.0 + n for n in (0, 1) for role in "kv"}
    inspection = look(tmp_path, llama(None), amaxes, kv_cache_dtype="fp8")
    plan = mended(inspection, "amax-stored", "load-raises", "declare")
    assert {value for edit in plan.edits for value in edit.values} == {
        edit.values[0] for edit in mended(inspection, "amax-stored", "declare").edits
    }
    (left,) = [fix for fix in plan.fixes if fix.code == "load-raises"]
    assert left.reason == "Nothing was left to do: another repair had mended it."


def test_wrong_fixes_are_refused_with_the_choices(tmp_path: Path) -> None:
    zero = EXAMPLES["zero"](tmp_path)
    wishes = "--fix per-head, --fix factor=NUMBER, --fix swap, --fix declare, --fix leftovers"
    choices = "--fix zero=median|other|NUMBER|PATH|drop"
    assert refusal(zero, "zer=1") == (
        f"there is no finding or repair called 'zer' (did you mean 'zero'?). Choose among {choices}, {wishes}"
    )
    assert refusal(zero, "nonsense").startswith("there is no finding or repair called 'nonsense'. Choose among")
    assert refusal(zero, "large=1") == (
        f"there is no finding 'large' in this checkpoint. Choose among {choices}, {wishes}"
    )
    assert refusal(zero, "zero") == f"--fix zero needs a value. Choose {choices}"
    assert refusal(zero, "zero=nothing") == f"'nothing' is no choice for --fix zero. Choose {choices}"
    assert refusal(zero, "zero=-1") == f"'-1' is no choice for --fix zero. Choose {choices}"
    assert refusal(zero, "zero=nan") == f"'nan' is no choice for --fix zero. Choose {choices}"
    assert refusal(zero, "per-head") == "--fix per-head finds nothing to change. Leave it out"
    assert refusal(zero, "per-head=min") == "'min' is no choice for --fix per-head. Choose --fix per-head"
    assert refusal(zero, "factor") == "--fix factor needs a value. Choose --fix factor=NUMBER"
    assert refusal(zero, "declare") == (
        "config.json: the KV cache is declared already (FP8, one scale per tensor, static). Leave --fix declare out"
    )
    assert refusal(zero, "zero=1.0", "zero=median") == "--fix zero was given twice, as '1.0' and 'median'. Give it once"
    assert refusal(zero, "q-missing") == (
        "an export cannot mend 'q-missing' here. Nothing to mend unless queries are meant to be quantized too."
    )
    with pytest.raises(KVScopeError, match=r"absent\.json: "):
        mended(zero, f"zero={tmp_path / 'absent.json'}")
    assert set(WISHES) == {"per-head", "factor", "swap", "declare", "leftovers"}


@pytest.mark.parametrize(
    ("quantization", "said"),
    [
        (
            {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
            (
                "vllm-0.33.0 gives attention layers no scales under auto_awq, whatever is declared. Choose another "
                "engine, or quantize the weights in another format"
            ),
        ),
        (
            {
                "quant_method": "quark",
                "export": {"kv_cache_group": [], "pack_method": "order"},
                "global_quant_config": {},
                "layer_quant_config": {},
                "exclude": [],
            },
            (
                "the KV cache cannot be declared under quark. Start the engine with --kv-cache-dtype fp8: under "
                "Quark's method engines go by that alone"
            ),
        ),
    ],
)
def test_what_cannot_be_declared_says_so(tmp_path: Path, quantization: dict[str, object], said: str) -> None:
    assert refusal(look(tmp_path, llama(quantization), GOOD), "declare") == f"config.json: {said}"


@pytest.mark.parametrize(
    ("quantization", "field", "value"),
    [
        (MODELOPT, "quantization_config.kv_cache_quant_algo", "FP8"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "quantization_config.kv_cache_scheme", "static"),
    ],
)
def test_each_method_declares_in_its_own_words(
    tmp_path: Path, quantization: dict[str, object], field: str, value: str
) -> None:
    silent = {name: each for name, each in quantization.items() if name != "kv_cache_scheme"}
    plan = mended(look(tmp_path, llama(silent), GOOD), "declare")
    assert [(c.field, c.after) for edit in plan.config_edits for c in edit.changes] == [(field, value)]


def test_modelopts_second_file_declares_the_same(tmp_path: Path) -> None:
    silent = {name: each for name, each in MODELOPT.items() if name != "kv_cache_scheme"}
    second = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}}
    folder = Folder(tmp_path, llama(silent), {"model.safetensors": GOOD}, files={"hf_quant_config.json": second})
    plan = mended(inspect(folder.write()), "declare")
    assert {edit.file: [c.field for c in edit.changes] for edit in plan.config_edits} == {
        "config.json": ["quantization_config.kv_cache_quant_algo"],
        "hf_quant_config.json": ["quantization.kv_cache_quant_algo"],
    }
    assert plan.config_edits[0].diff.startswith("--- a/config.json\n+++ b/config.json\n")


def test_without_config_json_nothing_is_declared(tmp_path: Path) -> None:
    inspection = look(tmp_path, llama(None), GOOD, kv_cache_dtype="fp8")
    (tmp_path / "config.json").unlink()
    bare = inspect(tmp_path, architecture="LlamaForCausalLM")
    with pytest.raises(KVScopeError) as error:
        plan_export(bare, fixes=[Fix("declare")])
    assert str(error.value) == (
        f"{tmp_path / 'config.json'}: is not there, and the KV cache cannot be declared. Put the model's config.json "
        "beside its tensors"
    )
    assert inspection.verdict.outcome == "fails"
