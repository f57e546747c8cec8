"""What config files must say for the scales that will be written: declared on request, and made to follow repairs.

Changes are minimal: a method that describes quantized weights stays, because an export leaves the weights alone. Where
nothing but the KV cache is quantized, the cache can be declared as compressed-tensors does, which engines take alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.errors import UsageError
from core.export.config_files import ConfigDraft
from core.naming.scales import KVScale
from core.quantization import Declaration
from core.quantization.config_files import CONFIG, HF_QUANT_CONFIG, QUANTIZATION_CONFIG
from core.quantization.modelopt import modelopt_block, quantizes_cache_alone
from core.wording import say

_KV = ("k", "v", "kv")
_OWN_WORDS = {
    "quark": say("Start the engine with --kv-cache-dtype fp8: under Quark's method engines go by that alone"),
    None: say("Declare the quantization where the engine looks for it, in config.json's quantization_config"),
}


def declare_cache(
    draft: ConfigDraft, declaration: Declaration, scales: Iterable[KVScale], engine: str, *, per_head: bool = False
) -> str:
    """Write an FP8 KV-cache scheme into the config files; a sentence that says what was done. ``per_head``: scales per
    head are to come, whatever is stored.

    Raises:
        UsageError: it is declared already, or the method has no place for it.
        ExportError: the file cannot take it.
    """
    stored = [scale for scale in scales if scale.kind == "scale" and scale.role in _KV]
    scheme = fp8_scheme(stored, per_head=per_head)
    if not declaration.declared or quantizes_cache_alone(declaration):
        return declare_alone(draft, declaration, scheme)
    method, source = declaration.method or "", declaration.config_source
    if source is None or method == "quark":
        raise UsageError(
            say(
                "the KV cache cannot be declared under {method}"
                if method
                else "the KV cache cannot be declared under this configuration",
                method=method,
            ),
            path=CONFIG,
            remedy=_OWN_WORDS["quark" if method == "quark" else None],
        )
    path = tuple(part for part in source.field.split(".") if part)
    if declaration.kv_scheme is not None:
        raise UsageError(
            say("the KV cache is declared already ({scheme})", scheme=declaration.kv_scheme.label),
            path=declaration.kv_scheme.source.file,
            remedy=say("Leave --fix declare out"),
        )
    if method == "compressed-tensors":
        draft.set(source.file, (*path, "kv_cache_scheme"), scheme, _why(scheme))
        return say("{file} declares the KV cache as {scheme}.", file=source.file, scheme=_words(scheme))
    scheme = fp8_scheme(())  # the other methods have words for one scale a layer alone
    if method.startswith("modelopt"):
        nested = modelopt_block(declaration)[1]
        inner = (*path, "quantization") if nested and "quantization" in declaration.config else path
        draft.set(source.file, (*inner, "kv_cache_quant_algo"), "FP8", _why(scheme))
        if source.file != HF_QUANT_CONFIG and isinstance(draft.value(HF_QUANT_CONFIG, ("quantization",)), Mapping):
            draft.set(HF_QUANT_CONFIG, ("quantization", "kv_cache_quant_algo"), "FP8", _why(scheme))
    elif method == "fp8":
        draft.set(source.file, (*path, "kv_cache_scheme"), "static", _why(scheme))
    else:
        raise UsageError(
            say(
                "{engine} gives attention layers no scales under {method}, whatever is declared",
                engine=engine,
                method=method,
            ),
            path=source.file,
            remedy=say("Choose another engine, or quantize the weights in another format"),
        )
    return say("{file} declares the KV cache as {scheme}.", file=source.file, scheme=_words(scheme))


def fp8_scheme(scales: Sequence[KVScale], *, per_head: bool = False) -> dict[str, Any]:
    """The compressed-tensors scheme of these scales: one for each layer, or one for each head."""
    strategy = "attn_head" if per_head or any(scale.numel > 1 for scale in scales) else "tensor"
    return {"num_bits": 8, "type": "float", "strategy": strategy, "dynamic": False, "symmetric": True}


def declare_alone(draft: ConfigDraft, declaration: Declaration, scheme: Mapping[str, Any]) -> str:
    """Declare a quantized KV cache beside weights that are not quantized, as llm-compressor does."""
    block: dict[str, Any] = {
        "quant_method": "compressed-tensors",
        "format": "dense",
        "quantization_status": "compressed",
        "config_groups": {},
        "ignore": [],
        "kv_cache_scheme": dict(scheme),
    }
    reason = say(
        "Weights are not quantized; compressed-tensors is the method that takes a KV cache alone, in place of "
        "{method}'s config."
        if declaration.quant_method
        else "Weights are not quantized; compressed-tensors is the method that takes a KV cache alone, in place of no "
        "quantization.",
        method=declaration.quant_method,
    )
    place = ("quantization_config",)
    if isinstance(draft.value(CONFIG, place), Mapping):
        for name, value in (*block.items(), *scheme.items()):
            inner = ("kv_cache_scheme", name) if name in scheme else (name,)
            if name != "kv_cache_scheme" or not isinstance(draft.value(CONFIG, (*place, name)), Mapping):
                draft.set(CONFIG, (*place, *inner), value, reason)
    else:
        draft.set(CONFIG, place, block, reason)
    return say("config.json declares the KV cache as {scheme}, with compressed-tensors.", scheme=_words(scheme))


def follow_convention(draft: ConfigDraft, declaration: Declaration, scales: Sequence[KVScale], names: str) -> bool:
    """What the config files must say under the convention asked for; whether anything changed.

    The scheme is declared where the convention's own method or no method at all describes the weights; another method
    stays, and so does what it declares.
    """
    stored = [scale for scale in scales if scale.kind == "scale" and scale.role in _KV]
    source, method = declaration.config_source, declaration.method or ""
    if not stored or any(scale.quantity != "scale" for scale in stored):
        return False
    if names == "compressed-tensors":
        if quantizes_cache_alone(declaration) or (not declaration.declared and draft.value(CONFIG, ()) is not None):
            declare_alone(draft, declaration, fp8_scheme(stored))
        elif method == "compressed-tensors" and declaration.kv_scheme is None and source is not None:
            path = tuple(part for part in source.field.split(".") if part)
            draft.set(source.file, (*path, "kv_cache_scheme"), fp8_scheme(stored), _why(fp8_scheme(stored)))
        else:
            return False
        return True
    if names == "modelopt" and method.startswith("modelopt") and declaration.kv_scheme is None:
        declare_cache(draft, declaration, stored, "")
        return True
    return False


def declare_fp8(draft: ConfigDraft, declaration: Declaration) -> None:
    """An INT8 scheme as an FP8 one, for scales that were converted.

    Raises:
        UsageError: the scheme stands in words of which no FP8 counterpart is known.
    """
    reason = say("The scales were converted from INT8 to FP8.")
    scheme, source = declaration.kv_scheme, declaration.config_source
    if scheme is not None and isinstance(scheme.raw, Mapping) and "num_bits" in scheme.raw:
        path = tuple(part for part in scheme.source.field.split(".") if part)
        draft.set(scheme.source.file, (*path, "type"), "float", reason)
        return
    if source is None or declaration.quant_method != "quark":
        raise UsageError(
            say("an INT8 cache is declared in words of which no FP8 counterpart is known"),
            path=scheme.source.file if scheme is not None else CONFIG,
            remedy=say("Calibrate the KV cache for FP8"),
        )
    path = tuple(part for part in source.field.split(".") if part)
    for section in ("kv_cache_quant_config", "layer_quant_config"):
        for name in draft.value(source.file, (*path, section)) or ():
            place = (*path, section, name, "output_tensors")
            if draft.value(source.file, (*place, "dtype")) in ("int8", "uint8"):
                draft.set(source.file, (*place, "dtype"), "fp8_e4m3", reason)


def follow(draft: ConfigDraft, declaration: Declaration, scales: Sequence[KVScale], *, filled: bool) -> None:
    """Make the declared scheme agree with the scales that will be written.

    One number for each layer is no longer declared as one for each head or channel; without zero points the scheme is
    symmetric; ``filled``: scales stand where none stood, so that the scheme is static.
    """
    stored = [scale for scale in scales if scale.kind == "scale" and scale.role in (*_KV, "q")]
    single = bool(stored) and all(scale.numel == 1 for scale in stored)
    offsets = [scale for scale in scales if scale.kind != "scale" and scale.role in (*_KV, "q")]
    for scheme in (declaration.kv_scheme, declaration.attention_scheme):
        if scheme is None or not isinstance(scheme.raw, Mapping) or "num_bits" not in scheme.raw:
            continue
        path = tuple(part for part in scheme.source.field.split(".") if part)
        changes: dict[str, tuple[Any, str]] = {}
        if single and scheme.raw.get("strategy") == "attn_head":
            changes["strategy"] = ("tensor", say("One scale for each layer is stored in place of one for each head."))
        if stored and not offsets and scheme.raw.get("symmetric") is False:
            changes["symmetric"] = (True, say("No zero points are stored any more."))
            if scheme.raw.get("zp_dtype") is not None:
                changes["zp_dtype"] = (None, say("No zero points are stored any more."))
        if filled and scheme.raw.get("dynamic"):
            changes["dynamic"] = (False, say("Scales are stored now."))
        for name, (value, reason) in changes.items():
            draft.set(scheme.source.file, (*path, name), value, reason)
            if draft.value(QUANTIZATION_CONFIG, ("kv_cache_scheme", name)) == scheme.raw.get(name) is not None:
                draft.set(QUANTIZATION_CONFIG, ("kv_cache_scheme", name), value, reason)
    if single:
        _quark_per_tensor(draft, declaration)


def _quark_per_tensor(draft: ConfigDraft, declaration: Declaration) -> None:
    source = declaration.config_source
    if source is None or declaration.quant_method != "quark":
        return
    path = tuple(part for part in source.field.split(".") if part)
    for section in ("kv_cache_quant_config", "layer_quant_config"):
        for name in draft.value(source.file, (*path, section)) or ():
            place = (*path, section, name, "output_tensors")
            spec = draft.value(source.file, place)
            if isinstance(spec, Mapping) and spec.get("qscheme") == "per_channel":
                reason = say("One scale for each layer is stored in place of one for each channel.")
                draft.set(source.file, (*place, "qscheme"), "per_tensor", reason)
                if spec.get("ch_axis") is not None:
                    draft.set(source.file, (*place, "ch_axis"), None, reason)


def _words(scheme: Mapping[str, Any]) -> str:
    per_head = scheme["strategy"] == "attn_head"
    return say("FP8 with one scale for each head" if per_head else "FP8 with one scale for each layer")


def _why(scheme: Mapping[str, Any]) -> str:
    return say("The scales stored are for {scheme}, which nothing declared.", scheme=_words(scheme))
