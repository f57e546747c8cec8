"""The module tree: complete, of its own modules, and cheap."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import torch
from torch import nn

from core.architectures import known_architectures
from core.loading.attention import Attention, MLAAttention
from core.loading.auto_loader import AutoWeightsLoader
from core.loading.skeleton import AutoLoadedModule, attention_layers, build_skeleton
from tests.core.loading.running import set_up
from tests.core.loading.writing import FP8, LLAMA, MODELOPT

DEEPSEEK: dict[str, Any] = {
    **LLAMA,
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
}


def _build(config: dict[str, Any], layers: int, quantization: dict[str, Any] | None = None) -> nn.Module:
    content = {**config, "num_hidden_layers": layers, "quantization_config": quantization or MODELOPT}
    return build_skeleton(set_up({"config.json": content}, "fp8"))


def test_attention_layers_are_where_the_engine_has_them() -> None:
    layers = dict(attention_layers(_build(LLAMA, 3)))
    assert list(layers) == [f"model.layers.{index}.self_attn.attn" for index in range(3)]
    assert {type(layer).__name__ for layer in layers.values()} == {"Attention"}
    latent = dict(attention_layers(_build(DEEPSEEK, 2)))
    assert list(latent) == [f"model.layers.{index}.self_attn.mla_attn.mla_attn" for index in range(2)]
    assert all(isinstance(layer, MLAAttention) for layer in latent.values())


def test_equal_layers_share_nothing() -> None:
    model = _build(LLAMA, 4)
    modules = [module for _, module in model.named_modules(remove_duplicate=False)]
    parameters = [parameter for _, parameter in model.named_parameters(remove_duplicate=False)]
    assert len(set(map(id, modules))) == len(modules)
    assert len(set(map(id, parameters))) == len(parameters)


def test_modules_bear_the_engines_class_names() -> None:
    model = _build(LLAMA, 1)
    names = {type(module).__name__ for module in model.modules()}
    assert {"LlamaForCausalLM", "LlamaModel", "QKVParallelLinear", "Attention"} <= names
    assert isinstance(model, AutoLoadedModule)
    assert "KVCache" not in json.dumps(sorted(names))


def test_only_the_kv_method_knows_of_scales() -> None:
    """No model and no attention layer names a scale parameter: a layer without a method has none."""
    layers = [layer for _, layer in attention_layers(_build(LLAMA, 2, {"quant_method": "awq", "bits": 4}))]
    assert [list(layer.named_parameters()) for layer in layers] == [[], []]
    loaders = [getattr(module, "load_weights", None) for module in _build(LLAMA, 2).modules()]
    code = [loader.__func__.__code__ for loader in loaders if loader is not None]
    assert AutoLoadedModule.load_weights.__code__ in code
    assert not any("scale" in str(name) for one in code for name in (*one.co_names, *one.co_consts[1:]))
    assert not hasattr(Attention, "load_weights")


def test_a_model_of_600_gigabytes_needs_less_than_a_megabyte() -> None:
    model = _build(DEEPSEEK, 61)
    tensors = [*model.parameters(), *model.buffers()]
    assert sum(1 for _ in attention_layers(model)) == 61
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) < 1 << 20


@pytest.mark.parametrize("config", [LLAMA, DEEPSEEK], ids=["llama", "deepseek"])
def test_200_layers_cost_little_more_than_their_modules(config: dict[str, Any]) -> None:
    """Against as many bare modules, in CPU time; a real model of such a size takes minutes to build."""
    content = {**config, "num_hidden_layers": 200, "quantization_config": MODELOPT}
    setup = set_up({"config.json": content}, "fp8")
    count = sum(1 for _ in build_skeleton(setup).modules())

    def bare() -> None:
        kept = [nn.Module() for _ in range(count)]
        assert len(kept) == count

    def seconds(work: Any) -> float:
        begun = time.process_time()
        work()
        return time.process_time() - begun

    assert min(seconds(lambda: build_skeleton(setup)) for _ in range(3)) < 20 * max(
        min(seconds(bare) for _ in range(3)), 0.01
    )


@pytest.mark.parametrize("architecture", known_architectures())
def test_every_known_architecture_builds_and_loads_an_empty_stream(architecture: str) -> None:
    # Gemma4DSparkModel's loader ends with a check that every config without this fails.
    config = {**LLAMA, "architectures": [architecture], "quantization_config": FP8, "attention_k_eq_v": True}
    model = build_skeleton(set_up({"config.json": config}, "fp8"))
    assert model.load_weights(iter(())) == set()  # type: ignore[operator]
    for _, layer in attention_layers(model):
        layer.process_weights_after_loading()
        assert layer.get_buffer("_k_scale").item() == 1.0


def test_a_tower_that_the_config_does_not_count_is_built_once() -> None:
    """Lists in lists of 128 layers each: nearly a million names, few modules; and each name still leads to its own."""
    architecture = "Granite4VisionForConditionalGeneration"
    config = {**LLAMA, "architectures": [architecture], "quantization_config": FP8}
    model = build_skeleton(set_up({"config.json": config}, "fp8"))
    assert sum(1 for _ in model.modules()) < 1000
    name = "layerwise_projectors.127.qformer.encoder.layer.99.attention.output.dense.weight"
    assert model.load_weights([(name, torch.ones(1))]) == {name}  # type: ignore[operator]


def test_the_quant_config_is_where_the_engine_puts_it() -> None:
    model = _build(LLAMA, 1)
    config = AutoWeightsLoader(model).quant_config()
    assert config is not None
    assert "method" in dir(config)
    bare = build_skeleton(set_up({"config.json": LLAMA}, "fp8"))
    assert AutoWeightsLoader(bare).quant_config() is None


def test_parameters_are_created_in_the_engines_dtype_and_on_the_host() -> None:
    (_, layer), *_ = attention_layers(_build(LLAMA, 1))
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in layer.buffers()} == {torch.float32}
    assert {tensor.device.type for tensor in (*layer.parameters(), *layer.buffers())} == {"cpu"}
