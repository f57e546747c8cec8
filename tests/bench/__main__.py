"""``make bench``: what KVScope costs on checkpoints of real size, as a multiple of what the usual tool costs.

CPU time of fresh processes, taken in turn, the median of several; the multiples carry over to other machines, the
milliseconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from resources import resource
from tests.bench import operations, remote, window
from tests.bench.export import report
from tests.bench.operations import OPERATIONS, PREPARED
from tests.bench.synthetic import CURVE, SIZES, write_checkpoint
from tests.bench.synthetic import tensors as every_tensor

FOLDER = Path(".bench")
EXPORT_RUNS = 3
MEASURES = {**operations.MEASURES, **remote.MEASURES, **window.MEASURES}


@dataclass(frozen=True, slots=True)
class Row:
    """``own`` shall cost at most ``target`` times what ``baseline`` costs, on the checkpoint ``size``."""

    title: str
    size: str
    baseline: str
    own: str
    target: float


ROWS = (
    Row("list all tensors", "B", "library_names", "own_names", 0.6),
    Row("list all tensors", "C", "library_names", "own_names", 0.6),
    Row("list all tensors", "D", "library_names", "own_names", 0.6),
    Row("read all KV scales", "B", "library_values", "own_values", 0.05),
    Row("open, read all KV scales", "B", "library_scales", "own_scales", 1.0),
    Row("list, read, map, diagnose", "B", "library_names", "judged", 1.0),
    Row("list, read, map, diagnose", "C", "library_names", "judged", 1.0),
    Row("list, read, map, diagnose", "D", "library_names", "judged", 1.0),
    Row("the same, advice and report", "B", "library_names", "check", 1.0),
    Row("the same, advice and report", "C", "library_names", "check", 1.0),
    Row("the same, advice and report", "D", "library_names", "check", 1.0),
)


@dataclass(frozen=True, slots=True)
class Limit:
    """A measure that shall stay under so many milliseconds (or what ``unit`` says), or under a multiple of another."""

    title: str
    size: str
    measure: str
    most: float
    baseline: str = ""
    unit: str = "ms"


LIMITS = (
    Limit("predict 128 layers x 30 backends", "P", "predict_all", 100),
    Limit("remote: fetched / needed bytes", "B", "remote_bytes", 1.01, unit="x"),
    Limit("remote: fetched / needed bytes", "C", "remote_bytes", 1.01, unit="x"),
    Limit("remote: requests / (2 a shard + 3)", "B", "remote_requests", 1, unit="x"),
    Limit("remote: requests / (2 a shard + 3)", "C", "remote_requests", 1, unit="x"),
    Limit("memory at its height, whole check", "D", "peak_memory", 400, unit="MiB"),
    Limit("first painted window / bare one", "C", "first_window", 1.15, "bare_window"),
    Limit("longest stall while opening", "C", "opening_stall", 50),
    Limit("filter all names", "C", "filter_names", 150),
    Limit("filter all names", "D", "filter_names", 150),
    Limit("sort all names", "C", "sort_names", 150),
    Limit("sort all names", "D", "sort_names", 150),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians in ms of CPU time."""

    row: Row
    baseline_ms: float
    own_ms: float

    @property
    def ratio(self) -> float:
        return self.own_ms / self.baseline_ms


def _one(operation: str, checkpoint: Path) -> None:
    """In the child: prints the CPU milliseconds of one run, or what else is measured."""
    if operation in MEASURES:
        print(MEASURES[operation](checkpoint))
        return
    sample = resource("samples", "modelopt", "qwen3-36layers-fp8-kvfp8")
    if operation in PREPARED:
        PREPARED[operation](sample)()
        run = PREPARED[operation](checkpoint)
    else:
        import core.export  # noqa: F401 - as all imports outside of what is measured: this sample needs none of it

        OPERATIONS[operation](sample)
        run = partial(OPERATIONS[operation], checkpoint)
    before = time.process_time()
    run()
    print(1000 * (time.process_time() - before))


