"""What opening a checkpoint on a hub costs in bytes and requests: a server process of our own, an empty cache."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.hub_server import serving


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """``bytes`` of shards that were fetched, those ``needed`` (headers and scales), ``requests`` in all (a redirect is
    part of one), ``hops`` with the redirects, and the number of shards.
    """

    bytes: int
    needed: int
    requests: int
    hops: int
    shards: int


def fetched(checkpoint: Path) -> Fetched:
    """Judge the checkpoint as one on a hub. For a process of its own: it sets where the hub is."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hub").mkdir()
        (Path(folder) / "hub" / "org").symlink_to(checkpoint.parent.resolve())
        with serving(Path(folder) / "hub") as server:
            os.environ |= {"HF_ENDPOINT": server.url, "HF_HOME": folder, "KVSCOPE_CACHE": f"{folder}/cache"}
            from core.inspection import inspect
            from core.naming.conventions import scale_rows

            found = inspect(f"hf://org/{checkpoint.name}")
            asked = [request for request in server.requests() if "agent-harnesses" not in request["path"]]
    scales = sum(found.checkpoint.catalog.entry(row).nbytes for row in scale_rows(found.checkpoint))
    if found.checkpoint.remote is None:
        raise RuntimeError("it was not fetched")
    return Fetched(
        bytes=sum(request["bytes"] for request in asked if request["range"]),
        needed=sum(shard.header_size for shard in found.checkpoint.shards) + scales,
        requests=found.checkpoint.remote.traffic.requests,
        hops=len(asked),
        shards=len(found.checkpoint.shards),
    )


def remote_bytes(checkpoint: Path) -> float:
    """Bytes of shards that are fetched, as a multiple of headers and scales."""
    found = fetched(checkpoint)
    return found.bytes / found.needed


def remote_requests(checkpoint: Path) -> float:
    """Requests, as a multiple of two a shard and three."""
    found = fetched(checkpoint)
    return found.requests / (2 * found.shards + 3)


MEASURES: dict[str, Callable[[Path], float]] = {
    measure.__name__: measure for measure in (remote_bytes, remote_requests)
}
