"""Bad input on the command line: one sentence that names the file and the remedy, exit status 2, nothing lost."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"


def kvscope(
    *arguments: str | Path, before: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before,
        env={**os.environ, **environment},
    )


def complaint(answer: subprocess.CompletedProcess[str], *words: str, printed: str = "") -> str:
    """The one line on stderr of a command that could not do its work; ``printed`` begins what it said before."""
    assert answer.returncode == 2, answer
    assert answer.stdout.startswith(printed) if printed else not answer.stdout
    line = answer.stderr.removesuffix("\n")
    assert line.startswith("kvscope: ")
    assert "\n" not in line
    assert "Traceback" not in line
    for word in words:
        assert word in line
    return line


class Evil:
    """Runs a command when it is unpickled by anything less careful than PyTorch's weights_only."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.witness}",)


def test_a_missing_file(tmp_path: Path) -> None:
    complaint(kvscope("check", tmp_path / "none.safetensors"), "none.safetensors", "Check")


def test_a_folder_without_tensors(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    complaint(kvscope("check", tmp_path), str(tmp_path), "safetensors")


def test_a_truncated_file(tmp_path: Path, samples: Path) -> None:
    whole = (samples / GEMMA / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    complaint(kvscope("check", path), "model.safetensors")
    path.write_bytes(whole[:5])
    complaint(kvscope("check", path), "model.safetensors")


def test_a_header_that_lies_about_its_length(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + b'{"a": 1}')
    complaint(kvscope("check", path), "model.safetensors")


def test_html_saved_as_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("<!DOCTYPE html><html><body>Sign in to continue</body></html>")
    complaint(kvscope("check", path), "model.safetensors", "web page")


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 16060522496\n")
    complaint(kvscope("check", path), "model.safetensors", "git lfs pull")


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    old = tmp_path / "old.bin"
    old.write_bytes(pickle.dumps(Evil(witness), protocol=2))
    complaint(kvscope("check", old), "old.bin")
    new = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(new, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil(witness), protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    complaint(kvscope("check", new), "pytorch_model.bin")
    assert not witness.exists()


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may read everything")
def test_no_permission(tmp_path: Path, samples: Path) -> None:
    folder = tmp_path / "closed"
    shutil.copytree(samples / GEMMA, folder)
    path = folder / "model.safetensors"
    path.chmod(0)
    tmp_path.chmod(0o755)
    if os.geteuid() != 0:
        answer = kvscope("check", path)
    else:
        # Root reads files of mode 0; without its powers over files it is an owner like any other.
        answer = subprocess.run(
            ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--",
             sys.executable, "-m", "app.cli", "check", str(path)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    complaint(answer, "model.safetensors", "ermission")


def test_a_full_disk_on_export_leaves_nothing(tmp_path: Path, samples: Path) -> None:
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))

    out = tmp_path / "out"
    answer = kvscope("export", samples / GEMMA, out, before=small_files)
    complaint(answer, "model.safetensors", "no room", printed="judged with --kv-cache-dtype fp8\n")  # the plan
    assert "\nafter:" not in answer.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_export_into_the_source_folder(tmp_path: Path, samples: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(samples / GEMMA, source)
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    complaint(kvscope("export", source, source), str(source))
    complaint(kvscope("export", source, source / "inside"), "inside")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


def test_no_cuda(samples: Path) -> None:
    answer = kvscope("verify", samples / QWEN, "--device", "cuda:0", CUDA_VISIBLE_DEVICES="")
    complaint(answer, "kvscope verify")


def test_a_device_that_does_not_exist(samples: Path) -> None:
    complaint(kvscope("verify", samples / QWEN, "--device", "tpu"), "tpu", "cpu")


def test_a_broken_config_is_named_and_the_tensors_stay_readable(tmp_path: Path, samples: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(samples / GEMMA, folder)
    (folder / "config.json").write_text('{"architectures": [')
    answer = kvscope("check", folder)
    assert answer.returncode == 1
    assert "config.json" in answer.stdout
    assert "52 KV-scale tensors" in answer.stdout
    assert answer.stderr == ""


def test_one_broken_shard_leaves_the_rest_usable(tmp_path: Path, samples: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(samples / QWEN, folder)
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:1000])
    answer = kvscope("check", folder)
    assert answer.returncode == 1
    assert shard.name in answer.stdout
    assert "KV-scale tensors" in answer.stdout
