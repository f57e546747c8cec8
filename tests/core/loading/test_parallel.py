"""Tensor-parallel ranks on the CPU, joined by gloo: each is a process of its own."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from core.errors import CancelledError, DeviceError, UsageError
from core.inspection import inspect
from core.loading import parallel
from core.loading.devices import Device
from core.loading.parallel import rank_devices, rank_refusal
from core.loading.report import verification_as_data, verification_text
from core.loading.setup import setup_for
from core.loading.verification import Verification
from core.loading.verify import verify
from core.progress import Progress
from tests.core.loading.writing import LLAMA, MODELOPT, compressed_tensors, kv, write_checkpoint
from tests.places import SAMPLES

PER_HEAD = SAMPLES / "llmcompressor" / "llama-32layers-kv_attn_head"  # 8 query heads and 8 key/value heads


def _held(found: Verification, rank: int, path: str, role: str) -> tuple[float, ...]:
    (layer,) = [layer for layer in found.layers if (layer.rank, layer.path) == (rank, path)]
    return layer.runs_on(role)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_every_rank_holds_its_share_of_the_heads(ranks: int) -> None:
    inspection = inspect(PER_HEAD)
    alone, found = verify(inspection), verify(inspection, tensor_parallel=ranks)
    assert found.agreed
    assert (found.layers_agreed, found.layers_total) == (32 * ranks, 32 * ranks)
    share = 8 // ranks
    for layer in alone.layers:
        for role in ("k", "v"):
            whole = layer.runs_on(role)
            assert len(whole) == 8
            for rank in range(ranks):
                assert _held(found, rank, layer.path, role) == whole[rank * share : (rank + 1) * share]


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """Eight query heads in two groups, a scale for each head."""
    config = {**LLAMA, "num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 1}
    tensors = {
        "model.layers.0.self_attn.k_scale": torch.tensor([0.25, 0.5]).reshape(2, 1, 1),
        "model.layers.0.self_attn.v_scale": torch.tensor([0.75, 2.0]).reshape(2, 1, 1),
        "model.layers.0.self_attn.q_scale": torch.tensor([1.0, 4.0, 2.0, 3.0, 7.0, 5.0, 8.0, 6.0]).reshape(8, 1, 1),
    }
    quantization = compressed_tensors("attn_head")
    return write_checkpoint(tmp_path / "grouped", tensors, quantization=quantization, config=config)


def test_fewer_heads_than_ranks_are_copied_and_q_is_reduced_by_group(grouped: Path) -> None:
    found = verify(inspect(grouped), tensor_parallel=4)
    assert found.agreed, found.text
    path = "model.layers.0.self_attn.attn"
    assert [_held(found, rank, path, "k") for rank in range(4)] == [(0.25,), (0.25,), (0.5,), (0.5,)]
    assert [_held(found, rank, path, "v") for rank in range(4)] == [(0.75,), (0.75,), (2.0,), (2.0,)]
    assert [_held(found, rank, path, "q") for rank in range(4)] == [(4.0,), (4.0,), (8.0,), (8.0,)]
    data = json.loads(json.dumps(verification_as_data(found)))
    assert (data["tensor_parallel"], len(data["ranks"])) == (4, 4)
    assert [layer["rank"] for layer in data["layers"]] == [0, 1, 2, 3]
    assert data["steps"][0]["name"] == "join"
    assert "gather" in [step["name"] for step in data["steps"]]
    assert f"rank 3: {path}: k 0.5 / 0.5, v 2 / 2, q 8 / 8" in verification_text(found)
    assert found.text == (
        f"Observed on {found.where}: all 1 attention layers on each of 4 ranks hold what was predicted "
        f"({len(found.held)} values, compared exactly)."
    )


def test_one_scale_for_a_layer_is_the_same_on_every_rank(tmp_path: Path) -> None:
    inspection = inspect(write_checkpoint(tmp_path / "a", kv(0.3, 0.5), quantization=MODELOPT))
    found = verify(inspection, tensor_parallel=2, fnuz=True)
    assert found.agreed
    assert {layer.runs_on("k") for layer in found.layers if ".0." in layer.path} == {(0.6015625,)}


def test_a_rank_whose_share_does_not_fit_raises_as_predicted(tmp_path: Path) -> None:
    """Five scales for four heads: the first rank finds its two, and so does the second; three leave it with one,
    which is copied; two leave it with none.
    """
    config = {**LLAMA, "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 1}
    outcomes = {}
    for stored in (5, 3, 2):
        tensors = {"model.layers.0.self_attn.k_scale": torch.arange(1.0, stored + 1).reshape(stored, 1, 1)}
        path = write_checkpoint(
            tmp_path / str(stored), tensors, quantization=compressed_tensors("attn_head"), config=config
        )
        found = verify(inspect(path), tensor_parallel=2)
        assert found.agreed, found.text
        assert found.sound == (stored != 2)
        outcomes[stored] = (found.outcome, [layer.runs_on("k") for layer in found.layers])
    assert outcomes[5] == ("loads", [(1.0, 2.0), (3.0, 4.0)])
    assert outcomes[3] == ("loads", [(1.0, 2.0), (3.0, 3.0)])
    assert outcomes[2] == ("raises", [(1.0, 2.0)])


@pytest.mark.parametrize(
    ("ranks", "error"),
    [
        (3, "ValueError: Total number of attention heads (8) must be divisible by tensor parallel size (3)."),
        (1, None),
        (2, None),
        (8, None),
    ],
)
def test_ranks_that_the_engine_refuses(grouped: Path, ranks: int, error: str | None) -> None:
    inspection = inspect(grouped)
    setup = setup_for(inspection)
    assert setup is not None
    assert rank_refusal(setup, ranks) == ((error, "") if error is not None else None)
    if error is not None:
        found = verify(inspection, tensor_parallel=ranks)
        assert (found.outcome, found.error, found.layers) == ("refused", error, ())
        assert (found.predicted_outcome, found.predicted_error) == ("refused", error)
        assert found.agreed
        assert not found.sound


def test_key_value_heads_that_cannot_be_shared(tmp_path: Path) -> None:
    config = {**LLAMA, "num_attention_heads": 12, "num_key_value_heads": 3}
    inspection = inspect(write_checkpoint(tmp_path / "a", kv(0.3, 0.5), quantization=MODELOPT, config=config))
    found = verify(inspection, tensor_parallel=2)
    assert found.error == "AssertionError: "
    assert found.text.endswith("nothing was loaded: AssertionError (3 key/value heads cannot be shared by 2 ranks).")


def test_ranks_need_gpus_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    first, second = Device(id="cuda:0", name="NVIDIA H200"), Device(id="cuda:1", name="NVIDIA H200")
    assert rank_devices(first, 2, path=Path("model")) == ("cuda:0", "cuda:1")
    assert rank_devices(Device(id="cpu", name="CPU"), 3, path=Path("model")) == ("cpu",) * 3
    with pytest.raises(DeviceError) as caught:
        rank_devices(first, 4, path=Path("model"))
    assert str(caught.value) == (
        "model: 4 ranks need 4 GPUs, and this machine has 2 GPUs. Run `kvscope verify model --device cpu "
        "--tensor-parallel 4`, or give as many ranks as there are GPUs"
    )
    with pytest.raises(DeviceError, match="2 ranks need 2 GPUs, and this machine has 1 from cuda:1 on"):
        rank_devices(second, 2, path=Path("model"))


def test_options_that_make_no_sense(grouped: Path) -> None:
    inspection = inspect(grouped)
    with pytest.raises(UsageError, match=r"0 ranks cannot load anything. Give --tensor-parallel 1 or more"):
        verify(inspection, tensor_parallel=0)
    with pytest.raises(UsageError, match=r"several ranks load the scales alone. Leave out --weights all"):
        verify(inspection, tensor_parallel=2, weights="all")


def test_a_cancelled_run_ends_its_ranks(grouped: Path) -> None:
    class Stopping(Progress):
        def start(self, what: str, *, total: int = 0, unit: str = "") -> None:
            Progress.start(self, what, total=total, unit=unit)
            if what == "Loading on 2 ranks":
                self.cancel()

    with pytest.raises(CancelledError, match="Loading on 2 ranks was cancelled"):
        verify(inspect(grouped), tensor_parallel=2, progress=Stopping())


def test_a_rank_without_an_answer_is_one_sentence(grouped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PATIENCE_S", 0.0)
    with pytest.raises(DeviceError, match=r"rank 0 gave no answer within 0 s. Run `kvscope verify .* --device cpu`"):
        verify(inspect(grouped), tensor_parallel=2)


def test_a_rank_that_cannot_read_the_checkpoint_says_so(grouped: Path) -> None:
    inspection = inspect(grouped)
    (grouped / "model.safetensors").unlink()
    with pytest.raises(Exception, match=r"model\.safetensors|grouped") as caught:
        verify(inspection, tensor_parallel=2)
    assert type(caught.value).__module__ == "core.errors"


def test_a_scale_that_is_lost_between_ranks_is_reported() -> None:
    from core.loading.observed import Held, Observed
    from core.loading.verify import _lost_between_ranks

    name = "model.layers.0.self_attn.attn._k_scale"
    sender = Observed(rank=0, buffers={name: Held((0.25,), "float32")})
    receiver = Observed(rank=1, buffers={name: Held((0.5,), "float32")}, gathered={0: {name: (0.26,)}})
    (wrong,) = _lost_between_ranks([sender, receiver])
    assert str(wrong) == f"rank 1 received another {name} than rank 0 holds"
    assert (wrong.step, wrong.held, wrong.rank) == ("gather", (0.26,), 1)
    same = Observed(rank=1, gathered={0: {name: (0.25,)}})
    assert not _lost_between_ranks([sender, same])
    assert not math.isnan(wrong.held[0])
