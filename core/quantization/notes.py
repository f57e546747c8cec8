"""What is contradictory (notes) or merely worth knowing (remarks) about a declaration: one small rule each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.quantization.config_files import HF_QUANT_CONFIG, QUANTIZATION_CONFIG, QuantizationDict
from core.quantization.declaration import Dialect, KVScheme, Source
from core.quantization.method import Resolution, modelopt_quant_algo
from core.quantization.schemes import kv_scheme
from core.wording import Sentence, say


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the reader found, before it became a Declaration."""

    found: QuantizationDict | None
    resolution: Resolution
    hf_config: Mapping[str, Any]
    hf_quant_config: Mapping[str, Any]
    second: Mapping[str, Any]
    ascend: tuple[str, Mapping[str, Any]] | None
    dialect: Dialect
    file: str
    architectures: Sequence[str]
    kv: KVScheme | None
    attention: KVScheme | None
    tensor_names: Sequence[str]

    @property
    def method(self) -> str:
        return self.resolution.method or ""

    @property
    def block(self) -> Mapping[str, Any]:
        """The quantization dict as written, {} when there is none."""
        return self.found.value if self.found else {}

    @property
    def place(self) -> str:
        """The dict's place in words: ``config.json: quantization_config``."""
        source = self.found.source if self.found else Source(self.file, "", None)
        return f"{source.file}: {source.field}" if source.field else source.file


_Rule = Callable[[Facts], Iterator[Sentence]]


def notes(facts: Facts) -> tuple[Sentence, ...]:
    """Faults and contradictions, the most important first."""
    return tuple(text for rule in _NOTES for text in rule(facts))


def remarks(facts: Facts) -> tuple[Sentence, ...]:
    """Facts that explain what the engine does but are no fault."""
    return tuple(text for rule in _REMARKS for text in rule(facts))


def _scheme_of(block: Mapping[str, Any], file: str) -> KVScheme | None:
    return kv_scheme(block, file=file, path="", hf_config={}, hf_quant_config={})


def _name(scheme: KVScheme | None) -> str:
    return scheme.algorithm or say("a scheme of its own") if scheme else say("none")


# ---------------------------------------------------------------------------------------------------------------- notes


def _unusable(facts: Facts) -> Iterator[Sentence]:
    found = facts.found
    if found and not isinstance(found.source.value, Mapping):
        kind = type(found.source.value).__name__
        yield say("{place} is a JSON {kind}, not an object, and says nothing usable", place=facts.place, kind=kind)
    elif facts.resolution.error:
        error = facts.resolution.error.split(": ", 1)[0]
        yield say("{place}: vLLM 0.33.0 refuses it ({error})", place=facts.place, error=error)


def _out_of_sight(facts: Facts) -> Iterator[Sentence]:
    if facts.dialect == "tensorrt-llm":
        yield say(
            "config.json is TensorRT-LLM's (one 'architecture', no 'model_type'): vLLM and SGLang do not open this "
            "folder"
        )
    elif facts.found and not facts.found.visible:
        yield say("{place} stands where vLLM 0.33.0 does not look: it builds the model unquantized", place=facts.place)
    elif not facts.found and facts.second:
        yield say(
            "{file} declares quantization but config.json has no quantization_config: vLLM 0.33.0 builds the model "
            "unquantized",
            file=QUANTIZATION_CONFIG,
        )
    elif not facts.found and facts.ascend:
        yield say(
            "{file} is read by Ascend's engines only: vLLM 0.33.0 builds the model unquantized", file=facts.ascend[0]
        )


def _modelopt_without_algorithm(facts: Facts) -> Iterator[Sentence]:
    written = str(facts.block.get("quant_method", "")).lower()
    if facts.found is None or modelopt_quant_algo(facts.block):
        return
    if written.startswith("modelopt"):
        yield say(
            "{place} names no quant_algo (only the KV cache is quantized): vLLM 0.33.0 refuses the model",
            place=facts.place,
        )
    elif facts.found.source.file == HF_QUANT_CONFIG and facts.found.visible:
        yield say(
            "{file} names no quant_algo and config.json has no quantization_config: vLLM 0.33.0 builds the model "
            "unquantized and ignores its KV scales",
            file=HF_QUANT_CONFIG,
        )


def _files_disagree(facts: Facts) -> Iterator[Sentence]:
    found = facts.found
    if not found or not found.value:
        return
    for name, other in ((HF_QUANT_CONFIG, facts.hf_quant_config), (QUANTIZATION_CONFIG, facts.second)):
        if not other or name == found.source.file:
            continue
        yield from _disagreement(found, other, name)


def _disagreement(found: QuantizationDict, other: Mapping[str, Any], name: str) -> Iterator[Sentence]:
    here = found.source.file
    mine, theirs = modelopt_quant_algo(found.value), modelopt_quant_algo(other)
    if mine != theirs and (mine or theirs):
        none = say("none")
        yield say(
            "{used} and {other} disagree on quant_algo: {mine} and {theirs}; vLLM uses {used}",
            used=here,
            other=name,
            mine=mine or none,
            theirs=theirs or none,
        )
    ours, others = _scheme_of(found.value, here), _scheme_of(other, name)
    if _name(ours) != _name(others) and (others is not None or name == HF_QUANT_CONFIG):
        yield say(
            "{used} and {other} disagree on the KV cache: {mine} and {theirs}; vLLM uses {used}",
            used=here,
            other=name,
            mine=_name(ours),
            theirs=_name(others),
        )
    first, second = found.value.get("quant_method"), other.get("quant_method")
    if first and second and first != second:
        yield say(
            "{used} and {other} disagree on quant_method: {mine} and {theirs}; vLLM uses {used}",
            used=here,
            other=name,
            mine=first,
            theirs=second,
        )


