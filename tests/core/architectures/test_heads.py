"""How many heads a model and its layers have: the whole model's as vLLM 0.33.0's own code answers for each of these
configs, the layers' as it builds them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.architectures.heads import HeadCounts, Heads
from core.architectures.layers import layer_kinds
from core.export import plan_export
from core.export.fixes import parse_fixes
from core.inspection import inspect
from core.loading.verify import verify
from resources import resource
from tests.core.engines.random_cases import tiny_configs
from tests.core.loading.writing import LLAMA, compressed_tensors, write_checkpoint

GEMMA4: dict[str, Any] = {
    "model_type": "gemma4_text",
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"],
}
SLIDING = GEMMA4 | {"layer_types": ["sliding_attention"] * 2}
PRUNED = [
    {"attention": {"n_heads_in_group": 4}},
    {"attention": {"no_op": True}},
    {"attention": {"n_heads_in_group": 2}},
]


@pytest.mark.parametrize(
    ("config", "model", "layers"),
    [
        ({"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}, (4, 2), [(4, 2)]),
        ({"model_type": "llama", "num_attention_heads": 4}, (4, 4), [(4, 4)]),
        ({"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": None}, (4, 4), [(4, 4)]),
        ({"model_type": "llama"}, (32, 32), [(32, 32)]),
        ({"model_type": "llama", "num_key_value_heads": 2}, (32, 2), [(32, 2)]),
        ({"model_type": "qwen3", "num_attention_heads": 64}, (64, 32), [(64, 32)]),
        ({"model_type": "mixtral"}, (32, 8), [(32, 8)]),
        ({"model_type": "gemma3_text"}, (8, 4), [(8, 4)]),
        ({"model_type": "gemma3", "text_config": {"num_attention_heads": 8}}, (8, 4), [(8, 4)]),
        ({"model_type": "deepseek_v3"}, (128, 128), [(128, 128)]),
        ({"model_type": "falcon", "num_attention_heads": 4}, (4, 1), [(4, 1)]),
        ({"model_type": "falcon", "num_attention_heads": 4, "multi_query": False}, (4, 4), [(4, 4)]),
        (
            {"model_type": "falcon", "num_attention_heads": 4, "new_decoder_architecture": True, "num_kv_heads": 2},
            (4, 2),
            [(4, 2)],
        ),
        ({"model_type": "gpt_bigcode", "n_head": 4}, (4, 1), [(4, 1)]),
        ({"model_type": "gpt_bigcode", "n_head": 4, "num_key_value_heads": 2}, (4, 2), [(4, 2)]),
        ({"model_type": "dbrx", "n_heads": 4, "attn_config": {"kv_n_heads": 2}}, (4, 2), [(4, 2)]),
        ({"model_type": "chatglm", "num_attention_heads": 4, "multi_query_group_num": 2}, (4, 2), [(4, 4)]),
        ({"model_type": "step3_text", "num_attention_heads": 4, "num_attention_groups": 1}, (4, 1), [(4, 1)]),
        ({"model_type": "step3p5", "num_attention_heads": 4, "num_attention_groups": 2}, (4, 2), [(4, 2)]),
        ({"model_type": "minicpm3", "num_attention_heads": 4, "num_key_value_heads": 1}, (4, 1), [(4, 4)]),
        ({"model_type": "whisper", "encoder_attention_heads": 4, "decoder_attention_heads": 8}, (4, 4), [(8, 8)]),
        (
            {
                "model_type": "mimo_v2_flash",
                "num_attention_heads": 8,
                "num_key_value_heads": 2,
                "swa_num_attention_heads": 4,
                "swa_num_key_value_heads": 4,
                "hybrid_layer_pattern": [0, 1],
            },
            (8, 2),
            [(8, 2), (4, 4)],
        ),
        (
            {"model_type": "nemotron-nas", "num_attention_heads": 8, "block_configs": PRUNED},
            (8, 2),
            [(8, 2), (8, 2), (8, 4)],
        ),
        (GEMMA4, (8, 4), [(8, 4), (8, 4)]),
        (GEMMA4 | {"attention_k_eq_v": True, "num_global_key_value_heads": 2}, (8, 4), [(8, 4), (8, 2)]),
        (GEMMA4 | {"num_global_key_value_heads": 2}, (8, 4), [(8, 4), (8, 4)]),
        (GEMMA4 | {"per_layer_config": {"00": {"num_key_value_heads": 8}}}, (8, 8), [(8, 8), (8, 4)]),
        (GEMMA4 | {"per_layer_config": {}, "num_global_key_value_heads": 1}, (8, 4), [(8, 4), (8, 4)]),
        (
            GEMMA4
            | {"layer_types": ["sliding_attention"] * 2, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
            (8, 4),
            [(8, 4), (8, 1)],
        ),
        ({"model_type": "embedding_gemma2_text", "num_hidden_layers": 1}, (4, 1), [(4, 1)]),
        ({"model_type": "voxtral", "text_config": {"model_type": "llama"}}, (32, 8), [(32, 8)]),
        ({"model_type": "glmasr", "text_config": {}}, (16, 4), [(16, 4)]),
        ({"model_type": "voxtral", "text_config": {"model_type": "mistral"}}, (32, 8), [(32, 8)]),
        ({"model_type": "llava", "text_config": {"model_type": "llama"}}, (32, 32), [(32, 32)]),
    ],
)
def test_heads(config: dict[str, Any], model: tuple[int, int], layers: list[tuple[int, int]]) -> None:
    counts = HeadCounts(config)
    assert counts.known
    assert counts.model == Heads(*model)
    assert [counts.of(layer) for layer in range(len(layers))] == [Heads(*each) for each in layers]
    assert counts.of(None).kv > 0
    assert counts.of(10_000).kv > 0


@pytest.mark.parametrize(
    ("config", "layers", "attending"),
    [
        ({"model_type": "llama"}, 32, 32),
        ({"model_type": "deepseek_v3"}, 61, 61),
        ({"model_type": "qwen3_next"}, 48, 12),
        ({"model_type": "zamba2"}, 54, 0),
        ({"model_type": "minimax"}, 32, 16),
        ({"model_type": "gemma3", "text_config": {"hidden_size": 64}}, 26, 26),
        ({"model_type": "gemma3"}, 26, 26),
        ({"model_type": "voxtral", "text_config": {"model_type": "llama"}}, 30, 30),
        ({"model_type": "llama", "num_hidden_layers": 2}, 2, 2),
        ({"model_type": "llama", "num_hidden_layers": None}, 0, 0),
        ({"model_type": "llama", "num_hidden_layers": 10**9}, 0, 0),
        ({"model_type": "nobody"}, 0, 0),
        ({"model_type": ["llama"]}, 0, 0),
        ({}, 0, 0),
    ],
)
def test_layers_that_the_config_does_not_count(config: dict[str, Any], layers: int, attending: int) -> None:
    """The config's class counts them; that of Gemma 3's whole model, for example, makes a text config of 26 layers."""
    kinds = layer_kinds(config)
    assert len(kinds) == layers
    assert sum(kind in ("full_attention", "sliding_attention") for kind in kinds) == attending


def test_layers_without_scales_count_where_the_config_is_silent(tmp_path: Path) -> None:
    """Seen in vLLM 0.33.0: it builds all 32 layers of Llama's config class, whichever of them have scales."""
    config = {key: value for key, value in LLAMA.items() if key != "num_hidden_layers"}
    tensors = {f"model.layers.0.self_attn.{role}_proj.{role}_scale": 0.5 for role in ("k", "v")}
    inspection = inspect(write_checkpoint(tmp_path / "llama", tensors, config=config), kv_cache_dtype="fp8")
    assert [layer.layer for layer in inspection.deliveries.attention] == list(range(32))
    assert sum(layer.source.get("k") == "checkpoint" for layer in inspection.deliveries.attention) == 1


