"""Heads that config.json leaves to the config class, as transformers' classes have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.architectures.defaults import head_counts, told_kv_heads
from tests.core.diagnosis.build import PER_HEAD, Tensor, codes, llama, look


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "gemma3_text"}, (8, 4)),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560}}, (8, 4)),
        ({"model_type": "gemma3", "text_config": {"hidden_size": 2560}}, (8, 4)),
        ({"model_type": "gemma3", "text_config": {"num_attention_heads": 16}}, (16, 4)),
        ({"model_type": "llava", "text_config": {"model_type": "llama"}}, (32, 32)),
        ({"model_type": "llama", "num_attention_heads": 4}, (4, 4)),
        ({"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": None}, (4, 4)),
        ({"model_type": "mixtral"}, (32, 8)),
        ({"model_type": "qwen2", "num_attention_heads": 4, "num_key_value_heads": 2}, (4, 2)),
        ({"model_type": "falcon", "num_attention_heads": 4, "multi_query": True}, (4, 1)),
        ({"model_type": "brand_new"}, (1, 1)),
        ({}, (1, 1)),
    ],
)
def test_what_a_config_class_adds(config: dict[str, Any], expected: tuple[int, int]) -> None:
    assert head_counts(config) == expected


def test_nothing_tells_the_heads_of_an_unknown_model() -> None:
    assert told_kv_heads({"model_type": "brand_new"}) is None


@pytest.mark.parametrize(
    ("model_type", "architecture", "heads", "largest"),
    [
        ("gemma3_text", "Gemma3ForCausalLM", 4, 0.04),
        ("mixtral", "MixtralForCausalLM", 8, 0.08),
        ("qwen2", "Qwen2ForCausalLM", 32, 0.32),
        ("llama", "LlamaForCausalLM", 32, 0.32),
    ],
)
def test_scales_per_head_end_as_in_the_real_vllm(
    tmp_path: Path, model_type: str, architecture: str, heads: int, largest: float
) -> None:
    """Recorded from vLLM 0.33.0 with fp8: the attention layer runs on the largest of as many as it has heads."""
    config = llama(PER_HEAD) | {"model_type": model_type, "architectures": [architecture]}
    for name in ("num_attention_heads", "num_key_value_heads"):
        config.pop(name, None)
    values = [0.01 * (1 + place) for place in range(heads)]
    tensors = {
        f"model.layers.{layer}.self_attn.{role}_scale": Tensor(values, [heads, 1, 1])
        for layer in range(2)
        for role in "kv"
    }
    inspection = look(tmp_path, config, tensors, kv_cache_dtype="fp8")
    assert "head-count" not in codes(inspection, "error")
    assert [layer.final["k"] for layer in inspection.deliveries.attention] == pytest.approx([largest] * 2)
    longer = {key: Tensor([*values, 0.5], [heads + 1, 1, 1]) for key in tensors}
    assert "head-count" in codes(look(tmp_path / "longer", config, longer, kv_cache_dtype="fp8"), "error")
