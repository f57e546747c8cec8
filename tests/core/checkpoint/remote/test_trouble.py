"""Everything that servers, networks and accounts do wrong: one sentence each."""

from __future__ import annotations

import json
import os
import socket
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from core.checkpoint import open_checkpoint
from core.errors import KVScopeError, UnreadableCheckpointError
from core.inspection import inspect
from tests.core.checkpoint.remote.conftest import TENSORS
from tests.core.checkpoint.writing import write
from tests.hub_server import Server

HUB = "hf://org/qwen3"
FILE = "{url}/files/org/single/model.safetensors"
DOWNLOAD = "Download the checkpoint and open the folder."
ALWAYS = {"times": 99}
SCALE = "model.layers.0.self_attn.k_proj.k_scale"
FAR = {"a.weight": ("F32", (5000,)), SCALE: ("F32", (1,)), "z.weight": ("F32", (5000,))}
"""A scale that does not come along with the header."""
GATED = {"X-Error-Code": "GatedRepo"}


def _status(match: str, status: int, **headers: str) -> dict[str, Any]:
    return {"match": match, "kind": "status", "status": status, "headers": headers, **ALWAYS}


@pytest.mark.parametrize(
    ("address", "fault", "sentence"),
    [
        ("hf://org/nowhere", {}, "hf://org/nowhere: {url} has no such model, or it is private. Check its name; for a private one, log in with `hf auth login` or set HF_TOKEN."),
        ("hf://org/qwen3@v9", {}, "hf://org/qwen3@v9: has no revision 'v9'. Check what follows the @."),
        (HUB, _status("/api/", 401), HUB + ": {url} has no such model, or it is private. Check its name; for a private one, log in with `hf auth login` or set HF_TOKEN."),
        (HUB, _status("resolve", 401, **GATED), HUB + ": is gated: its owner asks for consent first. Accept the terms on {url}/org/qwen3, then log in with `hf auth login` or set HF_TOKEN."),
        (HUB, _status("resolve", 403), HUB + ": the hub refuses access (403). Check what your token is allowed to read."),
        (HUB, _status("resolve", 403, **{"X-Error-Message": "Blocked for your region"}), HUB + ": the hub refuses access (403): Blocked for your region. Check what your token is allowed to read."),
        (HUB, _status("resolve", 418), HUB + ": the hub answers with status 418. Try again later."),
        (HUB, {**_status("/api/", 200), "body": "<html>"}, HUB + ": {url} answers with no list of files. Check HF_ENDPOINT, which names the hub's address."),
        (HUB, {**_status("/api/", 200), "body": "{}"}, HUB + ": {url} answers with no list of files. Check HF_ENDPOINT, which names the hub's address."),
        ("hf://org/empty", {}, "hf://org/empty: holds no tensors. Open a folder with safetensors files, or PyTorch's .bin, .pt or .pth."),
        ("hf://org/pickled", {}, "hf://org/pickled: holds pickled PyTorch files, which cannot be read in part. Download the checkpoint and open the folder, or choose one in safetensors."),
        ("hf://org/single/other.safetensors", {}, "hf://org/single/other.safetensors: there is no such file. Check the address."),
        ("{url}/files/org/nothing.safetensors", {}, "{url}/files/org/nothing.safetensors: there is no such file. Check the address."),
        ("{url}/files/org/nothing", {}, "{url}/files/org/nothing: there is no such folder, or no safetensors file in it. Check the address."),
        ("{url}/files/org/broken/model-4.safetensors", {}, "{url}/files/org/broken/model-4.safetensors: is a web page, saved in place of the file (at byte 0). Download it again; a gated model needs a token, and a link must point at the raw file."),
        (FILE, _status("single/model", 401), FILE + ": asks for a login (401). Use a signed address, or one with user and password (https://USER:PASSWORD@host/...)."),
        (FILE, _status("single/model", 403), FILE + ": refuses access (403). Check that the address may be read and that its signature has not expired."),
        (FILE, _status("single/model", 405), FILE + ": answers with status 405. " + DOWNLOAD),
        (FILE, _status("single/model", 503), FILE + ": fails to answer (503) (5 attempts). Try again later."),
        (FILE, _status("single/model", 429), FILE + ": asks to wait: too many requests (429) (5 attempts). Wait some minutes, then try again."),
        (FILE, _status("single/model", 429, **{"Retry-After": "3600"}), FILE + ": asks to wait: too many requests (429). Try again in 3,600 seconds."),
        (FILE, {"match": "single/model", "kind": "no-ranges", **ALWAYS}, FILE + ": does not serve parts of files (it ignores Range), so that headers cannot be read alone. " + DOWNLOAD),
        (FILE, {"match": "single/model", "kind": "no-content-range", **ALWAYS}, FILE + ": does not say which bytes it sends, and of how many. " + DOWNLOAD),
        (FILE, {"match": "single/model", "kind": "shifted", **ALWAYS}, FILE + ": sends bytes 1 to 8 where 0 to 7 were asked for. " + DOWNLOAD),
        (FILE, {"match": "single/model", "kind": "compressed", **ALWAYS}, FILE + ": answers with compressed bytes, which were not asked for. " + DOWNLOAD),
        (FILE, {"match": "single/model", "kind": "redirect", "to": FILE, **ALWAYS}, FILE + ": leads in circles: each address redirects to another"),
        (FILE, {"match": "single/model", "kind": "redirect", "to": "http://127.0.0.1:99999/x", **ALWAYS}, FILE + ": leads to no web address: connect(): port must be 0-65535. Check the address, the network and the proxy settings, then try again."),
        (FILE, _status("single/model", 304), FILE + ": answers with status 304. " + DOWNLOAD),
        ("hf://org/single", _status("resolve", 304), "hf://org/single: the hub answers with status 304. Try again later."),
        (FILE, {"match": "single/model", "kind": "size", "size": 20, "times": 9}, FILE + ": was cut short: its header takes"),
        (HUB, {"match": "cdn.*00002-of", "kind": "size", "size": 10**15, "times": 1}, None),
    ],
)  # fmt: skip
def test_what_a_server_may_do_wrong(server: Server, address: str, fault: dict[str, Any], sentence: str | None) -> None:
    if fault:
        fault = {key: value.format(url=server.url) if key == "to" else value for key, value in fault.items()}
        server.set_faults(fault)
    if sentence is None:  # one shard of several
        problem = "is 1,000,000,000,000,000 bytes long, but was listed with 292,936"
        assert problem in [fault.problem for fault in open_checkpoint(address).faults]
        return
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(address.format(url=server.url))
    expected = sentence.format(url=server.url)
    assert str(caught.value) == expected or (expected.endswith("takes") and str(caught.value).startswith(expected))


