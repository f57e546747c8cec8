"""On a real GPU. Collected only where PyTorch sees one; needs nothing of Qt, so that it also runs with
``python -m pytest -c /dev/null --rootdir . --noconftest tests/core/loading/test_gpu.py`` on a bare GPU machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from core.errors import DeviceError
from core.inspection import inspect
from core.loading.devices import device_faults, find_device, list_devices
from core.loading.forward_result import ForwardOptions
from core.loading.report import verification_as_data
from core.loading.skeleton import attention_layers, build_skeleton
from core.loading.verify import setup_for, verify
from tests.core.loading.running import run_cases
from tests.core.loading.writing import write_heads
from tests.places import REPOSITORY, SAMPLES, checkpoint_folders, shared_folder

if torch.cuda.is_available():

    @pytest.mark.parametrize("weights", ["scales", "all"])
    @pytest.mark.parametrize("kv_cache_dtype", ["auto", "fp8"])
    def test_every_real_checkpoint_on_the_gpu(kv_cache_dtype: str, weights: str) -> None:
        wrong, layers, values = {}, 0, 0
        for name, folder in checkpoint_folders().items():
            inspection = inspect(folder, kv_cache_dtype=kv_cache_dtype)
            here = verify(inspection, device="cpu", weights="all" if weights == "all" else "scales")
            there = verify(inspection, device="cuda:0", weights="all" if weights == "all" else "scales")
            if there.disagreements or (there.outcome, there.error) != (here.outcome, here.error):
                wrong[name] = there.text
            held, expected = (verification_as_data(found)["layers"] for found in (there, here))  # NaN as text
            assert held == expected
            layers += there.layers_agreed
            values += len(there.held)
        print(
            f"{layers} attention layers on {find_device('cuda:0').name}: {values} values as predicted and as on the CPU"
        )
        assert not wrong
        assert values

    def test_what_is_read_back_lies_in_the_gpus_memory() -> None:
        inspection = inspect(checkpoint_folders()["modelopt/qwen3-36layers-fp8-kvfp8"])
        setup = setup_for(inspection)
        assert setup is not None
        before = torch.cuda.memory_allocated(0)
        model = build_skeleton(setup)
        layers = [layer.to("cuda:0") for _, layer in attention_layers(model)]
        assert torch.cuda.memory_allocated(0) > before
        tensors = [tensor for layer in layers for tensor in (*layer.parameters(), *layer.buffers())]
        assert {tensor.device for tensor in tensors} == {torch.device("cuda:0")}

    def test_memory_that_runs_out_for_real() -> None:
        device = find_device("cuda:0")
        assert device.memory is not None
        with pytest.raises(DeviceError, match="has not enough free memory"), device_faults(device):
            torch.empty(device.memory * 2, dtype=torch.uint8, device="cuda:0")

    def test_an_index_that_is_not_there_for_real() -> None:
        with pytest.raises(DeviceError, match="there is no cuda:99 on this machine"):
            find_device("cuda:99")

    def test_the_device_is_described() -> None:
        device = list_devices()[1]
        assert device == find_device("cuda:0") == find_device("cuda")
        assert device.usable
        assert device.memory == torch.cuda.get_device_properties(0).total_memory

    def test_the_engines_own_results_on_the_gpu() -> None:
        shared = shared_folder()
        if shared is not None:
            done, wrong = run_cases(shared, device="cuda:0")
            print(f"{done - len(wrong)} of {done} cases end on the GPU as in vLLM 0.33.0")
            assert not wrong
            assert done == 847

    def test_the_attention_is_the_same_as_on_the_cpu() -> None:
        """Calibrated; all at 1.0, since nothing arrives; uninitialised; and one scale for each head."""
        for name in (
            "modelopt/qwen3-36layers-fp8-kvfp8",
            "modelopt/deepseekv3-30layers-fp8-kvfp8",
            "llmcompressor/llama-attn_fp8_tensor",
            "llmcompressor/llama-32layers-kv_attn_head",
        ):
            for fnuz in (False, True):
                for projections in (False, True):
                    inspection = inspect(SAMPLES / name)
                    options = ForwardOptions(projections=projections)
                    here = verify(inspection, device="cpu", fnuz=fnuz, forward=options).forward
                    there = verify(inspection, device="cuda:0", fnuz=fnuz, forward=options).forward
                    again = verify(inspection, device="cuda:0", fnuz=fnuz, forward=options).forward
                    assert here is not None
                    assert there is not None
                    assert again is not None
                    print(f"{name}: {there.text}")
                    assert there.text == here.text
                    assert [layer.errors for layer in there.layers] == [layer.errors for layer in again.layers]
                    for ours, theirs in zip(there.layers, here.layers, strict=True):
                        assert ours.losses == theirs.losses
                        assert (ours.data, ours.note) == (theirs.data, theirs.note)
                        for variant, error in ours.errors.items():
                            assert error == pytest.approx(theirs.errors[variant], rel=1e-3, abs=1e-6, nan_ok=True)
                        assert ours.seconds > 0

    def test_many_heads_are_fast_and_small(tmp_path: Path) -> None:
        """128 layers of 64 heads, in a process of its own: seconds of process time with the import, and megabytes."""
        path = write_heads(tmp_path / "heads", layers=128, heads=64)
        command = [sys.executable, "-m", "core.loading", str(path), "--device", "cuda:0", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
        assert done.returncode == 0, done.stderr
        total = json.loads(done.stdout.splitlines()[-1])
        print(total["text"])
        assert total["layers_agreed"] == 128
        assert total["process_seconds"] < 5
        assert total["peak_memory_bytes"] < 100e6

    def test_a_gpu_that_is_full(tmp_path: Path) -> None:
        """All memory is taken by this process; another one finds none."""
        path = write_heads(tmp_path / "heads", layers=2, heads=8)
        free, _ = torch.cuda.mem_get_info(0)
        taken = [torch.empty(free - (600 << 20), dtype=torch.uint8, device="cuda:0")]
        while True:  # what is left in ever smaller pieces
            try:
                taken.append(torch.empty(4 << 20, dtype=torch.uint8, device="cuda:0"))
            except torch.OutOfMemoryError:
                break
        command = [sys.executable, "-m", "core.loading", str(path), "--device", "cuda:0"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
        taken.clear()
        torch.cuda.empty_cache()
        print(done.stderr)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "--device cpu" in done.stderr

    @pytest.mark.parametrize("ranks", [2, 4, 8])
    def test_ranks_on_gpus_of_their_own_by_nccl(ranks: int, tmp_path: Path) -> None:
        paths = [SAMPLES / "llmcompressor" / "llama-32layers-kv_attn_head"]
        paths.append(write_heads(tmp_path / "heads", layers=16, heads=64))
        for path in paths:
            inspection = inspect(path)
            if torch.cuda.device_count() < ranks:
                with pytest.raises(DeviceError, match=f"{ranks} ranks need {ranks} GPUs"):
                    verify(inspection, device="cuda:0", tensor_parallel=ranks)
                continue
            alone = verify(inspection, device="cuda:0")
            found = verify(inspection, device="cuda:0", tensor_parallel=ranks)
            assert found.agreed, found.text
            print(found.text, found.ranks)
            held = {(layer.rank, layer.path): layer for layer in found.layers}
            for layer in alone.layers:
                for role in ("k", "v", "q"):
                    whole = layer.runs_on(role)
                    share = len(whole) // ranks
                    for rank in range(ranks):
                        mine = held[rank, layer.path].runs_on(role)
                        assert mine == whole[rank * share : (rank + 1) * share]

    def test_a_lost_device_is_one_sentence() -> None:
        """In a process of its own: the context is gone afterwards."""
        code = (
            "import torch\n"
            "from core.errors import DeviceError\n"
            "from core.loading.devices import device_faults, find_device\n"
            "device = find_device('cuda:0')\n"
            "try:\n"
            "    with device_faults(device, path='model'):\n"
            "        torch.ones(4, device='cuda:0')[torch.tensor([9], device='cuda:0')].sum().item()\n"
            "except DeviceError as error:\n"
            "    print('SENTENCE', error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=False)
        (sentence,) = [line for line in done.stdout.splitlines() if line.startswith("SENTENCE ")]
        assert "failed: " in sentence
        assert sentence.endswith("Start KVScope again, or run `kvscope verify model --device cpu`")
