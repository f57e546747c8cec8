"""Exports of 4 x 1 GiB against the tools that people use: wall and CPU time, and memory at its height.

Every run is a process of its own, in turn with its baseline, over a source that is in the page cache. What is flushed
to the disk by one (an export) and not by the other (``cp``) is said in its row.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

SHARDS, LAYERS, SHARD_BYTES = 4, 8, 1 << 30
_ROOM = 14 << 30
_PARTS = tuple(
    f"{block}.{part}"
    for block, parts in (("self_attn", "q_proj k_proj v_proj o_proj"), ("mlp", "gate_proj up_proj down_proj shared"))
    for part in parts.split()
)

LIBRARY = """
import sys
from pathlib import Path
from safetensors.numpy import load_file, save_file
source, out = Path(sys.argv[1]), Path(sys.argv[2])
out.mkdir()
for shard in sorted(source.glob("*.safetensors")):
    tensors = load_file(shard)
    renamed = {name.replace(".k_proj.k_scale", ".k_scale").replace(".v_proj.v_scale", ".v_scale"): tensor
               for name, tensor in tensors.items()}
    save_file(renamed, out / shard.name, metadata={"format": "pt"})
"""
COPY = 'cp -r "$0" "$1"'
FLUSHED = 'cp -r "$0" "$1" && sync "$1"/*'
_NAMES = ("--names", "portable")


def kvscope(*arguments: str) -> list[str]:
    """The command line of an export; source and target follow it."""
    return [sys.executable, "-m", "app.cli", "export", *arguments]


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians of several runs: seconds of wall and CPU time (user and system), MiB of memory."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True, slots=True)
class ExportRow:
    """``own`` against ``baseline``: at most ``wall`` times its wall time; ``rss`` MiB."""

    title: str
    baseline_title: str
    baseline: list[str]
    own: list[str]
    wall: float | None = None
    rss: float = 100.0


ROWS = (
    ExportRow("copy, flushed, new headers", "cp, sync", ["sh", "-c", FLUSHED],
              kvscope("--copy", "--verify", "none", *_NAMES), 1.1),
    ExportRow("copy, flushed, new headers", "cp", ["sh", "-c", COPY],
              kvscope("--copy", "--verify", "none", *_NAMES)),
    ExportRow("the same, every byte compared", "cp, sync", ["sh", "-c", FLUSHED],
              kvscope("--copy", "--verify", "all", *_NAMES)),
    ExportRow("copy, flushed, new headers", "load_file, save_file", [sys.executable, "-c", LIBRARY],
              kvscope("--copy", "--verify", "none", *_NAMES), 1.0),
)  # fmt: skip


def write_source(folder: Path) -> Path:
    """A Llama of 4 shards of 1 GiB with ModelOpt's names and random weights, made when it is not there yet."""
    source, complete = folder / "export", folder / "export.complete"
    if complete.exists():
        return source
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    random = os.urandom(SHARD_BYTES // LAYERS // len(_PARTS))
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        layers = [f"model.layers.{shard * LAYERS + layer}" for layer in range(LAYERS)]
        for weight in (f"{layer}.{part}.weight" for layer in layers for part in _PARTS):
            header[weight] = {"dtype": "I8", "shape": [len(random)], "data_offsets": [end, end + len(random)]}
            end += len(random)
        scales = [f"{layer}.self_attn.{role}_proj.{role}_scale" for layer in layers for role in "kv"]
        for scale in scales:
            header[scale] = {"dtype": "F32", "shape": [], "data_offsets": [end, end + 4]}
            end += 4
        weight_map |= {key: name for key in header if key != "__metadata__"}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (source / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _ in range(LAYERS * len(_PARTS)):
                file.write(random)
            for number in range(len(scales)):
                file.write(struct.pack("<f", 0.01 + number / 1000))
    (source / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16", "hidden_size": 4096,
        "num_hidden_layers": SHARDS * LAYERS, "num_attention_heads": 32, "num_key_value_heads": 8,
        "intermediate_size": 11008, "vocab_size": 32000,
        "quantization_config": {
            "quant_method": "modelopt", "quant_algo": "FP8",
            "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
            "producer": {"name": "modelopt", "version": "0.47.0"},
        },
    }  # fmt: skip
    (source / "config.json").write_text(json.dumps(config))
    complete.touch()
    return source


def run(command: list[str], source: Path, out: Path) -> Cost:
    """One run; the target is removed afterwards.

    Raises:
        SystemExit: the command failed.
    """
    os.sync()
    started = time.monotonic()
    with subprocess.Popen([*command, str(source), str(out)], stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1) or not any(out.iterdir()):
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    shutil.rmtree(out)
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _median(costs: list[Cost]) -> Cost:
    return Cost(median(c.wall for c in costs), median(c.cpu for c in costs), max(c.rss for c in costs))


def measure_row(row: ExportRow, source: Path, runs: int) -> tuple[Cost, Cost, float]:
    """Baseline and own, in turn, and the median of the ratios of their wall times."""
    out = source.with_name("export-out")
    shutil.rmtree(out, ignore_errors=True)
    pairs = [(run(row.baseline, source, out), run(row.own, source, out)) for _ in range(runs)]
    ratio = median(own.wall / usual.wall for usual, own in pairs)
    return _median([usual for usual, _ in pairs]), _median([own for _, own in pairs]), ratio


def untouched(source: Path, mode: str) -> float:
    """Milliseconds a shard of an export that links or clones all of them, without a comparison."""
    out = source.with_name("export-out")
    arguments = [f"--{mode}", "--verify", "none", *(_NAMES if mode == "clone" else ())]
    times = []
    for _ in range(3):
        command = [*kvscope(*arguments), "--json", str(source), str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        times.append(1000 * float(json.loads(done.stdout)["seconds"]) / SHARDS)
        shutil.rmtree(out)
    return median(times)


def report(folder: Path, runs: int) -> Iterator[tuple[str, bool]]:
    """A line for each row, and whether it met its target."""
    folder.mkdir(exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < _ROOM and not (folder / "export.complete").exists():
        yield f"\nexport: not measured, as it takes {_ROOM >> 30} GiB of disk and {free >> 30} are free", True
        return
    source = write_source(folder)
    subprocess.run(["sh", "-c", 'cat "$0"/* >/dev/null', str(source)], check=True)  # into the page cache
    yield f"\n{'export of 4 x 1 GiB':31} {'against':21} {'wall s':>13} {'CPU s':>13} {'MiB':>11}  ratio target", True
    for row in ROWS:
        usual, own, ratio = measure_row(row, source, runs)
        met = (row.wall is None or ratio <= row.wall) and own.rss <= row.rss
        both = (
            f"{usual.wall:5.2f} > {own.wall:5.2f} {usual.cpu:5.2f} > {own.cpu:5.2f} {usual.rss:4.0f} > {own.rss:4.0f}"
        )
        line = f"{row.title:31} {row.baseline_title:21} {both} {ratio:6.2f} {row.wall or '':>6}"
        yield line + ("" if met else "  missed"), met
    for mode, place, why in places(source):
        if place is None:
            yield f"all shards by {mode:<17} {why}", True
            continue
        each = untouched(place, mode)
        yield f"all shards by {mode:<17} {each:5.1f} ms a shard, of 20{'' if each <= 20 else '  missed'}", each <= 20


def places(source: Path) -> Iterator[tuple[str, Path | None, str]]:
    """Where links and clones are measured: beside the source, and on an XFS that is made for it."""
    from tests.core.export.conftest import mounted

    yield "link", source, ""
    try:
        with mounted("xfs", 8 << 30) as place:
            shutil.copytree(source, place / "export", copy_function=shutil.copyfile)
            os.sync()
            yield "clone", place / "export", ""
    except OSError as error:
        yield "clone", None, f"not measured: no XFS can be mounted here ({error})"
