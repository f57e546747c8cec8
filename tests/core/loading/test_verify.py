from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from app.observation import observation_of
from core.backends import get_backend, kv_method
from core.engines import EngineProfile
from core.errors import CancelledError, DeviceError, UnreadableCheckpointError, UsageError
from core.inspection import Inspection, inspect, reinspect
from core.loading import setup as set_up
from core.loading.attention import Attention
from core.loading.kv_cache import BaseKVCacheMethod, CompressedTensorsKVCacheMethod
from core.loading.parameters import KVCacheScaleParameter
from core.loading.report import verification_as_data, verification_text
from core.loading.run import LoaderRun
from core.loading.verification import Verification
from core.loading.verify import scale_rows, verify
from core.progress import Progress
from tests.core.loading.writing import LLAMA, MODELOPT, NOVEL, compressed_tensors, kv, write_checkpoint
from tests.places import checkpoint_folders

LAYER_1 = "model.layers.1.self_attn.attn"


def _held(verification: Verification, layer: str, name: str) -> tuple[float, ...]:
    (value,) = [value for value in verification.held if (value.layer_path, value.name) == (layer, name)]
    return value.held


@pytest.fixture
def modelopt(tmp_path: Path) -> Inspection:
    return inspect(write_checkpoint(tmp_path / "modelopt", kv(0.3, 0.5), quantization=MODELOPT))


# --------------------------------------------------------------------------------------------------- real checkpoints


@pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8"])
def test_every_real_checkpoint_holds_what_is_predicted(kv_cache_dtype: str) -> None:
    outcomes: Counter[str] = Counter()
    wrong: dict[str, list[str]] = {}
    layers = values = 0
    for name, folder in checkpoint_folders().items():
        inspection = inspect(folder, kv_cache_dtype=kv_cache_dtype)
        found = verify(inspection)
        outcomes[found.outcome] += 1
        if found.disagreements:
            wrong[name] = [str(disagreement) for disagreement in found.disagreements]
        assert (found.outcome == "unknown") == (inspection.deliveries.load.outcome == "unknown"), found.text
        assert found.layers_agreed == found.layers_total
        layers += found.layers_total
        values += len(found.held)
    print(f"{sum(outcomes.values()) - len(wrong) - outcomes['unknown']} of {sum(outcomes.values())} checkpoints agree")
    print(f"{layers} attention layers hold what was predicted: {values} values; {dict(outcomes)}")
    assert not wrong
    assert outcomes["loads"]
    assert values > 4 * layers > 0


# --------------------------------------------------------------------------------------------------------- what is held


def test_the_parameter_is_compared_with_the_file_and_the_scale_with_the_prediction(modelopt: Inspection) -> None:
    found = verify(modelopt)
    first = [value for value in found.held if value.layer_path == "model.layers.0.self_attn.attn"]
    rows = {(value.name, value.against): (value.held, value.dtype) for value in first}
    assert rows == {
        ("k_scale", "file"): ((0.30078125,), "bfloat16"),
        ("v_scale", "file"): ((0.5,), "bfloat16"),
        ("_k_scale", "prediction"): ((0.30078125,), "float32"),
        ("_v_scale", "prediction"): ((0.5,), "float32"),
        ("_q_scale", "prediction"): ((1.0,), "float32"),
        ("_prob_scale", "prediction"): ((1.0,), "float32"),
        ("_k_scale_float", "prediction"): ((0.30078125,), "float"),
        ("_v_scale_float", "prediction"): ((0.5,), "float"),
        ("_q_scale_float", "prediction"): ((1.0,), "float"),
    }
    assert {value.role for value in first} == {"k", "v", "q", "prob"}
    assert all(value.equal and value.max_error == 0.0 for value in found.held)
    assert (found.agreed, found.layers_agreed, found.layers_total) == (True, 2, 2)
    assert found.text == (
        f"Observed on {found.where}: all 2 attention layers hold what was predicted (18 values, compared exactly)."
    )


