"""On a real GPU. Collected only where PyTorch sees one; needs nothing of Qt, so that it also runs with
``python -m pytest -c /dev/null --rootdir . --noconftest tests/core/loading/test_gpu.py`` on a bare GPU machine.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from core.errors import DeviceError
from core.inspection import inspect
from core.loading.devices import device_faults, find_device, list_devices
from core.loading.report import verification_as_data
from core.loading.skeleton import attention_layers, build_skeleton
from core.loading.verify import setup_for, verify
from tests.core.loading.running import run_cases
from tests.places import REPOSITORY, checkpoint_folders, shared_folder

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
