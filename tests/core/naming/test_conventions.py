"""Every convention is recognised with role, layer, module and kind; false friends stay out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from core.checkpoint import open_checkpoint
from core.naming.conventions import (
    CONVENTIONS,
    FALSE_FRIENDS,
    companion_rows,
    find_scales,
    is_companion,
    recognise,
    scale_rows,
)

LAYER = "model.layers.3.self_attn"

KEYS = [
    # key, convention, module, role, kind, quantity
    (f"{LAYER}.kv_scale", "kv-scale", LAYER, "kv", "scale", "scale"),
    (f"{LAYER}.k_proj.k_scale", "modelopt", LAYER, "k", "scale", "scale"),
    (f"{LAYER}.v_proj.v_scale", "modelopt", LAYER, "v", "scale", "scale"),
    (f"{LAYER}.k_proj.k_bias", "modelopt", LAYER, "k", "bias", "offset"),
    ("backbone.layers.3.mixer.v_proj.v_scale", "modelopt", "backbone.layers.3.mixer", "v", "scale", "scale"),
    (f"{LAYER}.qkv_proj.k_scale", "fused-projection", LAYER, "k", "scale", "scale"),
    (f"{LAYER}.qkqkv_proj.v_scale", "fused-projection", LAYER, "v", "scale", "scale"),
    (f"{LAYER}.k_bmm_quantizer._amax", "modelopt-amax", LAYER, "k", "scale", "amax"),
    (f"{LAYER}.k_proj.output_scale", "quark", LAYER, "k", "scale", "scale"),
    (f"{LAYER}.v_proj.output_scale_2", "quark", LAYER, "v", "scale", "scale"),
    (f"{LAYER}.q_proj.output_zero_point", "quark", LAYER, "q", "zero_point", "offset"),
    (f"{LAYER}.kv_b_proj.output_scale", "quark", LAYER, "kv", "scale", "scale"),
    (f"{LAYER}.qkv_proj.output_scale", "quark", LAYER, "kv", "scale", "scale"),
    (f"{LAYER}.prob_output_scale", "quark", LAYER, "prob", "scale", "scale"),
    ("transformer.layers.3.attention.kv_cache_scaling_factor", "tensorrt-llm", "transformer.layers.3.attention", "kv",
     "scale", "scale"),
    ("transformer.layers.3.attention.k_cache_rcp_scaling_factor", "tensorrt-llm", "transformer.layers.3.attention", "k",
     "scale", "reciprocal"),
    ("transformer.layers.3.attention.v_cache_bias", "tensorrt-llm", "transformer.layers.3.attention", "v", "bias",
     "offset"),
    (f"{LAYER}.q.scale", "angelslim", LAYER, "q", "scale", "scale"),
    (f"{LAYER}.v_cache.scale", "angelslim", LAYER, "v", "scale", "scale"),
    ("layers.3.attention.kv_fake_quantizer.qscale_act", "mistral-native", "layers.3.attention", "kv", "scale", "scale"),
    (f"{LAYER}.k_proj.kv_cache_scale", "ascend-c8", LAYER, "k", "scale", "scale"),
    (f"{LAYER}.v_proj.kv_cache_offset", "ascend-c8", LAYER, "v", "zero_point", "offset"),
    (f"{LAYER}.fa_q.scale", "ascend-fa", LAYER, "q", "scale", "scale"),
    (f"{LAYER}.fa_k.offset", "ascend-fa", LAYER, "k", "zero_point", "offset"),
    (f"{LAYER}.k_global_scale", "nvfp4-global", LAYER, "k", "scale", "scale"),
    (f"{LAYER}.cachev_matmul.activation_scale", "fastdeploy", LAYER, "v", "scale", "amax"),
    (f"{LAYER}.attn.k_scale", "vllm-runtime", LAYER, "k", "scale", "scale"),
    (f"{LAYER}.attn.prob_scale", "vllm-runtime", LAYER, "prob", "scale", "scale"),
    (f"{LAYER}.mla_attn.mla_attn.v_scale", "vllm-runtime", LAYER, "v", "scale", "scale"),
    (f"{LAYER}.mla_attn.v_scale", "vllm-runtime", LAYER, "v", "scale", "scale"),
    ("decoder.block.3.layer.1.EncDecAttention.attn.k_scale", "vllm-runtime", "decoder.block.3.layer.1.EncDecAttention",
     "k", "scale", "scale"),
    ("decoder.layers.3.first_sub_layer.attn.v_scale", "vllm-runtime", "decoder.layers.3.first_sub_layer", "v", "scale",
     "scale"),
    (f"{LAYER}.k_scale", "portable", LAYER, "k", "scale", "scale"),
    (f"{LAYER}.q_zero_point", "portable", LAYER, "q", "zero_point", "offset"),
    ("backbone.layers.3.mixer.v_scale", "portable", "backbone.layers.3.mixer", "v", "scale", "scale"),
    ("transformer.h.3.attn.k_scale", "portable", "transformer.h.3.attn", "k", "scale", "scale"),
    ("transformer.blocks.3.norm_attn_norm.attn.k_scale", "portable", "transformer.blocks.3.norm_attn_norm.attn", "k",
     "scale", "scale"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "convention", "module", "role", "kind", "quantity"), KEYS)
def test_recognised(key: str, convention: str, module: str, role: str, kind: str, quantity: str) -> None:
    found = recognise(key)
    assert found is not None
    assert found.convention.id == convention
    assert (found.module, found.role, found.kind, found.quantity, found.layer) == (module, role, kind, quantity, 3)


def test_every_convention_has_a_key_above() -> None:
    assert {row[1] for row in KEYS} == {convention.id for convention in CONVENTIONS}


@pytest.mark.parametrize(
    "key",
    [
        f"{LAYER}.k_proj.weight_scale",
        f"{LAYER}.k_proj.weight_scale_inv",
        f"{LAYER}.k_proj.input_scale",
        f"{LAYER}.k_proj.input_scale_2",
        f"{LAYER}.k_proj.weight_global_scale",
        f"{LAYER}.k_norm.weight",
        f"{LAYER}.k_proj.bias",
        f"{LAYER}.o_proj.output_scale",
        "model.layers.3.mlp.down_proj.output_scale",
        "model.layers.3.linear_attn.in_proj_qkvz.output_scale",
        f"{LAYER}.indexer.k_scale",
        "model.audio_tower.layers.3.self_attn.k_scale",
        "model.embed_tokens.weight",
        f"{LAYER}.k_scale.extra",
        "K_SCALE",
    ],
)
def test_false_friends_stay_out(key: str) -> None:
    assert recognise(key) is None


def test_companions_take_part_in_the_load_but_are_no_scales(tmp_path: Path) -> None:
    names = [f"{LAYER}.k_proj.output_scale", f"{LAYER}.o_proj.output_scale", "model.layers.3.mlp.weight"]
    save_file({name: torch.tensor(0.5) for name in names}, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    assert [checkpoint.catalog.names[row] for row in companion_rows(checkpoint)] == names[1:2]
    assert [checkpoint.catalog.names[row] for row in scale_rows(checkpoint)] == names[:1]
    assert [is_companion(name) for name in names] == [False, True, False]


def test_the_sieve_by_endings_lets_every_scale_through(checkpoint_folder: Path) -> None:
    """A catalog sifted by endings gives the same scales as every pattern on every name."""
    checkpoint = open_checkpoint(checkpoint_folder)
    expected = [
        name
        for name in checkpoint.catalog.names
        if any(p.compiled.match(name) for c in CONVENTIONS for p in c.patterns)
    ]
    assert [scale.key for scale in find_scales(checkpoint)] == [name for name in expected if recognise(name)]
    lost = [name for name in expected if recognise(name) is None and not FALSE_FRIENDS.search(name)]
    assert lost == []


def test_layer_is_none_without_a_number() -> None:
    found = recognise("model.self_attn.k_scale")
    assert found is not None
    assert found.layer is None


def test_scales_of_a_real_checkpoint_come_with_their_values(samples: Path) -> None:
    scales = find_scales(open_checkpoint(samples / "llmcompressor" / "llama-32layers-kv_attn_head"))
    assert {(scale.role, scale.kind) for scale in scales} >= {("k", "scale"), ("v", "scale")}
    keys = [scale for scale in scales if scale.role == "k" and scale.kind == "scale"]
    assert sorted(scale.layer for scale in keys if scale.layer is not None) == list(range(32))
    assert all(scale.convention == "portable" and scale.fault is None for scale in scales)
    assert all(len(scale.values) == scale.numel > 1 for scale in keys)
    assert all(0 < value < 1 for scale in keys for value in scale.values)


def test_a_key_in_two_shards_has_each_shards_own_value(tmp_path: Path) -> None:
    key = f"{LAYER}.k_scale"
    for number, value in ((1, 0.5), (2, 0.25)):
        save_file({key: torch.tensor(value)}, tmp_path / f"model-0000{number}-of-00002.safetensors")
    assert [scale.values for scale in find_scales(open_checkpoint(tmp_path))] == [(0.5,), (0.25,)]