def test_every_step_is_named_and_timed(modelopt: Inspection) -> None:
    found = verify(modelopt)
    assert [step.name for step in found.steps] == [
        "build", "read", "load", "read back parameters", "post-process", "read back", "compare",
    ]  # fmt: skip
    assert all(step.seconds >= 0 and step.detail for step in found.steps)
    assert found.peak_memory is None  # of the host, nothing is measured
    assert found.seconds == pytest.approx(sum(step.seconds for step in found.steps))
    assert found.steps[0].detail.startswith("2 attention layers among ")


def test_heads_are_compared_one_by_one(tmp_path: Path) -> None:
    tensors = {
        "model.layers.0.self_attn.k_scale": torch.tensor([0.25, 0.5]).reshape(2, 1, 1),
        "model.layers.0.self_attn.q_scale": torch.tensor([0.1, 0.4, 0.3, 0.2]).reshape(4, 1, 1),
    }
    found = verify(inspect(write_checkpoint(tmp_path / "a", tensors, quantization=compressed_tensors("attn_head"))))
    assert found.agreed
    assert _held(found, "model.layers.0.self_attn.attn", "_k_scale") == (0.25, 0.5)
    assert _held(found, "model.layers.0.self_attn.attn", "q_scale") == tuple(torch.tensor([0.4, 0.3]).tolist())
    assert _held(found, "model.layers.0.self_attn.attn", "_k_scale_float") == (0.5,)


def test_nan_equals_nan(tmp_path: Path) -> None:
    tensors = {"model.layers.0.self_attn.k_scale": torch.tensor([math.nan])}
    found = verify(inspect(write_checkpoint(tmp_path / "a", tensors, quantization=compressed_tensors("tensor"))))
    assert found.agreed
    assert math.isnan(_held(found, "model.layers.0.self_attn.attn", "_k_scale")[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_scales_of_any_stored_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: torch.tensor(value).to(dtype) for name, value in kv(0.3, 0.7).items()}
    for engine_dtype in ("bfloat16", "float16", "float32"):
        path = write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT)
        assert verify(inspect(path, dtype=engine_dtype)).agreed


def test_fnuz_doubles_what_is_predicted_and_what_is_held(modelopt: Inspection) -> None:
    found = verify(modelopt, fnuz=True)
    assert (found.agreed, found.fnuz) == (True, True)
    assert _held(found, LAYER_1, "_v_scale") == (0.5,)
    assert _held(verify(modelopt, fnuz=False), LAYER_1, "_v_scale") == (0.25,)


def test_a_key_in_two_shards_is_read_twice_and_the_second_stays(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a", kv(0.25, 0.5), quantization=MODELOPT)
    (path / "model.safetensors").rename(path / "model-00001-of-00002.safetensors")
    key = "model.layers.1.self_attn.k_proj.k_scale"
    save_file({key: torch.tensor(0.75)}, path / "model-00002-of-00002.safetensors")
    weight_map = dict.fromkeys(kv(1, 1), "model-00001-of-00002.safetensors") | {key: "model-00002-of-00002.safetensors"}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    inspection = inspect(path)
    assert len(scale_rows(inspection)) == 5
    found = verify(inspection)
    parameter, scale = ([value for value in found.held if value.name == name][-1] for name in ("k_scale", "_k_scale"))
    assert (parameter.layer_path, parameter.expected, parameter.held) == (LAYER_1, (0.75,), (0.75,))
    assert scale.held == (0.75,)


def test_a_pickled_checkpoint(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a", kv(0.25, 0.5), quantization=MODELOPT)
    (path / "model.safetensors").unlink()
    torch.save({name: torch.tensor(value) for name, value in kv(0.25, 0.5).items()}, path / "pytorch_model.bin")
    found = verify(inspect(path))
    assert found.agreed
    assert _held(found, LAYER_1, "_k_scale") == (0.125,)


# ----------------------------------------------------------------------------------------- loads that do not go through


def test_a_load_that_raises_as_predicted_agrees(tmp_path: Path) -> None:
    tensors = {**kv(0.25, 0.5), "model.layers.1.self_attn.k_proj.k_scale": torch.ones(32)}
    found = verify(inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT)))
    assert (found.outcome, found.agreed, found.layers) == ("raises", True, ())
    assert found.error == "ValueError: KV-cache scale expects a scalar weight, got shape (32,)"
    assert found.key == "model.layers.1.self_attn.k_proj.k_scale"
    assert found.text.endswith(f"the load raises {found.error} at {found.key}, as predicted.")


