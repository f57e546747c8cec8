"""Damaged files by the thousand: each is read right or refused in a sentence, and never more."""

from __future__ import annotations

import io
import re
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import safetensors
import torch

from core.checkpoint import BrokenFileError, HeaderColumns, open_checkpoint, parse_header, read_header
from core.checkpoint.dtypes import DTYPES
from core.checkpoint.scan import scan_header
from core.checkpoint.strict import read_strictly
from core.errors import KVScopeError
from tests.core.checkpoint.mutation import mutated
from tests.core.checkpoint.test_header import same
from tests.core.checkpoint.writing import parse
from tests.places import CHECKPOINTS, SAMPLES

STRICTER = (
    "twice",
    "does not begin with '{'",
    "is described by no JSON object",
    "which no size or offset can be",
    "names of up to 1,024 are read",
)
"""What is refused here and read by the Rust reader: none of it is allowed by the format, but for endless names."""


@pytest.fixture(scope="module")
def corpus() -> list[bytes]:
    """Whole files, the smaller ones of the repository's real checkpoints, from every tool."""
    paths = sorted(path for root in (SAMPLES, CHECKPOINTS) for path in root.glob("*/*/*.safetensors"))
    found = sorted((path.read_bytes() for path in paths), key=len)[:8]
    assert len(found) == 8
    return found


def damaged_files(corpus: list[bytes], seed: int, count: int) -> Iterator[bytes]:
    """Whole files: a damaged header, its length right in most of them, and the data as it was or cut."""
    random = Random(seed)  # noqa: S311 - the same damage on every run
    for number in range(count):
        blob = corpus[number % len(corpus)]
        header, _ = parse(blob)
        data = blob[8 + len(header) :]
        header = mutated(header.rstrip(), random)
        length = (
            len(header)
            if random.random() < 0.9
            else random.choice([0, 1, 2**63, 2**64 - 1, 90_000_000, len(header) + 7])
        )
        data = data if random.random() < 0.9 else data[: random.randrange(len(data))]
        yield length.to_bytes(8, "little") + header + data


def check(columns: HeaderColumns, header_size: int, size: int) -> None:
    """What must hold of a header that was accepted."""
    assert columns.names == sorted(set(columns.names))
    assert all(len(column) == len(columns.names) for column in (columns.begins, columns.ends, columns.dtype_codes))
    spans = sorted(zip(columns.begins.tolist(), columns.ends.tolist(), strict=True))
    at = header_size
    for begin, end in spans:
        assert begin == at <= end
        at = end
    assert at == size
    "".join(columns.names).encode()


def check_refusal(error: KVScopeError) -> None:
    assert error.remedy
    assert "\n" not in str(error)
    str(error).encode()


def rust_reads(blob: bytes) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    """Type and shape of each tensor as the Rust reader sees them; None where it refuses the file."""
    try:
        found = safetensors.deserialize(blob)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError:
        return None
    return {name: (tensor["dtype"], tuple(tensor["shape"])) for name, tensor in found}


@pytest.mark.parametrize("seed", range(4))
def test_damaged_headers_are_read_as_the_rust_reader_reads_them_or_refused(corpus: list[bytes], seed: int) -> None:
    accepted = refused = 0
    for blob in damaged_files(corpus, seed, 1500):
        expected = rust_reads(blob)
        try:
            header_size, columns = read_header(io.BytesIO(blob), len(blob))
        except BrokenFileError as error:
            refusal = error
        else:
            accepted += 1
            check(columns, header_size, len(blob))
            dtypes = [columns.dtype_names[code] for code in columns.dtype_codes.tolist()]
            shapes = [columns.shape_table[code] for code in columns.shape_codes.tolist()]
            found = dict(zip(columns.names, zip(dtypes, shapes, strict=True), strict=True))
            assert found == expected or not DTYPES.keys() >= set(dtypes)
            continue
        refused += 1
        check_refusal(refusal)
        assert refusal.offset is None or 0 <= refusal.offset <= len(blob)
        assert expected is None or any(text in refusal.detail for text in STRICTER)
    assert accepted > 30
    assert refused > 1000


def test_both_readers_agree_on_damaged_headers(corpus: list[bytes]) -> None:
    taken = 0
    for blob in damaged_files(corpus, 99, 1500):
        data, size = parse(blob)
        quick = scan_header(data, size)
        if quick is not None:
            taken += 1
            assert same(quick, read_strictly(data, size))
    assert taken > 20


def test_a_damaged_header_takes_no_more_memory_than_its_file_justifies(corpus: list[bytes]) -> None:
    for blob in damaged_files(corpus, 7, 200):
        tracemalloc.start()
        try:
            read_header(io.BytesIO(blob), len(blob))
        except BrokenFileError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 40 * len(blob) + 200_000


@pytest.mark.parametrize(
    "text", [b"[" * 300_000, b'{"a":' * 100_000, b"{" + b'"a":[' * 50_000, b'{"a":[' + b"[]," * 100_000]
)
def test_deep_or_long_nesting_ends_soon(text: bytes) -> None:
    with pytest.raises(BrokenFileError):
        parse_header(text, 8 + len(text))


def test_damaged_folders_open_with_faults_or_are_refused(tmp_path: Path) -> None:
    random = Random(5)  # noqa: S311 - the same damage on every run
    source = SAMPLES / "modelopt" / "qwen3-36layers-fp8-kvfp8"
    folder = tmp_path / "checkpoint"
    shutil.copytree(source, folder)
    names = ["model.safetensors.index.json", "config.json", *sorted(path.name for path in folder.glob("*.safetensors"))]
    contents = {name: (folder / name).read_bytes() for name in names}
    faults = 0
    for _ in range(150):
        name = random.choice(names)
        text = contents[name]
        if name.endswith(".json"):
            damaged = mutated(text, random)
        else:
            header, _ = parse(text)
            changed = mutated(header, random)
            damaged = len(changed).to_bytes(8, "little") + changed + text[8 + len(header) :]
        (folder / name).write_bytes(damaged)
        checkpoint = open_checkpoint(folder)
        faults += len(checkpoint.faults)
        assert all(fault.remedy and str(fault).encode() for fault in checkpoint.faults)
        fault_of_config = checkpoint.config_fault("config.json")
        assert fault_of_config is not None or checkpoint.config("config.json") is not None
        checkpoint.read(checkpoint.catalog.names[:3])
        (folder / name).write_bytes(text)
    assert faults > 20


def with_counted_storages(pickled: bytes) -> bytes:
    """A file of the old format names storages by their addresses in memory; here by numbers, the same on every run."""
    addresses = sorted(set(re.findall(rb"X.\0{3}(\d{9,20})", pickled, re.DOTALL)))
    for number, address in enumerate(addresses):
        name = b"%014d" % number
        pickled = pickled.replace(b"X%c\0\0\0%s" % (len(address), address), b"X%c\0\0\0%s" % (len(name), name))
    return pickled


def test_damaged_pickles_are_read_or_refused(tmp_path: Path) -> None:
    random = Random(3)  # noqa: S311 - the same damage on every run
    path = tmp_path / "x.bin"
    content = {f"layers.{number}.k_scale": torch.tensor(0.5) for number in range(6)}
    sources = []
    for zipped in (True, False):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        sources.append(with_counted_storages(path.read_bytes()))
    refused = 0
    for number in range(400):
        path.write_bytes(mutated(sources[number % 2], random))
        try:
            checkpoint = open_checkpoint(path)
            checkpoint.read(checkpoint.catalog.names)
        except KVScopeError as error:
            refused += 1
            check_refusal(error)
    assert refused > 100