@pytest.mark.parametrize(
    "body",
    [
        '{"sha": "0", "siblings": ["a"]}',
        '{"sha": "0", "siblings": [null]}',
        '{"sha": "0", "siblings": {"a": 1}}',
        '{"sha": "0", "siblings": [{"rfilename": "model.safetensors", "lfs": "x"}]}',
        '{"sha": "0", "siblings": [{"rfilename": ["model.safetensors"]}]}',
        '{"sha": "0", "siblings": ' + "[" * 200_000,
        '{"sha": "\\ud800", "siblings": [{"rfilename": "model.safetensors"}]}',
        '{"sha": null, "siblings": [{"rfilename": "model.safetensors"}]}',
        '{"sha": "../x", "siblings": [{"rfilename": "model.safetensors"}]}',
    ],
    ids=["texts", "null", "an object", "lfs", "a name", "deep", "a surrogate", "no commit", "a path"],
)
def test_a_list_of_files_that_is_none(server: Server, body: str) -> None:
    server.set_faults({**_status("/api/", 200), "body": body})
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(HUB)
    remedy = "Check HF_ENDPOINT, which names the hub's address."
    assert str(caught.value) == f"{HUB}: {server.url} answers with no list of files. {remedy}"


@pytest.mark.parametrize("name", ["files.json", "values.json"])
def test_a_repository_called_as_a_file_of_the_cache(server: Server, hub_root: Path, name: str) -> None:
    write(hub_root / "org" / name / "model.safetensors", TENSORS)
    for _ in range(2):
        checkpoint = open_checkpoint(f"hf://org/{name}")
        assert checkpoint.read(["model.norm.weight"])["model.norm.weight"].fault is None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("files.json", "[" * 200_000),
        ("files.json", '{"model-00001-of-00003.safetensors": []}'),
        ("values.json", "[" * 200_000),
        ("values.json", '{"model-00001-of-00003.safetensors": []}'),
        ("values.json", '{"model-00001-of-00003.safetensors": {"tag": "TAG"}}'),
        ("values.json", '{"model-00001-of-00003.safetensors": {"tag": 1}}'),
    ],
)
def test_a_cache_that_holds_something_else(server: Server, tmp_path: Path, name: str, content: str) -> None:
    expected = inspect(HUB).scales
    [kept] = (tmp_path / "kvscope").rglob("files.json")
    tag = json.loads(kept.read_bytes())["model-00001-of-00003.safetensors"]["tag"]
    kept.with_name(name).write_text(content.replace("TAG", tag), encoding="utf-8")
    assert inspect(HUB).scales == expected