def test_layers_that_raise_after_loading_as_predicted_agree(tmp_path: Path) -> None:
    tensors = {**kv(0.25, 0.5), "model.layers.1.self_attn.k_proj.k_scale": 0.0}
    found = verify(inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT)))
    assert (found.outcome, found.agreed, found.layers_agreed) == ("loads", True, 2)
    assert [layer.error for layer in found.layers] == [None, "AssertionError: "]
    assert "and then 1 of 2 attention layers raise AssertionError" in found.text


def test_a_model_the_engine_refuses_is_not_built(tmp_path: Path) -> None:
    inspection = inspect(write_checkpoint(tmp_path / "a", kv(0.25, 0.5)), kv_cache_dtype="fp8_e5m2")
    found = verify(inspection)
    assert (found.outcome, found.agreed, found.layers, found.steps) == ("refused", True, (), ())
    assert found.error is not None
    assert found.text == f"vLLM 0.33.0 refuses to build this model, so that nothing was loaded: {found.error}"


def test_an_unknown_architecture_is_not_verified(tmp_path: Path) -> None:
    config = {**LLAMA, "architectures": ["NovelForCausalLM"]}
    found = verify(inspect(write_checkpoint(tmp_path / "a", NOVEL, config=config)))
    assert (found.outcome, found.agreed, found.disagreements) == ("unknown", False, ())
    assert "NovelForCausalLM" in found.reason
    assert found.text == f"Not verified: {found.reason}."


def test_modules_that_no_run_has_confirmed_are_named_as_such(modelopt: Inspection) -> None:
    doubtful = replace(modelopt, deliveries=replace(modelopt.deliveries, confirmed=False))
    found = verify(doubtful)
    assert (found.agreed, found.confirmed) == (True, False)
    assert found.text.endswith("compared exactly). No run of the engine has confirmed the modules themselves.")
    assert verification_as_data(found)["confirmed"] is False
    assert observation_of(found) == "predicted"
    assert observation_of(verify(modelopt)) == "observed"


class Elsewhere(kv_method.KVMethod):
    """A KV method from outside this tree."""

    name = "Elsewhere"

    def parameters(self, shape: kv_method.AttentionShape) -> dict[str, kv_method.ScaleParameter]:
        return {}

    def process(
        self, held: Mapping[str, tuple[float, ...]], loaded: frozenset[str], cache: kv_method.CacheSetup
    ) -> kv_method.Processed:
        return kv_method.Processed(final={}, source={}, per_head={})


