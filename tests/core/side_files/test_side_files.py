"""Side files, overlays and other checkpoints as sources of scales."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import KVScopeError, UsageError
from core.export import plan_export, write_export
from core.export.fixes import Fix
from core.inspection import inspect
from core.side_files import ScaleSource, open_scale_source
from tests.core.diagnosis.build import COMPRESSED, MODELOPT, PER_HEAD, Tensor, llama, look, scales, write_shard
from tests.core.diagnosis.examples import GOOD, K0, K1, V0, V1
from tests.places import SAMPLES

SCALING = {
    "model_type": "llama",
    "kv_cache": {"dtype": "float8_e4m3fn", "scaling_factor": {"0": {"0": 0.5, "1": 0.25}}},
}
LIGHT = {
    "version": "1.0",
    "quant_type": "per_head",
    "qmax": 448.0,
    "num_head": 2,
    "scales_shape": [2, 4],
    "scales": [[0.5, 0.25, 0.125, 0.0625], [0.25, 0.5, 0.0625, 0.125]],
}
POOLS = {
    "schema": "sglang.qsa.nvfp4-kv-scales.v1",
    "scale_policy": "bf16-amax-over-6x448",
    "pools": {
        "target": {"layer_ids": [0, 1], "k_scale": [0.125, 0.25], "v_scale": [0.0625, 0.03125]},
        "draft": {"layer_ids": [0], "k_scale": [1.0], "v_scale": [1.0]},
    },
}
INC = {
    "Mode": "Scale",
    "Nodes": {
        f"model.layers.{layer}.self_attn.attn.impl.{role}_cache": {"inputs": [value]}
        for layer, role, value in ((0, "k", 0.5), (0, "v", 0.25), (1, "k", 0.125), (1, "v", 0.0625))
    }
    | {"model.layers.0.self_attn.attn.impl.matmul_qk": {"inputs": [0.5, 1.0]}},
}


def written(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def told(source: ScaleSource) -> dict[tuple[int, str], tuple[float, ...]]:
    return {(scale.layer, scale.role): scale.values for scale in source.scales}


def changed(content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return content | fields


def test_the_side_file_of_old_vllm(tmp_path: Path) -> None:
    source = open_scale_source(written(tmp_path / "kv_cache_scales.json", SCALING))
    assert (source.format, source.notes) == ("scaling-factor", ())
    assert told(source) == {(0, "kv"): (0.5,), (1, "kv"): (0.25,)}
    found = source.find("v", 1, "model.layers.1.self_attn")
    assert found is not None
    assert found.values == (0.25,)
    assert source.find("q", 1, "") is None
    assert source.find("k", 2, "") is None


def test_of_several_ranks_the_largest_counts(tmp_path: Path) -> None:
    ranks = {"rank0": {"0": 0.5}, "rank1": {"0": 0.75}}
    source = open_scale_source(written(tmp_path / "side.json", {"kv_cache": {"scaling_factor": ranks}}))
    assert told(source) == {(0, "kv"): (0.75,)}
    assert source.notes == (
        "Its ranks are not plain numbers, which vLLM up to 0.6 refused.",
        "It holds 2 tensor-parallel ranks; the largest scale of each layer was taken.",
    )


def test_lightllms_calibration_by_head_and_by_tensor(tmp_path: Path) -> None:
    source = open_scale_source(written(tmp_path / "head.json", LIGHT))
    assert told(source)[0, "k"] == (0.5, 0.25)
    assert told(source)[1, "v"] == (0.0625, 0.125)
    by_tensor = LIGHT | {"quant_type": "per_tensor", "scales_shape": [1, 2], "scales": [[0.5, 0.25]]}
    assert told(open_scale_source(written(tmp_path / "tensor.json", by_tensor))) == {
        (0, "k"): (0.5,),
        (0, "v"): (0.25,),
    }


def test_sglangs_pools_are_made_fp8_scales(tmp_path: Path) -> None:
    source = open_scale_source(written(tmp_path / "kv-scales-v1.json", POOLS))
    assert told(source) == {(0, "k"): (0.75,), (1, "k"): (1.5,), (0, "v"): (0.375,), (1, "v"): (0.1875,)}
    assert source.notes[1] == "The draft model's pool was left out."


def test_neural_compressors_dumps(tmp_path: Path) -> None:
    source = open_scale_source(written(tmp_path / "scales.json", INC))
    assert told(source)[1, "v"] == (0.0625,)
    assert {scale.module for scale in source.scales} == {"model.layers.0.self_attn", "model.layers.1.self_attn"}
    measured = {
        "Mode": "DynamicRange",
        "Nodes": {"model.layers.0.self_attn.attn.impl.k_cache": {"inputs": [[[224.0]]]}},
    }
    source = open_scale_source(written(tmp_path / "amax.json", measured))
    assert told(source) == {(0, "k"): (0.5,)}
    assert source.notes == ("It holds amaxes, which were divided by 448.",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(SCALING, kv_cache={"scaling_factor": []}), "kv_cache.scaling_factor is no JSON object"),
        (changed(SCALING, kv_cache={"scaling_factor": {"0": {"a": 1.0}}}), "the layer 'a' is no number"),
        (
            changed(SCALING, kv_cache={"scaling_factor": {"0": {"3": "x"}}}),
            "kv_cache.scaling_factor.0.3 is 'x' and no number",
        ),
        (
            changed(SCALING, kv_cache={"scaling_factor": {"0": {"3": -1}}}),
            "kv_cache.scaling_factor.0.3 is -1, and a scale is a finite number above 0",
        ),
        (
            changed(SCALING, kv_cache={"scaling_factor": {"0": {"3": 10**400}}}),
            f"kv_cache.scaling_factor.0.3 is {10**400}, and a scale is a finite number above 0",
        ),
        (
            changed(SCALING, kv_cache={"scaling_factor": {"0": {"9" * 5000: 1.0}}}),
            f"the layer '{'9' * 5000}' is no number",
        ),
        (
            changed(SCALING, kv_cache={"dtype": "int8", "scaling_factor": {}}),
            "kv_cache.dtype is 'int8', and only scales for float8_e4m3fn are known",
        ),
        (changed(LIGHT, quant_type="x"), "quant_type is 'x', and only per_tensor and per_head are known"),
        (changed(LIGHT, scales_shape=[2, 2]), "scales_shape is [2, 2], and scales are 2 x 4"),
        (changed(LIGHT, scales=[[1.0], [1.0]]), "scales[0] holds 1 values and not 4"),
        (changed(LIGHT, scales={}), "scales is no list"),
        (changed(POOLS, scale_policy="x"), "scale_policy is 'x', and only amax-over-6x448 is known"),
        (
            changed(POOLS, pools={"target": {"layer_ids": [0], "k_scale": []}}),
            "pools.target.k_scale holds 0 values for 1 layers",
        ),
        (changed(INC, Mode="x"), "Mode is 'x', and only Scale and DynamicRange are known"),
        (
            changed(INC, Nodes={"a.0.attn.k_cache": {"inputs": ["x"]}}),
            "Nodes.a.0.attn.k_cache.inputs is None and no number",
        ),
    ],
)
def test_what_is_wrong_in_a_side_file_is_named(tmp_path: Path, content: Any, said: str) -> None:
    path = written(tmp_path / "side.json", content)
    with pytest.raises(KVScopeError) as error:
        open_scale_source(path)
    assert str(error.value).startswith(f"{path}: {said} (")
    assert str(error.value).endswith("Correct the file, or take the scales from elsewhere")


def test_what_is_no_side_file_says_what_is_known(tmp_path: Path) -> None:
    path = written(tmp_path / "config.json", llama(COMPRESSED))
    with pytest.raises(KVScopeError) as error:
        open_scale_source(path)
    assert str(error.value) == (
        f"{path}: is no side file of KV-cache scales that is known here. Known are vLLM up to 0.6, SGLang, KsanaLLM: "
        "kv_cache_scales.json (kv_cache.scaling_factor); LightLLM: kv_cache_calib.json (quant_type, scales_shape, "
        "scales); SGLang: kv-scales-v1.json (schema sglang.*, pools); Intel Neural Compressor: inc_output_hooks_maxabs "
        "(Mode, Nodes)"
    )
    path.write_text("{")
    with pytest.raises(KVScopeError, match=r"config\.json: is not valid JSON"):
        open_scale_source(path)
    empty = written(tmp_path / "empty.json", {"Mode": "Scale", "Nodes": {}})
    with pytest.raises(KVScopeError, match=r"empty\.json: holds no KV-cache scales \(Intel Neural Compressor"):
        open_scale_source(empty)
    write_shard(tmp_path / "none.safetensors", {"model.norm.weight": Tensor([1.0], [1])})
    with pytest.raises(KVScopeError, match=r"none\.safetensors: holds no KV-cache scales \(a checkpoint\)"):
        open_scale_source(tmp_path / "none.safetensors")
    with pytest.raises(KVScopeError, match=r"absent: does not exist"):
        open_scale_source(tmp_path / "absent")


def test_every_real_side_file_is_read_or_refused(shared: Path) -> None:
    read = {}
    for path in sorted((shared / "side_files").rglob("*.json")):
        try:
            read[path.name, len(open_scale_source(path).layers)] = open_scale_source(path).format
        except KVScopeError as error:
            told = ("known here", "no JSON object", "holds only an index", "describes tensors")
            assert any(words in str(error) for words in told), path  # noqa: PT017
    formats = sorted(read.values())
    assert formats == ["inc", *["lightllm"] * 10, *["scaling-factor"] * 6, "sglang-pools"]
    assert {layers for _, layers in read} == {5, 12, 24, 28, 32, 48, 64, 80, 94}


def test_real_heads_agree_with_the_real_tensor_scales(shared: Path) -> None:
    """LightLLM's per-tensor files hold the largest of what its per-head files hold."""
    folder = shared / "side_files" / "ModelTC_LightLLM"
    for name in ("qwen2.5_14b", "qwen2.5_72b", "qwen3_30b"):
        heads, whole = (
            told(open_scale_source(folder / f"test_kv_cache_calib_{kind}_{name}.json"))
            for kind in ("per_head", "per_tensor")
        )
        assert heads.keys() == whole.keys()
        close = sum(max(values) == pytest.approx(whole[key][0], rel=0.2) for key, values in heads.items())
        assert close > 0.9 * len(heads)


