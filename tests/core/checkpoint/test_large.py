"""Checkpoints of many tensors, which the quick readers take: the same answers as from small ones."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from safetensors import safe_open

from core.checkpoint import BrokenFileError, Checkpoint, open_checkpoint
from core.checkpoint.catalog import block_of, build_catalog
from core.checkpoint.header import WORTH_SCANNING, read_header_bytes
from core.checkpoint.index import Index, compare, read_index
from core.checkpoint.index_scan import scan_index
from core.checkpoint.scan import scan_headers
from core.checkpoint.strict import read_strictly
from tests.bench.synthetic import SIZES, write_checkpoint
from tests.core.checkpoint.mutation import mutated
from tests.core.checkpoint.test_header import rows
from tests.core.checkpoint.writing import header, pack, write, write_index

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 layers, 30 shards, 2,003 tensors; read only."""
    return write_checkpoint(tmp_path_factory.mktemp("large"), SIZES["A"])


def three_shards(folder: Path, sizes: tuple[int, int, int] = (100, 100, 100)) -> dict[str, str]:
    weight_map: dict[str, str] = {}
    for number, size in enumerate(sizes):
        names = [f"model.layers.{layer}.part{number}.weight" for layer in range(size)]
        write(
            folder / f"model-{number}.safetensors", dict.fromkeys(names, ("BF16", (2, 3))), metadata={"n": str(number)}
        )
        weight_map |= dict.fromkeys(names, f"model-{number}.safetensors")
    return weight_map


def listed(checkpoint: Checkpoint) -> list[tuple[str, str, str, tuple[int, ...]]]:
    catalog = checkpoint.catalog
    entries = map(catalog.entry, range(len(catalog)))
    return [(entry.shard, entry.key, entry.dtype, entry.shape) for entry in entries]


def test_the_listing_is_that_of_the_safetensors_package(large: Path) -> None:
    checkpoint = open_checkpoint(large)
    expected = []
    for shard in checkpoint.shards:
        with safe_open(shard.path, "np") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            expected += [
                (shard.name, key, found.get_dtype(), tuple(found.get_shape())) for key, found in slices.items()
            ]
            assert (shard.tensors, shard.metadata) == (len(slices), file.metadata())
    assert listed(checkpoint) == expected
    assert checkpoint.index is not None
    assert checkpoint.index.agrees
    scale = "model.layers.79.self_attn.v_proj.v_scale"
    assert checkpoint.read([scale])[scale].values == pytest.approx([0.01 + len(scale) / 4096])


def test_headers_of_more_than_one_batch(tmp_path: Path) -> None:
    weight_map = three_shards(tmp_path, (6000, 7000, 3000))
    write(tmp_path / "other.safetensors", {"é": ("U8", (1,))})  # left to the exact reader, in a batch with the last
    write_index(tmp_path, weight_map | {"é": "other.safetensors"})
    checkpoint = open_checkpoint(tmp_path)
    assert sum(shard.header_size for shard in checkpoint.shards) > 1 << 20
    assert [shard.tensors for shard in checkpoint.shards] == [6000, 7000, 3000, 1]
    assert checkpoint.faults == ()
    assert checkpoint.index is not None
    assert checkpoint.index.agrees
    expected = []
    for shard in checkpoint.shards:
        with safe_open(shard.path, "np") as file:
            expected += [(shard.name, key) for key in file.keys()]  # noqa: SIM118 - no mapping
    assert [row[:2] for row in listed(checkpoint)] == expected
    assert repr(checkpoint.catalog) == "<Catalog of 16001 tensors in 4 shards>"
    begin = checkpoint.shards[1].header_size
    last = checkpoint.catalog.entry(checkpoint.catalog.index_of("model.layers.6999.part1.weight") or 0)
    assert (last.begin, last.end) == (begin + 6999 * 12, begin + 7000 * 12)


def test_rows_by_the_ending_of_their_keys(large: Path) -> None:
    catalog = open_checkpoint(large).catalog
    for suffixes in (
        [".k_scale", ".v_scale"],
        ["_scale"],
        ["k_proj.weight_scale", "lm_head.weight"],
        ["t"],
        ["none"],
        [],
        [""],
    ):
        expected = [row for row, name in enumerate(catalog.names) if name.endswith(tuple(suffixes))]
        assert catalog.rows_ending(suffixes) == expected
    assert len(catalog.rows_ending([".k_scale", ".v_scale"])) == 160