@pytest.mark.parametrize(
    "config", [{}, {"model_type": ["llama"]}, {"model_type": "nobody", "num_attention_heads": "4"}]
)
def test_heads_that_nothing_tells(config: dict[str, Any]) -> None:
    counts = HeadCounts(config)
    assert not counts.known
    assert counts.model == counts.of(0) == Heads(1, 1)


def test_the_classes_were_asked_by_the_script() -> None:
    data = json.loads(resource("architectures", "config_classes.json").read_text())
    assert data["schema"] == "kvscope.config-classes/1"
    assert data["source"] == "config classes of transformers 5.20.2 and vllm 0.33.0"
    assert set(data["text"].values()) & set(data["heads"])
    assert data["models"]["llama"] == "LlamaModel"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({}, None),
        ({"per_layer_config": {"1": {"num_key_value_heads": 2}}}, "AssertionError: "),
        (
            {"per_layer_config": {"1": {"num_key_value_heads": 1}}},
            "ZeroDivisionError: integer division or modulo by zero",
        ),
        ({"per_layer_config": {str(layer): {"num_key_value_heads": 8} for layer in range(4)}}, None),
    ],
)
def test_layers_with_heads_of_their_own(tmp_path: Path, change: dict[str, Any], error: str | None) -> None:
    """Seen in vLLM 0.33.0 with Gemma 4: its loader holds each layer's heads against the whole model's."""
    config = tiny_configs()["Gemma4ForCausalLM"] | {"num_attention_heads": 8, "num_key_value_heads": 4} | change
    tensors = {f"model.layers.{layer}.self_attn.{role}_scale": [0.25] for layer in (0, 1) for role in ("k", "v")}
    scheme = compressed_tensors("attn_head")
    inspection = inspect(write_checkpoint(tmp_path / "gemma4", tensors, quantization=scheme, config=config))
    load = inspection.deliveries.load
    assert (load.outcome, load.error) == ("raises" if error else "loads", error)
    assert load.key == ("model.layers.1.self_attn.k_scale" if error else None)
    found = verify(inspection)
    assert found.agreed, found.text