def _nested_modelopt(facts: Facts) -> Iterator[Sentence]:
    found = facts.found
    if found and found.source.field.startswith("text_config.") and facts.method.startswith("modelopt") and facts.kv:
        yield say(
            "{place}: vLLM 0.33.0 takes the method from there but not the KV cache: --kv-cache-dtype auto stays in the "
            "model dtype",
            place=facts.place,
        )


def _per_head_without_groups(facts: Facts) -> Iterator[Sentence]:
    per_head = facts.method == "compressed-tensors" and facts.kv and facts.kv.strategy == "attn_head"
    if per_head and "config_groups" not in facts.block:
        yield say(
            "{place} has a per-head KV scheme but no config_groups: vLLM 0.33.0 then does not know the head counts and "
            "fails while loading the first per-head scale",
            place=facts.place,
        )


def _quark_unchecked(facts: Facts) -> Iterator[Sentence]:
    if facts.method != "quark" or facts.kv is None:
        return
    export = facts.block.get("export")
    group = export.get("kv_cache_group") if isinstance(export, Mapping) else None
    if not group and (facts.kv.algorithm, facts.kv.strategy) != ("FP8", "tensor"):
        yield say(
            "{place}: the KV cache is declared as {scheme}, but export.kv_cache_group is empty, so vLLM 0.33.0 does "
            "not check it and treats the layers as FP8 per tensor",
            place=facts.place,
            scheme=facts.kv.label,
        )


def _uneven_kv(facts: Facts) -> Iterator[Sentence]:
    raw = facts.kv.raw if facts.kv else None
    if isinstance(raw, Mapping) and "k_quant" in raw and raw.get("k_quant") != raw.get("v_quant"):
        yield say(
            "attn_quant_config.kv_cache_quant treats K and V differently: {k} and {v}",
            k=raw.get("k_quant"),
            v=raw.get("v_quant"),
        )


def _fake_quantized(facts: Facts) -> Iterator[Sentence]:
    if not facts.found and any(name.endswith("_quantizer._amax") for name in facts.tensor_names):
        yield say(
            "no file declares any quantization, but ModelOpt's quantizers left _amax tensors: a plain save_pretrained, "
            "not an export"
        )


_NOTES: tuple[_Rule, ...] = (
    _unusable,
    _out_of_sight,
    _modelopt_without_algorithm,
    _files_disagree,
    _nested_modelopt,
    _per_head_without_groups,
    _quark_unchecked,
    _uneven_kv,
    _fake_quantized,
)


# -------------------------------------------------------------------------------------------------------------- remarks


def _unused_files(facts: Facts) -> Iterator[Sentence]:
    if not facts.found or facts.found.source.file == HF_QUANT_CONFIG:
        return
    mixed = facts.method == "modelopt_mixed" and "quantized_layers" not in facts.block
    if facts.hf_quant_config:
        yield say(
            "{file} stands beside {place}; vLLM 0.33.0 takes quantized_layers from it"
            if mixed
            else "{file} stands beside {place}; vLLM 0.33.0 does not read it",
            file=HF_QUANT_CONFIG,
            place=facts.place,
        )
    if facts.second:
        yield say(
            "{file} stands beside {place}; vLLM 0.33.0 does not read it", file=QUANTIZATION_CONFIG, place=facts.place
        )


def _attention_coupled(facts: Facts) -> Iterator[Sentence]:
    if facts.attention and facts.method == "compressed-tensors" and facts.block.get("kv_cache_scheme"):
        yield say(
            "attention is quantized as a whole ({field}); the tool writes kv_cache_scheme along with it",
            field=facts.attention.source.field,
        )


def _not_read_by_vllm(facts: Facts) -> Iterator[Sentence]:
    if facts.kv and facts.method in ("fp8", "inc", "deepseek_v4_fp8"):
        yield say(
            "{field}: vLLM 0.33.0's method {method} does not read it; --kv-cache-dtype auto stays in the model dtype",
            field=facts.kv.source.field,
            method=facts.method,
        )


def _dynamic(facts: Facts) -> Iterator[Sentence]:
    if facts.kv and facts.kv.dynamic and facts.method in ("compressed-tensors", "quark"):
        yield say(
            "{field} is dynamic: the tool stores no scales, and vLLM 0.33.0 runs such layers at 1.0",
            field=facts.kv.source.field,
        )


def _old_llm_compressor(facts: Facts) -> Iterator[Sentence]:
    unversioned = "quantization_status" in facts.block and not {"version", "provider"} & facts.block.keys()
    if facts.method == "compressed-tensors" and unversioned:
        yield say(
            "{place} has no version (quantization_status: {status}): llm-compressor 0.6 or older",
            place=facts.place,
            status=facts.block["quantization_status"],
        )


_REMARKS: tuple[_Rule, ...] = (_unused_files, _attention_coupled, _not_read_by_vllm, _dynamic, _old_llm_compressor)
