"""Which model vLLM takes where config.json names several architectures, a pooling one, or none. All of it was seen in
vLLM 0.33.0 with models of these families.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.engines.vllm.conversions import converted_from, unnamed
from core.errors import UsageError
from core.inspection import Inspection, inspect
from core.loading.verify import verify
from tests.core.loading.writing import LLAMA, compressed_tensors, write_checkpoint

REGISTERED = ("Qwen3ForCausalLM", "LlamaModel", "GPT2LMHeadModel", "WhisperForConditionalGeneration", "FooRewardModel")
REFUSED = "ValidationError: 1 validation error for ModelConfig Value error, No model architectures are specified"


@pytest.mark.parametrize(
    ("architecture", "base"),
    [
        ("Qwen3ForSequenceClassification", "Qwen3ForCausalLM"),
        ("Qwen3Model", "Qwen3ForCausalLM"),
        ("Qwen3RewardModel", "Qwen3ForCausalLM"),
        ("GPT2Model", "GPT2LMHeadModel"),
        ("WhisperModel", "WhisperForConditionalGeneration"),
        ("LlamaForTokenClassification", "LlamaModel"),
        ("LlamaModel", ""),
        ("LlamaForConditionalGeneration", ""),
        ("FooForCausalLM", ""),
        ("Mystery", ""),
    ],
)
def test_what_a_pooling_model_is_made_of(architecture: str, base: str) -> None:
    assert converted_from(architecture, REGISTERED.__contains__) == base


def test_the_base_model_of_a_type() -> None:
    assert unnamed({"model_type": "llama"}) == "LlamaModel"
    assert unnamed({"model_type": "whisper"}) == "WhisperModel"
    assert unnamed({"model_type": "nobody"}) == unnamed({"model_type": ["llama"]}) == unnamed({}) == ""


def checked(
    folder: Path,
    prefix: str,
    leaf: str = "self_attn.{role}_scale",
    *,
    weights: bool = False,
    embeds: bool = False,
    engine: str = "vllm-0.33.0",
    **config: Any,
) -> Inspection:
    """``weights``: with a norm beside the scales, by which the loader sees whose names these are; ``embeds``: with what
    Sentence Transformers writes beside a model.
    """
    tensors: dict[str, Any] = {f"{prefix}layers.0.input_layernorm.weight": [1.0] * 64} if weights else {}
    tensors |= {
        f"{prefix}layers.{layer}.{leaf.format(role=role)}": [0.5 + layer / 4] for layer in (0, 1) for role in "kv"
    }
    whole = {key: value for key, value in {**LLAMA, **config}.items() if value is not None}
    folder.mkdir(exist_ok=True)
    path = write_checkpoint(folder / "model", tensors, quantization=compressed_tensors("tensor"), config=whole)
    if embeds:
        modules = [{"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]
        (path / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    return inspect(path, engine=engine)


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        ({"architectures": ["LlamaForCausalLM", "MistralForCausalLM"]}, "LlamaForCausalLM"),
        ({"architectures": ["BrandNewForCausalLM", "LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"architectures": ["BrandNewForCausalLM"]}, "BrandNewForCausalLM"),
        ({"architectures": ["LlamaForSequenceClassification", "LlamaForCausalLM"]}, "LlamaForSequenceClassification"),
        ({"architectures": None}, "LlamaModel"),
        ({"architectures": None, "model_type": "qwen3"}, "Qwen3Model"),
    ],
)
def test_the_architecture(tmp_path: Path, config: dict[str, Any], architecture: str) -> None:
    found = checked(tmp_path, "model.", **config)
    assert found.settings.architecture.value == architecture
    assert found.deliveries.load.outcome == "loads"
    assert [layer.final["k"] for layer in found.deliveries.attention] == [0.5, 0.75]
    assert found.deliveries.confirmed == ("BrandNew" not in architecture)


def test_a_model_that_nothing_names_is_refused(tmp_path: Path) -> None:
    found = checked(tmp_path, "model.", architectures=None, model_type="nobody")
    load = found.deliveries.load
    assert (load.outcome, load.error, load.key) == ("refused", REFUSED, "config.json: architectures")
    assert found.findings[0].fix == "Name the model's class under architectures in config.json."


@pytest.mark.parametrize("engine", ["vllm-0.33.0", "vllm-0.25.0"])
@pytest.mark.parametrize("architecture", ["LlamaForSequenceClassification", "Qwen3Model"])
def test_names_of_the_base_model_alone(tmp_path: Path, architecture: str, engine: str) -> None:
    """The loader puts ``model.`` before all names where the first parameter that it meets needs it."""
    named = checked(tmp_path, "", weights=True, architectures=[architecture], engine=engine)
    assert named.deliveries.load.outcome == "loads"
    assert [layer.final["k"] for layer in named.deliveries.attention] == [0.5, 0.75]
    if engine == "vllm-0.33.0":
        confirmed = verify(named)
        assert confirmed.agreed, confirmed.text


def test_names_of_the_base_model_without_a_parameter_to_tell_by(tmp_path: Path) -> None:
    load = checked(tmp_path, "", architectures=["LlamaForSequenceClassification"]).deliveries.load
    assert load.outcome == "raises"
    assert str(load.error).startswith(
        "ValueError: There is no module or parameter named 'layers' in LlamaForSequenceClassification."
    )


def test_a_scale_that_is_a_parameter_tells_as_well(tmp_path: Path) -> None:
    named = checked(tmp_path, "", "self_attn.attn.{role}_scale", architectures=["LlamaForSequenceClassification"])
    assert [layer.final["k"] for layer in named.deliveries.attention] == [0.5, 0.75]


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "LlamaModel"])
def test_sentence_transformers_make_an_embedding_model_of_it(tmp_path: Path, architecture: str) -> None:
    """Qwen3-Embedding, for one, is a ``ForCausalLM`` with the names of the base model."""
    plain = checked(tmp_path / "plain", "", weights=True, architectures=[architecture])
    assert plain.deliveries.load.outcome == "raises"
    embedding = checked(tmp_path / "embedding", "", weights=True, embeds=True, architectures=[architecture])
    assert embedding.deliveries.load.outcome == "loads"
    assert [layer.final["k"] for layer in embedding.deliveries.attention] == [0.5, 0.75]
    whole = checked(tmp_path / "whole", "model.", weights=True, embeds=True, architectures=[architecture])
    assert [layer.final["k"] for layer in whole.deliveries.attention] == [0.5, 0.75]


def test_a_pooling_architecture_can_be_chosen(tmp_path: Path) -> None:
    path = checked(tmp_path, "model.").checkpoint.root
    found = inspect(path, architecture="LlamaForSequenceClassification")
    assert found.settings.architecture.value == "LlamaForSequenceClassification"
    assert found.deliveries.load.outcome == "loads"
    with pytest.raises(UsageError, match="'BrandNewForSequenceClassification' is not known"):
        inspect(path, architecture="BrandNewForSequenceClassification")
