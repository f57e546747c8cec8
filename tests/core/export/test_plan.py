"""What an export plans: names that the prediction proves, nothing more than that, and honest words about the rest."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from core.errors import ExportError, UsageError
from core.export import ExportPlan, plan_export, write_export
from core.inspection import inspect
from core.loading.verify import verify
from tests.core.diagnosis.build import MODELOPT, look
from tests.core.diagnosis.build import Tensor as Stored
from tests.core.diagnosis.build import llama as llama_config
from tests.core.diagnosis.examples import GOOD
from tests.core.engines.random_cases import tiny_configs
from tests.core.export.exporting import Tensor, float32, made_from, plan_of, said_by, tensors_of
from tests.core.spoken import left_in_english

LLAMA = "tests/checkpoints/quark/llama-fp8-kvfp8"


def actions(plan: ExportPlan) -> dict[str, int]:
    return dict(Counter(edit.action for edit in plan.edits))


def without(tensors: dict[str, Tensor], *endings: str) -> None:
    for name in [name for name in tensors if name.endswith(endings)]:
        del tensors[name]


@pytest.fixture
def llama(repository: Path) -> Path:
    return repository / LLAMA


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[3]


def test_quark_on_gemma_3_gets_the_portable_names(samples: Path) -> None:
    plan = plan_of(samples / "quark/gemma3-26layers-fp8-kvfp8")
    assert (plan.names, actions(plan)) == ("portable", {"renamed": 52})
    edit = plan.edits[0]
    assert (edit.key, edit.new_key) == (
        "model.layers.0.self_attn.k_proj.output_scale",
        "model.layers.0.self_attn.k_scale",
    )
    assert (edit.new_shape, edit.new_dtype, edit.file) == (None, None, "model.safetensors")
    assert edit.reason == (
        "vLLM 0.33.0 raises AttributeError: 'QKVParallelLinear' object has no attribute 'data' at "
        "model.layers.0.self_attn.k_proj.output_scale; vLLM 0.33.0 loads model.layers.0.self_attn.k_scale into "
        "model.layers.0.self_attn.attn.k_scale."
    )
    assert plan.config_edits == ()
    assert plan.notes == ("Names follow the convention 'portable'.",)


@pytest.mark.parametrize("name", ["modelopt/qwen3-36layers-fp8-kvfp8", "llmcompressor/llama-32layers-kv_attn_head"])
def test_names_that_load_stay(samples: Path, name: str) -> None:
    plan = plan_of(samples / name, kv_cache_dtype="auto")
    assert plan.names == "as-is"
    assert set(actions(plan)) == {"kept"}
    assert plan.changes == ()
    assert "No tensor has to change; the export is a copy." in plan.notes
    assert set(plan.files_copied) == {path.name for path in (samples / name).iterdir()}


def test_mla_under_vllm_is_unreachable_and_said_to_be(samples: Path) -> None:
    plan = plan_of(samples / "modelopt/deepseekv3-30layers-fp8-kvfp8")
    assert plan.changes == ()
    (unreachable,) = plan.unreachable
    assert len(unreachable.keys) == 60
    assert unreachable.reason == (
        "no spelling leads to the parameters of vLLM 0.33.0's MLAAttention layers: its own renaming goes past them"
    )


def test_every_real_checkpoint_is_planned_and_none_gets_worse(checkpoint_folder: Path) -> None:
    inspection = inspect(checkpoint_folder)
    try:
        plan = plan_export(inspection)
    except ExportError as error:
        assert inspection.checkpoint.format.startswith("pytorch"), error  # noqa: PT017
        return
    before, after = inspection.deliveries, plan.predicted
    if before.load.outcome == "loads":
        assert after.load.outcome == "loads"
        reached = {found.target for found in before.deliveries if found.outcome == "loaded"}
        assert reached <= {found.target for found in after.deliveries if found.outcome == "loaded"}
    listed = {edit.key for edit in plan.edits}
    assert {scale.key for scale in inspection.scales} <= listed
    for edit in plan.changes:
        assert edit.key.endswith(("scale", "zero_point", "bias")), edit
        assert "weight" not in edit.key.rsplit(".", 1)[-1]
        assert edit.reason.endswith(".")
    assert [left for text in said_by(plan) for left in left_in_english(text)] == []


@pytest.mark.parametrize(
    ("name", "planned", "after"),
    [
        ("quark/gemma3-fp8-kvfp8", {"renamed": 4}, "loads"),
        ("quark/phi3-fp8-kvfp8", {"renamed": 2, "duplicated": 2}, "loads"),
        ("quark/llama-fp8-alloutputs", {"dropped": 8, "kept": 6}, "loads"),
        ("quark/qwen3next-fp8-kvfp8", {"dropped": 1}, "loads"),
        ("quark/deepseekv3-fp8-kvfp8", {"dropped": 2}, "loads"),
        ("llmcompressor/llama-output_act-fp8", {"renamed": 4}, "loads"),
        ("modelopt/llama-fp8-kvfp8affine", {"dropped": 4, "kept": 4}, "loads"),
        ("quark/llama-fp8-kvfp8perchannel", {"kept": 4}, "raises"),
        ("quark/llama-fp8-kvint8asym", {"kept": 8}, "raises"),
        ("quark/llama-fp8-kvnvfp4", {"kept": 4}, "raises"),
        ("modelopt/llama-fp8-kvfp8-hfsave", {"kept": 4}, "raises"),
    ],
)
def test_checkpoints_that_vllm_cannot_load(shared: Path, name: str, planned: dict[str, int], after: str) -> None:
    plan = plan_of(shared / "checkpoints" / name, kv_cache_dtype="auto")
    assert plan.before.deliveries.load.outcome == "raises"
    assert actions(plan) == planned
    assert plan.predicted.load.outcome == after


def test_what_is_dropped_is_listed_with_its_reason(shared: Path) -> None:
    plan = plan_of(shared / "checkpoints/quark/llama-fp8-alloutputs")
    dropped = [edit for edit in plan.edits if edit.action == "dropped"]
    assert {edit.key.split(".", 3)[-1] for edit in dropped} == {
        "mlp.down_proj.output_scale", "mlp.gate_proj.output_scale", "mlp.up_proj.output_scale",
        "self_attn.o_proj.output_scale",
    }  # fmt: skip
    assert dropped[0].reason == (
        "Left out: vLLM 0.33.0 has no parameter for it and raises ValueError: There is no module or parameter named "
        "'layers.0.mlp.down_proj.output_scale' in LlamaModel."
    )
    affine = plan_of(shared / "checkpoints/modelopt/llama-fp8-kvfp8affine")
    assert "The scales were calibrated together with the offsets left out: large values may be clipped." in affine.notes


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "quark/llama-fp8-kvfp8perchannel",
            "it holds 32 values, and vLLM 0.33.0 takes 1 for each layer; --fix per-head stores the largest",
        ),
        ("quark/llama-fp8-kvnvfp4", "it is the global scale of an NVFP4 cache, not the scale of an FP8 cache"),
        ("quark/deepseekv3-fp8-kvfp8", "vLLM 0.33.0 gives MLAAttention layers no parameters for scales under quark"),
        ("llmcompressor/ar-llama-w4a16-kv", "vLLM 0.33.0 gives Attention layers no parameters for scales under inc"),
        ("llmcompressor/whisper-kvonly", "vLLM 0.33.0 builds no attention layer with a KV cache there"),
    ],
)
def test_what_cannot_be_reached_is_explained(shared: Path, name: str, reason: str) -> None:
    plan = plan_of(shared / "checkpoints" / name)
    assert [found.reason for found in plan.unreachable] == [reason]


@pytest.mark.parametrize(
    ("name", "note"),
    [
        (
            "modelopt/t5-fp8-kvfp8",
            "vLLM 0.33.0 refuses this checkpoint, so that no name could be tried: vLLM 0.33.0 registers no T5",
        ),
        (
            "llmcompressor/llama-kv_int8_sym",
            "vLLM 0.33.0 refuses this checkpoint, so that no name could be tried: vLLM keeps a compressed-tensors",
        ),
    ],
)
def test_without_a_prediction_nothing_changes_and_the_plan_says_why(shared: Path, name: str, note: str) -> None:
    plan = plan_of(shared / "checkpoints" / name)
    assert plan.changes == ()
    assert plan.notes[0].startswith(note)


def test_without_an_architecture_the_export_is_a_copy(tmp_path: Path) -> None:
    draft = {"architectures": [], "model_type": "x", "speculators_config": {}}  # vLLM makes its architecture of this
    plan = plan_export(look(tmp_path, llama_config(MODELOPT) | draft, GOOD))
    assert plan.changes == ()
    assert plan.verdict_predicted.outcome == plan.verdict_before.outcome == "unknown"
    assert plan.notes[0] == (
        "vLLM 0.33.0 cannot be predicted here, so that no name could be tried: the checkpoint does not name its "
        "architecture."
    )


def test_a_model_that_nothing_names_is_refused_and_copied(tmp_path: Path) -> None:
    plan = plan_export(look(tmp_path, llama_config(MODELOPT) | {"architectures": [], "model_type": "x"}, GOOD))
    assert plan.changes == ()
    assert plan.verdict_predicted.outcome == plan.verdict_before.outcome == "fails"
    assert plan.notes[0] == (
        "vLLM 0.33.0 refuses this checkpoint, so that no name could be tried: config.json names no architecture, and "
        "its model_type does not tell which one is meant."
    )


def test_names_asked_for_are_used_where_they_land(llama: Path) -> None:
    for names, key in [
        ("portable", "model.layers.0.self_attn.k_scale"),
        ("modelopt", "model.layers.0.self_attn.k_proj.k_scale"),
        ("vllm-runtime", "model.layers.0.self_attn.attn.k_scale"),
        ("quark", "model.layers.0.self_attn.k_proj.output_scale"),
        ("as-is", "model.layers.0.self_attn.k_proj.output_scale"),
    ]:
        plan = plan_of(llama, names=names)
        assert plan.edits[0].new_key == key
        assert {found.outcome for found in plan.predicted.deliveries} == {"loaded"}


def test_names_asked_for_are_written_whatever_the_engine_makes_of_them(samples: Path) -> None:
    plan = plan_of(samples / "llmcompressor/llama-32layers-kv_attn_head", names="quark")
    assert plan.edits[0].new_key == "model.layers.0.self_attn.k_proj.output_scale"
    assert plan.verdict_predicted.outcome == "fails"
    (unreachable,) = plan.unreachable
    assert len(unreachable.keys) == 64
    assert unreachable.reason == "vLLM 0.33.0 stops at these names; export for the engine instead of a convention"
    assert plan.notes == (
        (
            "vLLM 0.33.0 raises AttributeError: 'QKVParallelLinear' object has no attribute 'data' at "
            "model.layers.0.self_attn.k_proj.output_scale."
        ),
        "Names follow the convention 'quark'.",
        "quark stores one number for each layer; 64 scales keep more. --fix per-head stores the largest instead.",
    )


def test_names_as_they_are_change_nothing(samples: Path) -> None:
    plan = plan_of(samples / "quark/gemma3-26layers-fp8-kvfp8", names="as-is")
    assert actions(plan) == {"kept": 52}
    assert plan.verdict_predicted.outcome == "fails"
    assert (plan.names, plan.asked) == ("as-is", True)


def test_an_unknown_convention_is_a_usage_error(llama: Path) -> None:
    with pytest.raises(UsageError) as error:
        plan_of(llama, names="nonsense")
    assert str(error.value) == (
        "scales cannot be renamed to the convention 'nonsense'. "
        "Choose one of portable, modelopt, compressed-tensors, vllm-runtime, quark, or as-is."
    )
    with pytest.raises(UsageError, match="no engine is called 'nonsense'"):
        plan_export(inspect(llama), engine="nonsense")


def test_a_common_scale_is_split_into_k_and_v(llama: Path, tmp_path: Path) -> None:
    def common(tensors: dict[str, Tensor]) -> None:
        without(tensors, "k_proj.output_scale", "v_proj.output_scale")
        tensors |= {f"model.layers.{n}.self_attn.kv_scale": float32(0.5 + n) for n in range(2)}

    plan = plan_of(made_from(llama, tmp_path / "made", common))
    assert actions(plan) == {"renamed": 2, "duplicated": 2}
    result = write_export(plan, tmp_path / "out")
    tensors = tensors_of(tmp_path / "out" / "model.safetensors")
    assert tensors["model.layers.1.self_attn.k_scale"] == tensors["model.layers.1.self_attn.v_scale"] == float32(1.5)
    assert not any("kv_scale" in name for name in tensors)
    assert [layer.source["v"] for layer in result.after.deliveries.attention] == ["checkpoint", "checkpoint"]
    assert result.after.deliveries.attention[1].final["v"] == 1.5


def test_a_scale_of_its_own_goes_before_a_common_one(llama: Path, tmp_path: Path) -> None:
    def both(tensors: dict[str, Tensor]) -> None:
        without(tensors, "k_proj.output_scale", "v_proj.output_scale")
        tensors["model.layers.0.self_attn.kv_scale"] = float32(0.5)
        tensors["model.layers.0.self_attn.k_scale"] = float32(0.25)

    write_export(plan_of(made_from(llama, tmp_path / "made", both)), tmp_path / "out")
    tensors = tensors_of(tmp_path / "out" / "model.safetensors")
    assert tensors["model.layers.0.self_attn.k_scale"] == float32(0.25)
    assert tensors["model.layers.0.self_attn.v_scale"] == float32(0.5)


@pytest.mark.parametrize("same", [True, False])
def test_two_scales_for_one_name(samples: Path, tmp_path: Path, same: bool) -> None:
    old, new = "model.layers.3.self_attn.k_proj.output_scale", "model.layers.3.self_attn.k_scale"

    def twice(tensors: dict[str, Tensor]) -> None:
        tensors[new] = tensors[old] if same else float32(7.0)

    made = made_from(samples / "quark/gemma3-26layers-fp8-kvfp8", tmp_path / "made", twice)
    if same:
        plan = plan_of(made)
        assert actions(plan) == {"renamed": 51, "kept": 1, "dropped": 1}
        (dropped,) = (edit for edit in plan.edits if edit.action == "dropped")
        assert dropped.key == old
        assert dropped.reason == ("Left out: the same attention layer has this scale under another name already.")
        return
    with pytest.raises(ExportError) as error:
        plan_of(made)
    assert str(error.value) == (
        f"{made}, key '{old}': it would be written as {new}, and so would {new}, with another value. "
        "Remove one of the two from the checkpoint."
    )


@pytest.mark.parametrize("shape", [(1,), (1, 1, 1)])
def test_a_single_number_becomes_a_scalar_where_the_parameter_is_one(
    llama: Path, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    def shaped(tensors: dict[str, Tensor]) -> None:
        for name, (dtype, _, data) in tensors.items():
            if name.endswith(("k_proj.output_scale", "v_proj.output_scale")):
                tensors[name] = (dtype, shape, data)

    plan = plan_of(made_from(llama, tmp_path / "made", shaped))
    assert actions(plan) == {"reshaped": 4}
    assert {edit.new_shape for edit in plan.edits} == {()}
    result = write_export(plan, tmp_path / "out")
    assert tensors_of(tmp_path / "out" / "model.safetensors") == tensors_of(llama / "model.safetensors")
    assert result.after.deliveries.load.outcome == "loads"


def test_compressed_tensors_scales_keep_their_shape(samples: Path) -> None:
    plan = plan_of(samples / "llmcompressor/llama-attn_fp8_tensor", kv_cache_dtype="auto")
    assert {edit.action for edit in plan.edits} == {"kept"}
    assert {scale.shape for scale in plan.before.scales} == {(1,)}


def test_a_single_file_brings_its_side_files_and_nothing_else(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "made", copy_function=shutil.copyfile)
    for name in ("tokenizer.json", "holiday.jpg", "other.safetensors"):
        (tmp_path / "made" / name).write_bytes(b"x")
    plan = plan_of(tmp_path / "made" / "model.safetensors")
    assert set(plan.files_copied) == {"config.json", "generation_config.json", "tokenizer.json", "model.safetensors"}


def test_pickled_checkpoints_are_refused(tmp_path: Path) -> None:
    import torch

    torch.save({"model.layers.0.self_attn.k_scale": torch.tensor(0.5)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportError) as error:
        plan_of(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: tensors in PyTorch's pickled files are not renamed yet. Convert the checkpoint to safetensors "
        "first, for example with transformers' save_pretrained."
    )


def test_incomplete_checkpoints_are_refused(samples: Path, tmp_path: Path) -> None:
    shutil.copytree(samples / "llmcompressor/llama-32layers-kv_attn_head", tmp_path / "made")
    gone = tmp_path / "made" / "model-00002-of-00003.safetensors"
    gone.unlink()
    with pytest.raises(ExportError) as error:
        plan_of(tmp_path / "made")
    assert str(error.value) == (
        f"{gone}: is named by the index, but is not there, and a copy would be incomplete. "
        "Download it into this folder."
    )


def test_a_shard_that_changed_after_opening_is_refused(llama: Path, tmp_path: Path) -> None:
    shutil.copytree(llama, tmp_path / "made", copy_function=shutil.copyfile)
    inspection = inspect(tmp_path / "made")
    with (tmp_path / "made" / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ExportError, match=r"model.safetensors: the file changed since the checkpoint was opened. Wait"):
        plan_export(inspection)


@pytest.mark.parametrize("quantization", [MODELOPT, {"quant_method": "fp8", "activation_scheme": "static"}])
@pytest.mark.parametrize(
    "name",
    [
        "model.layers.{}.self_attn.k_scale",
        "model.layers.{}.self_attn.mla_attn.mla_attn.k_scale",
        "layers.{}.attention.k_fake_quantizer.qscale_act",
    ],
)
def test_where_no_name_gets_to_the_layers_nothing_is_dropped(
    name: str, quantization: dict[str, Any], tmp_path: Path
) -> None:
    """EagleMistralLarge3's loader ends the load at any tensor: an export without the scales would only lose them."""
    config = tiny_configs()["EagleMistralLarge3ForCausalLM"] | {"quantization_config": quantization}
    weights = {"layers.0.attention.wq_a.weight": Stored([1.0])}
    inspection = look(tmp_path, config, {name.format(0): Stored([0.02]), name.format(1): Stored([0.03])} | weights)
    assert inspection.findings[0].fix.endswith("no export helps here.")
    plan = plan_export(inspection)
    assert {edit.action for edit in plan.edits} == {"kept"}
    assert [each.reason for each in plan.unreachable] == [
        "vLLM 0.33.0 ends the load at any tensor on the way to its MLAAttention layers, whatever its name"
    ]
    assert plan.verdict_predicted.outcome == "fails"
    assert not any("absent" in finding.code for finding in plan.findings_predicted)


