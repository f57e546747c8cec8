"""``python -m core.loading PATH ... --device cuda:0``: verifies many checkpoints in one process.

Needs PyTorch and numpy alone, so that it runs on GPU machines that have no desktop. Prints a line for each checkpoint
and a summary. Exit status: 0 everything agreed, 1 something disagreed or could not be verified, 2 a usage error, an
unreadable checkpoint, or a device that is not there; 141 where whoever read the output left before the last one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from core.errors import DeviceError, KVScopeError, UsageError
from core.inspection import inspect
from core.loading.devices import find_device
from core.loading.forward_result import ForwardOptions
from core.loading.report import verification_as_data, verification_lines, verification_summary
from core.loading.verification import Verification
from core.loading.verify import verify
from core.output import as_lines, plain_line, standard_streams, stop_without_reader

SUMMARY_SCHEMA = "kvscope.verifications/1"
EXIT_UNREAD = 141  # as a shell says of SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    with standard_streams():
        try:
            return _run(_parsed(arguments))
        except KVScopeError as error:
            _complain(str(error))
            return 2
        except KeyboardInterrupt:
            _complain("stopped")
            return 2
        except BrokenPipeError:
            return EXIT_UNREAD


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    try:
        return _parser().parse_args(arguments)
    finally:  # of --help nothing else tells that it could not be written
        sys.stdout.flush()


def _run(options: argparse.Namespace) -> int:
    begun = time.perf_counter()
    done: list[Verification] = []
    unreadable = 0
    device = find_device(options.device)
    for path in options.paths:
        stop_without_reader()
        try:
            verification = _verify(path, options)
        except (DeviceError, UsageError):
            raise
        except KVScopeError as error:
            unreadable += 1
            _complain(str(error))
            continue
        done.append(verification)
        as_data = verification_as_data if options.full else verification_summary
        first, *more = verification_lines(verification)
        _say(json.dumps(as_data(verification)) if options.json else as_lines([f"{path}: {first}", *more, ""]))
    total = _summary(done, unreadable, f"{device.id} ({device.name})", time.perf_counter() - begun)
    _say(json.dumps(total) if options.json else total["text"])
    if unreadable:
        return 2
    return 0 if all(verification.agreed for verification in done) else 1


def _verify(path: str, options: argparse.Namespace) -> Verification:
    inspection = inspect(
        path,
        engine=options.engine,
        method=options.method,
        architecture=options.architecture,
        kv_cache_dtype=options.kv_cache_dtype,
        dtype=options.dtype,
    )
    return verify(
        inspection,
        device=options.device,
        fnuz=options.fnuz,
        weights=options.weights,
        tensor_parallel=options.tensor_parallel,
        forward=ForwardOptions(seed=options.seed, projections=options.projections) if options.forward else None,
    )


def _summary(done: Sequence[Verification], unreadable: int, where: str, seconds: float) -> dict[str, Any]:
    agreed = sum(verification.agreed for verification in done)
    layers = sum(verification.layers_total for verification in done)
    layers_agreed = sum(verification.layers_agreed for verification in done)
    values = sum(len(verification.held) for verification in done)
    outcomes = Counter(verification.outcome for verification in done)
    weights = [verification.weights for verification in done if verification.weights is not None]
    peaks = [verification.peak_memory for verification in done if verification.peak_memory is not None]
    memory = f", at most {max(peaks) / 1e6:.1f} MB of device memory" if peaks else ""
    process = time.process_time()
    text = (
        f"{agreed} of {len(done)} checkpoints agree on {where}: {layers_agreed:,} of {layers:,} attention layers hold "
        f"what was predicted, {values:,} values compared exactly, in {seconds:.1f} s ({process:.1f} s of process time, "
        f"the import of PyTorch included){memory}"
    )
    return {
        "schema": SUMMARY_SCHEMA,
        "where": where,
        "checkpoints": len(done),
        "agreed": agreed,
        "outcomes": dict(outcomes),
        "layers_total": layers,
        "layers_agreed": layers_agreed,
        "values": values,
        "weights_equal": sum(held.equal for held in weights),
        "weights_bytes": sum(held.size for held in weights),
        "unreadable": unreadable,
        "seconds": round(seconds, 3),
        "process_seconds": round(process, 3),
        "peak_memory_bytes": max(peaks, default=None),
        "text": text,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.loading",
        description="Load the KV-cache scales of checkpoints for real, and compare what the attention layers hold with "
        "what is predicted.",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a checkpoint: a file or a folder")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default: cpu)")
    parser.add_argument("--weights", choices=("scales", "all"), default="scales", help="what to load (default: scales)")
    parser.add_argument(
        "--tensor-parallel", type=int, default=1, metavar="N", help="ranks, each on a GPU of its own (default: 1)"
    )
    parser.add_argument("--forward", action="store_true", help="run the attention: what do the scales cost its output?")
    parser.add_argument("--projections", action="store_true", help="with --forward: the checkpoint's own k, v and q")
    parser.add_argument("--seed", type=int, default=0, help="with --forward: what is drawn (default: 0)")
    parser.add_argument("--full", action="store_true", help="with --json: every layer too")
    parser.add_argument(
        "--fnuz",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the GPU's float8 type is FNUZ (default: ask the device)",
    )
    parser.add_argument("--engine", default="vllm-0.33.0")
    parser.add_argument("--method")
    parser.add_argument("--architecture")
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--dtype")
    parser.add_argument("--json", action="store_true", help="one JSON object on each line")
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _complain(sentence: str) -> None:
    """One line on stderr, where that can be written."""
    with suppress(KVScopeError):
        sys.stderr.write(f"{plain_line(sentence)}\n")
        sys.stderr.flush()
