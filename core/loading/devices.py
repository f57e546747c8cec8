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

_LOST = re.compile(
    r"\b(?:CUDA|HIP|CUDNN|CUBLAS)(?: driver)? error\b|device-side assert|unspecified launch failure", re.IGNORECASE
)
_MEMORY = re.compile(r"\bout of memory\b", re.IGNORECASE)
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
    return cpu, *(_cuda(index) for index in range(torch.cuda.device_count()))


def find_device(name: str, *, path: Path | str | None = None) -> Device:
    """The device of that id; "cuda" is the current CUDA device.

    Raises:
        DeviceError: there is none; the sentence names the command to run instead. ``path`` is the checkpoint it names.
    """
    if name == "cpu":
        return _cpu()
    numbered = re.fullmatch(r"cuda(?::(\d{1,4}))?", name)
    if numbered is None:
        raise DeviceError(f"{name!r} is no device that KVScope loads on", remedy="Choose cpu or cuda:N")
    reason = cuda_fault()
    if reason is not None:
        raise DeviceError(reason, path=path, remedy=elsewhere(name, path))
    count = torch.cuda.device_count()
    index = int(numbered.group(1)) if numbered.group(1) else torch.cuda.current_device()
    if index >= count:
        there = "cuda:0 alone" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise DeviceError(
            f"there is no {name} on this machine, only {there}",
            path=path,
            remedy=f"Run `{command('cuda:0', path)}`",
        )
    return _cuda(index)


def cuda_fault() -> str | None:
    """Why no CUDA device can be used, None where one can."""
    build = f"PyTorch {torch.__version__}"
    if torch.version.cuda is None and torch.version.hip is None:
        return f"{build} is built without CUDA"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except _DRIVER_ERRORS as error:
            return f"{build} finds no CUDA device: {_first_sentence(str(error))}"
    if caught:
        return f"{build} finds no CUDA device: {_first_sentence(str(caught[0].message))}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"{build} finds no CUDA device" + (f" (CUDA_VISIBLE_DEVICES is {visible!r})" if visible is not None else "")


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
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or (device.id != "cpu" and _MEMORY.search(text)):
        return DeviceError(
            f"{device.id} ({device.name}) has not enough free memory",
            path=path,
            remedy=f"Free some, or run `{command('cpu', path)}`",
        )
    accelerator = getattr(torch, "AcceleratorError", None)  # PyTorch 2.8
    if (accelerator is not None and isinstance(error, accelerator)) or (device.id != "cpu" and _LOST.search(text)):
        return DeviceError(
            f"{device.id} ({device.name}) failed: {_first_sentence(text)}",
            path=path,
            remedy=f"Start KVScope again, or run `{command('cpu', path)}`",
        )
    return None


def command(device: str, path: Path | str | None) -> str:
    """The command line that verifies ``path`` on ``device``."""
    return f"kvscope verify {path if path is not None else 'PATH'} --device {device}"


def elsewhere(device: str, path: Path | str | None) -> str:
    """What to do on a machine without the device."""
    return f"Run `{command(device, path)}` on a machine with a GPU, or `{command('cpu', path)}` here"


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


def _first_sentence(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else "no reason given"
    return re.split(r"(?<=[a-z])\.\s", line)[0].rstrip(".")