def test_scales_from_a_side_file_replace_and_complete(tmp_path: Path) -> None:
    inspection = look(tmp_path / "made", llama(MODELOPT), scales([0.03, None], [0.01, None]))
    side = written(tmp_path / "side.json", SCALING)
    plan = plan_export(inspection, scales_from=str(side))
    assert {edit.new_key or edit.key: (edit.action, edit.values) for edit in plan.edits} == {
        K0: ("repaired", (0.5,)),
        V0: ("repaired", (0.5,)),
        K1: ("added", (0.25,)),
        V1: ("added", (0.25,)),
    }
    (applied,) = plan.fixes
    assert (applied.code, applied.value) == ("scales-from", str(side))
    assert applied.reason == "Scales of side.json (vLLM up to 0.6, SGLang, KsanaLLM: kv_cache_scales.json)."
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert [layer.final["k"] for layer in result.after.deliveries.attention] == [0.5, 0.25]


def test_heads_stay_heads_where_the_engine_has_them(tmp_path: Path) -> None:
    side = written(tmp_path / "side.json", LIGHT)
    per_head = scales([None, None], [None, None]) | {
        key: Tensor([0.1, 0.1], [2]) for key in (K0, V0)
    }  # fmt: skip
    plan = plan_export(look(tmp_path / "heads", llama(PER_HEAD), per_head), scales_from=str(side))
    assert {edit.new_key or edit.key: edit.values for edit in plan.edits}[K1] == (0.25, 0.5)
    assert {edit.new_shape for edit in plan.edits if edit.action == "added"} == {(2,)}
    assert plan.verdict_predicted.outcome == "ok"
    plan = plan_export(look(tmp_path / "tensor", llama(COMPRESSED), GOOD), scales_from=str(side))
    assert {edit.key: edit.values for edit in plan.edits} == {K0: (0.5,), V0: (0.125,), K1: (0.5,), V1: (0.125,)}


