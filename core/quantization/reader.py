"""``read_declaration``: from a checkpoint's config files to one :class:`Declaration`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from core.quantization import notes as checks
from core.quantization.config_files import (
    ASCEND_DESCRIPTION,
    CONFIG,
    HF_QUANT_CONFIG,
    PARAMS,
    QUANTIZATION_CONFIG,
    SENTENCE_TRANSFORMERS,
    ConfigFiles,
    ConfigSource,
    QuantizationDict,
    find_quantization,
    looks_like_mistral,
    text_config_of,
)
from core.quantization.declaration import Declaration, Dialect, Source
from core.quantization.method import Resolution, resolve_method
from core.quantization.mistral import translate
from core.quantization.producers import producer
from core.quantization.schemes import attention_scheme, kv_scheme

# The keys under which the methods list what stays unquantized.
_IGNORE_KEYS = ("ignore", "exclude_modules", "exclude", "ignored_layers", "modules_to_not_convert")


def read_declaration(
    source: ConfigSource, *, tensor_names: Sequence[str] | None = None, platform: str = "cuda"
) -> Declaration:
    """Read every config file of a checkpoint; a broken file gives a note, never an exception.

    ``tensor_names`` default to ``source.catalog.names`` where the source has them. ``platform`` is where vLLM is meant
    to run ("cuda", "rocm", "cpu"): it only decides a few method names, see :func:`resolve_method`.
    """
    if tensor_names is None:
        tensor_names = getattr(getattr(source, "catalog", None), "names", ())
    files = ConfigFiles(source)
    hf_config, file, dialect, error = _main_config(files, tensor_names)
    hf_quant_config = files.read(HF_QUANT_CONFIG)
    second = files.read(QUANTIZATION_CONFIG)
    ascend = _ascend_description(files)

    architectures = _architectures(hf_config, dialect)
    model_type = _text(hf_config.get("model_type"))
    found = find_quantization(hf_config, hf_quant_config, file=file, dialect=dialect)
    if dialect == "mistral" and found and found.source.file == PARAMS:
        found = replace(found, source=_mistral_source(files, found.source))
    resolution = _resolve(found, model_type, architectures, platform)
    declared = found.value if found else (second or dict(ascend[1] if ascend else {}))
    where = (
        found.source if found else Source(QUANTIZATION_CONFIG if second else ascend[0] if ascend else file, "", None)
    )
    kv = kv_scheme(
        declared,
        file=where.file,
        path=where.field,
        hf_config=hf_config,
        hf_quant_config=hf_quant_config,
        ascend=ascend,
    )
    attention = attention_scheme(declared, file=where.file, path=where.field, hf_config=hf_config)
    by = producer(
        declared,
        file=where.file,
        path=where.field,
        hf_config=hf_config,
        hf_quant_config=hf_quant_config,
        second=second,
        ascend=ascend,
        tensor_names=tensor_names,
    )
    text_config = text_config_of(hf_config)
    ignore, ignore_source = _ignore(declared, where)
    written = _text(declared.get("quant_method"))
    stated = () if dialect == "mistral" else ("architectures", "architecture", "model_type")  # else derived from it
    sources = [Source(file, name, hf_config[name]) for name in stated if name in hf_config]
    sources += _deciding(found, declared, where)
    sources += [item.source for item in (by, kv, attention) if item is not None]
    sources += [ignore_source] if ignore_source else []

    facts = checks.Facts(
        found=found,
        resolution=resolution,
        hf_config=hf_config,
        hf_quant_config=hf_quant_config,
        second=second,
        ascend=ascend,
        dialect=dialect,
        file=file,
        architectures=architectures,
        kv=kv,
        attention=attention,
        tensor_names=tensor_names,
    )
    return Declaration(
        method=resolution.method,
        quant_method=written or ("ascend" if ascend and not found and not second else None),
        producer=by,
        kv_scheme=kv,
        attention_scheme=attention,
        ignore=ignore,
        config=resolution.config,
        declared=declared,
        config_source=found.source if found and found.visible else None,
        config_error=error or _broken(files, hf_config) or (found.error if found else None) or resolution.error,
        hf_config=hf_config,
        hf_quant_config=hf_quant_config,
        text_config=text_config,
        architectures=architectures,
        model_type=model_type,
        torch_dtype=_dtype(hf_config, text_config),
        dialect=dialect,
        platform=platform,
        embeds=SENTENCE_TRANSFORMERS in files.names,
        sources=_unique(sources),
        notes=(*files.notes, *checks.notes(facts)),
        remarks=(*files.remarks, *checks.remarks(facts)),
    )


def _main_config(files: ConfigFiles, tensor_names: Sequence[str]) -> tuple[dict[str, Any], str, Dialect, str | None]:
    hf_config = files.read(CONFIG)
    params = files.read(PARAMS)
    if params and (not hf_config or looks_like_mistral(tensor_names)):
        translated, error = translate(params)
        # vLLM fills what params.json leaves out from config.json.
        return {**hf_config, **translated}, PARAMS, "mistral", error
    if "architecture" in hf_config and "architectures" not in hf_config and "model_type" not in hf_config:
        return hf_config, CONFIG, "tensorrt-llm", None
    return hf_config, CONFIG, "huggingface" if hf_config else "none", None


def _broken(files: ConfigFiles, hf_config: Mapping[str, Any]) -> str | None:
    # What vLLM 0.33.0 raises on files that are no JSON; the side file is only opened where config.json says nothing.
    if CONFIG in files.broken and not hf_config:
        return f"OSError: It looks like the config file at '{CONFIG}' is not a valid JSON file."
    if HF_QUANT_CONFIG in files.broken and hf_config and hf_config.get("quantization_config") is None:
        return f"ValidationError: 1 validation error for ModelConfig Value error, {HF_QUANT_CONFIG} is not valid JSON"
    return None


def _mistral_source(files: ConfigFiles, source: Source) -> Source:
    # Where the dict really stands: Mistral's own block, the standard key, or config.json, which fills what is missing.
    params = files.read(PARAMS)
    for key in ("quantization", "quantization_config"):
        if params.get(key):
            return Source(PARAMS, key, params[key])
    return Source(CONFIG, source.field, source.value)


def _ascend_description(files: ConfigFiles) -> tuple[str, Mapping[str, Any]] | None:
    names = sorted(name for name in files.names if name.rsplit("/", 1)[-1].startswith(ASCEND_DESCRIPTION))
    for name in names or [f"{ASCEND_DESCRIPTION}.json"]:
        if content := files.read(name):
            return name, content
    return None


def _resolve(
    found: QuantizationDict | None, model_type: str | None, architectures: Sequence[str], platform: str
) -> Resolution:
    if found is None or not found.visible or found.error is not None:
        return Resolution({}, None)
    return resolve_method(
        found.value,
        model_type=model_type,
        architectures=architectures,
        platform=platform,
        key=found.source.field.rsplit(".", 1)[-1],
    )


def _architectures(hf_config: Mapping[str, Any], dialect: Dialect) -> tuple[str, ...]:
    if dialect == "tensorrt-llm":
        return (str(hf_config["architecture"]),)
    named = hf_config.get("architectures")
    if isinstance(named, str):
        return (named,)
    return tuple(str(name) for name in named) if isinstance(named, list) else ()


def _ignore(declared: Mapping[str, Any], where: Source) -> tuple[tuple[str, ...], Source | None]:
    blocks = [(declared, where.field)]
    if isinstance(nested := declared.get("quantization"), Mapping):
        path = f"{where.field}.quantization" if where.field else "quantization"
        blocks.insert(0, (nested, path))
    for block, path in blocks:
        for key in _IGNORE_KEYS:
            if isinstance(listed := block.get(key), list) and listed:
                field = f"{path}.{key}" if path else key
                return tuple(str(item) for item in listed), Source(where.file, field, listed)
    return (), None


def _deciding(found: QuantizationDict | None, declared: Mapping[str, Any], where: Source) -> list[Source]:
    if found is None:
        return []
    fields = [("quant_method",), ("quant_algo",), ("quantization", "quant_algo")]
    sources = []
    for path in fields:
        value: Any = declared
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            name = ".".join(path)
            sources.append(Source(where.file, f"{where.field}.{name}" if where.field else name, value))
    return sources


def _dtype(hf_config: Mapping[str, Any], text_config: Mapping[str, Any]) -> str | None:
    for config in (hf_config, text_config):
        for key in ("dtype", "torch_dtype"):
            if isinstance(value := config.get(key), str) and value:
                return value.removeprefix("torch.")
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _unique(sources: Sequence[Source]) -> tuple[Source, ...]:
    kept: dict[tuple[str, str], Source] = {}
    for source in sources:
        kept.setdefault((source.file, source.field), source)
    return tuple(kept.values())
