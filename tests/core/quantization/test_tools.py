"""Reading what each tool writes: its KV scheme, its name and version, and what it leaves out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from core.quantization import Source, read_declaration
from tests.core.quantization.configs import COMPRESSED, FP8_ARGS, LLAMA, MODELOPT, read
from tests.core.quantization.folder import Files


def quark(**changes: Any) -> dict[str, Any]:
    spec = {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False, "symmetric": True}
    layers = {name: {"output_tensors": spec} for name in ("*k_proj", "*v_proj")}
    return {
        "quant_method": "quark",
        "export": {"kv_cache_group": ["*k_proj", "*v_proj"]},
        "exclude": ["lm_head"],
        "layer_quant_config": layers,
        "kv_cache_quant_config": layers,
        "version": "0.13",
        **changes,
    }


def test_quark() -> None:
    declared = read(quark())
    assert declared.kv_scheme is not None
    assert declared.kv_scheme.source.field == "quantization_config.kv_cache_quant_config.*k_proj.output_tensors"
    assert (declared.kv_scheme.label, declared.ignore) == ("FP8, one scale per tensor, static", ("lm_head",))
    assert declared.producer is not None
    assert (declared.producer.name, declared.producer.version) == ("quark", "0.13")


def test_older_quark_names_the_kv_layers_in_its_group_only() -> None:
    declared = read(quark(kv_cache_quant_config=None))
    assert declared.kv_scheme is not None
    assert declared.kv_scheme.source.field == "quantization_config.layer_quant_config.*k_proj.output_tensors"
    mlp_only = {"*down_proj": {"output_tensors": {"dtype": "int8"}}}
    ungrouped = read(quark(kv_cache_quant_config=None, layer_quant_config=mlp_only, export={"kv_cache_group": []}))
    assert ungrouped.kv_scheme is None


def test_quark_two_level_scheme_is_nvfp4_and_unchecked() -> None:
    spec = [{"dtype": "fp4", "qscheme": "per_group", "is_dynamic": True}, {"dtype": "fp8_e4m3", "is_dynamic": False}]
    entry = {"*k_proj": {"output_tensors": spec}}
    declared = read(quark(kv_cache_quant_config=entry, layer_quant_config=entry, export={"kv_cache_group": []}))
    assert declared.kv_scheme is not None
    assert (declared.kv_scheme.algorithm, declared.kv_scheme.dynamic) == ("NVFP4", False)
    assert any("vLLM 0.33.0 does not check it" in note for note in declared.notes)


def test_quark_attention_scheme() -> None:
    softmax = {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False}
    declared = read(quark(softmax_quant_spec=softmax))
    assert declared.attention_scheme is not None
    assert declared.attention_scheme.source.field == "quantization_config.softmax_quant_spec"


def test_autoround_both_formats() -> None:
    native = {
        "quant_method": "auto-round",
        "autoround_version": "0.15.1",
        "static_kv_dtype": "fp8",
        "static_kv_granularity": "head",
        "static_attention_dtype": "fp8",
    }
    declared = read(native, quantization_config=native)
    assert (declared.method, declared.producer and declared.producer.version) == ("inc", "0.15.1")
    assert declared.kv_scheme is not None
    assert declared.kv_scheme.strategy == "attn_head"
    assert declared.attention_scheme is not None
    assert declared.notes == ()
    exported = read(
        {**COMPRESSED, "provider": "auto-round", "attention_input_activations": {"input_activations": FP8_ARGS}}
    )
    assert exported.method == "compressed-tensors"
    assert exported.producer is not None
    assert (exported.producer.tool, exported.producer.version) == ("auto-round", None)
    assert exported.attention_scheme is not None


def test_angelslim_states_k_and_v_apart() -> None:
    attention = {
        "kv_cache_quant": {
            "dtype": "fp8_e4m3",
            "k_quant": {"scheme": "dynamic", "granularity": "per_token_per_head"},
            "v_quant": {"scheme": "static", "granularity": "per_head"},
        },
        "q_quant": {"dtype": "fp8_e4m3", "scheme": "dynamic", "granularity": "per_token_per_head"},
    }
    fp8 = {"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": "static"}
    declared = read(fp8, config={"attn_quant_config": attention})
    assert declared.kv_scheme is not None
    assert (declared.kv_scheme.strategy, declared.kv_scheme.dynamic) == ("attn_head", False)
    assert declared.kv_scheme.source.field == "attn_quant_config.kv_cache_quant"
    assert declared.attention_scheme is not None
    assert (declared.attention_scheme.strategy, declared.attention_scheme.dynamic) == ("token_head", True)
    assert declared.producer is not None
    assert (declared.producer.tool, declared.producer.inferred) == ("angelslim", True)
    assert any("treats K and V differently" in note for note in declared.notes)


@pytest.mark.parametrize(
    ("key", "value", "strategy"), [("kv_cache_type", "C8", "channel"), ("fa_quant_type", "FAKQuant", "attn_head")]
)
def test_ascend_description(key: str, value: str, strategy: str) -> None:
    described = {"model_quant_type": "W8A8", key: value, "model.layers.0.self_attn.k_proj.kv_cache_scale": "W8A8"}
    declared = read_declaration(Files(config=LLAMA, quant_model_description_w8a8=described))
    assert (declared.method, declared.quant_method) == (None, "ascend")
    assert declared.kv_scheme is not None
    assert (declared.kv_scheme.algorithm, declared.kv_scheme.strategy) == ("INT8", strategy)
    assert declared.kv_scheme.source == Source("quant_model_description_w8a8.json", key, value)
    assert declared.producer is not None
    assert declared.producer.tool == "msmodelslim"
    assert any("Ascend's engines only" in note for note in declared.notes)


def test_tensorrt_llm() -> None:
    config = {
        "producer": {"name": "modelopt", "version": "0.47.0"},
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "INT8", "exclude_modules": ["lm_head"]},
    }
    declared = read_declaration(Files(config=config))
    assert (declared.dialect, declared.method, declared.architectures) == ("tensorrt-llm", None, ("LlamaForCausalLM",))
    assert declared.kv_scheme is not None
    assert (declared.kv_scheme.algorithm, declared.kv_scheme.source.field) == (
        "INT8",
        "quantization.kv_cache_quant_algo",
    )
    assert (declared.declared["quant_algo"], dict(declared.config)) == ("FP8", {})
    assert declared.producer is not None
    assert (declared.producer.name, declared.producer.version) == ("modelopt", "0.47.0")
    assert (declared.ignore, declared.torch_dtype) == (("lm_head",), "bfloat16")
    anonymous = read_declaration(Files(config={key: value for key, value in config.items() if key != "producer"}))
    assert anonymous.producer is not None
    assert (anonymous.producer.tool, anonymous.producer.inferred) == ("tensorrt-llm", True)


def test_mistral_native() -> None:
    params = {"dim": 64, "n_layers": 2, "quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}}
    declared = read_declaration(Files(params=params))
    assert (declared.dialect, declared.method, declared.architectures) == ("mistral", "fp8", ("MistralForCausalLM",))
    assert declared.hf_config["hidden_size"] == 64
    assert declared.config_source == Source("params.json", "quantization", params["quantization"])
    both = Files(params=params, config={**LLAMA, "quantization_config": MODELOPT})
    assert read_declaration(both).method == "modelopt"  # params.json counts where the tensors bear Mistral's names
    assert read_declaration(both, tensor_names=["layers.0.attention.wq.weight"]).method == "fp8"
    filled = Files(params={"dim": 64}, config={**LLAMA, "quantization_config": MODELOPT})
    inherited = read_declaration(filled, tensor_names=["tok_embeddings.weight"])
    assert inherited.config_source is not None
    assert (inherited.method, inherited.config_source.file) == ("modelopt", "config.json")


def test_mistral_multimodal_and_mixture() -> None:
    vision = read_declaration(Files(params={"dim": 64, "vision_encoder": {"hidden_size": 8}}))
    assert vision.architectures == ("PixtralForConditionalGeneration",)
    assert vision.text_config["hidden_size"] == 64
    assert read_declaration(Files(params={"moe": {"num_experts": 8}})).architectures == ("MixtralForCausalLM",)
    audio = read_declaration(Files(params={"multimodal": {"whisper_model_args": {"encoder_args": {}}}}))
    assert audio.architectures == ("VoxtralForConditionalGeneration",)


def test_modelopt_model_that_was_saved_instead_of_exported() -> None:
    names = ["model.layers.0.self_attn.k_bmm_quantizer._amax"]
    catalogued = Files(config=LLAMA)
    catalogued.catalog = SimpleNamespace(names=names)  # type: ignore[attr-defined]
    declared = read_declaration(catalogued)
    assert declared.method is None
    assert declared.producer is not None
    assert (declared.producer.tool, declared.producer.source.field) == ("modelopt", names[0])
    assert any("plain save_pretrained" in note for note in declared.notes)


def test_gptqmodel_names_itself_in_meta() -> None:
    declared = read({"quant_method": "gptq", "bits": 4, "meta": {"quantizer": ["gptqmodel:1.4.0"]}})
    assert declared.producer is not None
    assert (declared.producer.name, declared.producer.version) == ("gptqmodel", "1.4.0")