def test_heads_that_cannot_be_grouped_are_refused(tmp_path: Path) -> None:
    """Seen in vLLM 0.33.0: Qwen 3's config class has 32 key/value heads where config.json has none."""
    config = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    config |= {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}
    tensors = {"model.layers.0.self_attn.k_scale": 0.5, "model.layers.0.self_attn.v_scale": 0.5}
    inspection = inspect(write_checkpoint(tmp_path / "qwen3", tensors, config=config))
    load = inspection.deliveries.load
    assert (load.outcome, load.error) == (
        "refused",
        "AssertionError: num_heads (4) is not divisible by num_kv_heads (32)",
    )
    assert inspection.findings[0].fix == "Give the model's num_attention_heads and num_key_value_heads in config.json."
    whole = inspect(write_checkpoint(tmp_path / "whole", tensors, config=config | {"num_key_value_heads": 2}))
    assert whole.deliveries.load.outcome == "loads"


def test_heads_that_the_config_leaves_to_its_class(tmp_path: Path) -> None:
    """Seen in vLLM 0.33.0: 8 key/value heads for each layer of a Mixtral that names none."""
    config = {key: value for key, value in LLAMA.items() if "heads" not in key}
    config |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "num_local_experts": 4}
    scales = {f"model.layers.0.self_attn.{role}_scale": [0.1 * head for head in range(1, 9)] for role in ("k", "v")}
    scheme = compressed_tensors("attn_head")
    inspection = inspect(write_checkpoint(tmp_path / "mixtral", scales, quantization=scheme, config=config))
    assert inspection.deliveries.attention[0].parameters["k_scale"] == (8,)
    assert len(inspection.deliveries.attention[0].per_head["k"]) == 8
    assert verify(inspection).agreed


def test_scales_per_head_of_layers_that_differ_are_made_one_for_each_layer(tmp_path: Path) -> None:
    """The real vLLM 0.33.0 refuses the first, and loads the export with every value in place."""
    config = tiny_configs()["Gemma4ForCausalLM"] | {"num_attention_heads": 8, "num_key_value_heads": 4}
    config |= {"per_layer_config": {"1": {"num_key_value_heads": 2}}}
    tensors = {
        f"model.layers.{layer}.self_attn.{role}_scale": [[[0.02 * head]] for head in range(1, heads + 1)]
        for layer, heads in ((0, 4), (1, 2))
        for role in ("k", "v")
    }
    scheme = compressed_tensors("attn_head")
    inspection = inspect(write_checkpoint(tmp_path / "gemma4", tensors, quantization=scheme, config=config))
    finding = inspection.findings[0]
    assert (finding.code, len(finding.keys)) == ("head-count", 4)
    assert finding.evidence == (
        "model.layers.1.self_attn.k_scale: its layer has 2 KV heads, and the model as a whole counts as having 4."
    )
    plan = plan_export(inspection, fixes=parse_fixes(["head-count"]))
    assert plan.verdict_predicted.outcome == "ok"
    assert [layer.final["k"] for layer in plan.predicted.attention[:2]] == pytest.approx([0.08, 0.04])