def _measured(operation: str, checkpoint: Path) -> float:
    command = [sys.executable, "-m", "tests.bench", "--one", operation, str(checkpoint)]
    if operation in window.MEASURES:  # alone: what this module imports would count in the time to a first window
        command = [sys.executable, "-m", "tests.bench.window", operation, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{operation} on {checkpoint} failed:\n{done.stderr.strip()}")
    return float(done.stdout)


def measure(row: Row, checkpoint: Path, runs: int) -> Measured:
    """Both operations ``runs`` times, in turn, so that a slow minute strikes both."""
    pairs = [(_measured(row.baseline, checkpoint), _measured(row.own, checkpoint)) for _ in range(runs)]
    return Measured(row, median(pair[0] for pair in pairs), median(pair[1] for pair in pairs))


def main() -> int:
    """Measure and print; returns 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often each is run (default 5)")
    parser.add_argument("--sizes", nargs="+", choices=["B", "C", "D"], default=["B", "C", "D"], help="default: all")
    parser.add_argument("--one", nargs=2, metavar=("OPERATION", "CHECKPOINT"), help=argparse.SUPPRESS)
    parser.add_argument("--no-export", action="store_true", help="leave out the exports of 4 GiB")
    parser.add_argument("--no-curve", action="store_true", help="leave out the cost from 1,000 to 1,000,000 tensors")
    chosen = parser.parse_args()
    if chosen.one:
        _one(chosen.one[0], Path(chosen.one[1]))
        return 0
    kept: dict[str, Any] = {"load": [os.getloadavg()[0]], "runs": chosen.runs}
    met = [_reading(chosen.sizes, chosen.runs, kept), _limits(chosen.sizes, chosen.runs, kept)]
    if not chosen.no_curve:
        _curve(chosen.runs, kept)
    if not chosen.no_export:
        met.append(_exports(min(chosen.runs, EXPORT_RUNS), kept))
    kept["load"].append(os.getloadavg()[0])
    print("\nload of the machine: {:.1f} at the begin, {:.1f} at the end".format(*kept["load"]))
    (FOLDER / "results.json").write_text(json.dumps(kept, indent=2))
    return int(not all(met))


def _reading(sizes: list[str], runs: int, kept: dict[str, Any]) -> bool:
    """The rows with a baseline; whether all met their targets."""
    print(f"{'operation':28} {'size':4} {'usual ms':>9} {'KVScope ms':>11} {'ratio':>6} {'target':>7}")
    met = True
    for row in ROWS:
        if row.size not in sizes:
            continue
        result = measure(row, write_checkpoint(FOLDER, SIZES[row.size]), runs)
        kept.setdefault("reading", []).append({**asdict(result), "ratio": result.ratio})
        met = met and result.ratio <= row.target
        verdict = "" if result.ratio <= row.target else "  missed"
        numbers = f"{result.baseline_ms:9.1f} {result.own_ms:11.1f} {result.ratio:6.3f} {row.target:7.2f}"
        print(f"{row.title:28} {row.size:4} {numbers}{verdict}", flush=True)
    return met


def _limits(sizes: list[str], runs: int, kept: dict[str, Any]) -> bool:
    """The measures with a limit, each the median of several processes; whether all kept it."""
    met = True
    print(f"\n{'measure':35} {'size':4} {'measured':>12} {'limit':>8}")
    for limit in LIMITS:
        if limit.size not in (*sizes, "P"):
            continue
        checkpoint = write_checkpoint(FOLDER, SIZES[limit.size])
        unit, spent = "x" if limit.baseline else limit.unit, []
        for _ in range(runs):
            own = _measured(limit.measure, checkpoint)
            spent.append(own / _measured(limit.baseline, checkpoint) if limit.baseline else own)
        found = median(spent)
        kept.setdefault("limits", []).append({**asdict(limit), "unit": unit, "measured": found})
        met = met and found <= limit.most
        verdict = "" if found <= limit.most else "  missed"
        print(f"{limit.title:35} {limit.size:4} {found:8.4g} {unit:3} {limit.most:8.4g}{verdict}", flush=True)
    return met


def _curve(runs: int, kept: dict[str, Any]) -> None:
    """What a tensor costs, from a thousand to a million of one kind."""
    print(f"\n{'tensors':>9} {'shards':>6} {'usual us each':>14} {'KVScope us each':>16} {'memory MiB':>11}")
    for size in CURVE:
        checkpoint, tensors = write_checkpoint(FOLDER, size), sum(1 for _ in every_tensor(size))
        usual, own, memory = (
            median(_measured(name, checkpoint) for _ in range(runs))
            for name in ("library_names", "own_names", "listing_memory")
        )
        point = {"tensors": tensors, "usual_us": 1000 * usual / tensors, "own_us": 1000 * own / tensors, "mib": memory}
        kept.setdefault("curve", []).append(point)
        each = f"{point['usual_us']:14.2f} {point['own_us']:16.2f} {memory:11.0f}"
        print(f"{tensors:9,} {size.shards:6} {each}", flush=True)


def _exports(runs: int, kept: dict[str, Any]) -> bool:
    """The exports' rows; whether all met their targets."""
    all_met = True
    for line, met in report(FOLDER, runs):
        print(line, flush=True)
        kept.setdefault("exports", []).append({"row": line.strip(), "met": met})
        all_met = all_met and met
    return all_met


if __name__ == "__main__":
    sys.exit(main())
