"""Hand-written loops on real parameters; their agreement with the engine is in test_golden."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from core.architectures.modules import OwnLoader, StackedName
from core.inspection import inspect
from core.loading.kv_cache import BaseKVCacheMethod
from core.loading.own_loaders import ExpertWeights, OwnLoadedModule
from core.loading.parameters import WeightPlaceholder
from core.loading.verify import verify
from tests.core.engines.random_cases import tiny_configs
from tests.core.loading.running import attention
from tests.core.loading.writing import MODELOPT, kv, write_checkpoint


def _model(loader: OwnLoader, *, draft: range = range(0)) -> OwnLoadedModule:
    """layers.0.self_attn.{qkv_proj.weight, attn.*_scale}, and a norm with a plain parameter."""
    model = OwnLoadedModule(loader, draft)
    layer = nn.Module()
    layer.self_attn = nn.Module()
    layer.self_attn.qkv_proj = nn.Module()
    layer.self_attn.qkv_proj.weight = WeightPlaceholder()
    layer.self_attn.attn = attention(BaseKVCacheMethod())
    model.layers = nn.ModuleList([layer])
    model.norm = nn.LayerNorm(1, bias=False)
    return model


def _load(model: OwnLoadedModule, *names: str, value: float = 0.5) -> set[str]:
    return model.load_weights((name, torch.tensor(value)) for name in names)


QKV = tuple(StackedName(f".{part}_proj", ".qkv_proj") for part in "qkv")
K = "layers.0.self_attn.attn.k_scale"


def test_names_that_are_parameters_load() -> None:
    model = _model(OwnLoader(source="here"))
    assert _load(model, "norm.weight", K) == {"norm.weight", K}
    assert model.get_parameter(K).item() == 0.5


def test_a_name_that_is_none_raises_or_is_skipped() -> None:
    with pytest.raises(KeyError) as caught:
        _load(_model(OwnLoader(source="here")), "layers.0.self_attn.k_scale")
    assert str(caught.value) == "'layers.0.self_attn.k_scale'"
    assert _load(_model(OwnLoader(source="here", absent="skip")), "layers.0.self_attn.k_scale") == set()


def test_biases_without_a_parameter_are_skipped() -> None:
    assert _load(_model(OwnLoader(source="here")), "norm.bias") == set()


def test_stacked_names_go_to_the_fused_parameter_with_their_part() -> None:
    model = _model(OwnLoader(source="here", stacked=QKV))
    assert _load(model, "layers.0.self_attn.k_proj.weight", "layers.0.self_attn.v_proj.weight") == {
        "layers.0.self_attn.qkv_proj.weight"
    }
    weight = model.get_parameter("layers.0.self_attn.qkv_proj.weight")
    assert isinstance(weight, WeightPlaceholder)
    assert set(weight.parts) == {".k_proj", ".v_proj"}


def test_a_scale_that_reaches_its_parameter_through_the_stacked_loop_is_given_too_many_arguments() -> None:
    """VLLM 0.23's Qwen 2 and Llama 4 fail so: KVCacheScaleParameter's loader knows of no parts."""
    model = _model(OwnLoader(source="here", stacked=QKV, keep_scale_names_in="self_attn", remap="stacked"))
    with pytest.raises(TypeError, match="takes 2 positional arguments but 3 were given"):
        _load(model, "layers.0.self_attn.k_proj.k_scale")


def test_the_helper_renames_what_the_loop_leaves() -> None:
    model = _model(OwnLoader(source="here", remap="others"))
    assert _load(model, "layers.0.self_attn.kv_scale", value=0.25) == {K}
    assert model.get_parameter(K).item() == 0.25
    assert _load(model, "layers.7.self_attn.k_scale") == set()


def test_the_helper_can_come_first_or_in_both_branches() -> None:
    first = _model(OwnLoader(source="here", stacked=QKV, remap="first", absent="skip"))
    assert _load(first, "layers.0.self_attn.k_proj.k_scale", "layers.7.self_attn.k_scale") == {K}
    both = _model(OwnLoader(source="here", stacked=QKV, remap="both"))
    assert _load(both, "layers.0.self_attn.k_scale", "layers.7.self_attn.k_proj.k_scale") == {K}


def test_a_stacked_name_can_be_left_for_experts_and_be_optional() -> None:
    experts = OwnLoader(source="here", stacked=QKV, stacked_skips_containing=("experts",), absent="skip")
    assert _load(_model(experts), "layers.0.experts.k_proj.weight") == set()
    optional = OwnLoader(source="here", stacked=(StackedName("a_proj", "fused", optional=True),))
    with pytest.raises(KeyError, match="a_proj"):
        _load(_model(optional), "layers.0.a_proj.weight")


def test_draft_layers_and_listed_names_are_skipped() -> None:
    loader = OwnLoader(source="here", skip_draft_layers=True, skip_containing=("rotary_emb.inv_freq",))
    model = _model(loader, draft=range(1, 3))
    assert _load(model, "layers.1.anything", "layers.2.anything", "layers.0.rotary_emb.inv_freq") == set()
    with pytest.raises(KeyError, match=r"layers\.3"):
        _load(model, "layers.3.anything")


def test_experts_keep_whatever_lies_below_them() -> None:
    experts = ExpertWeights(torch.device("cpu"))
    weights: Iterable[tuple[str, torch.Tensor]] = [("0.w1.weight", torch.ones(2)), ("1.w1.weight", torch.zeros(2))]
    assert list(experts.load_weights(weights)) == ["0.w1.weight", "1.w1.weight"]
    assert experts.parts["0.w1.weight"].tensor.tolist() == [1.0, 1.0]


def test_a_class_that_lacks_what_its_loader_asks_for_stops_the_load(tmp_path: Path) -> None:
    """Seen in vLLM 0.33.0: before any name is looked at, and for any tensor that reaches that loader."""
    config = tiny_configs()["EagleMistralLarge3ForCausalLM"]
    for name, tensors in (
        ("scales", kv(0.25, 0.5)),
        ("own", {"model.layers.0.self_attn.mla_attn.mla_attn.k_scale": 0.5}),
    ):
        inspection = inspect(write_checkpoint(tmp_path / name, tensors, quantization=MODELOPT, config=config))
        error = "AttributeError: 'EagleMistralLarge3Model' object has no attribute 'is_fused_shared_expert_enabled'"
        load = inspection.deliveries.load
        assert (load.outcome, load.error, load.key) == ("raises", error, next(iter(sorted(tensors))))
        found = verify(inspection)
        assert found.agreed, found.text
        assert (found.outcome, found.error) == ("raises", error)
        assert "no export helps here" in inspection.findings[0].fix
    older = inspect(tmp_path / "own", engine="vllm-0.27.1")  # its class may have what the newest one's lacks
    assert older.deliveries.load.outcome == "loads"
    assert not older.deliveries.confirmed


@pytest.mark.parametrize(
    ("tensors", "key"),
    [
        ({"model.norm.weight": 1.0}, "model.norm.weight"),
        ({"norm.weight": 1.0}, "norm.weight"),  # Mistral's own name
        ({"lm_head.weight": 1.0}, None),  # does not get there
        (kv(0.25, 0.5) | {"model.embed_tokens.weight": 1.0}, "model.embed_tokens.weight"),
        (kv(0.25, 0.5) | {"model.norm.weight": 1.0}, min(kv(0.25, 0.5))),
        ({"foo.k_scale": 0.5, "model.norm.weight": 1.0}, "foo.k_scale"),  # another error, before
    ],
)
def test_a_loader_that_any_tensor_stops_is_stopped_by_ordinary_ones(
    tmp_path: Path, tensors: dict[str, float], key: str | None
) -> None:
    """Seen in vLLM 0.33.0: the first tensor that reaches the loader counts, scale or not."""
    config = tiny_configs()["EagleMistralLarge3ForCausalLM"]
    inspection = inspect(write_checkpoint(tmp_path / "draft", tensors, quantization=MODELOPT, config=config))
    load = inspection.deliveries.load
    assert (load.outcome, load.key) == ("raises" if key else "loads", key)
    assert len(inspection.deliveries.deliveries) == len(inspection.tensors)
    assert {each.outcome for each in inspection.deliveries.deliveries if each.key != key} <= {"not_reached"}
    for ranks in (1, 2):
        found = verify(inspection, tensor_parallel=ranks)
        assert found.agreed, found.text
        assert found.key == key
    whole = verify(inspection, weights="all")
    assert (whole.outcome, whole.key) == (load.outcome, key)


def test_a_loader_that_ends_with_a_check_of_its_own(tmp_path: Path) -> None:
    """Seen in vLLM 0.33.0: after the last tensor, unless every layer has full attention and k for v."""
    draft = tiny_configs()["Gemma4DSparkModel"]
    uniform = draft | {"attention_k_eq_v": True, "layer_types": ["full_attention"] * 4, "per_layer_config": {}}
    tensors = {f"layers.{layer}.self_attn.attn.{role}_scale": 0.5 for layer in (0, 1) for role in ("k", "v")}
    error = "AssertionError: Gemma4 DSpark fused precompute assumes uniform attention_k_eq_v layers"
    for name, config, expected in (
        ("draft", draft, error),
        ("sliding", draft | {"attention_k_eq_v": True}, error),
        ("uniform", uniform, None),
    ):
        inspection = inspect(write_checkpoint(tmp_path / name, tensors, config=config))
        found = verify(inspection)
        assert found.agreed, found.text
        assert (inspection.deliveries.load.error, found.error) == (expected, expected)
        assert (inspection.deliveries.load.key, found.key) == (None, None)
    assert verify(inspect(tmp_path / "draft")).text.startswith("Observed on cpu (")
    assert f"after the last tensor the load raises {error}, as predicted." in verify(inspect(tmp_path / "draft")).text
    assert "no export helps here" in inspect(tmp_path / "draft").findings[0].fix


def test_the_check_at_the_end_of_a_loader_reads_the_config_layer_by_layer(tmp_path: Path) -> None:
    """Seen in vLLM 0.33.0 with each of these: norms of several sizes cannot be stacked, the last layer always has full
    attention, and where nothing is listed one layer in six has.
    """
    draft = tiny_configs()["Gemma4DSparkModel"] | {"attention_k_eq_v": True}
    full = ["full_attention"] * 4
    uniform = draft | {"layer_types": full, "per_layer_config": {}}
    unlisted = {key: value for key, value in draft.items() if key not in ("layer_types", "per_layer_config")}
    own_size = {key: value for key, value in uniform.items() if key != "head_dim"}
    stack = "RuntimeError: stack expects each tensor to be equal size, but got [{}] at entry 0 and [{}] at entry {}"
    mixed = "AssertionError: Gemma4 DSpark fused precompute assumes uniform attention_k_eq_v layers"
    tensors = {f"layers.{layer}.self_attn.attn.{role}_scale": 0.5 for layer in (0, 1) for role in ("k", "v")}
    for number, (config, expected) in enumerate(
        (
            (uniform | {"per_layer_config": {"1": {"head_dim": 32}}}, stack.format(16, 32, 1)),
            (uniform | {"per_layer_config": {"0": {"head_dim": 32}}}, stack.format(32, 16, 1)),
            (uniform | {"per_layer_config": {"1": {"head_dim": 16}, "02": {"head_dim": 32}}}, stack.format(16, 32, 2)),
            (own_size | {"per_layer_config": {"1": {"head_dim": 16}}}, stack.format(256, 16, 1)),
            (own_size | {"per_layer_config": {"1": {"head_dim": 256}}}, None),
            (uniform | {"per_layer_config": {str(layer): {"head_dim": 32} for layer in range(4)}}, None),
            (uniform | {"per_layer_config": {"1": {"num_key_value_heads": 1}}}, None),
            (uniform | {"per_layer_config": None}, None),
            (unlisted | {"layer_types": full}, None),
            (unlisted | {"layer_types": [*full[:3], "sliding_attention"]}, None),
            (unlisted, mixed),
            (unlisted | {"layer_types": None}, mixed),
        )
    ):
        inspection = inspect(write_checkpoint(tmp_path / str(number), tensors, config=config))
        found = verify(inspection)
        assert found.agreed, found.text
        assert (inspection.deliveries.load.error, found.error) == (expected, expected)
