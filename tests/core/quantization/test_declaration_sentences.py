"""What is said of a checkpoint's declaration can be said in another language, whatever the files hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import KVScopeError
from core.quantization import Declaration, read_declaration, refusal, resolve_kv_cache_dtype
from core.quantization.cache_dtype import KV_CACHE_DTYPES
from core.wording import Sentence
from tests.core.quantization.configs import COMPRESSED, FP8_ARGS, HF_QUANT, JSON, LLAMA, METHODS, MODELOPT, read
from tests.core.quantization.folder import Files, Folder
from tests.core.spoken import left_in_english
from tests.places import checkpoint_folders

PER_HEAD = {**FP8_ARGS, "strategy": "attn_head"}
QUARK = {
    "quant_method": "quark",
    "export": {"kv_cache_group": ["*k_proj"]},
    "layer_quant_config": {
        "*k_proj": {"output_tensors": {"dtype": "fp8_e4m3", "qscheme": "per_tensor", "is_dynamic": False}}
    },
}
ATTENTION = {"group_0": {"targets": ["LlamaAttention"], "input_activations": FP8_ARGS}}


def quark(**changed: Any) -> dict[str, Any]:
    spec = {**QUARK["layer_quant_config"]["*k_proj"]["output_tensors"], **changed}  # type: ignore[index]
    return {**QUARK, "layer_quant_config": {"*k_proj": {"output_tensors": spec}}}


def sentences(declaration: Declaration) -> list[str]:
    """Every text that is made of a declaration, asked for every cache and model dtype."""
    said = [*declaration.notes, *declaration.remarks]
    said += [scheme.label for scheme in (declaration.kv_scheme, declaration.attention_scheme) if scheme is not None]
    for cache in (*KV_CACHE_DTYPES, "fp9"):
        for layers in (("Attention",), ("MLAAttention",)):
            said.append(resolve_kv_cache_dtype(cache, declaration, attention_layers=layers).reason)
            for dtype in (None, "float16", "float32"):
                refused = refusal(declaration, kv_cache_dtype=cache, dtype=dtype, attention_layers=layers)
                said += [refused.reason] if refused is not None else []
    return said


def check(declaration: Declaration, *, but: tuple[str, ...] = ()) -> None:
    for text in dict.fromkeys(sentences(declaration)):
        assert isinstance(text, Sentence)
        assert left_in_english(text, but=but) == []


def test_every_checkpoint() -> None:
    for folder in checkpoint_folders().values():
        check(read_declaration(Folder(folder)))


@pytest.mark.parametrize(
    "declaration",
    [
        read_declaration(Files()),
        read_declaration(Files(config={})),
        read_declaration(Files(config={"architecture": "LlamaForCausalLM", "quantization": {"quant_algo": "FP8"}})),
        read(config={"model_type": "gemma2"}),
        read(config={"architectures": ["DeepseekV32ForCausalLM"]}),
        read([1]),
        read("fp8"),
        read({"quant_method": "nobody's"}),
        read({**MODELOPT, "quantization": 3}),
        read({**MODELOPT, "quant_algo": None}),
        read({**MODELOPT, "kv_cache_scheme": "INT4"}),
        read({**MODELOPT, "kv_cache_scheme": None}),
        read({**MODELOPT, "kv_cache_scheme": "NVFP4"}),
        read(MODELOPT, hf_quant_config={"quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "INT8"}}),
        read(MODELOPT, hf_quant_config={"quantization": {"quant_algo": None}}),
        read(MODELOPT, quantization_config={"quant_method": "fp8", "kv_cache_scheme": "static"}),
        read(hf_quant_config={**HF_QUANT, "quantization": {"kv_cache_quant_algo": "FP8"}}),
        read(quantization_config=COMPRESSED),
        read(config={"text_config": {**LLAMA, "quantization_config": MODELOPT}}),
        read(config={"llm_config": {"quantization_config": COMPRESSED}}),
        read(config={"attn_quant_config": {"kv_cache_quant": {"k_quant": {"scheme": "static"}, "v_quant": {}}}}),
        read({**COMPRESSED, "kv_cache_scheme": 3}),
        read({**COMPRESSED, "kv_cache_scheme": None}),
        read({**COMPRESSED, "kv_cache_scheme": {**FP8_ARGS, "type": "int"}}),
        read({**COMPRESSED, "kv_cache_scheme": {**FP8_ARGS, "num_bits": 3, "type": None}}),
        read({**COMPRESSED, "kv_cache_scheme": {**FP8_ARGS, "num_bits": None}}),
        read({**COMPRESSED, "kv_cache_scheme": {**FP8_ARGS, "strategy": "nobody's"}}),
        *(
            read({**COMPRESSED, "kv_cache_scheme": {**FP8_ARGS, "strategy": strategy}})
            for strategy in ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head")
        ),
        read({**COMPRESSED, "kv_cache_scheme": {**FP8_ARGS, "symmetric": False, "dynamic": True}}),
        read({key: value for key, value in COMPRESSED.items() if key not in ("config_groups", "version")}),
        read(
            {key: value for key, value in (COMPRESSED | {"kv_cache_scheme": PER_HEAD}).items() if key[:6] != "config"}
        ),
        read({**COMPRESSED, "config_groups": ATTENTION}),
        read({"quant_method": "fp8", "activation_scheme": "static", "kv_cache_scheme": "static"}),
        read(QUARK),
        read(quark(dtype="int8")),
        read(quark(qscheme="per_channel")),
        read({**quark(dtype="int8"), "export": {"kv_cache_group": []}}),
        read_declaration(Files(config=LLAMA), tensor_names=["model.layers.0.self_attn.k_bmm_quantizer._amax"]),
        read(quant_model_description={"kv_cache_type": "C8", "model_quant_type": "W8A8"}),
    ],
)
def test_what_tools_write_and_do_wrong(declaration: Declaration) -> None:
    check(declaration)


@pytest.mark.parametrize(
    ("fault", "own"),
    [
        (KVScopeError(Sentence("not a file", "not a file", {}), path="config.json"), ()),
        (ValueError("what a parser says"), ("what a parser says",)),
        (OSError(5, "the system's own words"), ("the system's own words",)),
        (RecursionError(), ()),
        ([1], ()),
        (True, ()),
        ({"a\0": "b\0", "c": ["\0"], "d": {"e": "\0"}, "f": "\0"}, ()),
    ],
)
def test_files_that_are_broken(fault: Any, own: tuple[str, ...]) -> None:
    """A parser's and the system's own words stand as they are."""
    for files in (Files(config=fault), Files(config=LLAMA, hf_quant_config=fault)):
        declaration = read_declaration(files)
        assert declaration.notes
        check(declaration, but=own)


@given(METHODS, st.dictionaries(st.sampled_from(["kv_cache_scheme", "quantization", "export", "quant_algo"]), JSON))
def test_whatever_a_dict_holds(method: str, fields: dict[str, Any]) -> None:
    declaration = read({"quant_method": method, **fields})
    for text in (*declaration.notes, *declaration.remarks):
        assert isinstance(text, Sentence)