def test_a_kv_method_without_a_counterpart_is_not_verified(
    modelopt: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = get_backend("modelopt")
    monkeypatch.setattr(type(backend), "kv_method", lambda *_: Elsewhere())
    found = verify(modelopt)
    assert (found.outcome, found.agreed) == ("unknown", False)
    assert found.text == "Not verified: no method in core.loading.kv_cache does what Elsewhere predicts."


def test_an_engine_without_a_loader_here_is_a_usage_error(
    modelopt: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other:
        title = "Engine 1.0"

    def other(engine: str) -> EngineProfile:
        return Other()  # type: ignore[return-value]

    monkeypatch.setattr(set_up, "get_engine", other)
    with pytest.raises(UsageError, match=r"Engine 1\.0.*--engine vllm-0\.33\.0"):
        verify(modelopt)


@pytest.mark.parametrize("engine", ["vllm-0.27.1", "vllm-0.25.0"])
def test_older_versions_whose_loader_is_the_unified_one(tmp_path: Path, engine: str) -> None:
    tensors = {**kv(0.25, 0.5), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    found = verify(inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT), engine=engine))
    assert (found.agreed, found.engine) == (True, f"vLLM {engine.removeprefix('vllm-')}")
    assert _held(found, LAYER_1, "_k_scale") == (0.125,)


def test_a_loop_of_an_older_version_is_predicted_only() -> None:
    folder = checkpoint_folders()["modelopt/deepseekv3-30layers-fp8-kvfp8"]
    found = verify(inspect(folder, engine="vllm-0.27.1"))
    assert (found.outcome, found.agreed) == ("unknown", False)
    assert found.text == ("Not verified: DeepseekV2Model loads in a loop of an older release, which is predicted only.")


@pytest.mark.parametrize("engine", ["vllm-0.23.0", "vllm-0.30.0", "sglang-0.5.23", "tensorrt-llm"])
def test_engines_whose_loader_is_not_here(modelopt: Inspection, engine: str) -> None:
    with pytest.raises(UsageError) as caught:
        verify(reinspect(modelopt, engine=engine))
    assert str(caught.value).startswith(
        "the loader that KVScope runs is that of vLLM 0.33.0, vLLM 0.27.1, vLLM 0.25.0, not "
    )


# --------------------------------------------------------------------------------------------------- agreement can fail


def test_a_layer_that_holds_something_else_is_reported(modelopt: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    process = BaseKVCacheMethod.process_weights_after_loading
    seen: list[Attention] = []

    def tampered(self: BaseKVCacheMethod, layer: Attention) -> None:
        process(self, layer)
        seen.append(layer)
        if len(seen) == 2:
            layer.get_buffer("_k_scale").mul_(2.0)

    monkeypatch.setattr(BaseKVCacheMethod, "process_weights_after_loading", tampered)
    found = verify(modelopt)
    assert (found.agreed, found.outcome, found.layers_agreed, found.layers_total) == (False, "loads", 1, 2)
    (wrong,) = [value for value in found.held if not value.equal]
    assert (wrong.layer_path, wrong.role, wrong.name) == (LAYER_1, "k", "_k_scale")
    assert (wrong.expected, wrong.held, wrong.max_error) == ((0.150390625,), (0.30078125,), 0.150390625)
    (disagreement,) = found.disagreements
    assert disagreement.layer_path == LAYER_1
    assert (disagreement.role, disagreement.step) == ("k", "device")  # the host's copy is still right
    assert (disagreement.expected, disagreement.held) == ((0.150390625,), (0.30078125,))
    assert str(disagreement) == (
        f"{LAYER_1}, k: _k_scale holds 0.30078125, and 0.150390625 was predicted (parted at: device)"
    )
    assert found.text == f"Contradicted on {found.where}: {disagreement}."
    assert str(disagreement) in verification_text(found)


def test_one_bit_is_enough(modelopt: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    process = BaseKVCacheMethod.process_weights_after_loading

    def tampered(self: BaseKVCacheMethod, layer: Attention) -> None:
        process(self, layer)
        layer.get_buffer("_v_scale").copy_(torch.nextafter(layer.get_buffer("_v_scale"), torch.tensor(1.0)))

    monkeypatch.setattr(BaseKVCacheMethod, "process_weights_after_loading", tampered)
    assert verify(modelopt).layers_agreed == 0


def test_a_host_copy_that_differs_is_reported(modelopt: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    process = BaseKVCacheMethod.process_weights_after_loading

    def tampered(self: BaseKVCacheMethod, layer: Attention) -> None:
        process(self, layer)
        layer._q_scale_float = math.nan

    monkeypatch.setattr(BaseKVCacheMethod, "process_weights_after_loading", tampered)
    found = verify(modelopt)
    assert [str(disagreement).split(" holds ")[0] for disagreement in found.disagreements] == [
        f"model.layers.{layer}.self_attn.attn, q: _q_scale_float" for layer in (0, 1)
    ]
    assert {disagreement.step for disagreement in found.disagreements} == {"post-process"}
    assert math.isnan(next(value.max_error for value in found.held if not value.equal))


def test_a_parameter_that_does_not_hold_the_files_number_is_reported(
    modelopt: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(param: torch.Tensor, loaded_weight: torch.Tensor) -> None:
        param.data.copy_((loaded_weight * 448).reshape(()))

    monkeypatch.setattr(KVCacheScaleParameter, "weight_loader", staticmethod(careless))
    found = verify(modelopt)
    against = Counter(value.against for value in found.held if not value.equal)
    assert against == {"file": 4, "prediction": 8}
    assert "the checkpoint says" in found.text
    assert {disagreement.step for disagreement in found.disagreements} == {"load"}


def test_a_prediction_that_is_wrong_is_contradicted(modelopt: Inspection) -> None:
    deliveries = modelopt.deliveries
    last = deliveries.attention[-1]
    wrong = replace(last, final={**last.final, "v": 0.125})
    found = verify(replace(modelopt, deliveries=replace(deliveries, attention=(deliveries.attention[0], wrong))))
    assert [disagreement.layer_path for disagreement in found.disagreements] == [LAYER_1, LAYER_1]
    assert "holds 0.25, and 0.125 was predicted" in found.text


def test_a_load_that_should_have_raised_is_reported(modelopt: Inspection) -> None:
    load = replace(modelopt.deliveries.load, outcome="raises", error="KeyError: 'x'", key="x")
    found = verify(replace(modelopt, deliveries=replace(modelopt.deliveries, load=load)))
    assert (found.outcome, found.agreed) == ("loads", False)
    assert "the load goes through, and should raise KeyError: 'x' at x" in found.text


def test_a_load_that_should_have_gone_through_is_reported(tmp_path: Path) -> None:
    tensors = {**kv(0.25, 0.5), "model.layers.1.self_attn.k_proj.k_scale": torch.ones(32)}
    path = write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT)
    inspection = inspect(path)
    load = replace(inspection.deliveries.load, outcome="loads", error=None, key=None)
    found = verify(replace(inspection, deliveries=replace(inspection.deliveries, load=load)))
    assert (found.outcome, found.agreed) == ("raises", False)
    assert "and should go through" in found.text


@pytest.mark.parametrize(
    ("error", "key"),
    [
        ("KeyError: 'x'", "model.layers.1.self_attn.k_proj.k_scale"),
        ("ValueError: KV-cache scale expects a scalar weight, got shape (32,)", "model.layers.0.self_attn.k_scale"),
    ],
)
def test_another_error_or_another_key_is_a_disagreement(tmp_path: Path, error: str, key: str) -> None:
    tensors = {**kv(0.25, 0.5), "model.layers.1.self_attn.k_proj.k_scale": torch.ones(32)}
    inspection = inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT))
    load = replace(inspection.deliveries.load, error=error, key=key)
    found = verify(replace(inspection, deliveries=replace(inspection.deliveries, load=load)))
    assert not found.agreed
    assert found.text.endswith(f"and should raise {error} at {key}.")


def test_a_layer_that_should_have_raised_is_reported(modelopt: Inspection) -> None:
    first, last = modelopt.deliveries.attention
    wrong = replace(last, final={}, error="AssertionError: ")
    found = verify(replace(modelopt, deliveries=replace(modelopt.deliveries, attention=(first, wrong))))
    assert (found.layers_agreed, found.agreed) == (1, False)
    assert f"{LAYER_1} raises nothing after loading and should raise AssertionError" in found.text


def test_a_parameter_that_was_not_written_is_reported(modelopt: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = scale_rows(modelopt)
    stream = LoaderRun._stream

    def without_the_last(self: LoaderRun, _: object) -> object:
        list(stream(self, rows))
        return stream(self, rows[:-1])

    monkeypatch.setattr(LoaderRun, "_stream", without_the_last)
    found = verify(modelopt)
    assert str(found.disagreements[0]) == f"{LAYER_1}.v_scale was not written, and one should reach it"
    assert f"{LAYER_1}, v: v_scale holds -1.0, and 0.25 the checkpoint says (parted at: load)" in [
        str(one) for one in found.disagreements
    ]


def test_numbers_that_the_prediction_did_not_read_from_the_file_are_reported(modelopt: Inspection) -> None:
    tensors = tuple(replace(fed, values=(0.75,)) if "layers.1" in fed.key else fed for fed in modelopt.tensors)
    wrong = reinspect(replace(modelopt, tensors=tensors))
    found = verify(wrong)
    assert {disagreement.step for disagreement in found.disagreements} == {"read"}
    assert {disagreement.layer_path for disagreement in found.disagreements} == {LAYER_1}


def test_the_heads_that_differ_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = CompressedTensorsKVCacheMethod.process_weights_after_loading

    def tampered(self: CompressedTensorsKVCacheMethod, layer: Attention) -> None:
        process(self, layer)
        layer.get_buffer("_v_scale")[1] = 0.375

    monkeypatch.setattr(CompressedTensorsKVCacheMethod, "process_weights_after_loading", tampered)
    tensors = {"model.layers.0.self_attn.v_scale": torch.tensor([0.25, 0.5]).reshape(2, 1, 1)}
    found = verify(inspect(write_checkpoint(tmp_path / "a", tensors, quantization=compressed_tensors("attn_head"))))
    assert str(found.disagreements[0]) == (
        "model.layers.0.self_attn.attn, v: _v_scale holds 0.375 in head 1, and 0.5 was predicted (parted at: device)"
    )


# ------------------------------------------------------------------------------------------------- what layers run on


def test_what_layers_run_on(tmp_path: Path) -> None:
    """One layer loaded, one with k alone, one with nothing; and what takes the tensors and what does not."""
    tensors = {
        "model.layers.0.self_attn.k_proj.k_scale": 0.25,
        "model.layers.0.self_attn.v_proj.v_scale": 0.5,
        "model.layers.1.self_attn.k_proj.k_scale": 0.25,
    }
    config = {**LLAMA, "num_hidden_layers": 3}
    path = write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT, config=config)
    found = verify(inspect(path))
    assert found.agreed
    states = [(layer.states["k"], layer.states["v"]) for layer in found.layers]
    assert states == [("loaded", "loaded"), ("loaded", "duplicated"), ("default", "default")]
    text = verification_text(found)
    assert "  layer 2: k and v at 1.0: nothing arrived, and the checkpoint has nothing for it\n" in text
    assert "  layer 1: v copied from k\n" in text
    assert verification_as_data(found)["runs_on"] == {"default": 2, "duplicated": 1, "loaded": 3}
    plain = verify(inspect(path, kv_cache_dtype="bfloat16"))
    assert plain.layers[0].states["k"] == "forced"
    without = verify(inspect(path, method="awq"))
    assert [layer.states["v"] for layer in without.layers] == ["dropped", "none", "none"]
    assert "  layer 0: k and v at 1.0: the checkpoint's tensor did not arrive\n" in verification_text(without)


# ------------------------------------------------------------------------------------------------ stopping, and failing


class StopsAt(Progress):
    """Cancels itself after so many units of a phase."""

    def __init__(self, phase: str, unit: int) -> None:
        super().__init__()
        self._phase, self._unit = phase, unit

    def advance(self, by: int = 1) -> None:
        if self.what == self._phase and self.done + by >= self._unit:
            self.cancel()
        super().advance(by)


@pytest.mark.parametrize("phase", ["Building the attention layers", "Loading", "Post-processing", "Comparing weights"])
def test_it_can_be_cancelled_in_every_phase(tmp_path: Path, phase: str) -> None:
    tensors = {**kv(0.25, 0.5), "model.norm.weight": torch.ones(64), "lm_head.weight": torch.ones(128, 64)}
    inspection = inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT))
    progress = StopsAt(phase, 2)
    with pytest.raises(CancelledError, match=phase):
        verify(inspection, weights="all", progress=progress)
    assert progress.done == 2


