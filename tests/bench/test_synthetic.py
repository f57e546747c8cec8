from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.bench.synthetic import SIZES, tensors, write_checkpoint


@pytest.mark.parametrize(("name", "count"), [("A", 2_003), ("B", 90_549), ("C", 209_313)])
def test_sizes_have_the_tensors_of_their_models(name: str, count: int) -> None:
    assert len({tensor[0] for tensor in tensors(SIZES[name])}) == count


def test_a_checkpoint_is_whole_for_the_library_and_costs_no_disk(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, SIZES["A"])
    weight_map = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(weight_map) == 2_003
    values = []
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="numpy") as file:
            keys = file.keys()
            assert {weight_map[key] for key in keys} == {shard.name}
            values += [float(file.get_tensor(key)) for key in keys if key.endswith((".k_scale", ".v_scale"))]
    assert len(values) == 160
    assert all(0.01 < value < 0.1 for value in values)
    sizes = [path.stat() for path in folder.iterdir()]
    assert sum(size.st_size for size in sizes) > 10**10
    assert sum(size.st_blocks * 512 for size in sizes) < 10**7


def test_a_checkpoint_is_written_once(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, SIZES["A"])
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert write_checkpoint(tmp_path, SIZES["A"]) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written
