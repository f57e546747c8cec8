"""The attention of loaded layers: errors, losses, verdict, and where keys and values come from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import CancelledError, DeviceError, UsageError
from core.inspection import Inspection, inspect
from core.loading.claims import Claim, layer_list
from core.loading.drawing import LOGITS, QUERIES, TOKENS, HeadSizes, Pattern
from core.loading.forward_report import forward_as_data, forward_lines
from core.loading.forward_result import Forward, ForwardOptions, LayerForward, Loss, error_text
from core.loading.report import verification_as_data, verification_text
from core.loading.verify import verify
from tests.core.loading.test_verify import StopsAt
from tests.core.loading.writing import LLAMA, MODELOPT, compressed_tensors, kv, write_checkpoint
from tests.places import SAMPLES

PER_HEAD = SAMPLES / "llmcompressor" / "llama-32layers-kv_attn_head"
LATENT = SAMPLES / "modelopt" / "deepseekv3-30layers-fp8-kvfp8"
ATTENTION = "model.layers.0.self_attn"
SIZES = HeadSizes(heads=4, kv_heads=2, key_size=16, value_size=16)


def _forward(inspection: Inspection, *, projections: bool = False, seed: int = 0, **options: Any) -> Forward:
    found = verify(inspection, forward=ForwardOptions(projections=projections, seed=seed), **options).forward
    assert found is not None
    return found


# ------------------------------------------------------------------------------------------------------ what is drawn


def test_the_drawn_range_is_the_claimed_one() -> None:
    whole = Pattern(SIZES, seed=1).draw(k=(3.0,), v=(0.5,), dtype=torch.float32)
    assert whole.key.abs().max().item() == pytest.approx(3.0)
    assert whole.value.abs().max().item() == pytest.approx(0.5)
    heads = Pattern(SIZES, seed=1).draw(k=(3.0, 7.0), v=(0.5, 0.25), dtype=torch.float32)
    assert heads.key.abs().amax(dim=(0, 2)).tolist() == pytest.approx([3.0, 7.0])
    assert heads.value.abs().amax(dim=(0, 2)).tolist() == pytest.approx([0.5, 0.25])
    unit = Pattern(replace(SIZES, key_size=128), seed=1).draw(k=None, v=None, dtype=torch.float32)
    assert unit.value.std().item() == pytest.approx(1.0, abs=0.1)


def test_logits_have_one_spread_whatever_the_range() -> None:
    for amax in (1e-4, 1.0, 448.0):
        drawn = Pattern(SIZES, seed=1).draw(k=(amax,), v=(amax,), dtype=torch.float32)
        query, key = drawn.query.double(), drawn.key.double()
        logits = torch.einsum("qd,td->qt", query[:, 3], key[:, 1]) / 4.0
        assert logits.std().item() == pytest.approx(LOGITS, rel=1e-3)
        assert (drawn.query.shape, drawn.key.shape) == ((QUERIES, 4, 16), (TOKENS, 2, 16))


def test_the_seed_decides_and_nothing_else() -> None:
    inspection = inspect(PER_HEAD)
    first, again, other = _forward(inspection), _forward(inspection), _forward(inspection, seed=1)
    assert [layer.errors for layer in first.layers] == [layer.errors for layer in again.layers]
    assert [layer.losses for layer in first.layers] == [layer.losses for layer in again.layers]
    assert first.layers[0].errors != other.layers[0].errors


# ---------------------------------------------------------------------------------------------------- three checkpoints


def test_calibrated_scales_cost_no_more_than_rounding(tmp_path: Path) -> None:
    """Scales for the same range in k and v: exchanging them changes nothing, and neither does the size of the layer."""
    found = _forward(inspect(write_checkpoint(tmp_path / "a", kv(0.25, 0.25), quantization=MODELOPT)))
    assert (found.format, found.tokens, len(found.layers)) == ("float8_e4m3fn", TOKENS, 2)
    for layer in found.layers:
        assert layer.data == "claimed"
        assert layer.errors["received"] == layer.errors["swapped"] == pytest.approx(layer.errors["fitted"], rel=0.02)
        assert 0.02 < layer.errors["received"] < 0.15
        assert not layer.worse
        assert layer.losses["received"].k_saturated == 0
        assert layer.elements == TOKENS * 2 * 16
    assert found.text.startswith("all 2 layers with the scales received: 0.0")
    assert "no more than rounding to float8_e4m3fn costs" in found.text


def test_layers_whose_scales_do_not_arrive_are_named_with_what_it_costs(tmp_path: Path) -> None:
    """Under another method the layers have no scales: they run at 1.0, whatever range the tensors claim."""
    path = write_checkpoint(tmp_path / "a", kv(0.00004, 0.00004), quantization=MODELOPT)
    found = _forward(inspect(path, method="awq", kv_cache_dtype="fp8"))
    for layer in found.layers:
        assert (layer.data, layer.scales) == ("claimed", (1.0, 1.0))
        assert layer.errors["received"] == layer.errors["one"] == layer.errors["swapped"]
        assert layer.errors["received"] > 3 * layer.errors["fitted"]
        assert layer.losses["received"].k_flushed > layer.elements / 4
    received, fitted = (
        error_text(sum(layer.errors[variant] for layer in found.layers) / 2) for variant in ("received", "fitted")
    )
    assert found.text == f"layers 0 to 1 at 1.0: {received} instead of {fitted}"
    table = "\n".join(forward_lines(found))
    assert "keys and values synthetic, filling the range that the scale claims" in table
    assert len(table.splitlines()) == 7


def test_all_at_1_and_nothing_claimed(tmp_path: Path) -> None:
    ones = _forward(inspect(write_checkpoint(tmp_path / "ones", kv(1.0, 1.0, layers=1), quantization=MODELOPT)))
    assert ones.layers[0].data == "claimed"  # 1.0 is a claim too: of magnitudes up to 448
    assert ones.layers[0].errors["received"] == ones.layers[0].errors["one"]
    nothing = _forward(inspect(write_checkpoint(tmp_path / "none", {"a": 1.0}, quantization=MODELOPT)))
    assert [layer.data for layer in nothing.layers] == ["unit", "unit"]
    assert "with a standard deviation of 1: no scale claims a range" in "\n".join(forward_lines(nothing))


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, 4.5e34, 1e-21])
def test_scales_that_are_no_scales_claim_nothing_and_do_harm(tmp_path: Path, value: float) -> None:
    tensors = {"model.layers.0.self_attn.k_scale": value, "model.layers.0.self_attn.v_scale": value}
    config = {**LLAMA, "num_hidden_layers": 1}
    path = write_checkpoint(tmp_path / "a", tensors, quantization=compressed_tensors("tensor"), config=config)
    found = _forward(inspect(path))
    (layer,) = found.layers
    assert layer.data == "unit"
    assert layer.worse == (value != -1.0)  # minus one scales as well as one
    if math.isnan(value):
        assert found.text.startswith("layer 0 with the scales received: NaN instead of 0.0")
        assert (
            json.loads(json.dumps(forward_as_data(found), allow_nan=False))["layers"][0]["errors"]["received"] == "nan"
        )
    assert not Claim(key="k", scales=(value,), arrived=True).usable


def test_clipping_is_counted(tmp_path: Path) -> None:
    """Exchanged: keys of up to 448 * 0.5 are divided by a scale a hundred times too small."""
    found = _forward(inspect(write_checkpoint(tmp_path / "a", kv(0.5, 0.005, layers=1), quantization=MODELOPT)))
    layer = found.layers[0]
    assert layer.errors["swapped"] > 0.5
    lost = layer.losses["swapped"]
    assert lost.k_saturated > layer.elements / 10
    assert lost.v_saturated == 0
    assert layer.losses["received"] == Loss()


# ------------------------------------------------------------------------------------------------------- other caches


def test_fnuz_needs_the_doubled_scale(tmp_path: Path) -> None:
    """ModelOpt's scales are doubled for FNUZ; those of compressed-tensors are not, and clip at 240."""
    doubled = inspect(write_checkpoint(tmp_path / "a", kv(0.25, 0.25, layers=1), quantization=MODELOPT))
    found = _forward(doubled, fnuz=True)
    assert (found.format, found.layers[0].scales) == ("float8_e4m3fnuz", (0.5, 0.5))
    assert found.layers[0].losses["received"].k_saturated == 0
    assert not found.layers[0].worse
    same = {f"model.layers.0.self_attn.{role}_scale": 0.25 for role in "kv"}
    config = {**LLAMA, "num_hidden_layers": 1}
    path = write_checkpoint(tmp_path / "b", same, quantization=compressed_tensors("tensor"), config=config)
    assert _forward(inspect(path)).layers[0].losses["received"].k_saturated == 0
    assert _forward(inspect(path), fnuz=True).layers[0].losses["received"].k_saturated > 0


