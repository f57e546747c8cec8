"""How much of each shard is asked for at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from core.checkpoint.header import LARGEST_HEADER
from core.checkpoint.index import read_index
from core.checkpoint.remote.guess import Guess, guess
from core.inspection import inspect
from tests.core.checkpoint.writing import header, pack, write_index
from tests.hub_server import Server

WANTED = (".k_scale", ".v_scale")


def _shard(layer: int) -> Mapping[str, tuple[str, tuple[int, ...]]]:
    """As safetensors sorts it: F32 before BF16."""
    names = [f"model.layers.{layer}.mlp.experts.{expert}.weight_scale" for expert in range(100)]
    names += [f"model.layers.{layer}.self_attn.{role}_proj.{role}_scale" for role in "kv"] if layer % 2 else []
    weights = [name.removesuffix("_scale") for name in names[:100]]
    return dict.fromkeys(names, ("F32", ())) | dict.fromkeys(weights, ("BF16", (64, 64)))


def _beginning(layer: int) -> bytes:
    return pack(header(_shard(layer)), b"")


@pytest.fixture(params=[True, False], ids=["usual index", "odd index"])
def expected(tmp_path: Path, request: pytest.FixtureRequest) -> Guess:
    weight_map = {name: f"model-{layer}.safetensors" for layer in range(80) for name in _shard(layer)}
    path = write_index(tmp_path, weight_map)
    if not request.param:
        path.write_text(json.dumps({"weight_map": {"odd\u00e9": "model-80.safetensors", **weight_map}}))
    return guess(read_index(tmp_path, path.name), WANTED)


def test_the_first_header_teaches_the_others(expected: Guess) -> None:
    assert expected.carriers == {f"model-{layer}.safetensors" for layer in range(1, 80, 2)}
    first = expected.teacher([f"model-{layer}.safetensors" for layer in range(8)])
    assert first == "model-7.safetensors"
    assert expected.behind(first) == 0
    expected.learn(first, _beginning(7))
    for layer in (8, 9, 11):
        shard, length = f"model-{layer}.safetensors", len(_beginning(layer))
        assert length <= expected.header(shard) <= 1.01 * length
        assert expected.behind(shard) == (102 * 4 if layer % 2 else 0)


def test_no_more_comes_along_than_is_worth_it(expected: Guess) -> None:
    expected.learn("model-7.safetensors", _beginning(7))
    asked = [expected.behind(f"model-{layer}.safetensors") for layer in range(80)]
    assert 0 < sum(asked) <= max(4096, 0.007 * 81 * len(_beginning(7)))
    assert asked.count(0) > 40


def test_values_that_lie_far_behind_are_asked_for_apart(expected: Guess) -> None:
    tree = header({"large.weight": ("BF16", (1000, 1000)), **_shard(7)})
    expected.learn("model-7.safetensors", pack(tree, b""))
    assert expected.behind("model-9.safetensors") == 0


def test_an_index_that_exaggerates_is_believed_up_to_the_longest_header(tmp_path: Path) -> None:
    path = write_index(tmp_path, {f"{number:x}": "model.safetensors" for number in range(1_300_000)})
    assert guess(read_index(tmp_path, path.name), WANTED).header("model.safetensors") == 8 + LARGEST_HEADER


def test_an_offset_that_no_file_can_have_teaches_nothing(expected: Guess) -> None:
    odd = b'{"a.k_scale":{"dtype":"F32","shape":[],"data_offsets":[0,%s]}}' % (b"9" * 5000)
    expected.learn("model-7.safetensors", pack(odd + b" " * len(_beginning(7)), b""))
    assert expected.behind("model-9.safetensors") == 0


def test_without_an_index_only_the_length_is_asked_for() -> None:
    nothing = guess(None, WANTED)
    assert nothing.teacher(["model.safetensors"]) is None
    nothing.learn("model.safetensors", _beginning(1))
    assert (nothing.header("model.safetensors"), nothing.behind("model.safetensors")) == (8, 0)


def test_the_scales_come_with_the_headers(server: Server) -> None:
    found = inspect("hf://org/qwen3")
    assert found.verdict.outcome == "ok"
    shards = [request for request in server.requests() if request["range"] and request["status"] == 206]
    assert len(shards) <= len(found.checkpoint.shards) + 2