def test_one_damaged_shard_among_many_is_the_only_fault(tmp_path: Path) -> None:
    weight_map = three_shards(tmp_path)
    write_index(tmp_path, weight_map)
    whole = listed(open_checkpoint(tmp_path))
    path = tmp_path / "model-1.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[2,3]', b'"shape":[2,4]', 1))
    checkpoint = open_checkpoint(tmp_path)
    [fault] = checkpoint.faults
    assert fault.file == path.name
    assert "takes 16 bytes, but its offsets span 12" in fault.problem
    assert [(shard.tensors, dict(shard.metadata)) for shard in checkpoint.shards] == [
        (100, {"n": "0"}),
        (0, {}),
        (100, {"n": "2"}),
    ]
    assert listed(checkpoint) == [row for row in whole if row[0] != path.name]
    assert checkpoint.index is not None
    assert len(checkpoint.index.missing_keys) == 100


def test_a_key_in_two_of_many_shards(tmp_path: Path) -> None:
    weight_map = three_shards(tmp_path)
    again = "model.layers.7.part0.weight"
    names = [*(key for key, shard in weight_map.items() if shard == "model-2.safetensors"), again]
    write(tmp_path / "model-2.safetensors", dict.fromkeys(names, ("BF16", (2, 3))))
    write_index(tmp_path, weight_map)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.faults == ()
    assert checkpoint.catalog.duplicates == ((again, ("model-0.safetensors", "model-2.safetensors")),)
    assert checkpoint.index is not None
    assert checkpoint.index.agrees
    assert len(checkpoint.catalog.rows_of(again)) == 2


def test_a_name_twice_in_a_large_header_is_a_fault(tmp_path: Path) -> None:
    tree = header({f"n{number:04}": ("U8", (1,)) for number in range(400)})
    text = json.dumps(tree, separators=(",", ":")).replace('"n0399"', '"n0007"').encode()
    (tmp_path / "model.safetensors").write_bytes(pack(text, bytes(400)))
    write(tmp_path / "other.safetensors", {"a": ("U8", (1,))})
    [fault] = open_checkpoint(tmp_path).faults
    assert fault.problem == "its header names 'n0007' twice"


def test_headers_without_tensors_among_large_ones(tmp_path: Path) -> None:
    three_shards(tmp_path)
    for number, tree in enumerate([{}, {"__metadata__": {"n": "empty"}}]):
        (tmp_path / f"model-1-{number}.safetensors").write_bytes(pack(tree))
    checkpoint = open_checkpoint(tmp_path)
    assert [(shard.tensors, dict(shard.metadata)) for shard in checkpoint.shards] == [
        (100, {"n": "0"}),
        (0, {}),
        (0, {"n": "empty"}),
        (100, {"n": "1"}),
        (100, {"n": "2"}),
    ]
    (tmp_path / "model-1-1.safetensors").write_bytes(pack({"__metadata__": {"n": "empty"}}, b"data"))
    [fault] = open_checkpoint(tmp_path).faults
    assert (fault.file, fault.problem) == ("model-1-1.safetensors", "4 bytes of data belong to no tensor")


@pytest.mark.parametrize(
    ("old", "new", "missing", "moved", "unindexed"),
    [
        ('"model.layers.5.part0.weight": "model-0', '"model.layers.5.part0.weight": "model-1', 0, 1, 0),
        ('"model.layers.5.part0.weight"', '"model.layers.500.part0.weight"', 1, 0, 1),
        ('    "model.layers.5.part0.weight": "model-0.safetensors",\n', "", 0, 0, 1),
        (
            '"model.layers.5.part0.weight": "',
            '"added": "model-0.safetensors",\n    "model.layers.5.part0.weight": "',
            1,
            0,
            0,
        ),
    ],
)
def test_an_index_that_differs_in_one_entry(
    tmp_path: Path, old: str, new: str, missing: int, moved: int, unindexed: int
) -> None:
    path = write_index(tmp_path, three_shards(tmp_path))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    found = open_checkpoint(tmp_path).index
    assert found is not None
    assert (len(found.missing_keys), len(found.moved_keys), len(found.unindexed_keys)) == (missing, moved, unindexed)


