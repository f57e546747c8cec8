"""What is measured. Each function runs once in a process of its own, after a first run over a small sample."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

SCALES = (".k_scale", ".v_scale")


def library_names(checkpoint: Path) -> int:
    """The names of all tensors, by the safetensors library."""
    from safetensors import safe_open

    names: list[str] = []
    for shard in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(shard, framework="numpy") as file:
            names += file.keys()
    return len(names)


def own_names(checkpoint: Path) -> int:
    """The names of all tensors, by KVScope, with dtype, shape, place and every check of headers and index."""
    from core.checkpoint import open_checkpoint

    return len(open_checkpoint(checkpoint).catalog)


def library_scales(checkpoint: Path) -> int:
    """The values of all KV scales, by the safetensors library: open each shard, look for them, read them."""
    from safetensors import safe_open

    count = 0
    for shard in sorted(checkpoint.glob("*.safetensors")):
        with safe_open(shard, framework="numpy") as file:
            count += sum(file.get_tensor(name).size for name in file.keys() if name.endswith(SCALES))  # noqa: SIM118
    return count


def own_scales(checkpoint: Path) -> int:
    """The values of all KV scales, by KVScope, which opens the checkpoint for it as well."""
    from core.checkpoint import open_checkpoint

    opened = open_checkpoint(checkpoint)
    return len(opened.read([name for name in opened.catalog.names if name.endswith(SCALES)]))


def check(checkpoint: Path) -> int:
    """``kvscope check --json``: list, read the scales, map, predict, diagnose, report."""
    from app.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(["check", str(checkpoint), "--engine", "vllm-0.33.0", "--json"])
    if status not in (0, 1):
        raise RuntimeError(f"check ended with status {status}")
    return len(printed.getvalue())


OPERATIONS: dict[str, Callable[[Path], int]] = {
    operation.__name__: operation for operation in (library_names, own_names, library_scales, own_scales, check)
}
