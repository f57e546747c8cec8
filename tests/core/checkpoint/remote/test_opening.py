from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pytest

from app.cli import main
from core.checkpoint import Checkpoint, open_checkpoint
from core.checkpoint.remote.bringing import coalesced
from core.errors import CancelledError, ExportError
from core.export import plan_export, prepare_in_place, write_export
from core.inspection import inspect
from core.naming.conventions import find_scales
from core.progress import Progress
from core.report import report
from tests.core.checkpoint.remote.conftest import SAMPLE, TENSORS
from tests.hub_server import LARGE, Server


def _same(remote: Checkpoint, local: Checkpoint) -> None:
    """Everything but the place is equal, values of scales among it."""
    assert remote.catalog.names == local.catalog.names
    for column in ("shard_numbers", "dtype_codes", "begins", "ends"):
        assert getattr(remote.catalog, column).tolist() == getattr(local.catalog, column).tolist()
    assert [(shard.name, shard.size, shard.metadata) for shard in remote.shards] == [
        (shard.name, shard.size, shard.metadata) for shard in local.shards
    ]
    assert remote.faults == local.faults
    assert remote.index == local.index
    assert remote.config("config.json") == local.config("config.json")
    assert find_scales(remote) == find_scales(local)


@pytest.mark.parametrize(
    "address",
    [
        "hf://org/qwen3",
        "hf://org/qwen3@main",
        "hf://org/nested/fp8",
        "{url}/org/qwen3/tree/main",
        "{url}/files/org/qwen3",
        "{url}/files/org/qwen3/model.safetensors.index.json?signature=of-all",
        "{url}/files/listed/qwen3/",
        "file://{root}/org/qwen3",
    ],
)
def test_a_checkpoint_far_away_is_the_same_as_here(address: str, server: Server, samples: Path, hub_root: Path) -> None:
    remote = open_checkpoint(address.format(url=server.url, root=hub_root))
    assert remote.remote is not None
    _same(remote, open_checkpoint(samples / SAMPLE))


def test_a_bucket_of_any_kind(server: Server, samples: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(samples / SAMPLE), "/zoo/qwen3", recursive=True)
    try:
        for address in ("memory://zoo/qwen3", "memory://zoo/qwen3/model.safetensors.index.json"):
            remote = open_checkpoint(address)
            assert remote.place == address
            _same(remote, open_checkpoint(samples / SAMPLE))
        first = open_checkpoint("memory://zoo/qwen3/model-00001-of-00003.safetensors")
        assert [shard.name for shard in first.shards] == ["model-00001-of-00003.safetensors"]
    finally:
        memory.rm("/zoo", recursive=True)
    assert server.requests() == []


def test_the_report_is_the_local_one(server: Server, samples: Path) -> None:
    remote, local = report(inspect("hf://org/qwen3")), report(inspect(samples / SAMPLE))
    assert remote["checkpoint"].pop("path") == "hf://org/qwen3"
    assert local["checkpoint"].pop("path") == str(samples / SAMPLE)
    assert remote == local


def _ranged(requests: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    return [request for request in requests if request["range"] and request["status"] == 206]


def test_only_headers_and_scales_are_fetched(server: Server) -> None:
    found = inspect("hf://org/qwen3")
    needed = sum(shard.header_size for shard in found.checkpoint.shards) + 4 * len(found.scales)
    asked = [request for request in server.requests() if "agent" not in str(request["path"])]
    fetched = sum(int(str(request["bytes"])) for request in _ranged(asked))
    assert needed <= fetched <= needed * 1.01 + 3 * 4096
    shards = len(found.checkpoint.shards)
    assert found.checkpoint.remote is not None
    assert found.checkpoint.remote.traffic.requests <= 3 * shards + 4  # listing, index, two configs
    whole = {str(request["path"]) for request in asked if request["status"] == 200}
    assert all("config.json" in path or "index.json" in path or "/api/models/" in path for path in whole)


def test_what_was_fetched_is_kept_by_commit(server: Server) -> None:
    before = report(inspect("hf://org/qwen3"))
    server.set_faults()
    found = inspect("hf://org/qwen3")
    assert report(found) == before
    assert [str(request["path"]).partition("?")[0] for request in server.requests()] == [
        "/api/models/org/qwen3/revision/main"
    ]


def test_what_was_fetched_is_kept_by_etag(server: Server, hub_root: Path, tmp_path: Path) -> None:
    address = f"{server.url}/files/org/single/model.safetensors"
    find_scales(open_checkpoint(address))
    server.set_faults()
    first = find_scales(open_checkpoint(address))
    file = [request for request in server.requests() if "safetensors" in str(request["path"])]
    assert [request["status"] for request in file] == [304]
    path = hub_root / "org" / "single" / "model.safetensors"
    original = path.read_bytes()
    try:
        path.write_bytes(original[: -128 - 4] + b"\0\0\x80\x3f" + original[-128:])
        second = find_scales(open_checkpoint(address))
    finally:
        path.write_bytes(original)
    assert first[0].values != second[0].values == (1.0,)


def test_a_damaged_cache_is_not_used(server: Server, tmp_path: Path) -> None:
    expected = report(inspect("hf://org/qwen3"))
    for path in (tmp_path / "kvscope").rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-100])
    for path in (tmp_path / "kvscope").rglob("values.json"):
        path.write_text("[")
    assert report(inspect("hf://org/qwen3")) == expected