def test_gated_with_a_token_that_has_no_access(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.set_faults(_status("resolve", 403, **GATED))
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(HUB)
    page = f"{server.url}/org/qwen3"
    assert str(caught.value) == f"{HUB}: is gated, and your account has no access yet. Ask for it on {page}."


def test_a_token_that_is_not_accepted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    server.set_faults(_status("/api/", 401))
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(HUB)
    expected = "the hub does not accept your token (401). Renew it: log in with `hf auth login` or set HF_TOKEN."
    assert str(caught.value) == f"{HUB}: {expected}"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429, "headers": {"Retry-After": "1"}},
        {"kind": "status", "status": 503},
        {"kind": "drop"},
        {"kind": "cut"},
    ],
    ids=["429", "503", "drop", "cut"],
)
def test_what_passes_is_tried_again(server: Server, fault: dict[str, Any]) -> None:
    server.set_faults({"match": "(cdn|files).*00002-of", "times": 2, **fault})
    assert open_checkpoint(HUB).faults == ()


def test_an_answer_that_always_ends_early(server: Server) -> None:
    server.set_faults({"match": "files.*single/model", "kind": "cut", **ALWAYS})
    with pytest.raises(UnreadableCheckpointError, match=r"broke off its answer.* \(5 attempts\)\. Try again later\.$"):
        open_checkpoint(FILE.format(url=server.url))


def test_retry_after_as_a_date(server: Server) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    server.set_faults(_status("single/model", 429, **{"Retry-After": date}))
    with pytest.raises(UnreadableCheckpointError, match=r"Try again in 3,(59\d|600) seconds\.$"):
        open_checkpoint(FILE.format(url=server.url))


@pytest.mark.parametrize("date", ["Mon, 01 Jan 2024 00:00:00 +99999999999999999999", "1 Jan 99999999999999999999", "?"])
def test_retry_after_that_is_no_date(server: Server, date: str) -> None:
    server.set_faults(_status("single/model", 503, **{"Retry-After": date}))
    with pytest.raises(UnreadableCheckpointError, match=r"fails to answer \(503\) \(5 attempts\)"):
        open_checkpoint(FILE.format(url=server.url))


