"""DeepSeek's models choose their attention by the config: latent or, as DeepSeek-OCR's small language model has it,
plain. Seen in vLLM 0.33.0; the older releases have the same condition.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.architectures import build_model
from core.engines.vllm.releases import RELEASES
from core.inspection import inspect
from core.loading.verify import verify
from tests.core.engines.random_cases import tiny_configs
from tests.core.loading.writing import write_checkpoint

PLAIN: dict[str, Any] = {
    "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0, "kv_lora_rank": None, "q_lora_rank": None,
}  # fmt: skip


def attention(architecture: str, config: dict[str, Any], engine: str) -> list[str]:
    root = build_model(architecture, config, method=None, engine=engine)
    assert root is not None
    return sorted({str(node.attention) for _, node in root.attention_layers()})


@pytest.mark.parametrize("engine", [release.id for release in RELEASES])
def test_the_config_chooses(engine: str) -> None:
    config = tiny_configs()["DeepseekOCRForCausalLM"]
    small = config | {"language_config": config["language_config"] | PLAIN}
    assert attention("DeepseekOCRForCausalLM", config, engine) == ["MLAAttention"]
    assert attention("DeepseekOCRForCausalLM", small, engine) == ["Attention"]
    first = tiny_configs()["DeepseekForCausalLM"]
    assert attention("DeepseekForCausalLM", first, engine) == ["Attention"]
    later = tiny_configs()["DeepseekV3ForCausalLM"]
    assert attention("DeepseekForCausalLM", later, engine) == ["MLAAttention"]
    assert attention("DeepseekV3ForCausalLM", later, engine) == ["MLAAttention"]


def test_the_scales_of_deepseek_ocr_reach_its_plain_attention(tmp_path: Path) -> None:
    config = tiny_configs()["DeepseekOCRForCausalLM"]
    config = config | {"language_config": config["language_config"] | PLAIN}
    tensors = {
        f"model.layers.{layer}.self_attn.{role}_proj.{role}_scale": 0.5 for layer in (0, 1) for role in ("k", "v")
    }
    method = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
    inspection = inspect(write_checkpoint(tmp_path / "ocr", tensors, quantization=method, config=config))
    assert inspection.deliveries.load.outcome == "loads"
    assert [(layer.path, layer.final["k"], layer.final["v"]) for layer in inspection.deliveries.attention] == [
        (f"language_model.model.layers.{layer}.self_attn.attn", 0.5, 0.5) for layer in (0, 1)
    ]
    found = verify(inspection)
    assert found.agreed, found.text
