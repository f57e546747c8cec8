"""Each kind of bad input, and the one sentence that the user reads."""

from __future__ import annotations

import errno
import io
import os
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from core.checkpoint import BrokenFileError, open_checkpoint
from core.checkpoint.files import os_problem, read_exactly, read_spans
from core.errors import UnreadableCheckpointError
from tests.core.checkpoint.writing import entry, pack, write


def sentence(path: Path | str) -> str:
    """The refusal's whole message without the path in front."""
    with pytest.raises(UnreadableCheckpointError) as refusal:
        open_checkpoint(path)
    assert refusal.value.remedy
    text = str(refusal.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(str(path)).removeprefix(": ")


GOOD = pack({"a": entry("F32", [2], 0, 8)}, bytes(8))
AGAIN = "Download or copy the file again."
REWRITE = "Write the file again with the safetensors library, or download it again."
CONTENTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", f"is empty (at byte 0). {AGAIN}"),
    "a few bytes": (b"\1\2\3", f"is only 3 bytes long, too short for a safetensors file (at byte 3). {REWRITE}"),
    "cut in the data": (
        GOOD[:-3],
        f"was cut short: its tensors take 8 bytes, but only 5 follow its header (at byte {len(GOOD) - 3}). {AGAIN}",
    ),
    "cut in the header": (
        GOOD[:30],
        f"was cut short: its header takes {len(GOOD) - 16} bytes, but only 22 follow its length (at byte 30). {AGAIN}",
    ),
    "added to": (GOOD + b"!", f"1 byte after the last tensor belong to no tensor (at byte {len(GOOD)}). {AGAIN}"),
    "a header length of 2**63": (
        (2**63).to_bytes(8, "little") + b"{}" * 500,
        f"claims a header of 9,223,372,036,854,775,808 bytes; the format allows 100,000,000 (at byte 0). {REWRITE}",
    ),
    "a header length of 90 MB": (
        (90_000_000).to_bytes(8, "little") + b"{}" * 500,
        "was cut short: its header takes 90,000,000 bytes, but only 1,000 follow its length (at byte 1008). " + AGAIN,
    ),
    "a header length of 1": (
        (1).to_bytes(8, "little") + b"{}",
        f"claims a header of 1 byte, too short to be one (at byte 0). {REWRITE}",
    ),
    "a header that is none": (pack(b"\x01" * 16), f"has a header that does not begin with '{{' (at byte 8). {REWRITE}"),
    "a web page": (
        b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>" + b" " * 5000,
        (
            "is a web page, saved in place of the file (at byte 0). "
            "Download it again; a gated model needs a token, and a link must point at the raw file."
        ),
    ),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4976698672\n",
        (
            "is a Git LFS pointer; the tensors themselves were not downloaded (at byte 0). "
            "Run `git lfs pull` in its repository, or download it with `hf download`."
        ),
    ),
    "GGUF": (
        b"GGUF\3\0\0\0" + b"\0" * 200,
        (
            "is a GGUF file, which KVScope does not support (at byte 0). "
            "Open the safetensors checkpoint from which it was converted."
        ),
    ),
    "JSON": (b'{"architectures": ["LlamaForCausalLM"]}', "is a JSON file (at byte 0). Open the folder that holds it."),
    "text": (
        b"Invalid username or password.",
        f"is a text file that begins with 'Invalid username or password.' (at byte 0). {AGAIN}",
    ),
    "compressed": (b"\x1f\x8b\x08" + b"\xff" * 50, "is compressed (at byte 0). Unpack it first."),
    "zeros": (
        bytes(4096),
        f"begins with nothing but zero bytes, as a download that never finished does (at byte 0). {AGAIN}",
    ),
    "a pickle": (
        b"\x80\x02}q\x00." + b"\xff" * 50,
        (
            "is a PyTorch file, not a safetensors file (at byte 0). "
            "Give it the ending .bin or .pt, with which KVScope reads it without running code."
        ),
    ),
}