def test_a_server_that_is_not_there(server: Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/model.safetensors"
        with pytest.raises(UnreadableCheckpointError) as caught:
            open_checkpoint(address)
    assert str(caught.value).startswith(f"{address}: cannot be reached: ")
    assert str(caught.value).endswith(
        "(5 attempts). Check the address, the network and the proxy settings, then try again."
    )


def test_a_server_that_says_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.checkpoint.remote.http.TIMEOUT", 0.1)
    monkeypatch.setattr("core.checkpoint.remote.trouble.ATTEMPTS", 2)
    server.set_faults({"match": "single/model", "kind": "hang", "seconds": 1, **ALWAYS})
    with pytest.raises(UnreadableCheckpointError, match=r"did not answer for 0\.1 seconds \(2 attempts\)\. Check the"):
        open_checkpoint(FILE.format(url=server.url))


def test_offline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(HUB)
    assert str(caught.value) == f"{HUB}: was not asked: HF_HUB_OFFLINE is set. Unset it."


def test_a_file_that_changes_between_header_and_values(server: Server, hub_root: Path) -> None:
    checkpoint = open_checkpoint(HUB)
    server.set_faults({"match": "cdn", "kind": "size", "size": 10**6, **ALWAYS})
    with pytest.raises(UnreadableCheckpointError) as caught:
        checkpoint.read(["model.norm.weight"])
    assert str(caught.value) == f"{HUB}: changed since it was opened. Open it again."


def test_another_file_of_the_same_size_between_header_and_values(server: Server, hub_root: Path) -> None:
    """A scale of the new file under a header of the old one would be neither's."""
    file = write(hub_root / "org" / "replaced" / "model.safetensors", FAR)
    address = f"{server.url}/files/org/replaced/model.safetensors"
    checkpoint = open_checkpoint(address)
    os.utime(file, ns=(0, 0))  # of which the server's tag is made
    with pytest.raises(UnreadableCheckpointError) as caught:
        checkpoint.read([SCALE])
    assert str(caught.value) == f"{address}: changed since it was opened. Open it again."
    assert open_checkpoint(address).read([SCALE])[SCALE].values


def test_a_tensor_without_values_is_not_asked_for(server: Server, hub_root: Path) -> None:
    """There is no range without bytes: a server answers with an error, or with the whole file."""
    empty = "model.layers.1.self_attn.k_proj.k_scale"
    write(hub_root / "org" / "hollow" / "model.safetensors", {**FAR, empty: ("F32", (0,))})
    checkpoint = open_checkpoint(f"{server.url}/files/org/hollow/model.safetensors")
    server.set_faults()
    found = checkpoint.read([SCALE, empty])
    assert (found[empty].values, found[empty].fault) == ((), None)
    assert len(found[SCALE].values) == 1
    assert checkpoint.read_bytes(empty) == b""
    assert len(server.requests()) == 1


def test_a_file_that_changes_inside_its_header(server: Server) -> None:
    server.set_faults({"match": "single/model", "kind": "size", "size": 10**6, "times": 1})
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(FILE.format(url=server.url))
    assert (
        str(caught.value) == FILE.format(url=server.url) + ": model.safetensors changed while it was read. Try again."
    )


def test_a_signature_that_expires_is_renewed(server: Server) -> None:
    checkpoint = open_checkpoint(HUB)
    server.set_faults({"match": "cdn", "kind": "status", "status": 403, "times": 1})
    key = next(name for name in checkpoint.catalog.names if name.endswith("k_scale"))
    assert checkpoint.read([key])[key].fault is None
    server.set_faults()


@pytest.mark.parametrize(("address", "package"), [("hf://org/qwen3", "huggingface_hub"), ("s3://b/c", "fsspec")])
def test_without_the_extra(address: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(KVScopeError) as caught:
        inspect(address)
    install = "Install the extra: pip install 'kvscope[remote]'"
    assert str(caught.value) == f"{address}: needs {package}, which is not installed. {install}"


@pytest.mark.parametrize(
    ("address", "start", "end"),
    [
        ("gs://b/c", "needs a package that is not installed: ", "Install it beside kvscope[remote]."),
        ("nope://b/c", "is of a kind that is not known: ", "Known are hf://, https://, s3://, gs:// and whatever else fsspec opens."),
        ("memory://nowhere/m.safetensors", "there is no such file", "Check the address."),
        ("memory://nowhere", "there is no such folder, or no safetensors file in it", "Check the address."),
    ],
)  # fmt: skip
def test_what_fsspec_cannot_open(
    server: Server, address: str, start: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UnreadableCheckpointError) as caught:
        open_checkpoint(address)
    assert str(caught.value).startswith(f"{address}: {start}")
    assert str(caught.value).endswith(f". {end}")


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KVSCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        KVScopeError, match=r"cannot be written: Not a directory\. Name a folder .* with KVSCOPE_CACHE$"
    ):
        open_checkpoint(HUB)
