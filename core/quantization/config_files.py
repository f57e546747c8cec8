"""Reading a checkpoint's JSON files so that a broken one becomes a note, and finding the quantization dict in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.errors import CancelledError, KVScopeError
from core.quantization.declaration import Dialect, Source
from core.wording import joined, say

CONFIG = "config.json"
HF_QUANT_CONFIG = "hf_quant_config.json"
QUANTIZATION_CONFIG = "quantization_config.json"
PARAMS = "params.json"
ASCEND_DESCRIPTION = "quant_model_description"
SENTENCE_TRANSFORMERS = "modules.json"

# Multi-modal configs whose class copies text_config.quantization_config to the top (vLLM 0.33.0, transformers_utils).
_HOISTING_MODEL_TYPES = ("kimi_k3", "step5_vl")
# Where other programs nest the language model's config; vLLM 0.33.0 looks for quantization in text_config only.
_OTHER_NESTS = ("llm_config", "language_config", "language_model", "thinker_config", "decoder")


class ConfigSource(Protocol):
    """What the reader needs of a checkpoint: its JSON files by name.

    ``config`` returns None for a file that is not there; it may raise KVScopeError, OSError or ValueError for one that
    cannot be read. A source may also have ``config_names()``, which lists the JSON files.
    """

    def config(self, name: str, /) -> Mapping[str, Any] | None: ...


@dataclass(slots=True)
class ConfigFiles:
    """A checkpoint's JSON files; whatever is wrong with one ends in ``notes``, and its name in ``broken``."""

    source: ConfigSource
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    _names: tuple[str, ...] | None = None
    _read: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The JSON files the source lists; empty when it lists none."""
        if self._names is None:
            lister = getattr(self.source, "config_names", None)
            try:
                listed: Iterable[Any] = lister() if callable(lister) else (lister or ())
                self._names = tuple(str(name) for name in listed)
            except (KVScopeError, OSError) as error:
                self.notes.append(say("the config files could not be listed: {error}", error=_said(error)))
                self._names = ()
        return self._names

    def read(self, name: str) -> dict[str, Any]:
        """The file's object without NUL characters; empty when it is absent or unreadable."""
        if name not in self._read:
            self._read[name] = self._load(name)
        return self._read[name]

    def _load(self, name: str) -> dict[str, Any]:
        try:
            raw = self.source.config(name)
            if raw is not None and not isinstance(raw, Mapping):
                self.notes.append(
                    say(
                        "{file} holds a JSON {kind} instead of an object; it was not used",
                        file=name,
                        kind=_json_type(raw),
                    )
                )
                self.broken.add(name)
                return {}
            if raw is None:
                if name in self.names:
                    self.notes.append(
                        say("{file} is there but could not be read as a JSON object; it was not used", file=name)
                    )
                    self.broken.add(name)
                return {}
            dirty: list[str] = []
            cleaned = _without_nul(raw, "", dirty)
        except CancelledError:
            raise
        except (KVScopeError, OSError, ValueError, RecursionError) as error:
            reason = say("it is nested too deeply") if isinstance(error, RecursionError) else _said(error)
            self.notes.append(say("{file} could not be read and was not used: {reason}", file=name, reason=reason))
            self.broken.add(name)
            return {}
        if dirty:
            places: str = joined(", ", dirty[:3])
            if len(dirty) > 3:
                places = say("{items} and {count} more", items=places, count=len(dirty) - 3)
            self.notes.append(say("{file}: NUL characters were removed from {places}", file=name, places=places))
        return dict(cleaned)


def _said(error: Exception) -> str:
    return error.message if isinstance(error, KVScopeError) else str(error)


def _json_type(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _without_nul(value: Any, path: str, dirty: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            _without_nul(str(key), path or str(key), dirty): _without_nul(item, f"{path}.{key}" if path else key, dirty)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_without_nul(item, f"{path}[{index}]", dirty) for index, item in enumerate(value)]
    if isinstance(value, str) and "\0" in value:
        dirty.append(path.replace("\0", ""))
        return value.replace("\0", "")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationDict:
    """The quantization dict and where it stood. ``visible``: vLLM 0.33.0 looks there; ``error``: it raises on it."""

    value: dict[str, Any]
    source: Source
    visible: bool = True
    error: str | None = None


def _entry(file: str, path: str, value: Any, *, visible: bool = True) -> QuantizationDict | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return QuantizationDict(value=dict(value), source=Source(file, path, dict(value)), visible=visible)
    error = f"AttributeError: '{type(value).__name__}' object has no attribute 'to_dict'"  # raised by Transformers
    return QuantizationDict(
        value={}, source=Source(file, path, value), visible=visible, error=error if visible else None
    )


def find_quantization(
    hf_config: Mapping[str, Any], hf_quant_config: Mapping[str, Any], *, file: str, dialect: Dialect
) -> QuantizationDict | None:
    """The quantization dict vLLM 0.33.0 would use, else one where it does not look.

    Order (vLLM 0.33.0, ``transformers_utils/config.py``, ``model_arch_config_convertor.py``): quantization_config,
    hf_quant_config.json, compression_config, then the same two keys of text_config.
    """
    if dialect == "tensorrt-llm":
        return _entry(file, "quantization", hf_config.get("quantization"), visible=False)
    top = _entry(file, "quantization_config", hf_config.get("quantization_config"))
    if top is None and hf_quant_config:
        top = _entry(HF_QUANT_CONFIG, "", hf_quant_config)
    if top is None:
        top = _entry(file, "compression_config", hf_config.get("compression_config"))
    if top is not None:
        return top
    text = hf_config.get("text_config")
    if isinstance(text, Mapping):
        for key in ("quantization_config", "compression_config"):
            if found := _entry(file, f"text_config.{key}", text.get(key)):
                if hf_config.get("model_type") in _HOISTING_MODEL_TYPES and key == "quantization_config":
                    return _entry(file, key, text.get(key))
                return found
    return _hidden(hf_config, file)


def _hidden(hf_config: Mapping[str, Any], file: str) -> QuantizationDict | None:
    for nest in _OTHER_NESTS:
        outer = hf_config.get(nest)
        if not isinstance(outer, Mapping):
            continue
        inner = outer.get("text_config")
        for path, block in ((nest, outer), (f"{nest}.text_config", inner)):
            if isinstance(block, Mapping) and (
                found := _entry(file, f"{path}.quantization_config", block.get("quantization_config"), visible=False)
            ):
                return found
    return None


def text_config_of(hf_config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a config: nested in a multi-modal one, else the whole."""
    for key in ("text_config", *_OTHER_NESTS):
        nested = hf_config.get(key)
        if isinstance(nested, Mapping):
            inner = nested.get("text_config")
            return inner if isinstance(inner, Mapping) else nested
    return hf_config


def looks_like_mistral(tensor_names: Sequence[str]) -> bool:
    """Whether the tensors carry Mistral's own names; its folders may hold a config.json as well."""
    return any(name == "tok_embeddings.weight" or name.endswith(".attention.wq.weight") for name in tensor_names)