@pytest.mark.parametrize("what", CONTENTS)
def test_a_file_that_is_no_safetensors_file(tmp_path: Path, what: str) -> None:
    content, expected = CONTENTS[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert sentence(path) == expected
    with pytest.raises(UnreadableCheckpointError) as refusal:
        open_checkpoint(tmp_path)
    problem = expected.split(". ")[0]
    assert str(refusal.value).startswith(
        f"{tmp_path}: its only tensor file cannot be read: model.safetensors {problem}. "
    )


@pytest.mark.parametrize("name", ["model.gguf", "model", "model.ckpt"])
def test_a_file_of_any_name_is_judged_by_what_it_holds(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(GOOD)
    assert open_checkpoint(path).catalog.names == ["a"]
    torch.save({"b": torch.zeros(1)}, path)
    assert open_checkpoint(path).catalog.names == ["b"]
    path.write_bytes(b"GGUF\3\0\0\0")
    assert sentence(path).startswith("is a GGUF file, which KVScope does not support")
    path.write_bytes(b"")
    assert sentence(path) == f"is empty (at byte 0). {AGAIN}"


def test_a_claimed_header_length_allocates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for length in (2**63, 2**64 - 1, 90_000_000, 2000):
        path.write_bytes(length.to_bytes(8, "little") + b"{" + b" " * 1000)
        tracemalloc.start()
        try:
            sentence(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 200_000


def test_a_missing_path(tmp_path: Path) -> None:
    assert sentence(tmp_path / "none") == "does not exist. Check the path."
    assert sentence(tmp_path / "none" / "model.safetensors") == "does not exist. Check the path."


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert sentence(tmp_path / "file" / "model.safetensors") == "lies below a file, not a folder. Check the path."


def test_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCheckpointError, match="is no name that a file can have"):
        open_checkpoint(f"{tmp_path}/a\0b")
    assert sentence(tmp_path / ("x" * 300)) == "has too long a name. Check the path."


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "lost.safetensors").symlink_to(tmp_path / "gone")
    (tmp_path / "round.safetensors").symlink_to(tmp_path / "round.safetensors")
    lost = sentence(tmp_path / "lost.safetensors")
    assert lost == "is a link to a file that is not there. Download the checkpoint again."
    assert sentence(tmp_path / "round.safetensors") == f"is a link that leads back to itself. {AGAIN}"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    remedy = "Point KVScope at a file or a checkpoint folder."
    assert sentence(tmp_path / "model.safetensors") == f"is not a regular file. {remedy}"
    os.mkfifo(tmp_path / "pipe")
    assert sentence(tmp_path / "pipe") == f"is not a regular file. {remedy}"


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user to whom file permissions apply: root reads everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        Path(folder).chmod(0o755)
        path = write(Path(folder) / "model.safetensors", {"a": ("U8", (1,))})
        path.chmod(0)
        closed = Path(folder) / "closed"
        closed.mkdir(mode=0)
        with unprivileged():
            assert sentence(path) == "may not be read by this user. Change its permissions, or copy it."
            assert sentence(closed) == "may not be read by this user. Change its permissions, or copy it."


def test_folders_without_tensors(tmp_path: Path) -> None:
    accepted = "Open a folder with safetensors files, or PyTorch's .bin, .pt or .pth."
    assert sentence(tmp_path) == f"is an empty folder. {accepted}"
    (tmp_path / "config.json").write_text("{}")
    assert sentence(tmp_path) == f"holds no tensors. {accepted}"
    (tmp_path / "training_args.bin").write_bytes(b"x")
    (tmp_path / "optimizer.pt").write_bytes(b"x")
    (tmp_path / "rng_state_0.pth").write_bytes(b"x")
    assert sentence(tmp_path) == f"holds no tensors. {accepted}"
    (tmp_path / "rank0.engine").write_bytes(b"x")
    assert sentence(tmp_path) == (
        "holds built TensorRT engines, whose tensors have no names any more. "
        "Open the checkpoint folder from which they were built (rank0.safetensors and config.json)."
    )
    (tmp_path / "model-q4.gguf").write_bytes(b"GGUF")
    assert sentence(tmp_path) == (
        "holds GGUF files, which KVScope does not support. Open the checkpoint they were made from."
    )
    write(tmp_path / "transformer" / "model.safetensors", {"a": ("U8", (1,))})
    assert sentence(tmp_path).endswith(". Its folder 'transformer' holds some: open that.")


def test_a_folder_of_broken_shards_only(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    (tmp_path / "model-2.safetensors").write_bytes(b"<html>")
    assert sentence(tmp_path) == (
        f"none of its 2 tensor files can be read: model-1.safetensors is empty (at byte 0). {AGAIN}"
    )


def test_a_name_that_is_no_utf_8_is_shown_as_far_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"a": ("U8", (1,))})
    (tmp_path / os.fsdecode(b"m\xff.safetensors")).write_bytes(b"")
    checkpoint = open_checkpoint(tmp_path)
    assert [fault.file for fault in checkpoint.faults] == ["m\ufffd.safetensors"]
    assert checkpoint.catalog.shard_names == tuple(shard.name for shard in checkpoint.shards)


def test_a_file_that_shrinks_while_it_is_read() -> None:
    with pytest.raises(BrokenFileError, match=r"ended while it was being read \(at byte 10\). Wait until"):
        read_exactly(io.BytesIO(bytes(10)), 4, 20)


def test_a_file_that_is_shorter_than_it_was(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"0123456789")
    assert read_spans(tmp_path / "x", 10, [(8, 10), (0, 0), (2, 5)]) == [b"89", b"", b"234"]
    for size, end in ((11, 5), (10, 12)):
        with pytest.raises(BrokenFileError, match=r"changed since it was opened\. Open the checkpoint again\."):
            read_spans(tmp_path / "x", size, [(0, end)])


def test_a_file_that_is_handed_out_in_small_parts() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(3, size if size is not None and size >= 0 else 3))

    assert read_exactly(Slow(b"0123456789"), 1, 8) == b"12345678"


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EIO, "could not be read: Input/output error. Check the disk or network share, then try again."),
        (errno.EPERM, "may not be read by this user. Change its permissions, or copy it."),
        (errno.EISDIR, "is a folder, not a file. Check the path."),
    ],
)
def test_what_the_operating_system_may_answer_besides(tmp_path: Path, number: int, expected: str) -> None:
    assert str(os_problem(OSError(number, os.strerror(number)), tmp_path)) == expected
