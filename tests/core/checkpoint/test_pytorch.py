from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from core.checkpoint import open_checkpoint
from core.errors import KVScopeError, UnreadableCheckpointError
from tests.core.checkpoint.writing import pack, write, write_index

CONVERT = "Convert it to safetensors where you trust it, and open that."


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableCheckpointError) as error:
        open_checkpoint(path)
    text = str(error.value)
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def tensors() -> dict[str, torch.Tensor]:
    return {
        "b.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3).t(),
        "a.k_scale": torch.tensor(0.25, dtype=torch.bfloat16),
        "f8": torch.tensor([1.0, -2.0]).to(torch.float8_e4m3fn),
        "f4": torch.tensor([0x21, 0x43], dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "n": torch.tensor([-1, 2]),
        "flag": torch.tensor([True, False]),
        "u16": torch.tensor([65535], dtype=torch.uint16),
        "c": torch.tensor([1j]),
        "empty": torch.zeros(0, 3),
    }


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "whatever"])
def test_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    torch.save(tensors(), path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.format == "pytorch"
    [shard] = checkpoint.shards
    assert (shard.header_size, shard.tensors, shard.size) == (0, 9, path.stat().st_size)
    found = {entry.key: (entry.dtype, entry.shape, entry.nbytes) for entry in map(checkpoint.catalog.entry, range(9))}
    assert list(found) == sorted(found)
    assert found == {
        "a.k_scale": ("BF16", (), 2),
        "b.weight": ("F32", (3, 2), 24),
        "c": ("C64", (1,), 8),
        "empty": ("F32", (0, 3), 0),
        "f4": ("F4", (4,), 2),
        "f8": ("F8_E4M3", (2,), 2),
        "flag": ("BOOL", (2,), 2),
        "n": ("I64", (2,), 16),
        "u16": ("U16", (1,), 2),
    }
    values = checkpoint.read(found)
    assert values["a.k_scale"].values == (0.25,)
    assert values["b.weight"].values == (0.0, 3.0, 1.0, 4.0, 2.0, 5.0)
    assert values["f8"].values == (1.0, -2.0)
    assert values["n"].values == (-1.0, 2.0)
    assert values["flag"].values == (1.0, 0.0)
    assert values["u16"].values == (65535.0,)
    assert (values["empty"].values, values["empty"].fault) == ((), None)
    assert values["f4"].fault == "values of type 'F4' are not decoded"
    assert checkpoint.read_bytes("f4") == b"\x21\x43"
    assert checkpoint.read_bytes("c") == torch.tensor([1j]).numpy().tobytes()


def test_a_file_as_pytorch_wrote_them_before_1_6(tmp_path: Path) -> None:
    old = {key: value for key, value in tensors().items() if key in {"b.weight", "a.k_scale", "n", "flag"}}
    torch.save(old, tmp_path / "x.bin", _use_new_zipfile_serialization=False)
    found = open_checkpoint(tmp_path / "x.bin").read(old)
    assert {key: values.values for key, values in found.items()} == {
        "a.k_scale": (0.25,),
        "b.weight": (0.0, 3.0, 1.0, 4.0, 2.0, 5.0),
        "flag": (1.0, 0.0),
        "n": (-1.0, 2.0),
    }


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", "model_state_dict"])
def test_a_wrapped_state_dict_is_entered_once(tmp_path: Path, wrapper: str) -> None:
    inner = OrderedDict(w=torch.nn.Parameter(torch.ones(2)), step=3, nested={"x": torch.ones(1)})
    torch.save({"epoch": 1, "rng": torch.zeros(4), wrapper: inner}, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").catalog.names == ["w"]


def test_what_is_no_tensor_is_ignored(tmp_path: Path) -> None:
    content = {"w": torch.ones(2), "epoch": 1, 7: torch.ones(1), "model": {"note": "none"}, "\ud800": torch.ones(1)}
    torch.save(content, tmp_path / "x.pt")
    assert open_checkpoint(tmp_path / "x.pt").catalog.names == ["w"]


def test_an_endless_name_is_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2), "a" * 1025: torch.ones(1)}, tmp_path / "x.pt")
    assert refusal(tmp_path / "x.pt").endswith(
        "has a name of 1,025 characters; names of up to 1,024 are read. Give the tensor a shorter name."
    )


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}, torch.ones(1), {"model": {"model": {"w": torch.ones(1)}}}])
def test_a_file_without_named_tensors(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    expected = "holds no named tensors. Open the file that holds the model's state dict."
    assert refusal(tmp_path / "x.pt") == expected


def test_tensors_whose_elements_are_not_simply_stored_are_raw(tmp_path: Path) -> None:
    content = {
        "meta": torch.empty(3, device="meta"),
        "sparse": torch.eye(2).to_sparse(),
        "wide": torch.ones(1, dtype=torch.complex128),
        "w": torch.ones(1),
    }
    torch.save(content, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    found = checkpoint.read(content)
    assert {key: values.dtype for key, values in found.items()} == {
        "meta": "META_F32",
        "sparse": "SPARSE_COO_F32",
        "wide": "COMPLEX128",
        "w": "F32",
    }
    assert found["sparse"].shape == (2, 2)
    assert found["sparse"].fault == "values of type 'SPARSE_COO_F32' are not decoded"
    assert found["w"].values == (1.0,)
    assert checkpoint.read_bytes("wide") == torch.ones(1, dtype=torch.complex128).numpy().tobytes()
    with pytest.raises(KVScopeError, match="key 'meta': has no stored elements"):
        checkpoint.read_bytes("meta")


def test_an_expanded_tensor_is_not_written_out(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(1 << 40), "heads": torch.ones(1).expand(8)}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    assert checkpoint.read(["heads"])["heads"].values == (1.0,) * 8
    assert checkpoint.read(["w"])["w"].fault == "holds 1,099,511,627,776 values, more than the 1,048,576 that are read"
    with pytest.raises(KVScopeError, match="key 'w': repeats few stored elements"):
        checkpoint.read_bytes("w")


def test_single_elements_of_any_stride_and_views_that_negate(tmp_path: Path) -> None:
    content = {
        "expanded": torch.tensor(0.02).expand(1),
        "strided": torch.arange(6.0).as_strided((1,), (3,), 5),
        "parameter": torch.nn.Parameter(torch.tensor(0.5).expand(1)),
        "negative": torch._neg_view(torch.tensor([1.0, -2.0])),
        "imaginary": torch.tensor([1 + 2j]).conj().imag,
        "conjugate": torch.tensor([1 + 2j]).conj(),
    }
    torch.save(content, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    found = checkpoint.read([name for name in content if name != "conjugate"])
    assert {key: values.values for key, values in found.items()} == {
        "expanded": (pytest.approx(0.02),),
        "strided": (5.0,),
        "parameter": (0.5,),
        "negative": (-1.0, 2.0),
        "imaginary": (-2.0,),
    }
    assert checkpoint.read_bytes("conjugate") == torch.tensor([1 - 2j]).numpy().tobytes()


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
@pytest.mark.filterwarnings("ignore")  # PyTorch calls nested tensors a prototype
def test_a_nested_tensor_hides_no_other(tmp_path: Path, layout: torch.layout) -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=layout)
    torch.save({"nested": nested, "w": torch.ones(1)}, tmp_path / "x.pt")
    checkpoint = open_checkpoint(tmp_path / "x.pt")
    found = checkpoint.read(["nested", "w"])
    assert (found["nested"].dtype, found["nested"].shape) == ("NESTED_F32", (2,))
    assert found["w"].values == (1.0,)
    with pytest.raises(KVScopeError, match="key 'nested': has no stored elements"):
        checkpoint.read_bytes("nested")


def test_shards_and_an_index(tmp_path: Path) -> None:
    one, two = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"
    torch.save({"a": torch.ones(1), "c": torch.ones(1)}, tmp_path / one)
    torch.save({"b": torch.zeros(1)}, tmp_path / two)
    (tmp_path / "training_args.bin").write_bytes(b"x")
    assert open_checkpoint(tmp_path).format == "pytorch-sharded"
    write_index(tmp_path, {"a": one, "b": two, "d": two}, "pytorch_model.bin.index.json")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.format == "pytorch-sharded"
    assert checkpoint.catalog.names == ["a", "c", "b"]
    assert checkpoint.index is not None
    assert checkpoint.index.missing_keys == (("d", two),)
    assert checkpoint.index.unindexed_keys == ("c",)
    assert checkpoint.index.unindexed_files == ()
    assert checkpoint.read(["a", "b"])["b"].values == (0.0,)
    (tmp_path / one).write_bytes(b"<html>")
    [fault] = open_checkpoint(tmp_path).faults
    assert (fault.file, fault.problem) == (one, "is a web page, saved in place of the file")


def test_safetensors_come_before_pickles_and_one_kind_of_pickle_before_the_next(tmp_path: Path) -> None:
    torch.save({"pth": torch.ones(1)}, tmp_path / "consolidated.00.pth")
    torch.save({"pt": torch.ones(1)}, tmp_path / "model.pt")
    assert open_checkpoint(tmp_path).catalog.names == ["pt"]
    torch.save({"bin": torch.ones(1)}, tmp_path / "other.bin")
    torch.save({"usual": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.catalog.names == ["usual"]
    assert checkpoint.notes == ("consolidated.00.pth, model.pt, other.bin not read: pytorch_model.bin comes first.",)
    write_index(tmp_path, {"st": "model.safetensors"})
    assert open_checkpoint(tmp_path).catalog.names == ["usual"]
    write(tmp_path / "model.safetensors", {"st": ("U8", (1,))})
    assert open_checkpoint(tmp_path).catalog.names == ["st"]


class Command:
    """Unpickled, it would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("how", ["zip", "legacy", "plain pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, how: str) -> None:
    path, witness = tmp_path / "pytorch_model.bin", tmp_path / "witness"
    content = {"w": torch.ones(1), "x": Command(f"touch {witness}")}
    if how == "plain pickle":
        path.write_bytes(pickle.dumps({"x": content["x"]}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    expected = (
        "asks to run 'posix.system' while it is read, which KVScope never does: only tensors are read. " + CONVERT
    )
    assert refusal(path) == expected
    assert refusal(tmp_path).endswith(expected.removeprefix("asks"))
    assert not witness.exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pt")
    assert refusal(tmp_path / "x.pt").startswith("asks to run 'torch.nn.modules.linear.Linear' while it is read")


def test_the_real_modelopt_state_beside_a_checkpoint_is_not_opened(checkpoint_folder: Path) -> None:
    for path in checkpoint_folder.glob("*.pth"):
        assert path.name not in {shard.name for shard in open_checkpoint(checkpoint_folder).shards}
        assert "while it is read" in refusal(path) or "holds no named tensors" in refusal(path)


def archive(path: Path, records: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as target:
        for name, data in records.items():
            target.writestr(name, data)
    return path


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    again, damaged = "Download or copy the file again.", "if it loads elsewhere, convert it to safetensors there."
    torch.save({"w": torch.ones(3000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert refusal(path) == (
        "was cut short: it is a PyTorch archive without its directory, which comes last "
        f"(at byte {len(whole) - 20}). {again}"
    )
    path.write_bytes(whole.replace(b"FloatStorage", b"FloatStoraxe"))
    assert refusal(path).startswith("asks to run 'torch.FloatStoraxe' while it is read")
    path.write_bytes(b"")
    assert refusal(path) == f"is empty (at byte 0). {again}"
    path.write_bytes(b"\x7fELF" + b"\0" * 64)
    assert refusal(path) == f"is no PyTorch file (at byte 0). Download or copy it again; {damaged}"
    path.write_bytes(b"GGUF\3\0\0\0")
    assert refusal(path).startswith("is a GGUF file, which KVScope does not support")
    path.write_bytes(pack({}))
    expected = "is a safetensors file, not a PyTorch file (at byte 0). Give it the ending .safetensors."
    assert refusal(path) == expected
    archive(path, {"a/b.txt": b"x"})
    assert refusal(path).startswith("is a zip archive, but none that PyTorch wrote (at byte 0).")
    archive(path, {"archive/constants.pkl": b"x", "archive/data.pkl": b"x", "archive/code/x.py": b"x"})
    assert refusal(path) == f"is a TorchScript program, not a set of tensors. {CONVERT}"
    for pickled in (b"\x80\x02}.", bytes(10_000_000)):
        archive(path, {"archive/data.pkl": pickled, "archive/version": b"3"}, zipfile.ZIP_DEFLATED)
        assert refusal(path) == f"is a compressed archive, which PyTorch never writes. {CONVERT}"
    archive(path, {"archive/data.pkl": b"\x80\x02}.", "archive/version": b"3"})
    content = path.read_bytes()
    sizes = content.index(b"PK\x01\x02") + 20  # in the directory: stored and original size of the first record
    path.write_bytes(content[:sizes] + b"\xff\xff\xff\x00" * 2 + content[sizes + 8 :])
    assert refusal(path) == f"is an archive that claims to hold more than it does. {CONVERT}"
    archive(path, {"archive/data.pkl": b"\x80\x02garbage", "archive/version": b"3"})
    assert refusal(path) == (
        f"is damaged: its pickle is cut short or holds what no pickle can. Download or copy it again; {damaged}"
    )
    archive(path, {"archive/data.pkl": pickle.dumps({"w": 1}, 2), "archive/version": b"3"})
    content = path.read_bytes()
    name_length = content.index(b"archive/data.pkl") - 4
    path.write_bytes(content[:name_length] + b"\xff\xff" + content[name_length + 2 :])
    assert refusal(path) == f"is an archive with a damaged directory. Download or copy it again; {damaged}"


def test_an_archive_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.full((2,), 0.5)}, tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert open_checkpoint(tmp_path / "x.pt").read(["w"])["w"].values == (0.5, 0.5)


class _Storage:
    def __init__(self, elements: int) -> None:
        self.id = ("storage", torch.FloatStorage, "0", "cpu", elements)


class _Tensor:
    """A tensor of any claimed size over a storage of any claimed length."""

    def __init__(self, size: int, stride: int, elements: int, offset: int = 0) -> None:
        self.arguments: tuple[Any, ...] = (_Storage(elements), offset, (size,), (stride,), False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.id if isinstance(obj, _Storage) else None


@pytest.mark.parametrize(
    ("size", "stride", "elements", "offset"),
    [(10**13, 1, 4, 0), (10**9, 1, 10**9, 0), (4, 10**12, 4, 0), (4, 1, 4, 10**9), (-4, 1, 4, 0)],
)
def test_a_size_that_lies_is_refused(tmp_path: Path, size: int, stride: int, elements: int, offset: int) -> None:
    text = io.BytesIO()
    _Pickler(text, 2).dump({"w": _Tensor(size, stride, elements, offset)})
    records = {"archive/data.pkl": text.getvalue(), "archive/version": b"3\n", "archive/data/0": bytes(16)}
    path = archive(tmp_path / "x.pt", records)
    assert refusal(path).startswith("is damaged: PyTorch says '")


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02c" + b"x" * 1_000_000 + b"\nname\n.",
        b"\x80\x02cmodule\n" + b"x" * 1_000_000 + b"\n.",
        b"\x80\x02X" + (1_000_000).to_bytes(4, "little") + b"x" * 1_000_000 + b"\x85Q.",
        b"\x80\x02X" + (2**31 - 1).to_bytes(4, "little") + b"x.",
    ],
)
def test_a_name_of_a_megabyte_is_refused_before_pytorch_searches_it_for_hours(tmp_path: Path, pickled: bytes) -> None:
    path = archive(tmp_path / "x.pt", {"archive/data.pkl": pickled, "archive/version": b"3\n"})
    begun = time.process_time()
    assert refusal(path).startswith(("is damaged: its pickle", "holds a text of"))
    path.write_bytes(pickled)
    assert refusal(path).startswith(("is damaged: its pickle", "holds a text of"))
    assert time.process_time() - begun < 5  # PyTorch alone would take hours


def test_a_pickle_that_changed_since_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"w": torch.ones(1)}, path)
    checkpoint = open_checkpoint(path)
    torch.save({"v": torch.ones(1)}, path)
    assert checkpoint.read(["w"])["w"].fault == "x.pt no longer holds 'w'. Open the checkpoint again."


def test_safetensors_are_opened_without_importing_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "model.safetensors", {"a": ("BF16", (1,))})
    program = (
        "import sys; from core.checkpoint import open_checkpoint; "
        f"found = open_checkpoint({str(path)!r}); found.read(found.catalog.names); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[3])


def test_without_pytorch_the_remedy_is_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.ones(1)}, tmp_path / "x.pt")
    monkeypatch.setitem(sys.modules, "torch", None)  # what import finds where it is not installed
    assert refusal(tmp_path / "x.pt") == "is a PyTorch file, and PyTorch is not installed. `pip install torch`."
