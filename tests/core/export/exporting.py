"""What several tests of the export share."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import deserialize

from core.export import ExportPlan, plan_export
from core.inspection import inspect
from core.progress import Progress

Tensor = tuple[str, tuple[int, ...], bytes]


@dataclass(frozen=True)
class Stored:
    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def shard_bytes(tensors: Sequence[Stored], *, metadata: dict[str, str] | None = None, pad: int = 0) -> bytes:
    """A shard with the data in the order given and the names in reverse order."""
    at, offsets = 0, {}
    for tensor in tensors:
        offsets[tensor.name] = [at, at + len(tensor.data)]
        at += len(tensor.data)
    entries: dict[str, object] = {
        t.name: {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": offsets[t.name]} for t in reversed(tensors)
    }
    if metadata is not None:
        entries = {"__metadata__": metadata, **entries}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8 + pad)
    return struct.pack("<Q", len(text)) + text + b"".join(t.data for t in tensors)


def plan_of(folder: Path, *, names: str | None = None, kv_cache_dtype: str = "fp8") -> ExportPlan:
    return plan_export(inspect(folder, kv_cache_dtype=kv_cache_dtype), names=names)


def said_by(plan: ExportPlan) -> list[str]:
    """Every sentence of a plan itself."""
    changes = (*(edit.reason for edit in plan.edits), *(edit.reason for edit in plan.config_edits))
    chosen = (*(fix.reason for fix in plan.fixes), *(missed.reason for missed in plan.unreachable))
    return [*changes, *chosen, *plan.notes]


def tensors_of(path: Path) -> dict[str, Tensor]:
    """Every tensor of a shard as safetensors itself reads it: type, shape, bytes."""
    read = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    return {name: (tensor["dtype"], tuple(tensor["shape"]), bytes(tensor["data"])) for name, tensor in read}


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, links followed."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@dataclass(slots=True)
class Interrupted(Progress):
    """Does something once, when a phase has got to ``at`` of its units."""

    phase: str = "Copying"
    at: int = 0
    action: Callable[[], None] = print
    happened: list[int] = field(default_factory=list)

    def advance(self, by: int = 1) -> None:
        Progress.advance(self, by)
        if self.what == self.phase and self.done >= self.at and not self.happened:
            self.happened.append(self.done)
            self.action()
            self.check()


def made_from(folder: Path, out: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    """A copy of a checkpoint of one file, in which ``change`` changed the tensors."""
    shutil.copytree(folder, out, copy_function=shutil.copyfile)
    tensors = tensors_of(out / "model.safetensors")
    change(tensors)
    stored = [Stored(name, *tensor) for name, tensor in tensors.items()]
    (out / "model.safetensors").write_bytes(shard_bytes(stored, metadata={"format": "pt"}))
    return out


def float32(value: float) -> Tensor:
    """A scalar as the tensors of :func:`tensors_of` are."""
    return "F32", (), struct.pack("<f", value)