PLAIN = {key.replace("_scale", "_proj.weight"): Tensor([1.0], (1,)) for key in GOOD}
BARE = {name: value for name, value in COMPRESSED.items() if name != "kv_cache_scheme"}
LARGEST = (
    "side.json has several values for each of 4 scales; the largest of them is stored, because {} does not take so "
    "many here."
)
HEADS = (
    "side.json has one scale for each head, and so they are declared and stored; by its documentation, vLLM serves "
    "such a cache with FlashAttention alone. --fix per-head stores the largest of each layer instead."
)


@pytest.mark.parametrize("engine", ["vllm-0.33.0", "vllm-0.22.1"])
@pytest.mark.parametrize("declared", [None, BARE], ids=["nothing", "weights"])
def test_heads_are_declared_where_the_engine_takes_them(
    declared: dict[str, Any] | None, engine: str, tmp_path: Path
) -> None:
    side = written(tmp_path / "side.json", LIGHT)
    inspection = look(tmp_path / "made", llama(declared), PLAIN)
    plan = plan_export(inspection, engine=engine, fixes=[Fix("declare")], scales_from=str(side))
    assert {str(edit.new_key): edit.values for edit in plan.edits} == {
        K0: (0.5, 0.25),
        V0: (0.125, 0.0625),
        K1: (0.25, 0.5),
        V1: (0.0625, 0.125),
    }
    assert plan.fixes[0].reason.endswith(
        "FP8 with one scale for each head, with compressed-tensors."
        if declared is None
        else "FP8 with one scale for each head."
    )
    assert HEADS in plan.notes
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert [layer.per_head["k"] for layer in result.after.deliveries.attention] == [(0.5, 0.25), (0.25, 0.5)]
    assert HEADS in json.loads((tmp_path / "out" / "kvscope-export.json").read_text())["notes"]
    again = plan_export(result.after, engine=engine)
    assert not again.changes
    assert not again.config_edits


