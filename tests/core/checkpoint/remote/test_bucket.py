"""A real S3 server, s3fs and its own configuration: what opening costs there, and what such a server may do wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs

from core.checkpoint import open_checkpoint
from core.checkpoint.remote import trouble
from core.errors import UnreadableCheckpointError
from core.inspection import inspect
from core.naming.conventions import scale_rows
from core.side_files import open_scale_source
from tests.core.checkpoint.remote.conftest import SAMPLE
from tests.hub_server import Server
from tests.s3_server import serving

ADDRESS = "s3://zoo/qwen3"
SHARD = "model-00002-of-00003.safetensors"
ALWAYS = {"times": 99}


@pytest.fixture(scope="module")
def _bucket(samples: Path) -> Iterator[Server]:
    with serving() as found, pytest.MonkeyPatch.context() as patched:
        _configure(patched, found)
        system = s3fs.S3FileSystem()
        system.mkdir("zoo")
        system.put(str(samples / SAMPLE), ADDRESS, recursive=True)
        yield found


def _configure(patched: pytest.MonkeyPatch, server: Server) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        patched.setenv(name, value)


@pytest.fixture
def bucket(_bucket: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server without faults and with the sample, configured as for every tool of AWS."""
    _configure(monkeypatch, _bucket)
    _bucket.set_faults()
    monkeypatch.setenv("KVSCOPE_CACHE", str(tmp_path / "kvscope"))
    monkeypatch.setattr(trouble, "FIRST_WAIT", 0.01)
    return _bucket


def test_a_check_in_a_bucket_costs_headers_and_scales(bucket: Server, samples: Path) -> None:
    remote, local = inspect(ADDRESS), inspect(samples / SAMPLE)
    assert remote.checkpoint.place == ADDRESS
    assert remote.verdict.text == local.verdict.text
    assert [scale.values for scale in remote.scales] == [scale.values for scale in local.scales]
    shards = [request for request in bucket.requests() if request["path"].endswith(".safetensors")]
    assert {request["status"] for request in shards} == {206}
    assert all(request["range"] for request in shards)
    needed = sum(shard.header_size for shard in remote.checkpoint.shards)
    needed += sum(remote.checkpoint.catalog.entry(row).nbytes for row in scale_rows(remote.checkpoint))
    assert (
        needed <= sum(request["bytes"] for request in shards) < 1.25 * needed
    )  # the gaps weigh more in so small a one
    assert len(bucket.requests()) <= 2 * len(remote.checkpoint.shards) + 6


def test_what_was_fetched_is_not_fetched_again(bucket: Server) -> None:
    inspect(ADDRESS)
    bucket.set_faults()
    again = inspect(ADDRESS)
    assert again.verdict.outcome == "ok"
    assert [request for request in bucket.requests() if request["path"].endswith(".safetensors")] == []


def test_an_index_and_a_single_shard(bucket: Server, samples: Path) -> None:
    whole = open_checkpoint(samples / SAMPLE)
    assert open_checkpoint(f"{ADDRESS}/model.safetensors.index.json").catalog.names == whole.catalog.names
    alone = open_checkpoint(f"{ADDRESS}/{SHARD}")
    assert [shard.name for shard in alone.shards] == [SHARD]
    assert alone.shards[0].tensors == whole.shards[1].tensors
    assert bucket.requests()


@pytest.mark.parametrize("may_list", [True, False])
def test_a_single_file_comes_with_the_configs_beside_it(bucket: Server, tmp_path: Path, may_list: bool) -> None:
    system = s3fs.S3FileSystem()
    for name in ("config.json", "hf_quant_config.json"):
        system.copy(f"zoo/qwen3/{name}", f"zoo/one/{name}")
    system.copy(f"zoo/qwen3/{SHARD}", "zoo/one/model.safetensors")
    system.get("zoo/one", str(tmp_path / "one"), recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    if not may_list:
        bucket.set_faults(_status("GET /zoo$", 403, "AccessDenied"))
    local = inspect(tmp_path / "one" / "model.safetensors").verdict
    assert local.outcome != "unknown"
    assert inspect("s3://zoo/one/model.safetensors").verdict.text == local.text
    assert inspect(f"file://{tmp_path}/one/model.safetensors").verdict.text == local.text


@pytest.mark.parametrize("may_list", [True, False])
def test_a_side_file_alone(bucket: Server, may_list: bool) -> None:
    content = {"kv_cache": {"scaling_factor": {"0": {"0": 0.5}}}}
    s3fs.S3FileSystem().pipe_file("zoo/side/kv_cache_scales.json", json.dumps(content).encode())
    s3fs.S3FileSystem.clear_instance_cache()
    if not may_list:
        bucket.set_faults(_status("GET /zoo$", 403, "AccessDenied"))
    source = open_scale_source("s3://zoo/side/kv_cache_scales.json")
    assert [(scale.role, scale.layer, scale.values) for scale in source.scales] == [("kv", 0, (0.5,))]
    assert (source.place, source.path.name) == ("s3://zoo/side/kv_cache_scales.json", "kv_cache_scales.json")


def _status(match: str, status: int, code: str) -> dict[str, Any]:
    return {"match": match, "kind": "status", "status": status, "code": code, **ALWAYS}


@pytest.mark.parametrize(
    ("address", "fault", "sentence"),
    [
        ("s3://zoo/nothing", {}, "s3://zoo/nothing: there is no such folder, or no safetensors file in it. Check the address."),
        ("s3://elsewhere/a", {}, "s3://elsewhere/a: there is no such folder, or no safetensors file in it. Check the address."),
        ("s3://zoo/qwen3/no.safetensors", {}, "s3://zoo/qwen3/no.safetensors: there is no such file. Check the address."),
        (ADDRESS, _status("GET /zoo$", 403, "AccessDenied"), ADDRESS + ": refuses access: AccessDenied by order. Check the credentials and what they may read."),
        (ADDRESS, _status(SHARD, 403, "AccessDenied"), ADDRESS + ": refuses access: AccessDenied by order. Check the credentials and what they may read."),
        (ADDRESS, _status("GET /zoo$", 403, "InvalidAccessKeyId"), ADDRESS + ": refuses access: InvalidAccessKeyId by order. Check the credentials and what they may read."),
        (ADDRESS, {"match": SHARD, "kind": "no-ranges", **ALWAYS}, ADDRESS + ": does not serve parts of files, so that headers cannot be read alone. Download the checkpoint and open the folder."),
    ],
    ids=["no folder", "no bucket", "no file", "403 for the list", "403 for a shard", "a wrong key", "no ranges"],
)  # fmt: skip
def test_what_a_bucket_may_do_wrong(bucket: Server, address: str, fault: dict[str, Any], sentence: str) -> None:
    if fault:
        bucket.set_faults(fault)
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(address)
    assert str(caught.value).startswith(sentence)


def test_an_answer_that_broke_off_is_asked_for_again(bucket: Server) -> None:
    bucket.set_faults({"match": SHARD, "kind": "cut", "times": 1})
    assert open_checkpoint(ADDRESS).faults == ()


def test_no_credentials(bucket: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(ADDRESS)
    assert str(caught.value).startswith(f"{ADDRESS}: no credentials were found: ")
    assert bucket.requests() == []