def test_e5m2_rounds_more(tmp_path: Path) -> None:
    scheme = compressed_tensors("tensor")
    without = {name: value for name, value in scheme.items() if name != "kv_cache_scheme"}
    path = write_checkpoint(tmp_path / "a", kv(0.25, 0.25), quantization=without)
    found = _forward(inspect(path, kv_cache_dtype="fp8_e5m2"))
    finer = _forward(inspect(path, kv_cache_dtype="fp8"))
    assert (found.format, finer.format) == ("float8_e5m2", "float8_e4m3fn")
    assert found.layers[0].errors["fitted"] > 1.5 * finer.layers[0].errors["fitted"]


def test_a_plain_cache_loses_nothing(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a", kv(0.25, 0.5), quantization=MODELOPT)
    found = _forward(inspect(path, kv_cache_dtype="bfloat16"))
    assert found.text == "The cache keeps bfloat16, to which no scale is applied: nothing is lost"
    assert all(error < 1e-5 for layer in found.layers for error in layer.errors.values())
    assert not found.quantized


def test_a_cache_that_is_not_computed_here_says_so(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a", kv(0.25, 0.5), quantization=MODELOPT)
    found = verify(inspect(path, kv_cache_dtype="nvfp4"), forward=ForwardOptions())
    assert found.forward is not None
    assert found.forward.text == (
        "Attention not run: a KV cache of nvfp4 is not computed here, only float8 and plain ones are"
    )
    assert "\n".join(forward_lines(found.forward)) == f"Attention: {found.forward.text}."


# ------------------------------------------------------------------------------------------------------- other layers


def test_heads_with_scales_of_their_own() -> None:
    found = _forward(inspect(PER_HEAD))
    assert len(found.layers) == 32
    assert not any(layer.worse for layer in found.layers)
    assert all(layer.losses["received"].k_saturated == 0 for layer in found.layers)
    assert max(layer.errors["swapped"] for layer in found.layers) > 0.9


def test_latent_attention_at_1() -> None:
    found = _forward(inspect(LATENT))
    assert {layer.scales for layer in found.layers} == {(1.0, 1.0)}
    assert found.text.endswith("at 1.0: 0.05 instead of 0.02")
    assert all(layer.errors["received"] == layer.errors["swapped"] for layer in found.layers)


def test_a_layer_that_raises_has_no_output(tmp_path: Path) -> None:
    tensors = {**kv(0.25, 0.5), "model.layers.1.self_attn.k_proj.k_scale": 0.0}
    found = _forward(inspect(write_checkpoint(tmp_path / "a", tensors, quantization=MODELOPT)))
    assert [bool(layer.errors) for layer in found.layers] == [True, False]
    assert found.layers[1].note == "the layer raises AssertionError after loading"
    assert "     1   the layer raises AssertionError after loading" in "\n".join(forward_lines(found))
    assert found.text.startswith("the one layer with the scales received: ")


# -------------------------------------------------------------------------------------------------------- projections


def _projected(
    tmp_path: Path, weights: Mapping[str, torch.Tensor], *, k: float, v: float, **config: Any
) -> LayerForward:
    tensors: dict[str, Any] = {f"model.layers.0.self_attn.{name}": tensor for name, tensor in weights.items()}
    tensors |= kv(k, v, layers=1)
    path = write_checkpoint(
        tmp_path, tensors, quantization=MODELOPT, config={**LLAMA, "num_hidden_layers": 1, **config}
    )
    (layer,) = _forward(inspect(path), projections=True).layers
    return layer


def _weights(*, k: float = 1.0, v: float = 1.0) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    sizes = {"q_proj": (64, 1.0), "k_proj": (32, k), "v_proj": (32, v)}
    return {
        f"{name}.weight": torch.randn(rows, 64, generator=random) * factor / 8 for name, (rows, factor) in sizes.items()
    }


def test_exchanged_scales_show_on_real_projections(tmp_path: Path) -> None:
    """Keys a hundred times larger than values, and the scales the wrong way round."""
    right = _projected(tmp_path / "a", _weights(k=10.0, v=0.1), k=0.12, v=0.0012)
    wrong = _projected(tmp_path / "b", _weights(k=10.0, v=0.1), k=0.0012, v=0.12)
    assert (right.data, right.note, right.worse) == ("projected", "", False)
    assert right.errors["swapped"] == wrong.errors["received"]
    assert right.errors["received"] == wrong.errors["swapped"]
    assert (wrong.worse, wrong.cause) == (True, "with k and v exchanged")
    verdict = Forward(format="float8_e4m3fn", tokens=TOKENS, queries=QUERIES, seed=0, layers=(wrong,)).text
    assert verdict.startswith("layer 0 with k and v exchanged: 0.")


def test_float8_weights_are_scaled_first(tmp_path: Path) -> None:
    plain, scaled, rows, blocks = _weights(), _weights(), _weights(), _weights()
    for name in [name for name in plain if name.endswith("weight")]:
        weight = (plain[name] * 4).to(torch.float8_e4m3fn)
        plain[name] = weight.to(torch.float32) / 4
        scaled[name] = rows[name] = blocks[name] = weight
        scaled[f"{name}_scale"] = torch.tensor(0.25)
        rows[f"{name}_scale"] = torch.full((len(weight), 1), 0.25)
        blocks[f"{name}_scale_inv"] = torch.full((1, 1), 0.25)
    errors = [
        _projected(tmp_path / str(place), weights, k=0.01, v=0.01).errors
        for place, weights in enumerate((plain, scaled, rows, blocks))
    ]
    assert errors[0] == errors[1] == errors[2] == errors[3]


def test_biases_norms_and_fused_projections_take_part(tmp_path: Path) -> None:
    plain = _projected(tmp_path / "plain", _weights(), k=0.01, v=0.01)
    fused = {"qkv_proj.weight": torch.cat(list(_weights().values()))}
    assert _projected(tmp_path / "fused", fused, k=0.01, v=0.01).errors == plain.errors
    biased = {**_weights(), "k_proj.bias": torch.full((32,), 3.0)}
    normed = {**_weights(), "k_norm.weight": torch.full((16,), 3.0)}
    for place, weights in enumerate((biased, normed)):
        found = _projected(tmp_path / str(place), weights, k=0.01, v=0.01)
        assert found.data == "projected"
        assert found.errors != plain.errors
    theta = _projected(tmp_path / "theta", _weights(), k=0.01, v=0.01, rope_theta=100.0)
    assert theta.errors != plain.errors


@pytest.mark.parametrize(
    ("weights", "note"),
    [
        ({}, "not projected: the checkpoint has no projections for model.layers.0.self_attn.attn"),
        (
            {"k_proj.weight_packed": torch.zeros(32, 8, dtype=torch.int32)},
            "not projected: model.layers.0.self_attn.k_proj is packed",
        ),
        (
            {"k_proj.weight": torch.zeros(32, 32, dtype=torch.uint8)},
            "not projected: model.layers.0.self_attn.k_proj.weight is uint8, which is not computed here",
        ),
        (
            {"k_proj.weight": torch.zeros(32, 64).to(torch.float8_e4m3fn)},
            "not projected: model.layers.0.self_attn.k_proj.weight is float8 without a scale",
        ),
        (
            {"k_proj.weight": torch.zeros(32, 64).to(torch.float8_e4m3fn), "k_proj.weight_scale": torch.ones(7)},
            f"not projected: {ATTENTION}.k_proj has a weight scale of shape [7], which is not computed here",
        ),
        (
            {"k_proj.weight": torch.zeros(48, 64)},
            "not projected: model.layers.0.self_attn.k_proj has 48 rows, and not 32",
        ),
        ({"k_proj.weight": torch.zeros(32, 64)}, "not projected: model.layers.0.self_attn.v_proj is packed"),
        (
            {"qkv_proj.weight": torch.zeros(48, 64)},
            "not projected: model.layers.0.self_attn.qkv_proj has 48 rows, and not 128",
        ),
        (
            {"k_proj.weight": torch.full((32, 64), math.nan), "v_proj.weight": torch.ones(32, 64)},
            "not projected: model.layers.0.self_attn makes numbers that are not finite",
        ),
    ],
)
def test_what_cannot_be_projected_is_drawn(tmp_path: Path, weights: Mapping[str, torch.Tensor], note: str) -> None:
    found = _projected(tmp_path / "a", weights, k=0.01, v=0.01)
    assert (found.data, found.note) == ("claimed", note)


def test_a_real_checkpoints_scales_fit_its_own_projections() -> None:
    """ModelOpt calibrated them on random tokens: hardly anything is clipped."""
    found = _forward(inspect(SAMPLES / "modelopt" / "qwen3-36layers-fp8-kvfp8"), projections=True)
    assert {layer.data for layer in found.layers} == {"projected"}
    clipped = sum(layer.losses["received"].k_saturated + layer.losses["received"].v_saturated for layer in found.layers)
    assert clipped < 0.001 * sum(2 * layer.elements for layer in found.layers)
    assert _forward(inspect(LATENT), projections=True).layers[0].note == "queries are drawn"


# ---------------------------------------------------------------------------------------------------------- reporting


def test_the_report_has_all_of_it() -> None:
    found = verify(inspect(PER_HEAD), forward=ForwardOptions(seed=5))
    assert found.forward is not None
    data = json.loads(json.dumps(verification_as_data(found), allow_nan=False))
    assert data["attention"] == data["forward"]["text"] == found.forward.text
    assert data["forward"]["seed"] == 5
    assert set(data["forward"]["layers"][0]["errors"]) == {"received", "one", "swapped", "fitted"}
    assert data["forward"]["layers"][31]["layer"] == 31
    assert "attention" in [step["name"] for step in data["steps"]]
    assert f"Attention: {found.forward.text}." in verification_text(found)
    assert verification_as_data(verify(inspect(PER_HEAD)))["forward"] is None


def test_it_can_be_cancelled() -> None:
    progress = StopsAt("Running the attention", 2)
    with pytest.raises(CancelledError, match="Running the attention"):
        verify(inspect(PER_HEAD), forward=ForwardOptions(), progress=progress)
    assert progress.done == 2


def test_heads_of_a_size_that_no_machine_could_draw_are_refused(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, kv(0.5, 0.25), quantization=MODELOPT, config=LLAMA | {"head_dim": 10**12})
    assert verify(inspect(path)).outcome == "loads"
    with pytest.raises(DeviceError, match=r"gives attention layers 4 heads of 1,000,000,000,000 numbers.* head_dim"):
        verify(inspect(path), forward=ForwardOptions())


def test_one_rank_only() -> None:
    with pytest.raises(UsageError, match=r"the attention runs on one rank\. Leave out --forward or --tensor-parallel"):
        verify(inspect(PER_HEAD), forward=ForwardOptions(), tensor_parallel=2)


def test_layers_are_listed_in_runs() -> None:
    paths = [f"model.layers.{number}.self_attn.attn" for number in (4, 5, 6, 7, 9)]
    assert layer_list(paths) == "layers 4 to 7, 9"
    assert layer_list(paths[:1]) == "layer 4"
    assert layer_list(["encoder.attn"]) == "layer encoder.attn"
    assert [error_text(error) for error in (0.312, 0.0699, 0.0042, 17000.0, 1e-7)] == [
        "0.31", "0.07", "0.0042", "1.7e+04", "1e-07",
    ]  # fmt: skip