def test_the_largest_of_heads_that_were_to_be_declared(tmp_path: Path) -> None:
    side = written(tmp_path / "side.json", LIGHT)
    inspection = look(tmp_path / "made", llama(None), PLAIN)
    plan = plan_export(inspection, fixes=[Fix("declare"), Fix("per-head")], scales_from=str(side))
    assert {edit.values for edit in plan.edits} == {(0.5,), (0.125,)}
    assert HEADS not in plan.notes
    config = json.loads((write_export(plan, tmp_path / "out").out / "config.json").read_text())
    assert config["quantization_config"]["kv_cache_scheme"]["strategy"] == "tensor"


@pytest.mark.parametrize(
    ("quantization", "tensors", "engine", "title"),
    [
        ({"quant_method": "fp8", "activation_scheme": "static"}, PLAIN, "vllm-0.33.0", "vLLM 0.33.0"),
        ({n: v for n, v in MODELOPT.items() if n != "kv_cache_scheme"}, PLAIN, "vllm-0.33.0", "vLLM 0.33.0"),
        (None, PLAIN, "sglang-0.5.23", "SGLang 0.5.23"),
        (COMPRESSED, PLAIN, "vllm-0.33.0", "vLLM 0.33.0"),
        (COMPRESSED, GOOD, "vllm-0.33.0", "vLLM 0.33.0"),
    ],
    ids=["fp8", "modelopt", "sglang", "declared", "stored"],
)
def test_where_one_number_is_taken_the_largest_of_the_heads_is_kept_and_said(
    quantization: dict[str, Any] | None, tensors: dict[str, Any], engine: str, title: str, tmp_path: Path
) -> None:
    side = written(tmp_path / "side.json", LIGHT)
    inspection = look(tmp_path / "made", llama(quantization), tensors)
    fixes = [] if quantization is COMPRESSED else [Fix("declare")]
    plan = plan_export(inspection, engine=engine, fixes=fixes, scales_from=str(side))
    assert {edit.new_key or edit.key: edit.values for edit in plan.edits} == {
        K0: (0.5,), V0: (0.125,), K1: (0.5,), V1: (0.125,)
    }  # fmt: skip
    assert all(", the largest of 2 values." in edit.reason for edit in plan.edits)
    assert not any("for each head" in fix.reason for fix in plan.fixes)
    assert LARGEST.format(title) in plan.notes
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert LARGEST.format(title) in json.loads((tmp_path / "out" / "kvscope-export.json").read_text())["notes"]


