from __future__ import annotations

import pytest
import torch

from core.errors import DeviceError
from core.loading.devices import Device, cuda_fault, device_fault, device_faults, find_device, list_devices

GPU = Device(id="cuda:0", name="NVIDIA H200", memory=141 << 30)
CPU = Device(id="cpu", name="CPU")


def test_the_cpu_is_always_there() -> None:
    cpu = list_devices()[0]
    assert (cpu.id, cpu.usable, cpu.fnuz) == ("cpu", True, False)
    assert find_device("cpu") == cpu


def test_every_listed_device_is_found_and_every_reason_is_given() -> None:
    for device in list_devices():
        if device.usable:
            assert find_device(device.id) == device
        else:
            assert device.reason == cuda_fault()
            with pytest.raises(DeviceError, match="on a machine with a GPU"):
                find_device(device.id)


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "mps", ""])
def test_a_name_that_is_no_device(name: str) -> None:
    with pytest.raises(DeviceError) as caught:
        find_device(name)
    assert str(caught.value) == f"{name!r} is no device that KVScope loads on. Choose cpu or cuda:N"


def test_without_cuda_the_sentence_names_the_build_and_both_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(DeviceError) as caught:
        find_device("cuda:0", path="/models/llama")
    assert str(caught.value) == (
        f"/models/llama: PyTorch {torch.__version__} is built without CUDA. "
        "Run `kvscope verify /models/llama --device cuda:0` on a machine with a GPU, "
        "or `kvscope verify /models/llama --device cpu` here"
    )
    assert [device.reason for device in list_devices()] == [None, cuda_fault()]


def _driver_missing() -> None:
    raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU.")


def test_a_build_with_cuda_on_a_machine_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", _driver_missing)
    version = torch.__version__
    assert cuda_fault() == f"PyTorch {version} finds no CUDA device: Found no NVIDIA driver on your system"


def test_a_gpu_that_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert str(cuda_fault()).endswith("finds no CUDA device (CUDA_VISIBLE_DEVICES is '')")


def test_an_index_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.loading.devices.cuda_fault", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError) as caught:
        find_device("cuda:3", path="model")
    assert str(caught.value) == (
        "model: there is no cuda:3 on this machine, only cuda:0 alone. Run `kvscope verify model --device cuda:0`"
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(DeviceError, match=r"only cuda:0 to cuda:1\."):
        find_device("cuda:3")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("CUDA error: out of memory\nCUDA kernel errors might", "cuda:0 (CUDA) has not enough free memory"),
        (
            "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            "cuda:0 (CUDA) is busy: another process has it to itself",
        ),
        (
            "Unexpected error from cudaGetDeviceCount().",
            "cuda:0 cannot be used: Unexpected error from cudaGetDeviceCount()",
        ),
    ],
)
def test_a_device_that_is_there_and_cannot_be_used(text: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full or busy GPU refuses already when it is asked for its name."""

    def refuses(_: int) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr("core.loading.devices.cuda_fault", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", refuses)
    with pytest.raises(DeviceError) as caught:
        find_device("cuda:0", path="model")
    assert str(caught.value).startswith(f"model: {problem}. ")
    assert "`kvscope verify model --device cpu`" in str(caught.value)
    assert [device.reason for device in list_devices()] == [None, problem]


def test_memory_that_runs_out() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(DeviceError) as caught, device_faults(GPU, path="model"):
        raise error
    assert caught.value.__cause__ is error
    assert str(caught.value) == (
        "model: cuda:0 (NVIDIA H200) has not enough free memory. Free some, or run `kvscope verify model --device cpu`"
    )


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported.",
        "CUDA driver error: device is lost",
        "HIP error: the operation cannot be performed in the present state",
    ],
)
def test_a_device_that_is_lost(text: str) -> None:
    with pytest.raises(DeviceError) as caught, device_faults(GPU, path="model"):
        raise RuntimeError(text)
    assert str(caught.value) == (
        f"model: cuda:0 (NVIDIA H200) failed: {text.splitlines()[0]}. "
        "Start KVScope again, or run `kvscope verify model --device cpu`"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "CUDA error: all CUDA-capable devices are busy or unavailable\nCUDA kernel errors might be reported later.",
            "cuda:0 (NVIDIA H200) is busy: another process has it to itself. Wait for that one, choose another device",
        ),
        (
            "CUDA error: no kernel image is available for execution on the device",
            "PyTorch VERSION has no code for cuda:0 (NVIDIA H200). Install a PyTorch built for it",
        ),
        (
            "CUDA driver version is insufficient for CUDA runtime version",
            "the NVIDIA driver here is too old for PyTorch VERSION, which was built for CUDA 13.0. Update the driver",
        ),
        (
            "CUDA out of memory. Tried to allocate 2.00 GiB.",
            "cuda:0 (NVIDIA H200) has not enough free memory. Free some",
        ),
    ],
)
def test_every_trouble_has_its_own_sentence(text: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In PyTorch's own class for them; older versions raise a plain RuntimeError."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for kind in (getattr(torch, "AcceleratorError", RuntimeError), RuntimeError):
        with pytest.raises(DeviceError) as caught, device_faults(GPU, path="model"):
            raise kind(text)
        assert str(caught.value) == (
            f"model: {sentence.replace('VERSION', torch.__version__)}, or run `kvscope verify model --device cpu`"
        )


def test_free_memory_is_told_where_the_device_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1 << 27, 139 << 30))
    fault = device_fault(torch.OutOfMemoryError("CUDA out of memory."), GPU)
    assert "cuda:0 (NVIDIA H200) has not enough free memory: 0.1 of 139.0 GiB are free. Free some" in str(fault)


def _driver_old() -> None:
    raise RuntimeError(
        "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by "
        "downloading and installing a new version"
    )


def test_a_driver_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", _driver_old)
    with pytest.raises(DeviceError) as caught:
        find_device("cuda:0", path="model")
    assert str(caught.value) == (
        f"model: the NVIDIA driver here is too old for PyTorch {torch.__version__}, which was built for CUDA 13.0. "
        "Run `kvscope verify model --device cuda:0` on a machine with a GPU, "
        "or `kvscope verify model --device cpu` here"
    )


def test_pytorchs_own_class_for_a_lost_device() -> None:
    lost = getattr(torch, "AcceleratorError", RuntimeError)  # PyTorch 2.8
    assert device_fault(lost("unspecified launch failure"), GPU) is not None


@pytest.mark.parametrize("device", [CPU, GPU])
def test_the_loads_own_errors_pass(device: Device) -> None:
    text = "The size of tensor a (4) must match the size of tensor b (3) at non-singleton dimension 0"
    with pytest.raises(RuntimeError, match="The size of tensor a"), device_faults(device):
        raise RuntimeError(text)
    with pytest.raises(ValueError, match="scalar"), device_faults(device):
        raise ValueError("KV-cache scale expects a scalar weight")
