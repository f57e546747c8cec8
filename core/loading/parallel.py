"""Tensor-parallel ranks: each a process of its own that loads its share, joined by ``torch.distributed``.

Gloo on the CPU, for any number of ranks; NCCL on CUDA, one GPU for each rank.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from core.architectures.heads import HeadCounts
from core.engines.profile import Wish
from core.engines.vllm.predict import Setup
from core.errors import DeviceError, KVScopeError
from core.loading.devices import Device, command
from core.loading.observed import Observed
from core.naming.conventions import layer_number
from core.progress import Progress
from core.wording import plural, say

if TYPE_CHECKING:
    from core.inspection import Inspection

PATIENCE_S = 300.0
"""How long ranks may take: a peer that hangs must not hang this process."""

_WORKER = "core.loading.rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class RankJob:
    """What a rank's process is given. ``store`` is the file through which the ranks find each other."""

    path: Path
    engine: str
    wish: Wish
    device: str
    rank: int
    size: int
    fnuz: bool
    store: str


def rank_refusal(setup: Setup, ranks: int) -> tuple[str, str] | None:
    """The error with which the engine refuses this number of ranks, and why; None where it takes it.

    Source: vLLM 0.33.0, ModelConfig.verify_with_parallel_config for query heads, the attention classes of the models
    for key/value heads.
    """
    counts = HeadCounts(setup.hf_config)
    heads = counts.model.query
    if heads % ranks:
        rule = f"must be divisible by tensor parallel size ({ranks})"
        return f"ValueError: Total number of attention heads ({heads}) {rule}.", ""
    for kv_heads in sorted({counts.of(layer_number(layer.path)).kv for layer in setup.layers} or {counts.model.kv}):
        if kv_heads % ranks if kv_heads >= ranks else ranks % kv_heads:
            reason = say("{heads} key/value heads cannot be shared by {ranks} ranks", heads=kv_heads, ranks=ranks)
            return "AssertionError: ", reason
    return None


def rank_devices(device: Device, ranks: int, *, path: Path) -> tuple[str, ...]:
    """The device of each rank: the CPU for all of them, or the GPUs from ``device`` on.

    Raises:
        DeviceError: there are fewer GPUs than ranks.
    """
    if device.id == "cpu":
        return ("cpu",) * ranks
    first, count = int(device.id.partition(":")[2]), torch.cuda.device_count()
    if first + ranks > count:
        have = plural(count, "GPU")
        if first:
            have = say("{count} from {device} on", count=count - first, device=device.id)
        raise DeviceError(
            say("{ranks} ranks need {ranks} GPUs, and this machine has {gpus}", ranks=ranks, gpus=have),
            path=path,
            remedy=say(
                "Run `{command} --tensor-parallel {ranks}`, or give as many ranks as there are GPUs",
                command=command("cpu", path),
                ranks=ranks,
            ),
        )
    return tuple(f"cuda:{first + rank}" for rank in range(ranks))


def run_ranks(inspection: Inspection, device: Device, ranks: int, *, fnuz: bool, progress: Progress) -> list[Observed]:
    """Run every rank; what each of them holds, in rank order.

    Raises:
        DeviceError: there are too few GPUs, a device fails, or a rank ends without an answer.
        UnreadableCheckpointError: a file cannot be read any more.
        CancelledError: ``progress`` was cancelled; the ranks are ended.
    """
    path = inspection.checkpoint.path
    devices = rank_devices(device, ranks, path=path)
    context = _context()
    progress.start(say("Loading on {ranks} ranks", ranks=ranks), total=ranks, unit=say("ranks"))
    started: list[tuple[BaseProcess, Connection]] = []
    with tempfile.TemporaryDirectory(prefix="kvscope-ranks-") as folder:
        try:
            for rank in range(ranks):
                job = RankJob(
                    path=path.absolute(),
                    engine=str(inspection.settings.engine.value),
                    wish=inspection.wish,
                    device=devices[rank],
                    rank=rank,
                    size=ranks,
                    fnuz=fnuz,
                    store=str(Path(folder) / "store"),
                )
                started.append(_start(context, job))
            return _collect(started, path, progress)
        finally:
            for process, connection in started:
                if process.is_alive():
                    process.terminate()
                process.join()
                connection.close()


def _context() -> BaseContext:
    """How processes are made: from a server that has imported the worker once, where the system forks safely."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_WORKER])
    return context


def _start(context: BaseContext, job: RankJob) -> tuple[BaseProcess, Connection]:
    from core.loading.rank import serve

    here, there = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(job, there), daemon=True)  # type: ignore[attr-defined]
    process.start()
    there.close()
    return process, here


def _collect(started: list[tuple[BaseProcess, Connection]], path: Path, progress: Progress) -> list[Observed]:
    """Every rank's answer; the first error of any rank is raised."""
    answers: dict[int, Observed] = {}
    deadline = time.monotonic() + PATIENCE_S
    while len(answers) < len(started):
        progress.check()
        waiting = {connection: rank for rank, (_, connection) in enumerate(started) if rank not in answers}
        if time.monotonic() >= deadline:
            rank = min(waiting.values())
            raise _lost(say("rank {rank} gave no answer within {time:.0f} s", rank=rank, time=PATIENCE_S), path)
        for ready in wait(list(waiting), timeout=0.1):
            rank = waiting[ready]  # type: ignore[index]
            answers[rank] = _answer(rank, started[rank], path)
            progress.advance()
    return [answers[rank] for rank in range(len(started))]


def _answer(rank: int, started: tuple[BaseProcess, Connection], path: Path) -> Observed:
    process, connection = started
    try:
        answer = connection.recv()
    except EOFError:
        process.join()
        ended = say("rank {rank} ended without an answer (exit status {status})", rank=rank, status=process.exitcode)
        raise _lost(ended, path) from None
    if isinstance(answer, KVScopeError):
        raise answer
    if isinstance(answer, str):
        raise _lost(say("rank {rank} failed: {error}", rank=rank, error=answer), path)
    if not isinstance(answer, Observed):
        raise TypeError(f"rank {rank} answered with {type(answer).__name__}")
    return answer


def _lost(problem: str, path: Path) -> DeviceError:
    remedy = say("Run `{command}` to load on one rank", command=command("cpu", path))
    return DeviceError(problem, path=path, remedy=remedy)
