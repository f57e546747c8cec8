"""What is measured. Each function runs once in a process of its own, after a first run over a small sample; those that
return a function prepare, and only what they return is measured.
"""

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


def judged(checkpoint: Path) -> int:
    """List, read the scales, map, predict, diagnose: the verdict and the findings, as the window waits for them."""
    from core.inspection import inspect

    return len(inspect(checkpoint).findings)


def check(checkpoint: Path) -> int:
    """``kvscope check --json``: all that, what other engines and an export would do with what is lost, the report."""
    from app.cli import main

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main(["check", str(checkpoint), "--engine", "vllm-0.33.0", "--json"])
    if status not in (0, 1):
        raise RuntimeError(f"check ended with status {status}")
    return len(printed.getvalue())


def library_values(checkpoint: Path) -> Callable[[], int]:
    """The values of all KV scales whose shards are known, by the safetensors library."""
    from safetensors import safe_open

    from core.checkpoint import open_checkpoint

    catalog = open_checkpoint(checkpoint).catalog
    wanted: dict[Path, list[str]] = {}
    for row in catalog.rows_ending(SCALES):
        wanted.setdefault(checkpoint / catalog.shard(row), []).append(catalog.names[row])

    def run() -> int:
        count = 0
        for shard, names in wanted.items():
            with safe_open(shard, framework="numpy") as file:
                count += sum(file.get_tensor(name).size for name in names)
        return count

    return run


def own_values(checkpoint: Path) -> Callable[[], int]:
    """The values of all KV scales of an open checkpoint, by KVScope."""
    from core.checkpoint import open_checkpoint

    opened = open_checkpoint(checkpoint)
    rows = opened.catalog.rows_ending(SCALES)
    return lambda: sum(len(found.values) for found in opened.read_rows(rows))


def predict_all(checkpoint: Path) -> Callable[[], int]:
    """What each of vLLM's backends makes of every scale: settings and deliveries, nothing read."""
    from core.backends import BACKENDS
    from core.engines import DEFAULT_ENGINE, Wish, get_engine
    from core.inspection import inspect

    found, engine = inspect(checkpoint), get_engine(DEFAULT_ENGINE)

    def run() -> int:
        count = 0
        for method in BACKENDS:
            wish = Wish(method=method)
            settings = engine.settle(found.declaration, wish)
            count += len(engine.deliver(found.declaration, settings, found.tensors, wish).deliveries)
        return count

    return run


OPERATIONS: dict[str, Callable[[Path], int]] = {
    operation.__name__: operation for operation in (library_names, own_names, library_scales, own_scales, judged, check)
}
PREPARED: dict[str, Callable[[Path], Callable[[], int]]] = {
    operation.__name__: operation for operation in (library_values, own_values, predict_all)
}


def peak_memory(checkpoint: Path) -> float:
    """MiB of memory at its height while a checkpoint is judged."""
    check(checkpoint)
    return _height()


def listing_memory(checkpoint: Path) -> float:
    """The same while its tensors are listed."""
    own_names(checkpoint)
    return _height()


def _height() -> float:
    """MiB of this process at its height; getrusage would count its parent's, from before it became another program."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


MEASURES: dict[str, Callable[[Path], float]] = {measure.__name__: measure for measure in (peak_memory, listing_memory)}
