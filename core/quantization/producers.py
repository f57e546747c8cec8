"""Who wrote a checkpoint: named in a field, or given away by its habits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.quantization.config_files import CONFIG, HF_QUANT_CONFIG, QUANTIZATION_CONFIG
from core.quantization.declaration import Producer, Source


def producer(
    declared: Mapping[str, Any],
    *,
    file: str,
    path: str,
    hf_config: Mapping[str, Any],
    hf_quant_config: Mapping[str, Any],
    second: Mapping[str, Any],
    ascend: tuple[str, Mapping[str, Any]] | None,
    tensor_names: Sequence[str] = (),
) -> Producer | None:
    """The tool and its version as far as the files tell.

    ``second`` is quantization_config.json; ``tensor_names`` are only looked at when no file says anything (a plain
    ``save_pretrained`` of a ModelOpt model leaves nothing but ``k_bmm_quantizer._amax`` tensors).
    """
    return (
        _named(declared, file, path)
        or _named(hf_quant_config, HF_QUANT_CONFIG, "")
        or _named(second, QUANTIZATION_CONFIG, "")
        or (_named(hf_config, CONFIG, "") if "producer" in hf_config else None)
        or _by_habit(declared, file, path, hf_config)
        or _ascend(ascend)
        or _by_tensors(declared, tensor_names)
    )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != "" else None


def _named(block: Mapping[str, Any], file: str, path: str) -> Producer | None:
    named = block.get("producer")
    if isinstance(named, Mapping) and _text(named.get("name")):
        source = Source(file, _join(path, "producer"), dict(named))
        return Producer(name=str(named["name"]).lower(), version=_text(named.get("version")), source=source)
    method = str(block.get("quant_method", "")).lower()
    if block.get("autoround_version") or method == "auto-round" or block.get("provider"):
        key = next(key for key in ("autoround_version", "provider", "quant_method") if block.get(key))
        name = "auto-round" if key != "provider" else str(block["provider"]).lower()
        version = _text(block.get("autoround_version"))
        return Producer(name=name, version=version, source=Source(file, _join(path, key), block[key]))
    if method == "quark":
        source = Source(file, _join(path, "version"), block.get("version"))
        return Producer(name="quark", version=_text(block.get("version")), source=source)
    meta = block.get("meta")
    quantizer = meta.get("quantizer") if isinstance(meta, Mapping) else None
    if isinstance(quantizer, list) and quantizer and _text(quantizer[0]):
        name, _, version = str(quantizer[0]).partition(":")
        return Producer(
            name=name, version=version or None, source=Source(file, _join(path, "meta.quantizer"), quantizer)
        )
    return None


def _by_habit(declared: Mapping[str, Any], file: str, path: str, hf_config: Mapping[str, Any]) -> Producer | None:
    method = str(declared.get("quant_method", "")).lower().replace("_", "-")
    if "attn_quant_config" in hf_config:
        value = hf_config["attn_quant_config"]
        return Producer(
            name="angelslim", version=None, source=Source(CONFIG, "attn_quant_config", value), inferred=True
        )
    if method == "compressed-tensors":
        return _compressed_tensors(declared, file, path)
    export = declared.get("export")
    if method == "fp8" and isinstance(export, Mapping) and "kv_cache_group" in export:
        # Quark's custom fp8 mode rewrites the config for AutoFP8's loaders: tool and version are lost, "export" stays.
        source = Source(file, _join(path, "export.kv_cache_group"), export["kv_cache_group"])
        return Producer(name="quark", version=None, source=source, inferred=True)
    if method == "fp8" and isinstance(declared.get("kv_cache_scheme"), str):
        source = Source(file, _join(path, "kv_cache_scheme"), declared["kv_cache_scheme"])
        return Producer(name="autofp8", version=None, source=source, inferred=True)
    if method.startswith("modelopt"):
        source = Source(file, _join(path, "quant_method"), declared["quant_method"])
        return Producer(name="modelopt", version=None, source=source, inferred=True)
    if "architecture" in hf_config and "quantization" in hf_config:
        version = _text(hf_config.get("version"))
        source = Source(CONFIG, "architecture", hf_config["architecture"])
        return Producer(name="tensorrt-llm", version=version, source=source, inferred=True)
    return None


def _compressed_tensors(declared: Mapping[str, Any], file: str, path: str) -> Producer:
    # llm-compressor writes the version of the compressed-tensors library, never its own; before compressed-tensors 0.11
    # it wrote none. quantization_status is the library's habit, and llm-compressor is who drives it.
    version = _text(declared.get("version"))
    key = next((key for key in ("version", "quantization_status") if declared.get(key)), "quant_method")
    tool = "llm-compressor" if "quantization_status" in declared else "compressed-tensors"
    source = Source(file, _join(path, key), declared[key])
    return Producer(
        name="compressed-tensors", version=version, source=source, tool=tool, inferred=tool != "compressed-tensors"
    )


def _ascend(described: tuple[str, Mapping[str, Any]] | None) -> Producer | None:
    if described is None:
        return None
    file, content = described
    key = "model_quant_type" if "model_quant_type" in content else "version"
    source = Source(file, key, content.get(key))
    return Producer(name="msmodelslim", version=None, source=source, inferred=True)


def _by_tensors(declared: Mapping[str, Any], tensor_names: Sequence[str]) -> Producer | None:
    if declared:
        return None
    for name in tensor_names:
        if name.endswith("_quantizer._amax"):
            return Producer(name="modelopt", version=None, source=Source("", name, None), inferred=True)
    return None
