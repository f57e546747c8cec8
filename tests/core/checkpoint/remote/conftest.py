"""A hub and a web server of our own, in a process of its own, and a cache that no other test sees."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.checkpoint.remote import trouble
from tests.core.checkpoint.writing import write, write_index
from tests.hub_server import Server, serving

SAMPLE = "modelopt/qwen3-36layers-fp8-kvfp8"
TENSORS = {"model.layers.0.self_attn.k_proj.k_scale": ("F32", ()), "model.norm.weight": ("BF16", (64,))}


@pytest.fixture(scope="session")
def _process(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Iterator[tuple[Server, Path]]:
    root = tmp_path_factory.mktemp("hub")
    shutil.copytree(samples / SAMPLE, root / "org" / "qwen3")
    shutil.copytree(samples / SAMPLE, root / "org" / "nested" / "fp8")
    shutil.copytree(samples / SAMPLE, root / "listed" / "qwen3")
    (root / "listed" / "qwen3" / ".listed").touch()
    write(root / "org" / "single" / "model.safetensors", TENSORS)
    (root / "org" / "pickled").mkdir()
    (root / "org" / "pickled" / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    (root / "org" / "empty").mkdir()
    (root / "org" / "empty" / "README.md").touch()
    broken = root / "org" / "broken"
    write(broken / "model-1.safetensors", TENSORS)
    (broken / "model-2.safetensors").write_bytes((10**12).to_bytes(8, "little") + b"{" * 600)
    (broken / "model-3.safetensors").write_bytes(b"")
    (broken / "model-4.safetensors").write_bytes(b"<html>please log in</html>")
    names = {f"of{number}": f"model-{number}.safetensors" for number in (2, 3, 4, 5)}
    write_index(broken, dict.fromkeys(TENSORS, "model-1.safetensors") | names)
    with serving(root) as server:
        yield server, root


@pytest.fixture
def hub_root(_process: tuple[Server, Path]) -> Path:
    """What the server serves."""
    return _process[1]


@pytest.fixture
def server(_process: tuple[Server, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server without faults, as the hub of this test; waits between attempts are short."""
    from huggingface_hub import constants

    found = _process[0]
    found.set_faults()
    monkeypatch.setenv("HF_ENDPOINT", found.url)
    monkeypatch.setattr(constants, "ENDPOINT", found.url)
    template = f"{found.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("KVSCOPE_CACHE", str(tmp_path / "kvscope"))
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(trouble, "FIRST_WAIT", 0.01)
    return found
