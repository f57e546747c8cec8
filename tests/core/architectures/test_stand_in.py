"""Kinds of layers that the surveyed model did not have."""

from __future__ import annotations

import pytest

from core.architectures import build_model

NEMOTRON = {
    "architectures": ["NemotronHForCausalLM"],
    "layers_block_type": ["linear_attention", "moe", "full_attention", "sliding_attention", "mlp"],
}


@pytest.mark.parametrize("method", [None, "compressed-tensors"])
def test_experts_are_no_attention(method: str | None) -> None:
    root = build_model("NemotronHForCausalLM", NEMOTRON, method=method)
    assert root is not None
    assert [path for path, _ in root.attention_layers()] == ["model.layers.2.mixer.attn", "model.layers.3.mixer.attn"]
