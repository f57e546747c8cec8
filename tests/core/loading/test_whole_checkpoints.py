"""Whole real checkpoints: every tensor goes through the loader, the KV scales among them.

The ordinary weights show that no rule for scales catches anything else, and that scales find their layers in the
company of everything that a real checkpoint holds.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core.inspection import Inspection, inspect
from core.loading.linear import FusedLinear
from core.loading.parameters import WeightPlaceholder
from core.loading.skeleton import build_skeleton
from core.loading.tensors import read_tensors, same_bits
from core.loading.verify import setup_for, verify
from core.loading.weights import check_weights
from core.progress import Progress
from tests.places import SAMPLES, checkpoint_folders

FP8_SAMPLE = SAMPLES / "modelopt" / "qwen3-36layers-fp8-kvfp8"


def _float8(inspection: Inspection) -> int:
    catalog = inspection.checkpoint.catalog
    return sum(catalog.dtype(row) == "F8_E4M3" for row in range(len(catalog)))


def test_every_tensor_of_every_real_checkpoint() -> None:
    outcomes: Counter[str] = Counter()
    float8 = scales = others = size = 0
    for name, folder in checkpoint_folders().items():
        inspection = inspect(folder)
        found = verify(inspection, weights="all")
        assert not found.disagreements, f"{name}: {found.text}"
        outcomes[found.outcome] += 1
        if found.weights is None:
            continue
        assert found.layers_agreed == found.layers_total
        assert found.weights.equal == found.weights.held
        assert found.weights.held + len(found.weights.left_out) == found.weights.total
        if _float8(inspection) and inspection.scales:
            float8 += 1
            scales += len(inspection.scales)
            others += found.weights.equal
            size += found.weights.size
    print(
        f"{float8} whole FP8 checkpoints with KV scales: {scales} scales among {others} other tensors, {size:,} bytes"
    )
    print(f"outcomes: {dict(outcomes)}")
    assert outcomes["loads"] > outcomes["unknown"]
    assert float8
    assert others > scales


def test_an_fp8_checkpoint_of_36_layers_arrives_completely() -> None:
    inspection = inspect(FP8_SAMPLE)
    found = verify(inspection, weights="all")
    assert found.weights is not None
    assert (found.agreed, found.layers_agreed, found.layers_total) == (True, 36, 36)
    assert (found.weights.left_out, found.weights.held, found.weights.equal) == ((), 903, 903)
    assert (_float8(inspection), len(inspection.scales)) == (252, 72)
    assert found.weights.held + len(inspection.scales) == inspection.checkpoint.tensor_count
    assert found.text.endswith("; 903 other tensors arrived bit for bit.")
    assert [step.name for step in found.steps[-2:]] == ["compare weights", "compare"]


def test_a_mixture_of_experts_with_latent_attention_arrives_completely() -> None:
    """Its scales do not: vLLM 0.33.0 renames them to a parameter that MLA does not have."""
    found = verify(inspect(SAMPLES / "modelopt" / "deepseekv3-30layers-fp8-kvfp8"), weights="all")
    assert found.weights is not None
    assert (found.agreed, found.layers_agreed, found.layers_total) == (True, 30, 30)
    assert (found.weights.left_out, found.weights.equal) == ((), found.weights.total)
    assert found.weights.total > 1900
    assert {value.held for value in found.held} == {(1.0,)}


def test_the_fused_projections_hold_the_files_own_parts() -> None:
    """Compared through safetensors' own reader, with no code of this project in between."""
    inspection = inspect(FP8_SAMPLE)
    setup = setup_for(inspection)
    assert setup is not None
    model = build_skeleton(setup, whole=True)
    rows = range(inspection.checkpoint.tensor_count)
    model.load_weights(read_tensors(inspection.checkpoint, rows))  # type: ignore[operator]
    stored_tensors: dict[str, torch.Tensor] = {}
    for path in sorted(FP8_SAMPLE.glob("*.safetensors")):
        stored_tensors |= load_file(path)
    compared = 0
    for layer in range(36):
        fused = model.get_submodule(f"model.layers.{layer}.self_attn.qkv_proj")
        assert isinstance(fused, FusedLinear)
        for parameter in ("weight", "weight_scale", "input_scale"):
            placeholder = fused.get_parameter(parameter)
            assert isinstance(placeholder, WeightPlaceholder)
            for part in ("q", "k", "v"):
                expected = stored_tensors[f"model.layers.{layer}.self_attn.{part}_proj.{parameter}"]
                assert same_bits(placeholder.parts[part].tensor, expected)
                compared += 1
        attention = model.get_submodule(f"model.layers.{layer}.self_attn.attn")
        for role in ("k", "v"):
            stored = stored_tensors[f"model.layers.{layer}.self_attn.{role}_proj.{role}_scale"]
            assert torch.equal(attention.get_parameter(f"{role}_scale"), stored.reshape(()).to(torch.bfloat16))
    assert compared == 36 * 9


def test_a_weight_that_changed_on_its_way_is_reported() -> None:
    inspection = inspect(FP8_SAMPLE)
    setup = setup_for(inspection)
    assert setup is not None
    model = build_skeleton(setup, whole=True)
    rows = [row for row, name in enumerate(inspection.checkpoint.catalog.names) if "layers.7." in name]
    tensors = []
    for name, tensor in read_tensors(inspection.checkpoint, rows):
        tensor.key = name  # type: ignore[attr-defined]
        tensors.append((name, tensor))
    model.load_weights(tensors)  # type: ignore[operator]
    norm = model.get_parameter("model.layers.7.input_layernorm.weight")
    assert isinstance(norm, WeightPlaceholder)
    norm.parts[None].tensor.view(torch.uint8)[0] ^= 1
    ordinary = [row for row in rows if not inspection.checkpoint.catalog.names[row].endswith(("k_scale", "v_scale"))]
    held, wrong = check_weights(model, inspection.checkpoint, ordinary, Progress())
    assert (held.total, held.held, held.equal) == (len(ordinary), len(ordinary), len(ordinary) - 1)
    assert [str(one) for one in wrong] == [
        "model.layers.7.input_layernorm.weight does not hold the bytes of model.layers.7.input_layernorm.weight"
    ]


def test_an_ordinary_tensor_without_a_place_is_unknown_and_no_contradiction(tmp_path: Path) -> None:
    from tests.core.loading.writing import MODELOPT, kv, write_checkpoint

    tensors = {**kv(0.25, 0.5), "model.layers.0.mlp.novel.weight": 1.0}
    inspection = inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT))
    found = verify(inspection, weights="all")
    assert (found.outcome, found.agreed, found.disagreements) == ("unknown", False, ())
    assert found.reason == "the module tree has no place for model.layers.0.mlp.novel.weight, which is no KV scale"
    assert verify(inspection).agreed


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.k_proj.output_scale", "model.layers.0.mlp.down_proj.k_scale"]
)
def test_a_misplaced_scale_still_fails_in_company(tmp_path: Path, name: str) -> None:
    from tests.core.loading.writing import MODELOPT, kv, write_checkpoint

    tensors = {
        **kv(0.25, 0.5),
        "model.embed_tokens.weight": torch.ones(2, 2),
        "model.layers.0.self_attn.q_proj.weight": torch.ones(2, 2),
        name: torch.tensor(0.5),
    }
    inspection = inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT))
    alone, company = verify(inspection), verify(inspection, weights="all")
    assert (alone.outcome, company.outcome) == ("raises", "raises")
    assert alone.agreed
    assert company.agreed
    assert (company.key, company.error is not None) == (name, True)
