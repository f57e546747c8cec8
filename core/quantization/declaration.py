"""What a checkpoint declares about its quantization: the result types. :mod:`core.quantization.reader` fills them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from core.wording import Sentence, say

Dialect = Literal["huggingface", "mistral", "tensorrt-llm", "none"]
NumberType = Literal["float", "int"]

_STRATEGY_WORDS = {
    "tensor": say("tensor"),
    "attn_head": say("head"),
    "channel": say("channel"),
    "group": say("group"),
    "block": say("block"),
    "token": say("token"),
    "token_head": say("token and head"),
    "tensor_group": say("tensor over block scales"),
}


@dataclass(frozen=True, slots=True)
class Source:
    """A field that decided something: file name, dotted path inside it, and the value found there."""

    file: str
    field: str
    value: Any

    def __str__(self) -> str:
        shown = json.dumps(self.value, ensure_ascii=False, default=str)
        return f"{self.file}: {self.field} = {shown if len(shown) <= 120 else shown[:117] + '...'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Producer:
    """The tool that wrote the checkpoint.

    ``name`` and ``version`` are what the files say ("compressed-tensors" "0.19.0"); ``tool`` is the program a person
    ran ("llm-compressor"), the same as ``name`` where the files say it. ``inferred`` is true when no field names the
    tool and its habits gave it away; ``source`` is the field that decided.
    """

    name: str
    version: str | None
    source: Source
    tool: str = ""
    inferred: bool = False

    def __post_init__(self) -> None:
        if not self.tool:
            object.__setattr__(self, "tool", self.name)

    @property
    def label(self) -> str:
        """For people: ``llm-compressor (compressed-tensors 0.19.0)``."""
        named = f"{self.name} {self.version}" if self.version else self.name
        return named if self.tool == self.name else f"{self.tool} ({named})"


@dataclass(frozen=True, slots=True, kw_only=True)
class KVScheme:
    """How keys and values (or, for attention, queries) are declared to be quantized.

    ``strategy`` says what shares one scale: "tensor", "attn_head", "channel", "group", "token", "token_head",
    "tensor_group" (NVFP4: one stored scale over block scales computed at run time), or None when the file does not
    say. ``dynamic``: scales are computed at run time, so none are
    stored. ``algorithm`` is the format's usual name ("FP8", "NVFP4", "INT8", "INT4", ...). ``raw`` is the value as
    written.
    """

    num_bits: int | None
    type: NumberType | None
    strategy: str | None
    dynamic: bool
    symmetric: bool | None
    algorithm: str | None
    raw: Any
    source: Source

    @property
    def label(self) -> str:
        """For people: ``FP8, one scale per head, static``."""
        said = self.algorithm or self._number()
        if self.strategy:
            unit = _STRATEGY_WORDS.get(self.strategy, self.strategy)
            said = say("{scheme}, one scale per {unit}", scheme=said, unit=unit)
        said = say("{scheme}, dynamic" if self.dynamic else "{scheme}, static", scheme=said)
        return say("{scheme}, with zero points", scheme=said) if self.symmetric is False else said

    def _number(self) -> Sentence:
        bits = self.num_bits or "?"
        if self.type is None:
            return say("{bits}-bit number", bits=bits)
        return say("{bits}-bit float" if self.type == "float" else "{bits}-bit int", bits=bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """Everything the config files say, read the way vLLM 0.33.0 reads it.

    ``method`` is the quantization method vLLM ends with, None when it sees no quantization; ``quant_method`` the name
    as written. ``config`` is the quantization dict vLLM sees, normalised as vLLM does, empty when it sees none;
    ``declared`` the dict as written, also where vLLM does not look. ``config_source`` says which file and field the
    dict comes from. ``config_error`` is the exception vLLM raises while it reads the dict at all.

    ``hf_config`` is config.json (params.json in Mistral's format, translated), ``text_config`` the language model's
    part of it. ``ignore`` are the module patterns left unquantized. ``embeds``: Sentence Transformers' list of modules
    stands beside it, so that vLLM serves it for embeddings. ``sources`` lists every field that decided
    something, ``notes`` what is wrong or contradictory, ``remarks`` what is merely worth knowing.
    """

    method: str | None = None
    quant_method: str | None = None
    producer: Producer | None = None
    kv_scheme: KVScheme | None = None
    attention_scheme: KVScheme | None = None
    ignore: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    declared: Mapping[str, Any] = field(default_factory=dict)
    config_source: Source | None = None
    config_error: str | None = None
    hf_config: Mapping[str, Any] = field(default_factory=dict)
    hf_quant_config: Mapping[str, Any] = field(default_factory=dict)
    text_config: Mapping[str, Any] = field(default_factory=dict)
    architectures: tuple[str, ...] = ()
    model_type: str | None = None
    torch_dtype: str | None = None
    dialect: Dialect = "none"
    platform: str = "cuda"
    embeds: bool = False
    sources: tuple[Source, ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def quantized(self) -> bool:
        """Whether vLLM sees a quantization method."""
        return self.method is not None

    @property
    def nested(self) -> bool:
        """Whether the quantization dict sits in the text config, where vLLM looks for fewer things."""
        return self.config_source is not None and self.config_source.field.startswith("text_config.")

    def source_of(self, name: str) -> Source | None:
        """Where the field ``name`` of the quantization dict stands; None when there is no quantization dict."""
        if self.config_source is None:
            return None
        path = f"{self.config_source.field}.{name}" if self.config_source.field else name
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return Source(self.config_source.file, path, value)