def test_what_the_hub_s_own_client_downloaded_is_not_fetched_again(server: Server, samples: Path) -> None:
    from huggingface_hub import hf_hub_download

    for path in (samples / SAMPLE).iterdir():
        hf_hub_download("org/qwen3", path.name)
    server.set_faults()
    _same(open_checkpoint("hf://org/qwen3"), open_checkpoint(samples / SAMPLE))
    assert {str(request["path"]).split("?")[0] for request in server.requests()} == {
        "/api/models/org/qwen3/revision/main"
    }


def test_the_token_goes_to_the_hub_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    inspect("hf://org/qwen3")
    seen: dict[str, set[object]] = {}
    for request in server.requests():
        seen.setdefault(str(request["path"]).split("/")[1], set()).add(request["authorization"])
    assert seen["cdn"] == {None}
    assert seen["org"] == {"Bearer hf_secret"}
    assert LARGE > 0


def test_secrets_are_in_no_report(server: Server) -> None:
    address = server.url.replace("://", "://me:hidden@") + "/files/org/single/model.safetensors?token=hidden"
    assert "hidden" not in str(report(inspect(address)))


def test_broken_shards_are_told_as_here(server: Server, hub_root: Path) -> None:
    local = open_checkpoint(hub_root / "org" / "broken")
    for address in ("hf://org/broken", f"{server.url}/files/org/broken/model.safetensors.index.json"):
        remote = open_checkpoint(address)
        assert remote.faults == local.faults
        assert remote.index is not None
        assert remote.index.missing_shards == ("model-5.safetensors",)
    assert len(local.faults) == 4


def test_a_missing_config_is_none_far_away_too(server: Server) -> None:
    checkpoint = open_checkpoint(f"{server.url}/files/org/single/model.safetensors")
    assert checkpoint.config("config.json") is None
    assert checkpoint.config("params.json") is None
    assert checkpoint.config_names() == ()
    assert checkpoint.catalog.names == sorted(TENSORS)


def test_bytes_of_any_tensor_are_read_on_demand(server: Server, hub_root: Path) -> None:
    key = "model.norm.weight"
    remote, local = open_checkpoint("hf://org/single"), open_checkpoint(hub_root / "org" / "single")
    assert remote.read_bytes(key) == local.read_bytes(key)
    assert remote.read([key])[key] == local.read([key])[key]


def test_an_export_is_planned_but_downloads_nothing_by_surprise(server: Server, samples: Path, tmp_path: Path) -> None:
    plan, local = plan_export(inspect("hf://org/qwen3")), plan_export(inspect(samples / SAMPLE))
    assert (plan.edits, plan.verdict_predicted) == (local.edits, local.verdict_predicted)
    assert [file for file in plan.files if file.role == "shard"] != []
    assert sum(file.size for file in plan.files if file.role == "shard") == plan.before.checkpoint.total_bytes
    sentence = (
        "hf://org/qwen3: is not on this machine, and a copy of it would download all of its 695.0 kB. Download it "
        "first and export that folder; --dry-run says what would change without a download, and --overlay writes only "
        "what goes beside its shards."
    )
    for refused in (lambda: write_export(plan, tmp_path / "out"), lambda: prepare_in_place(plan)):
        with pytest.raises(ExportError) as caught:
            refused()
        assert str(caught.value) == sentence
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_an_export(server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for more in ([], ["--json"]):
        assert main(["export", "hf://org/qwen3", str(tmp_path / "out"), "--dry-run", *more]) == 0
        assert "copy" in capsys.readouterr().out
    assert main(["export", "hf://org/qwen3", str(tmp_path / "out")]) == 2
    assert "is not on this machine" in capsys.readouterr().err


def test_every_command_takes_an_address(server: Server, samples: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = str(samples / SAMPLE)
    assert main(["diff", "hf://org/qwen3", here]) == 0
    assert main(["check", here, "hf://org/qwen3"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("OK       hf://org/qwen3: ")


def test_cancelling_ends_at_once_while_a_server_hangs(server: Server) -> None:
    server.set_faults({"match": "00002-of", "kind": "hang", "times": 9, "seconds": 30})
    progress = Progress()
    threading.Timer(0.4, progress.cancel).start()
    before = time.monotonic()
    with pytest.raises(CancelledError):
        open_checkpoint("hf://org/qwen3", progress=progress)
    assert time.monotonic() - before < 20


def test_progress_counts_shards(server: Server) -> None:
    progress = Progress()
    open_checkpoint("hf://org/qwen3", progress=progress)
    assert (progress.what, progress.done, progress.total, progress.unit) == ("reading headers", 3, 3, "shards")


def test_values_near_each_other_are_one_request() -> None:
    assert coalesced([(10_000, 10_004), (0, 4), (4, 8), (5_000, 5_004)]) == [(0, 8), (5_000, 5_004), (10_000, 10_004)]
    assert coalesced([(0, 4), (4_100, 4_104)]) == [(0, 4_104)]
    assert coalesced([]) == []
