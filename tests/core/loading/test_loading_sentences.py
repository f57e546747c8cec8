"""What a run of the loader says can be said in another language: no English is left but the engine's own errors."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import DeviceError, KVScopeError, UsageError
from core.inspection import Inspection, inspect
from core.loading import parallel
from core.loading.attention import Attention
from core.loading.devices import Device, cuda_fault, device_fault, elsewhere, find_device, list_devices
from core.loading.findings import contradiction
from core.loading.forward_result import DATA_WORDS, ForwardOptions
from core.loading.kv_cache import BaseKVCacheMethod, CompressedTensorsKVCacheMethod
from core.loading.parallel import rank_devices
from core.loading.parameters import KVCacheScaleParameter
from core.loading.verification import Verification, brief
from core.loading.verify import verify
from core.progress import Progress
from core.wording import Sentence, spoken
from tests.core.loading.writing import LLAMA, MODELOPT, NOVEL, kv, write_checkpoint
from tests.core.spoken import left_in_english
from tests.places import SAMPLES, checkpoint_folders

GPU = Device(id="cuda:0", name="NVIDIA H200")
HERE = Path("model.safetensors")
COMMAND = "kvscope verify model.safetensors"
V = [f"model.layers.{layer}.self_attn.v_proj.v_scale" for layer in (0, 1)]
LAYER_1 = "model.layers.1.self_attn.attn"


@pytest.fixture
def modelopt(tmp_path: Path) -> Inspection:
    return inspect(write_checkpoint(tmp_path / "model", kv(0.3, 0.5), quantization=MODELOPT))


def english_of(found: Verification) -> list[str]:
    """What is left of everything that the panel shows of a run; exceptions of the loader and the engine stand as they
    are, also shortened.
    """
    errors = [found.error, found.predicted_error]
    errors += [error for layer in found.layers for error in (layer.error, layer.expected_error)]
    but = [part for error in errors if error for part in (error, brief(error)) if part]
    shown = [found.text, found.reason, found.where, *(each.text for each in found.disagreements)]
    shown += [text for step in found.steps for text in (step.name, step.detail)]
    shown += [each.step for each in found.disagreements]
    if found.forward is not None:
        shown += [found.forward.text, found.forward.reason, *(layer.note for layer in found.forward.layers)]
    assert all(
        isinstance(text, Sentence) for step in found.steps for text in (step.name, step.detail) if text not in but
    )
    assert isinstance(found.text, Sentence)
    assert found.text
    return [words for text in shown for words in left_in_english(text, but=but)]


# ----------------------------------------------------------------------------------------------------------------- runs
def test_runs_over_every_checkpoint() -> None:
    left = {}
    outcomes = set()
    for name, folder in checkpoint_folders().items():
        inspection = inspect(folder)
        found = verify(inspection)
        outcomes.add((found.outcome, any(layer.error for layer in found.layers)))
        if words := english_of(found):
            left[name] = words
    assert left == {}
    assert ("loads", False) in outcomes


@pytest.mark.parametrize("sample", ["llama-32layers-kv_attn_head"])
@pytest.mark.parametrize("projections", [False, True])
def test_the_attention_too(sample: str, projections: bool) -> None:
    inspection = inspect(SAMPLES / "llmcompressor" / sample)
    found = verify(inspection, forward=ForwardOptions(projections=projections))
    assert found.forward is not None
    assert english_of(found) == []
    assert all(isinstance(words, Sentence) and not left_in_english(words) for words in DATA_WORDS.values())


@pytest.mark.parametrize(
    ("tensors", "cache", "says"),
    [
        (kv(0.3, 0.5), "auto", "no more than rounding"),
        (kv(0.3, 0.5), "bfloat16", "nothing is lost"),
        (kv(0.3, 0.5), "nvfp4", "is not computed here"),
        (NOVEL, "fp8", "with the scales received"),
        (dict.fromkeys(V, 0.5), "fp8", "Attention not run"),
    ],
)
def test_what_the_scales_cost(tensors: dict[str, float], cache: str, says: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "model", tensors, quantization=MODELOPT)
    found = verify(inspect(path, kv_cache_dtype=cache), forward=ForwardOptions(projections=True))
    assert english_of(found) == []
    assert found.forward is not None
    assert says in found.forward.text


def test_what_missing_scales_cost(tmp_path: Path) -> None:
    """Under another method the layers have no scales, whatever range the tensors claim."""
    path = write_checkpoint(tmp_path / "model", kv(0.00004, 0.00004), quantization=MODELOPT)
    found = verify(inspect(path, method="awq", kv_cache_dtype="fp8"), forward=ForwardOptions())
    assert found.forward is not None
    assert found.forward.text.startswith("layers 0 to 1 at 1.0: ")
    assert english_of(found) == []


def test_every_tensor(modelopt: Inspection) -> None:
    found = verify(modelopt, weights="all")
    assert english_of(found) == []


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_several_ranks(modelopt: Inspection, ranks: int) -> None:
    """What ranks say of themselves comes from processes of their own, whole."""
    found = verify(modelopt, tensor_parallel=ranks)
    assert english_of(found) == []
    if found.outcome == "loads":
        assert {"join", "gather"} <= {step.name for step in found.steps}


def test_heads_that_ranks_cannot_share(tmp_path: Path) -> None:
    config = {**LLAMA, "num_attention_heads": 12, "num_key_value_heads": 3}
    path = write_checkpoint(tmp_path / "a", kv(0.3, 0.5), quantization=MODELOPT, config=config)
    found = verify(inspect(path), tensor_parallel=2)
    assert "cannot be shared" in found.text
    assert english_of(found) == []


def test_models_that_are_refused_or_not_known(tmp_path: Path) -> None:
    unknown = {**LLAMA, "architectures": ["NobodyKnows"]}
    cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        (MODELOPT, unknown, "unknown"),
        ({"quant_method": "nobody's"}, LLAMA, "refused"),
        ({**MODELOPT, "quantization": 3}, LLAMA, "refused"),
    ]
    for number, (quantization, config, outcome) in enumerate(cases):
        path = write_checkpoint(tmp_path / str(number), NOVEL, quantization=quantization, config=config)
        found = verify(inspect(path))
        assert found.outcome == outcome
        assert english_of(found) == []


def test_modules_that_no_run_has_confirmed(modelopt: Inspection) -> None:
    doubtful = replace(modelopt, deliveries=replace(modelopt.deliveries, confirmed=False))
    found = verify(doubtful)
    assert found.text.endswith("No run of the engine has confirmed the modules themselves.")
    assert english_of(found) == []


def test_a_loop_of_an_older_version() -> None:
    inspection = inspect(SAMPLES / "llmcompressor" / "llama-32layers-kv_attn_head", engine="vllm-0.23.0")
    with pytest.raises(UsageError) as failure:
        verify(inspection)
    assert left_in_english(failure.value.message) == []


def test_options_that_make_no_sense(modelopt: Inspection) -> None:
    wrong: list[Callable[[], Verification]] = [
        lambda: verify(modelopt, tensor_parallel=0),
        lambda: verify(modelopt, tensor_parallel=2, weights="all"),
        lambda: verify(modelopt, tensor_parallel=2, forward=ForwardOptions()),
        lambda: verify(modelopt, device="tpu"),
    ]
    for run in wrong:
        with pytest.raises(KVScopeError) as failure:
            run()
        assert isinstance(failure.value.message, Sentence)
        assert left_in_english(failure.value.message) == []


# ------------------------------------------------------------------------------------------------------- contradictions
def test_a_device_that_holds_something_else(modelopt: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    process = BaseKVCacheMethod.process_weights_after_loading

    def tampered(self: BaseKVCacheMethod, layer: Attention) -> None:
        process(self, layer)
        layer.get_buffer("_k_scale").mul_(2.0)
        layer._q_scale_float = math.nan

    monkeypatch.setattr(BaseKVCacheMethod, "process_weights_after_loading", tampered)
    _contradicted(modelopt, verify(modelopt))


def test_heads_that_hold_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = CompressedTensorsKVCacheMethod.process_weights_after_loading
    inspection = inspect(SAMPLES / "llmcompressor" / "llama-32layers-kv_attn_head")
    for heads in (1, 2, 6):

        def tampered(self: CompressedTensorsKVCacheMethod, layer: Attention, heads: int = heads) -> None:
            process(self, layer)
            layer.get_buffer("_v_scale")[:heads] = 0.375

        monkeypatch.setattr(CompressedTensorsKVCacheMethod, "process_weights_after_loading", tampered)
        found = verify(inspection)
        assert ("in heads 0, 1, 2, 3 and 2 more" in found.disagreements[0].text) is (heads == 6)
        _contradicted(inspection, found)


def test_a_parameter_that_takes_something_else(modelopt: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(param: torch.Tensor, loaded_weight: torch.Tensor) -> None:
        param.data.copy_((loaded_weight * 448).reshape(()))

    monkeypatch.setattr(KVCacheScaleParameter, "weight_loader", staticmethod(careless))
    _contradicted(modelopt, verify(modelopt))


def test_predictions_that_are_wrong(modelopt: Inspection, tmp_path: Path) -> None:
    told = modelopt.deliveries
    first, last = told.attention
    load = replace(told.load, outcome="raises", error="KeyError: 'x'", key="x")
    deliveries = [
        replace(told, load=load),
        replace(told, attention=(first, replace(last, final={}, error="AssertionError: "))),
        replace(told, deliveries=(replace(told.deliveries[0], target=f"{LAYER_1}.other"), *told.deliveries[1:])),
    ]
    for wrong in deliveries:
        asked = replace(modelopt, deliveries=wrong)
        _contradicted(asked, verify(asked))
    for error, key in ((None, None), ("KeyError: 'x'", "y")):
        tensors = {**kv(0.25, 0.5), "model.layers.1.self_attn.k_proj.k_scale": torch.ones(32)}
        inspection = inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT))
        load = replace(inspection.deliveries.load, outcome="raises" if error else "loads", error=error, key=key)
        asked = replace(inspection, deliveries=replace(inspection.deliveries, load=load))
        _contradicted(asked, verify(asked))


def _contradicted(inspection: Inspection, found: Verification) -> None:
    assert not found.agreed
    assert english_of(found) == []
    finding = contradiction(found, inspection.deliveries)
    assert finding is not None
    own = (found.error or "").partition(": ")[2]
    for text in (finding.title, finding.evidence, finding.consequence, finding.fix, finding.source):
        assert isinstance(text, Sentence)
        assert left_in_english(text, but=[own] if own else ()) == []


# -------------------------------------------------------------------------------------------------------------- devices
def test_devices_that_are_here() -> None:
    assert all(left_in_english(device.reason or "") == [] for device in list_devices())
    assert left_in_english(elsewhere("cuda:0", HERE), but=[COMMAND]) == []


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA driver version is insufficient for CUDA runtime version",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA driver error: device is lost",
        "unspecified launch failure",
    ],
)
def test_troubles_of_a_device(text: str) -> None:
    """PyTorch's own words for a lost device stand as they are."""
    fault = device_fault(RuntimeError(text), GPU, path=HERE)
    assert fault is not None
    assert isinstance(fault.message, Sentence)
    assert left_in_english(fault.message, but=[COMMAND, text]) == []