MOVED = [
    ("EagleLlamaForCausalLM", "model.layers.{}.self_attn", "layers.{}.self_attn"),
    ("Eagle3Qwen3ForCausalLM", "model.layers.{}.self_attn", "layers.{}.self_attn"),
    ("DFlashDraftModel", "model.layers.{}.self_attn", "layers.{}.self_attn"),
    ("JinaEmbeddingsV5Model", "model.layers.{}.self_attn", "layers.{}.self_attn"),
    ("VoxtralForConditionalGeneration", "language_model.model.layers.{}.self_attn", "model.layers.{}.self_attn"),
]
"""Architectures whose loaders want other prefixes than the engine's own; the real vLLM 0.33.0 took every exported one
into its layers.
"""


@pytest.mark.parametrize(("architecture", "stored", "taken"), MOVED)
def test_a_module_is_called_as_the_loader_wants_it(architecture: str, stored: str, taken: str, tmp_path: Path) -> None:
    config = tiny_configs()[architecture] | {"quantization_config": MODELOPT}
    names = [f"{stored.format(layer)}.{role}_proj.{role}_scale" for layer in (0, 1) for role in "kv"]
    inspection = look(tmp_path / "model", config, {name: Stored([0.02 + n / 100]) for n, name in enumerate(names)})
    assert inspection.deliveries.load.outcome == "raises"
    plan = plan_export(inspection)
    assert actions(plan) == {"renamed": 4}
    assert plan.unreachable == ()
    assert [edit.new_key for edit in plan.edits] == [
        f"{taken.format(layer)}.{role}_scale" for layer in (0, 1) for role in "kv"
    ]
    result = write_export(plan, tmp_path / "out")
    assert result.verdict_after.outcome == "ok"
    assert verify(result.after).agreed


@pytest.mark.parametrize(("module", "moves"), [("layers.{}.self_attn", True), ("model.layers.{}.self_attn", False)])
def test_a_module_keeps_the_name_that_its_weights_have(module: str, moves: bool, tmp_path: Path) -> None:
    """Whether weights load under another name, scales cannot tell."""
    config = tiny_configs()["EagleLlamaForCausalLM"] | {"quantization_config": MODELOPT}
    tensors = {f"model.layers.{layer}.self_attn.{role}_scale": Stored([0.02]) for layer in (0, 1) for role in "kv"}
    weights = {f"{module.format(layer)}.o_proj.weight": Stored([1.0]) for layer in (0, 1)}
    plan = plan_export(look(tmp_path / "model", config, tensors | weights))
    assert actions(plan) == ({"renamed": 4} if moves else {"dropped": 4})
    assert plan.verdict_predicted.outcome == ("ok" if moves else "degraded")
