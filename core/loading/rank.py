"""One tensor-parallel rank, in a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from core.checkpoint import open_checkpoint
from core.errors import KVScopeError
from core.inspection import inspect_opened
from core.loading.devices import device_faults, find_device
from core.loading.observed import Numbers, Observed
from core.loading.run import LoaderRun
from core.loading.setup import setup_for
from core.loading.verification import Step
from core.wording import say

if TYPE_CHECKING:
    from core.loading.parallel import RankJob

TIMEOUT = timedelta(seconds=120)
_GATHERED = ("_k_scale", "_v_scale", "_q_scale")


def serve(job: RankJob, answers: Connection) -> None:
    """Run the rank; send what it holds, or the error that ended it: a KVScopeError, or a text."""
    try:
        answer: Observed | KVScopeError | str = run_rank(job)
    except KVScopeError as error:
        answer = error
    except Exception as error:  # noqa: BLE001 - whatever ends a rank is told by the process that started it
        answer = f"{type(error).__name__}: {error}".splitlines()[0]
    with suppress(BrokenPipeError):  # the other side has given up
        answers.send(answer)
    answers.close()


def run_rank(job: RankJob) -> Observed:
    """Join the group, load this rank's share, and exchange with the others what its layers hold."""
    torch.set_num_threads(1)  # many ranks share this machine, and their tensors are small
    cuda = job.device != "cpu"
    device = find_device(job.device, path=job.path)
    with device_faults(device, path=job.path):
        begun = time.perf_counter()
        _join(job, cuda=cuda)
        detail = say("{ranks} ranks by NCCL" if cuda else "{ranks} ranks by gloo", ranks=job.size)
        joined = Step(say("join"), time.perf_counter() - begun, detail)
        try:
            # Opened anew: what makes names quick to find in a catalog holds in one process alone.
            inspection = inspect_opened(open_checkpoint(job.path), engine=job.engine, wish=job.wish)
            setup = setup_for(inspection)
            if setup is None:
                problem = say("changed since it was opened")
                raise KVScopeError(problem, path=job.path, remedy=say("Open the checkpoint again."))
            cache = replace(setup.cache, fnuz=job.fnuz)
            setup = replace(setup, cache=cache, tp_rank=dist.get_rank(), tp_size=dist.get_world_size())
            run = LoaderRun(inspection, setup, device)
            observed = run.run()
            begun = time.perf_counter()
            gathered = _exchange(observed, run, device.id)
            detail = say("scales of {count} other ranks received", count=len(gathered))
            taken = Step(say("gather"), time.perf_counter() - begun, detail)
        finally:
            dist.destroy_process_group()
    return replace(observed, gathered=gathered, steps=(joined, *observed.steps, taken))


def _join(job: RankJob, *, cuda: bool) -> None:
    store = dist.FileStore(job.store, job.size)  # type: ignore[attr-defined]
    if cuda:
        torch.cuda.set_device(job.device)
        # A few kilobytes need no NVLink multicast, which not every host lets a program use.
        os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        store=store,
        rank=job.rank,
        world_size=job.size,
        timeout=TIMEOUT,
        device_id=torch.device(job.device) if cuda else None,
    )


def _exchange(observed: Observed, run: LoaderRun, device: str) -> dict[int, Mapping[str, Numbers]]:
    """Every rank's k, v and q scales, through the process group and the devices' memory; by rank, without its own.

    A rank whose load failed sends how many numbers it has, which is none, and none are then exchanged.
    """
    scales = {
        f"{path}.{name}": layer.get_buffer(name).reshape(-1)
        for path, layer in run.layers
        for name in _GATHERED
        if observed.error is None
    }
    mine = torch.cat(list(scales.values())) if scales else torch.empty(0, device=device)
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([mine.numel()], dtype=torch.int64, device=device))
    if any(int(size) != mine.numel() for size in sizes) or not mine.numel():
        return {}
    others = [torch.empty_like(mine) for _ in sizes]
    dist.all_gather(others, mine)
    found: dict[int, Mapping[str, Numbers]] = {}
    for rank, flat in enumerate(others):
        if rank != dist.get_rank():
            numbers = flat.cpu().to(torch.float64).tolist()
            found[rank] = dict(zip(scales, _cut(numbers, [part.numel() for part in scales.values()]), strict=True))
    return found


def _cut(numbers: list[float], lengths: list[int]) -> list[Numbers]:
    parts, done = [], 0
    for length in lengths:
        parts.append(tuple(numbers[done : done + length]))
        done += length
    return parts
