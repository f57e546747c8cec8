"""Scales taken from a checkpoint on a server, for one on this machine and for one beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.errors import KVScopeError
from core.export import plan_export, write_export
from core.export.fixes import parse_fixes
from core.export.report import plan_as_data
from core.inspection import inspect
from tests.core.export.exporting import bytes_of
from tests.core.export.test_overlay import LLAMA, lost_layer
from tests.hub_server import Server


@pytest.fixture
def whole(hub_root: Path) -> None:
    """The Llama on the server."""
    shutil.copytree(LLAMA, hub_root / "org" / "llama", dirs_exist_ok=True)


@pytest.mark.usefixtures("whole")
@pytest.mark.parametrize("fix", [True, False])
@pytest.mark.parametrize("address", ["hf://org/llama", "http://user:secret@{host}/files/org/llama?Signature=secret"])
def test_scales_come_from_an_address(address: str, fix: bool, server: Server, tmp_path: Path) -> None:
    address = address.format(host=server.url.removeprefix("http://"))
    inspection = inspect(lost_layer(tmp_path / "source"), kv_cache_dtype="fp8")
    if fix:
        plan = plan_export(inspection, fixes=parse_fixes([f"missing-scale={address}"]))
    else:
        plan = plan_export(inspection, scales_from=address)
    result = write_export(plan, tmp_path / "out")
    expected = inspect(LLAMA, kv_cache_dtype="fp8").deliveries.attention
    assert [layer.final for layer in result.after.deliveries.attention] == [layer.final for layer in expected]
    written = b"".join(bytes_of(tmp_path / "out").values()) + str(plan_as_data(plan)).encode()
    assert b"org/llama" in written
    assert b"secret" not in written


@pytest.mark.usefixtures("whole")
def test_what_is_wrong_with_an_address_names_it(server: Server, tmp_path: Path) -> None:
    inspection = inspect(lost_layer(tmp_path / "source"), kv_cache_dtype="fp8")
    for address, said in (
        ("hf://org/none", "hf://org/none: "),
        ("hf://org/qwen3", "hf://org/qwen3: has scales for layers 2-35, and this model has no attention layer there"),
    ):
        with pytest.raises(KVScopeError) as error:
            plan_export(inspection, scales_from=address)
        assert str(error.value).startswith(said)


@pytest.mark.usefixtures("server")
def test_a_plan_names_the_address_that_it_is_for(whole: None) -> None:
    assert plan_as_data(plan_export(inspect("hf://org/llama")))["source"] == "hf://org/llama"
