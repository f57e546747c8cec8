"""What a hand-written loop knows while it handles one tensor, and the conditions its steps ask.

The conditions are those of :mod:`core.architectures.loops`. They behave as Python would: a variable that holds None
raises where vLLM's own line raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.backends.kv_method import EngineError, ScaleParameter

Condition = Sequence[Any]


class Surroundings(Protocol):
    """What a loop sees of the model and the engine. Names are relative to the module that loads itself."""

    @property
    def cls(self) -> str:
        """The module's class."""
        ...

    @property
    def parameters(self) -> frozenset[str]:
        """The names of all parameters below the module."""
        ...

    @property
    def quantized(self) -> bool | None:
        """Whether the module holds a quantization config; None where it has no such attribute."""
        ...

    @property
    def method(self) -> str | None:
        """The quantization method."""
        ...

    @property
    def knows_output_scales(self) -> bool:
        """Whether ``get_cache_scale`` exists and knows output scales."""
        ...

    @property
    def guarded(self) -> bool:
        """Whether ``maybe_remap_kv_scale_name`` leaves names of parameters alone."""
        ...

    @property
    def has_mla(self) -> bool:
        """Whether the model has MLA layers."""
        ...

    def scale(self, name: str) -> ScaleParameter | None:
        """The scale parameter of that name; None where it is another parameter."""
        ...

    def config(self, name: str) -> Any:
        """A field of the language model's config."""
        ...

    def is_draft(self, name: str) -> bool:
        """Whether a name belongs to a layer of the draft (MTP) model."""
        ...


@dataclass(slots=True, kw_only=True)
class LoopState:
    """One tensor on its way: names by variable, flags, the table's row, the parameter looked up, the tensor's shape."""

    around: Surroundings
    shape: tuple[int, ...]
    names: dict[str, str | None]
    flags: dict[str, bool] = field(default_factory=dict)
    row: tuple[str, str] = ("", "")
    parameter: str | None = None

    def text(self, variable: str, does: str = "in") -> str:
        """The name a variable holds. Raises what Python raises when it is None and the loop ``does`` that with it."""
        value = self.names.get(variable)
        if value is None:
            if does == "in":
                raise EngineError("TypeError", "argument of type 'NoneType' is not iterable")
            raise EngineError("AttributeError", f"'NoneType' object has no attribute '{does}'")
        return value

    def part(self, text: str) -> str:
        """A literal of the loop, with the row's own texts filled in."""
        return text.replace("<old>", self.row[0]).replace("<new>", self.row[1]) if "<" in text else text

    @property
    def held(self) -> ScaleParameter | None:
        """The parameter looked up, where it is a scale."""
        return self.around.scale(self.parameter) if self.parameter is not None else None

    def holds(self, condition: Condition) -> bool:
        """Whether a condition is true. Raises EngineError where asking raises."""
        word, *operands = condition
        return _CONDITIONS[word](self, *operands)


def _in(state: LoopState, text: str, variable: str) -> bool:
    return state.part(text) in state.text(variable)


def _starts(state: LoopState, variable: str, texts: Sequence[str]) -> bool:
    return state.text(variable, "startswith").startswith(tuple(map(state.part, texts)))


def _ends(state: LoopState, variable: str, texts: Sequence[str]) -> bool:
    return state.text(variable, "endswith").endswith(tuple(map(state.part, texts)))


def _is(state: LoopState, variable: str, text: str) -> bool:
    return state.names.get(variable) == text


def _present(state: LoopState, variable: str) -> bool:
    return state.names.get(variable) in state.around.parameters


def _set(state: LoopState, variable: str) -> bool:
    return state.names.get(variable) is not None


def _plain(state: LoopState) -> bool:
    scale = state.held
    return scale is None or not scale.has_loader


def _quantized(state: LoopState) -> bool:
    if state.around.quantized is None:
        raise EngineError("AttributeError", f"'{state.around.cls}' object has no attribute 'quant_config'")
    return state.around.quantized


_CONDITIONS: dict[str, Callable[..., bool]] = {
    "always": lambda _: True,
    "never": lambda _: False,
    "not": lambda state, inner: not state.holds(inner),
    "all": lambda state, *parts: all(state.holds(part) for part in parts),
    "any": lambda state, *parts: any(state.holds(part) for part in parts),
    "in": _in,
    "starts": _starts,
    "ends": _ends,
    "is": _is,
    "present": _present,
    "set": _set,
    "flag": lambda state, variable: state.flags.get(variable, False),
    "found": lambda state: state.parameter is not None,
    "plain": _plain,
    "quantized": _quantized,
    "config": lambda state, name: bool(state.around.config(name)),
    "draft": lambda state: state.around.is_draft(state.text("name", "startswith")),
    "without mla": lambda state: not state.around.has_mla,
    "row": lambda state, which, text: state.row[which == "new"] == text,
}
