"""The five lines of ``kvscope check``: facts that must be in them, on checkpoints people have."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core.explanation import Explanation, explain
from core.inspection import inspect
from core.report import html_report, report, text_report

DEEPSEEK = "modelopt/deepseekv3-30layers-fp8-kvfp8"
GEMMA = "quark/gemma3-26layers-fp8-kvfp8"
QWEN = "modelopt/qwen3-36layers-fp8-kvfp8"


@pytest.fixture(scope="module")
def qwen3_moe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-MoE as ModelOpt writes one: its config and its scales alone."""
    folder = tmp_path_factory.mktemp("qwen3-moe")
    config = {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "torch_dtype": "bfloat16",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_experts": 4,
        "quantization_config": {
            "quant_method": "modelopt",
            "quant_algo": "FP8",
            "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
            "config_groups": {},
            "ignore": ["lm_head"],
            "producer": {"name": "modelopt", "version": "0.43.0"},
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    scales = {
        f"model.layers.{layer}.self_attn.{role}_proj.{role}_scale": np.float32(0.02 + 0.01 * layer)
        for layer in range(3)
        for role in ("k", "v")
    }
    save_file({name: np.asarray(value) for name, value in scales.items()}, folder / "model.safetensors")
    return folder


def told(path: Path, engine: str = "vllm-0.33.0") -> Explanation:
    found = explain(inspect(path, engine=engine))
    assert found is not None
    assert len(found.lines) <= 5
    assert all(len(line) < 420 for line in found.lines)
    return found


def test_why_vllm_drops_the_scales_of_deepseek_v3(samples: Path) -> None:
    story = told(samples / DEEPSEEK)
    assert story.title == "Why vLLM 0.33.0 drops every k and v scale, as model.layers.0.self_attn.k_proj.k_scale"
    renaming, end, near, follows, help_ = story.lines
    assert renaming == (
        r"DeepseekV3ForCausalLM makes it …self_attn.attn.k_scale by the regex rule \.self_attn\.[kv]_proj\.([kv])_scale"
        r"$ (layers/quantization/base_config.py:233); DeepseekV2Model makes it …self_attn.attn.attn.k_scale by the "
        r"regex "
        r"rule \.([qkv])_scale$ (model_loader/weight_utils.py:1795)."
    )
    assert "'…self_attn.attn.attn.k_scale' is no parameter" in end
    assert end.endswith("the parameter is …self_attn.mla_attn.mla_attn.k_scale.")
    assert "(model_loader/weight_utils.py:1777) is shadowed by the regex rule" in near
    assert "DeepseekV3ForCausalLM runs before DeepseekV2Model" in near
    assert follows.startswith("The load goes on: all 30 attention layers end with k = 1.0")
    assert "no name reaches MLAAttention layers in vLLM 0.33.0" in help_
    assert "--kv-cache-dtype bfloat16" in help_
    assert help_.endswith("The checkpoint as it is loads in vLLM 0.22.1 to 0.23.0 and SGLang 0.5.23.")


def test_which_rule_shadows_which_on_a_quark_gemma_3(samples: Path) -> None:
    story = told(samples / GEMMA)
    assert story.title == "Why vLLM 0.33.0 stops at model.layers.0.self_attn.k_proj.output_scale"
    assert story.lines == (
        (
            "Gemma3ForCausalLM makes it …self_attn.qkv_proj.output_scale by the stacked rule .k_proj "
            "(models/gemma3.py:285)."
        ),
        "That ends the load: AttributeError: 'QKVParallelLinear' object has no attribute 'data'.",
        (
            "The suffix rule .k_proj.output_scale -> .attn.k_scale of Gemma3ForCausalLM "
            "(layers/quantization/quark/quark.py:955) is shadowed by the stacked rule .k_proj -> .qkv_proj: stacked "
            "rules run before suffix rules; it would have made …self_attn.attn.k_scale, which is the parameter."
        ),
        "The load stops here; 51 more scales are not read.",
        "What to do: an export with portable names serves all 26 layers (kvscope export PATH OUT).",
    )


def test_why_sglang_drops_what_vllm_loads_of_qwen3_moe(qwen3_moe: Path) -> None:
    assert explain(inspect(qwen3_moe)) is None  # vLLM 0.33.0 loads them all
    story = told(qwen3_moe, "sglang-0.5.23")
    assert story.title == "Why SGLang 0.5.23 ignores every k and v scale, as model.layers.0.self_attn.k_proj.k_scale"
    renaming, end, near, follows, help_ = story.lines
    assert renaming == (
        "Qwen3MoeForCausalLM makes it …self_attn.qkv_proj.k_scale by the stacked rule k_proj (models/qwen3_moe.py:1163)"
        "; then makes it …self_attn.qkqkv_proj.k_scale by the stacked rule v_proj (models/qwen3_moe.py:1164)."
    )
    assert end.startswith(
        "Qwen3MoeForCausalLM has no parameter …self_attn.qkqkv_proj.k_scale: left out without a word;"
    )
    assert end.endswith("…self_attn.attn (RadixAttention) has no scale parameters at all.")
    assert "maybe_remap_kv_scale_name would make …self_attn.attn.k_scale of it" in near
    assert "Qwen3MoeForCausalLM.load_weights never asks it" in near
    assert "built without the quantization config" in near
    assert follows.startswith("The load goes on: all 3 attention layers end with k = 1.0")
    assert help_.endswith("The checkpoint as it is loads in vLLM 0.22.1 to 0.33.0.")


def test_another_backend_that_would_know_the_name(shared: Path) -> None:
    lines = told(shared / "checkpoints/llmcompressor/llama-output_act-fp8").lines
    assert "deepseek_v4_fp8, fp8 and quark have the rule .k_proj.output_scale -> .attn.k_scale" in lines[2]
    assert "compressed-tensors has not" in lines[2]
    lines = told(shared / "checkpoints/llmcompressor/qwen2-fp8-kv", "sglang-0.5.23").lines
    assert lines[0] == "No rule renames it."
    assert "Qwen2ForCausalLM.load_weights never asks it (model_loader/weight_utils.py:1816)." in lines[2]
    assert "an export with vllm-runtime names serves both layers" in lines[4]
    assert "kvscope export PATH OUT --engine sglang-0.5.23" in lines[4]


def test_part_of_the_scales_and_other_tensors(shared: Path) -> None:
    whisper = told(shared / "checkpoints/llmcompressor/whisper-kvonly")
    assert whisper.title.startswith("Why vLLM 0.33.0 ignores 2 of 10 k and v scales, as model.encoder.layers.0.")
    down = told(shared / "checkpoints/quark/llama-fp8-alloutputs")
    assert down.title == "Why vLLM 0.33.0 stops at model.layers.0.mlp.down_proj.output_scale"
    assert "What to do: an export serves both layers (kvscope export PATH OUT)." in down.lines


def test_the_text_report_numbers_the_lines_and_json_holds_them(samples: Path) -> None:
    inspection = inspect(samples / GEMMA)
    explained = told(samples / GEMMA)
    lines = text_report(inspection).splitlines()
    title = lines.index("Why vLLM 0.33.0 stops at model.layers.0.self_attn.k_proj.output_scale:")
    shown = lines[title + 1 :]
    assert [line[:4] for line in shown if line[2:3].isdigit()] == ["  1.", "  2.", "  3.", "  4.", "  5."]
    assert all(len(line) <= 118 for line in shown)
    assert " ".join(" ".join(shown).split()) == " ".join(f"{n}. {line}" for n, line in enumerate(explained.lines, 1))
    page = html_report(inspection)
    assert (
        "<h2>Why vLLM 0.33.0 stops at model.layers.0.self_attn.k_proj.output_scale</h2><ol><li>Gemma3ForCausalLM"
        in page
    )
    data = report(inspection)["explanation"]
    assert data["key"] == "model.layers.0.self_attn.k_proj.output_scale"
    assert len(data["lines"]) == 5


def test_nothing_is_explained_where_everything_arrives(samples: Path) -> None:
    inspection = inspect(samples / QWEN)
    assert explain(inspection) is None
    assert report(inspection)["explanation"] is None
    assert "Why" not in text_report(inspection)