def test_the_quick_reader_of_indexes_takes_every_usual_layout(tmp_path: Path) -> None:
    weight_map = three_shards(tmp_path)
    for options in ({"indent": 2}, {"indent": 4}, {"indent": 2, "sort_keys": True}, {}, {"separators": (",", ":")}):
        data = json.dumps({"metadata": {"total_size": 5}, "weight_map": weight_map}, **options).encode()
        scanned = scan_index(data)
        assert scanned is not None
        assert scanned.agrees_with(open_checkpoint(tmp_path).catalog)
        assert scanned.rest["metadata"] == {"total_size": 5}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "x",}}',
        '{"weight_map": {"a": "x" "b": "y"}}',
        '{"weight_map": {"a": "x\\\\"}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {1"a": "x"}}',
        '{"weight_map": {"a": "x"2}}',
        '{"weight_map": {"a": "x"}',
        '{"weight_map": {"a": "x"}, "weight_map": {}}',
        '{"metadata": {"weight_map": {"a": "x"}}, "weight_map": {"b": "y"}}',
        '{"weight_map": {"é": "x"}}',
        '["weight_map": {"a": "x"}]',
        '{"weight_map": {"a": "x", "b" "y"}}',
    ],
)
def test_the_quick_reader_of_indexes_leaves_the_rest_alone(text: str) -> None:
    assert scan_index(text.encode()) is None


def test_the_quick_reader_of_indexes_takes_any_white_space_and_keeps_the_order_of_shards() -> None:
    scanned = scan_index(b'{"weight_map": {"a": "z" ,"b" :"y",  "c":\t"x",\n\n"d":"z"}}')
    assert scanned is not None
    assert scanned.shard_names == ("z", "y", "x")
    assert scanned.shards.tolist() == [0, 1, 2, 0]


def test_damaged_indexes_are_judged_alike_by_both_readers(tmp_path: Path) -> None:
    random = Random(11)  # noqa: S311 - the same damage on every run
    weight_map = three_shards(tmp_path, (5, 5, 5))
    catalog = open_checkpoint(tmp_path).catalog
    text = json.dumps({"metadata": {"total_size": 5}, "weight_map": weight_map}, indent=2).encode()
    quick = 0
    for _ in range(1500):
        data = mutated(text, random)
        (tmp_path / INDEX).write_bytes(data)
        scanned = scan_index(data)
        if scanned is None:
            continue
        try:
            index = read_index(tmp_path, INDEX)
        except BrokenFileError:  # both refuse a file that lies elsewhere
            continue
        quick += 1
        exact = Index(file=INDEX, root=tmp_path, shard_names=index.shard_names, total_size=index.total_size)
        assert compare(index, catalog, (), ())[0] == compare(exact, catalog, (), ())[0]
    assert quick > 100


def test_headers_scanned_together_are_read_as_one_by_one(large: Path) -> None:
    random = Random(12)  # noqa: S311 - the same damage on every run
    whole, sizes = [], []
    for path in sorted(large.glob("*.safetensors")):
        with path.open("rb") as file:
            whole.append(read_header_bytes(file, path.stat().st_size))
        sizes.append(path.stat().st_size)
    assert sum(map(len, whole)) > WORTH_SCANNING
    taken = 0
    for number in range(300):
        chosen = random.sample(range(len(whole)), random.choice([1, 2, 5]))
        headers = [whole[which] for which in chosen]
        if number % 3:
            headers[-1] = mutated(headers[-1], random)
        scanned = scan_headers(
            headers, [sizes[which] + len(new) - len(whole[which]) for which, new in zip(chosen, headers, strict=True)]
        )
        if scanned is None:
            continue
        taken += 1
        alone = [
            read_strictly(new, sizes[which] + len(new) - len(whole[which]))
            for which, new in zip(chosen, headers, strict=True)
        ]
        assert scanned.counts.tolist() == [len(columns.names) for columns in alone]
        assert list(scanned.metadata) == [columns.metadata for columns in alone]
        together = build_catalog([""] * 5, [block_of(columns, 0) for columns in alone])
        assert scanned.columns.names == together.names
        assert rows(scanned.columns) == [row for columns in alone for row in rows(columns)]
    assert taken > 100
