"""Where the loader can run, and what to say where it cannot."""

from __future__ import annotations

import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from core.errors import DeviceError
from core.wording import Sentence, say

_LOST = re.compile(
    r"\b(?:CUDA|HIP|CUDNN|CUBLAS|NCCL)(?: driver)? error\b|device-side assert|unspecified launch failure", re.IGNORECASE
)
_MEMORY = re.compile(r"\bout of memory\b|\bCUBLAS_STATUS_ALLOC_FAILED\b", re.IGNORECASE)
_BUSY = re.compile(r"\bbusy or unavailable\b|already in use by (?:a |an)?\w*\s?thread", re.IGNORECASE)
_OLD_DRIVER = re.compile(r"driver (?:on your system )?is too old|driver version is insufficient", re.IGNORECASE)
_NO_CODE = re.compile(r"no kernel image is available", re.IGNORECASE)
_DRIVER_ERRORS = (RuntimeError, AssertionError, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device, or the reason why there is none.

    ``id`` is what the command line takes ("cpu", "cuda:0"). ``memory`` is in bytes, None where it is not known.
    ``fnuz``: its float8 type is FNUZ (AMD CDNA3), which doubles scales. ``reason`` is None for a device that works.
    """

    id: str
    name: str
    memory: int | None = None
    fnuz: bool = False
    reason: str | None = None

    @property
    def usable(self) -> bool:
        return self.reason is None


def list_devices() -> tuple[Device, ...]:
    """The CPU, then every CUDA (or ROCm) device; without any, one entry "cuda" that says why."""
    cpu = _cpu()
    reason = cuda_fault()
    if reason is not None:
        return cpu, Device(id="cuda", name="CUDA", reason=reason)
    return cpu, *(_cuda_or_reason(index) for index in range(torch.cuda.device_count()))


def find_device(name: str, *, path: Path | str | None = None) -> Device:
    """The device of that id; "cuda" is the current CUDA device.

    Raises:
        DeviceError: there is none; the sentence names the command to run instead. ``path`` is the checkpoint it names.
    """
    if name == "cpu":
        return _cpu()
    numbered = re.fullmatch(r"cuda(?::(\d{1,4}))?", name)
    if numbered is None:
        problem = say("{name!r} is no device that KVScope loads on", name=name)
        raise DeviceError(problem, remedy=say("Choose cpu or cuda:N"))
    reason = cuda_fault()
    if reason is not None:
        raise DeviceError(reason, path=path, remedy=elsewhere(name, path))
    count = torch.cuda.device_count()
    index = int(numbered.group(1)) if numbered.group(1) else torch.cuda.current_device()
    if index >= count:
        problem = say(
            "there is no {name} on this machine, only cuda:0 alone"
            if count == 1
            else "there is no {name} on this machine, only cuda:0 to cuda:{last}",
            name=name,
            last=count - 1,
        )
        raise DeviceError(problem, path=path, remedy=say("Run `{command}`", command=command("cuda:0", path)))
    try:
        return _cuda(index)
    except RuntimeError as error:  # it is there, and cannot be used
        raise _unusable(error, index, path) from error


def cuda_fault() -> str | None:
    """Why no CUDA device can be used, None where one can."""
    version = torch.__version__
    if torch.version.cuda is None and torch.version.hip is None:
        return say("PyTorch {version} is built without CUDA", version=version)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except _DRIVER_ERRORS as error:
            return _no_device(str(error))
    if caught:
        return _no_device(str(caught[0].message))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return say(
        "PyTorch {version} finds no CUDA device"
        if visible is None
        else "PyTorch {version} finds no CUDA device (CUDA_VISIBLE_DEVICES is {visible!r})",
        version=version,
        visible=visible,
    )


@contextmanager
def device_faults(device: Device, *, path: Path | str | None = None) -> Iterator[None]:
    """Turn what the device does to a running load into one sentence.

    Raises:
        DeviceError: the block ran out of the device's memory, or the device failed under it.
    """
    try:
        yield
    except RuntimeError as error:
        fault = device_fault(error, device, path=path)
        if fault is None:
            raise
        raise fault from error


def device_fault(error: RuntimeError, device: Device, *, path: Path | str | None = None) -> DeviceError | None:
    """The sentence for an error that is the device's, None for one that is the load's own."""
    text, here, instead = str(error), f"{device.id} ({device.name})", command("cpu", path)
    accelerator = getattr(torch, "AcceleratorError", None)  # PyTorch 2.8
    on_gpu = device.id != "cpu"
    if isinstance(error, torch.OutOfMemoryError) or (on_gpu and _MEMORY.search(text)):
        problem, remedy = _out_of_memory(device, here), say("Free some, or run `{command}`", command=instead)
    elif on_gpu and _BUSY.search(text):
        problem = say("{device} is busy: another process has it to itself", device=here)
        remedy = say("Wait for that one, choose another device, or run `{command}`", command=instead)
    elif on_gpu and _OLD_DRIVER.search(text):
        problem, remedy = _old_driver(), say("Update the driver, or run `{command}`", command=instead)
    elif on_gpu and _NO_CODE.search(text):
        problem = say("PyTorch {version} has no code for {device}", version=torch.__version__, device=here)
        remedy = say("Install a PyTorch built for it, or run `{command}`", command=instead)
    elif (accelerator is not None and isinstance(error, accelerator)) or (on_gpu and _LOST.search(text)):
        problem = say("{device} failed: {error}", device=here, error=_first_sentence(text))
        remedy = say("Start KVScope again, or run `{command}`", command=instead)
    else:
        return None
    return DeviceError(problem, path=path, remedy=remedy)


def _out_of_memory(device: Device, here: str) -> Sentence:
    """With what the device says it has left, where it still answers: "...: 0.1 of 139.8 GiB are free"."""
    try:
        free, total = torch.cuda.mem_get_info(device.id)
    except Exception:  # noqa: BLE001 - a device in trouble, or none at all: the sentence stands without the numbers
        return say("{device} has not enough free memory", device=here)
    return say(
        "{device} has not enough free memory: {free:.1f} of {total:.1f} GiB are free",
        device=here,
        free=free / 2**30,
        total=total / 2**30,
    )


def _no_device(text: str) -> Sentence:
    """Why no device is found, from what PyTorch says."""
    if _OLD_DRIVER.search(text):
        return _old_driver()
    return say(
        "PyTorch {version} finds no CUDA device: {error}", version=torch.__version__, error=_first_sentence(text)
    )


def _old_driver() -> Sentence:
    return say(
        "the NVIDIA driver here is too old for PyTorch {version}, which was built for CUDA {cuda}"
        if torch.version.cuda
        else "the NVIDIA driver here is too old for PyTorch {version}, which was built for its CUDA",
        version=torch.__version__,
        cuda=torch.version.cuda,
    )


def command(device: str, path: Path | str | None) -> str:
    """The command line that verifies ``path`` on ``device``."""
    return f"kvscope verify {path if path is not None else 'PATH'} --device {device}"


def elsewhere(device: str, path: Path | str | None) -> str:
    """What to do on a machine without the device."""
    return say(
        "Run `{command}` on a machine with a GPU, or `{instead}` here",
        command=command(device, path),
        instead=command("cpu", path),
    )


def _cpu() -> Device:
    return Device(id="cpu", name=platform.machine() or "CPU")


def _cuda(index: int) -> Device:
    properties = torch.cuda.get_device_properties(index)
    architecture = str(getattr(properties, "gcnArchName", ""))
    return Device(
        id=f"cuda:{index}",
        name=properties.name,
        memory=int(properties.total_memory),
        fnuz=torch.version.hip is not None and architecture.startswith("gfx94"),
    )


def _cuda_or_reason(index: int) -> Device:
    try:
        return _cuda(index)
    except RuntimeError as error:
        return Device(id=f"cuda:{index}", name="CUDA", reason=_unusable(error, index, None).problem)


def _unusable(error: RuntimeError, index: int, path: Path | str | None) -> DeviceError:
    device = Device(id=f"cuda:{index}", name="CUDA")
    told = device_fault(error, device, path=path)
    if told is not None:
        return told
    problem = say("{device} cannot be used: {error}", device=device.id, error=_first_sentence(str(error)))
    return DeviceError(problem, path=path, remedy=elsewhere(device.id, path))


def _first_sentence(text: str) -> str:
    if not text.strip():
        return say("no reason given")
    line = text.strip().splitlines()[0]
    return re.split(r"(?<=[a-z])\.\s", line)[0].rstrip(".")
