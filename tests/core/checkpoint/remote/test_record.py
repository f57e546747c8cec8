"""A record of checkpoints on servers: what was judged is known again until a file of it changes there."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from core.errors import CancelledError
from core.progress import Progress
from core.zoo import Asked, Record, check_all
from tests.core.checkpoint.remote.conftest import SAMPLE
from tests.hub_server import Server


def _address(kind: str, server: Server) -> str:
    return {"hub": "hf://org/kept", "web": f"{server.url}/files/org/kept", "listed": f"{server.url}/files/listed/kept"}[
        kind
    ]


@pytest.fixture
def kept(hub_root: Path, samples: Path) -> Path:
    """A checkpoint on the server that a test may change."""
    for name in ("org", "listed"):
        shutil.rmtree(hub_root / name / "kept", ignore_errors=True)
        shutil.copytree(samples / SAMPLE, hub_root / name / "kept")
    (hub_root / "listed" / "kept" / ".listed").touch()
    return hub_root


def _recorded(address: str, file: Path) -> Asked:
    asked = Asked()
    with Record(file, asked) as record:
        assert record.entries([address]) == {}
        [entry] = check_all([address], asked, jobs=1)
        assert entry.error is None
        record.add(entry)
    return asked


@pytest.mark.parametrize("kind", ["hub", "web", "listed"])
@pytest.mark.parametrize("changed", ["config.json", "model-00002-of-00003.safetensors", "hf_quant_config.json"])
def test_a_checkpoint_that_changed_on_its_server_is_not_known(
    kind: str, changed: str, server: Server, kept: Path, tmp_path: Path
) -> None:
    address, file = _address(kind, server), tmp_path / "zoo.jsonl"
    asked = _recorded(address, file)
    server.set_faults()
    assert list(Record(file, asked).entries([address])) == [address]
    requests = server.requests()
    assert len(requests) == 1 if kind == "hub" else {one["status"] for one in requests} <= {200, 304, 404}
    assert sum(one["bytes"] for one in requests) < 4096
    path = kept / ("listed" if kind == "listed" else "org") / "kept" / changed
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))  # by which the server tags it
    assert Record(file, asked).entries([address]) == {}


def test_a_single_file_whose_config_was_fetched_late(server: Server, hub_root: Path, tmp_path: Path) -> None:
    (hub_root / "org/single/config.json").write_text("{}")
    address, file = f"{server.url}/files/org/single", tmp_path / "zoo.jsonl"
    asked = _recorded(address, file)
    server.set_faults()
    assert list(Record(file, asked).entries([address])) == [address]
    assert {one["status"] for one in server.requests()} == {304, 404}
    (hub_root / "org/single/config.json").unlink()
    assert Record(file, asked).entries([address]) == {}


def test_a_file_that_came_is_a_change(server: Server, kept: Path, tmp_path: Path) -> None:
    address, file = _address("web", server), tmp_path / "zoo.jsonl"
    (kept / "org/kept/hf_quant_config.json").unlink()
    asked = _recorded(address, file)
    assert list(Record(file, asked).entries([address])) == [address]
    shutil.copy(kept / "listed/kept/hf_quant_config.json", kept / "org/kept")
    assert Record(file, asked).entries([address]) == {}


def test_what_an_earlier_version_recorded_is_read_again(server: Server, kept: Path, tmp_path: Path) -> None:
    address, file = _address("hub", server), tmp_path / "zoo.jsonl"
    asked = _recorded(address, file)
    data = json.loads(file.read_text())
    others: list[object] = [[], [["a", 1]], [[], 1], {}, None]
    for files in others:
        data["state"]["files"] = files
        file.write_text(f"{json.dumps(data)}\n")
        server.set_faults()
        assert Record(file, asked).entries([address]) == {}


def test_where_nobody_can_say_the_record_is_not_believed(server: Server, kept: Path, tmp_path: Path) -> None:
    address, file = _address("hub", server), tmp_path / "zoo.jsonl"
    asked = _recorded(address, file)
    server.set_faults({"match": "/api/", "kind": "status", "status": 403, "times": -1})
    assert Record(file, asked).entries([address]) == {}
    server.set_faults()
    assert list(Record(file, asked).entries([address])) == [address]


def test_asking_can_be_stopped(server: Server, kept: Path, tmp_path: Path) -> None:
    address, file = _address("hub", server), tmp_path / "zoo.jsonl"
    asked = _recorded(address, file)
    server.set_faults({"match": "/api/", "kind": "hang", "seconds": 30})
    progress, began = Progress(), time.monotonic()
    progress.cancel()
    with pytest.raises(CancelledError):
        Record(file, asked).entries([address], progress)
    assert time.monotonic() - began < 25