def test_heads_take_the_place_of_one_number_where_the_engine_has_room_for_them(tmp_path: Path) -> None:
    side = written(tmp_path / "side.json", LIGHT)
    plan = plan_export(look(tmp_path / "made", llama(PER_HEAD), GOOD), scales_from=str(side))
    assert {edit.key: (edit.values, edit.new_shape) for edit in plan.edits}[K0] == ((0.5, 0.25), (2,))
    assert not any("largest" in note for note in plan.notes)
    result = write_export(plan, tmp_path / "out")
    assert [layer.per_head["k"] for layer in result.after.deliveries.attention] == [(0.5, 0.25), (0.25, 0.5)]


def test_a_common_scale_takes_the_larger_of_both(tmp_path: Path) -> None:
    """Whether all are replaced or one is mended."""
    light = changed(LIGHT, quant_type="per_tensor", scales_shape=[2, 2], scales=[[0.5, 0.25], [0.125, 0.25]])
    side = written(tmp_path / "side.json", light)
    common = {f"model.layers.{layer}.self_attn.kv_scale": 0.0 for layer in range(2)}
    inspection = look(tmp_path / "made", llama(MODELOPT), common)
    for plan in (
        plan_export(inspection, names="as-is", scales_from=str(side)),
        plan_export(inspection, names="as-is", fixes=[Fix("zero", str(side))]),
    ):
        assert [edit.values for edit in plan.edits] == [(0.5,), (0.25,)]


def test_what_is_missing_says_that_the_largest_of_the_heads_is_kept(tmp_path: Path) -> None:
    side = written(tmp_path / "side.json", LIGHT)
    inspection = look(tmp_path / "made", llama(MODELOPT), scales([0.03, None], [0.01, None]))
    plan = plan_export(inspection, fixes=[Fix("missing-scale", str(side))])
    added = [edit for edit in plan.edits if edit.action == "added"]
    assert [edit.values for edit in added] == [(0.5,), (0.125,)]
    assert all("0.5, the largest of 2 values, from side.json." in edit.reason for edit in added[:1])
    assert LARGEST.format("vLLM 0.33.0").replace("each of 4", "each of 2") in plan.notes


def test_scales_from_an_overlay_and_from_another_checkpoint(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "model-kvscales.safetensors",
        {f"layers.{n}.attention.{role}_cache_scaling_factor": 0.5 for n in range(2) for role in "kv"},
    )
    inspection = look(tmp_path / "made", llama(COMPRESSED), GOOD)
    overlay = plan_export(inspection, scales_from=str(tmp_path / "model-kvscales.safetensors"))
    assert {edit.values for edit in overlay.edits} == {(0.5,)}
    other = look(tmp_path / "other", llama(MODELOPT), scales([0.3, 0.4], [0.1, 0.2]))
    plan = plan_export(inspection, scales_from=str(other.checkpoint.path))
    assert [round(edit.values[0], 6) for edit in plan.edits] == [0.3, 0.1, 0.4, 0.2]
    assert plan.fixes[0].reason == "Scales of other (a checkpoint)."
    sharded = SAMPLES / "llmcompressor/llama-32layers-kv_attn_head" / "model.safetensors.index.json"
    assert open_scale_source(sharded).layers == tuple(range(32))