def test_a_file_that_changed_is_one_sentence(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a", kv(0.25, 0.5), quantization=MODELOPT)
    inspection = inspect(path)
    with (path / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(UnreadableCheckpointError) as caught:
        verify(inspection)
    assert str(caught.value) == (
        f"{path / 'model.safetensors'}: changed since it was opened. Open the checkpoint again."
    )


def test_no_cuda_is_one_sentence_with_the_command(modelopt: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(DeviceError) as caught:
        verify(modelopt, device="cuda:0")
    assert f"`kvscope verify {modelopt.checkpoint.path} --device cuda:0`" in str(caught.value)
    assert f"`kvscope verify {modelopt.checkpoint.path} --device cpu` here" in str(caught.value)


def test_memory_that_runs_out_while_loading_is_the_devices_fault(
    modelopt: Inspection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(param: torch.Tensor, loaded_weight: torch.Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    monkeypatch.setattr(KVCacheScaleParameter, "weight_loader", staticmethod(greedy))
    with pytest.raises(DeviceError, match="has not enough free memory"):
        verify(modelopt)


# ------------------------------------------------------------------------------------------------------------ reporting


def test_the_report_is_json_with_every_value(tmp_path: Path) -> None:
    tensors = {"model.layers.0.self_attn.k_scale": math.nan, "model.layers.0.self_attn.v_scale": math.inf}
    path = write_checkpoint(tmp_path / "a", tensors, quantization=compressed_tensors("tensor"))
    data = json.loads(json.dumps(verification_as_data(verify(inspect(path))), allow_nan=False))
    assert data["schema"] == "kvscope.verification/1"
    assert (data["agreed"], data["layers_agreed"], data["layers_total"], data["values"]) == (True, 2, 2, 16)
    held = {value["name"]: value["held"] for value in data["layers"][0]["values"]}
    assert (held["_k_scale"], held["_v_scale"], held["_q_scale"]) == (["nan"], ["inf"], [1.0])


def test_the_text_shows_observed_beside_predicted(modelopt: Inspection) -> None:
    text = verification_text(verify(modelopt))
    assert "model.layers.0.self_attn.attn: k 0.300781 / 0.300781, v 0.5 / 0.5, q 1 / 1, prob 1 / 1" in text
    assert "read back parameters" in text


def test_the_text_of_a_failing_layer(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a", {"model.layers.0.self_attn.v_scale": 0.5}, quantization=MODELOPT)
    assert "model.layers.0.self_attn.attn: AssertionError / AssertionError" in verification_text(verify(inspect(path)))


def test_the_parameters_that_an_error_lists_are_the_same_on_every_run(tmp_path: Path) -> None:
    """Seen in vLLM 0.33.0, where they stand in the order of a set, which is another each time."""
    key = "model.layers.0.self_attn.foo.k_scale"
    inspection = inspect(write_checkpoint(tmp_path / "model", {key: 0.5}, quantization=MODELOPT))
    scales = ", ".join(f"'layers.0.self_attn.attn.{role}_scale'" for role in ("k", "prob", "q", "v"))
    assert inspection.deliveries.load.error == (
        "ValueError: There is no module or parameter named 'layers.0.self_attn.foo' in LlamaModel. The available "
        f"parameters belonging to layers.0.self_attn (LlamaAttention) are: {{{scales}, "
        "'layers.0.self_attn.o_proj.weight', 'layers.0.self_attn.qkv_proj.weight'}"
    )
    assert verify(inspection).error == inspection.deliveries.load.error
