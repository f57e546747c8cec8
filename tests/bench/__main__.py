"""``make bench``: what KVScope costs on checkpoints of real size, as a multiple of what the usual tool costs.

CPU time of fresh processes, taken in turn, the median of several; the multiples carry over to other machines, the
milliseconds do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from resources import resource
from tests.bench.export import report
from tests.bench.operations import OPERATIONS
from tests.bench.synthetic import SIZES, write_checkpoint
from tests.bench.window import MEASURES

FOLDER = Path(".bench")
EXPORT_RUNS = 3


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
    Row("open, read all KV scales", "B", "library_scales", "own_scales", 1.0),
    Row("the whole check", "B", "library_names", "check", 1.0),
    Row("the whole check", "C", "library_names", "check", 1.0),
)


@dataclass(frozen=True, slots=True)
class Limit:
    """A measure of the window that shall stay under so many milliseconds, or under a multiple of another measure."""

    title: str
    size: str
    measure: str
    most: float
    baseline: str = ""


LIMITS = (
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
    """In the child: prints the CPU seconds of one run."""
    if operation in MEASURES:
        print(MEASURES[operation](checkpoint) / 1000)
        return
    run = OPERATIONS[operation]
    run(resource("samples", "modelopt", "qwen3-36layers-fp8-kvfp8"))
    before = time.process_time()
    run(checkpoint)
    print(time.process_time() - before)


def _cpu_ms(operation: str, checkpoint: Path) -> float:
    command = [sys.executable, "-m", "tests.bench", "--one", operation, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{operation} on {checkpoint} failed:\n{done.stderr.strip()}")
    return 1000 * float(done.stdout)


def measure(row: Row, checkpoint: Path, runs: int) -> Measured:
    """Both operations ``runs`` times, in turn, so that a slow minute strikes both."""
    pairs = [(_cpu_ms(row.baseline, checkpoint), _cpu_ms(row.own, checkpoint)) for _ in range(runs)]
    return Measured(row, median(pair[0] for pair in pairs), median(pair[1] for pair in pairs))


def main() -> int:
    """Measure and print; returns 1 when a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="how often each is run (default 5)")
    parser.add_argument("--sizes", nargs="+", choices=["B", "C", "D"], default=["B", "C"], help="default: B C")
    parser.add_argument("--one", nargs=2, metavar=("OPERATION", "CHECKPOINT"), help=argparse.SUPPRESS)
    parser.add_argument("--no-export", action="store_true", help="leave out the exports of 4 GiB")
    chosen = parser.parse_args()
    if chosen.one:
        _one(chosen.one[0], Path(chosen.one[1]))
        return 0
    print(f"{'operation':26} {'size':4} {'usual ms':>9} {'KVScope ms':>11} {'ratio':>6} {'target':>7}")
    results: list[Measured] = []
    for row in ROWS:
        if row.size not in chosen.sizes:
            continue
        result = measure(row, write_checkpoint(FOLDER, SIZES[row.size]), chosen.runs)
        results.append(result)
        verdict = "" if result.ratio <= row.target else "  missed"
        numbers = f"{result.baseline_ms:9.0f} {result.own_ms:11.0f} {result.ratio:6.2f} {row.target:7.2f}"
        print(f"{row.title:26} {row.size:4} {numbers}{verdict}", flush=True)
    missed = _measure_window(chosen.sizes, chosen.runs)
    if not chosen.no_export:
        missed = _measure_exports(min(chosen.runs, EXPORT_RUNS)) or missed
    (FOLDER / "results.json").write_text(json.dumps([asdict(result) for result in results], indent=2))
    return int(missed or any(result.ratio > result.row.target for result in results))


def _measure_exports(runs: int) -> bool:
    """The exports' rows; whether one missed its target."""
    missed = False
    for line, met in report(FOLDER, runs):
        print(line, flush=True)
        missed = missed or not met
    return missed


def _measure_window(sizes: list[str], runs: int) -> bool:
    """The window's limits, each the median of several processes; whether one was missed."""
    missed = False
    print(f"\n{'the window':32} {'size':4} {'measured':>11} {'limit':>8}")
    for limit in LIMITS:
        if limit.size not in sizes:
            continue
        checkpoint = write_checkpoint(FOLDER, SIZES[limit.size])
        unit, spent = " ms", []
        for _ in range(runs):
            own = _cpu_ms(limit.measure, checkpoint)
            spent.append(own / _cpu_ms(limit.baseline, checkpoint) if limit.baseline else own)
        found = median(spent)
        if limit.baseline:
            unit = " x "
        over = found > limit.most
        missed = missed or over
        verdict = "  missed" if over else ""
        print(f"{limit.title:32} {limit.size:4} {found:8.4g}{unit} {limit.most:8.4g}{verdict}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