@pytest.mark.parametrize("text", ["Found no NVIDIA driver on your system.", "The NVIDIA driver is too old", ""])
@pytest.mark.parametrize("cuda", ["13.0", None])
def test_a_machine_without_a_driver(text: str, cuda: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for init in (fails, lambda: None):
        monkeypatch.setattr(torch.cuda, "init", init)
        reason = cuda_fault()
        assert isinstance(reason, Sentence)
        assert left_in_english(reason, but=[text.rstrip(".")] if text else []) == []


@pytest.mark.parametrize("count", [1, 4])
def test_too_few_gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.loading.devices.cuda_fault", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    for act in (
        lambda: find_device("cuda:9", path=HERE),
        lambda: rank_devices(GPU, 8, path=HERE),
        lambda: rank_devices(replace(GPU, id=f"cuda:{count - 1}"), 8, path=HERE),
    ):
        with pytest.raises(DeviceError) as failure:
            act()
        assert left_in_english(failure.value.message, but=[COMMAND]) == []


# ---------------------------------------------------------------------------------------------------------------- ranks
def test_sentences_go_from_process_to_process() -> None:
    def mark(template: str) -> str:
        return f"<{template}>"

    error = DeviceError(Sentence("a b", "{x} b", {"x": "a"}), path=HERE, remedy=Sentence("c", "c", {}))
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - made here
        assert str(made) == str(error) == "model.safetensors: a b. c"
        assert spoken(made.message, mark) == spoken(error.message, mark)
        assert "<a b>" in spoken(made.message, mark)


def test_a_rank_that_ends_in_an_error(modelopt: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    path = modelopt.checkpoint.path
    (path / "model.safetensors").unlink()
    with pytest.raises(KVScopeError) as failure:
        verify(modelopt, tensor_parallel=2)
    assert isinstance(failure.value.message, Sentence)
    assert left_in_english(failure.value.message, but=["kvscope verify"]) == []
    monkeypatch.setattr(parallel, "PATIENCE_S", 0.0)
    with pytest.raises(DeviceError) as failure:
        verify(modelopt, tensor_parallel=2)
    assert left_in_english(failure.value.message, but=["kvscope verify"]) == []


def test_progress_says_where_it_is(modelopt: Inspection) -> None:
    phases = set[str]()
    units = set[str]()

    class Watched(Progress):
        def start(self, what: str, *, total: int = 0, unit: str = "") -> None:
            phases.add(what)
            units.add(unit)
            assert isinstance(what, Sentence)
            assert isinstance(unit, Sentence)
            super().start(what, total=total, unit=unit)

    verify(modelopt, forward=ForwardOptions(), weights="all", progress=Watched())
    assert {"Building the attention layers", "Loading", "Post-processing", "Running the attention"} <= phases
    assert units == {"layers", "tensors"}