def test_scales_of_other_number_formats_are_made_fp8_scales(shared: Path, tmp_path: Path) -> None:
    int8 = open_scale_source(shared / "checkpoints/llmcompressor/llama-kv_int8_sym")
    fp8 = open_scale_source(shared / "checkpoints/llmcompressor/llama-kvonly_tensor")
    assert int8.notes == ("It holds scales of an INT8 cache (amax / 127), made FP8 scales (amax / 448).",)
    for key, values in told(fp8).items():
        assert told(int8)[key][0] == pytest.approx(values[0], rel=0.02)
    nvfp4 = open_scale_source(shared / "checkpoints/quark/llama-fp8-kvnvfp4")
    assert nvfp4.notes == ("It holds global scales of an NVFP4 cache (amax / 2688), which were multiplied by 6.",)
    heads = {f"model.layers.0.self_attn.fa_{role}.scale": Tensor([0.5, 0.25], [2, 1]) for role in "kv"}
    write_shard(tmp_path / "ascend.safetensors", heads)
    assert told(open_scale_source(tmp_path / "ascend.safetensors"))[0, "k"] == (0.5 * 127 / 448, 0.25 * 127 / 448)
    description = written(tmp_path / "quant_model_description.json", {"kv_cache_type": "C8"})
    with pytest.raises(KVScopeError) as error:
        open_scale_source(description)
    assert str(error.value) == (
        f"{description}: describes tensors and holds no scales. Give the checkpoint that it belongs to"
    )


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    inspection = look(tmp_path / "made", llama(MODELOPT, layers=1), scales([0.03], [0.01]))
    side = written(tmp_path / "side.json", SCALING)
    with pytest.raises(UsageError) as error:
        plan_export(inspection, scales_from=str(side))
    assert str(error.value) == (
        f"{side}: has scales for layer 1, and this model has no attention layer there. "
        "Choose a file made for this model"
    )
    fewer = written(tmp_path / "fewer.json", {"kv_cache": {"scaling_factor": {"0": {"0": 0.5}}}})
    inspection = look(tmp_path / "two", llama(MODELOPT), scales([0.03, None], [0.01, None]))
    with pytest.raises(UsageError) as error:
        plan_export(inspection, scales_from=str(fewer))
    assert str(error.value) == f"{fewer}: has no scale for layer 1. Choose a file made for this model"
    with pytest.raises(UsageError) as error:
        plan_export(inspection, fixes=[Fix("missing-scale", str(fewer))])
    assert str(error.value) == (
        f"--fix missing-scale={fewer}: {fewer} has no k scale for layer 1. Choose another file or value"
    )


def test_real_scales_of_a_real_model_go_into_a_real_layout(shared: Path, tmp_path: Path) -> None:
    """Llama-2-7B's public scales, 32 layers, into a tool-written checkpoint of 32 layers."""
    side = shared / "side_files/Tencent_KsanaLLM/llama2-7b-fp8-kv/kv_cache_scales.json"
    source = SAMPLES / "llmcompressor/llama-32layers-kv_attn_head"
    plan = plan_export(inspect(source), fixes=[Fix("per-head")], scales_from=str(side))
    result = write_export(plan, tmp_path / "out")
    public = json.loads(side.read_text())["kv_cache"]["scaling_factor"]["0"]
    assert result.verdict_after.outcome == "ok"
    for layer in result.after.deliveries.attention:
        assert layer.final["k"] == layer.final["v"] == pytest.approx(public[str(layer.layer)], rel=1e-6)
