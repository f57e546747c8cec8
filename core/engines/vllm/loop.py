"""Runs a hand-written loader, given as steps, on one tensor (:mod:`core.architectures.loops`)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.architectures.loops import LoopLoader, Steps
from core.backends.kv_method import EngineError
from core.engines.vllm.loop_state import Condition, LoopState, Surroundings
from core.engines.vllm.remap import cache_scale, maybe_remap_kv_scale_name
from core.naming.mapper import Rule, RuleKind, Step
from core.wording import say

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "num_moe_experts")
"""Config fields that make a model a mixture of experts."""


@dataclass(frozen=True, slots=True)
class Given:
    """A tensor that a loop hands to a parameter: the parameter's name and the tensor's shape at that moment. ``wraps``
    is the exception the loop makes of one that the parameter raises.
    """

    parameter: str
    shape: tuple[int, ...]
    wraps: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """A tensor that a loop leaves out; ``name`` is what it was called last."""

    name: str | None
    reason: str
    warned: bool = False


class _Next(Exception):
    """``continue``."""


class _Break(Exception):
    """``break``."""


class _Loaded(Exception):
    """The tensor was handed to a parameter."""


class _Foreign(Exception):
    """The steps for other tensors than scales begin."""


_WORDS: dict[str, Callable[..., None]] = {}


def _word(word: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def keep(function: Callable[..., None]) -> Callable[..., None]:
        _WORDS[word] = function
        return function

    return keep


class LoopRun:
    """One tensor on its way through one loop. ``trace`` receives every renaming."""

    def __init__(
        self, loader: LoopLoader, around: Surroundings, name: str, shape: tuple[int, ...], trace: list[Step]
    ) -> None:
        self._loader = loader
        self._around = around
        self._state = LoopState(around=around, shape=shape, names={"name": name})
        self._trace = trace
        self._warned = False
        self._wraps = ""

    def rename(self) -> str | None:
        """The tensor's name after steps that only rename; None where they leave it out. Raises EngineError as the
        engine does.
        """
        try:
            self._steps(self._loader.steps)
        except _Next:
            return None
        return self._state.text("name")

    def run(self) -> Given | Left:
        """Where the tensor ends. Raises EngineError as the engine does."""
        cls = self._around.cls
        try:
            self._steps(self._loader.steps)
        except _Loaded:
            return Given(str(self._state.parameter), self._state.shape, self._wraps)
        except _Foreign:
            return Left(self._last, say("{loader} takes such tensors apart for other layers", loader=cls))
        except _Next:
            pass
        if self._warned:
            asked = self._trace[-1].after if self._trace else self._last
            reason = say(
                "{loader} asks maybe_remap_kv_scale_name, whose answer {asked!r} is no parameter: skipped with one "
                "warning",
                loader=cls,
                asked=asked,
            )
            return Left(asked, reason, warned=True)
        return Left(self._last, say("{loader} skips names it has no parameter for", loader=cls))

    @property
    def _last(self) -> str | None:
        return self._state.names["name"]

    def _rename(self, variable: str, before: str, after: str, old: str, new: str) -> None:
        self._state.names[variable] = after
        if before != after:
            rule = Rule(RuleKind.STACKED, old, new, source=self._loader.source)
            self._trace.append(Step(rule, before, after, self._around.cls))

    def _steps(self, steps: Steps) -> None:
        for word, *operands in steps:
            _WORDS[word](self, *operands)

    # ------------------------------------------------------------------------------------------------------------- flow
    @_word("next")
    def _next(self) -> None:
        raise _Next

    @_word("break")
    def _break(self) -> None:
        raise _Break

    @_word("foreign")
    def _foreign(self) -> None:
        raise _Foreign

    @_word("experts")
    def _experts(self) -> None:
        if any(self._around.config(name) for name in _EXPERTS):
            self._state.text("name")

    @_word("if")
    def _if(self, condition: Condition, then: Steps, otherwise: Steps = ()) -> None:
        self._steps(then if self._state.holds(condition) else otherwise)

    @_word("rows")
    def _rows(self, rows: Sequence[Sequence[Any]], steps: Steps, otherwise: Steps = ()) -> None:
        for old, new, *when in rows:
            if when and not self._state.holds(when[0]):
                continue
            self._state.row = (old, new)
            try:
                self._steps(steps)
            except _Next:
                continue
            except _Break:
                return
        self._steps(otherwise)

    @_word("once")
    def _once(self, steps: Steps) -> None:
        try:
            self._steps(steps)
        except _Next:
            return

    @_word("listed")
    def _listed(self, variable: str) -> None:
        if self._state.names.get(variable) is None:
            raise EngineError("TypeError", "sequence item 1: expected str instance, NoneType found")

    @_word("first match")
    def _first_match(self, rows: Sequence[Sequence[str]], error: str) -> None:
        before = self._state.text("name", "__str__")
        for pattern, new in rows:
            if re.fullmatch(pattern, before):
                self._rename("name", before, re.sub(pattern, new, before), pattern, new)
                return
        raise EngineError("ValueError", f"{error} {before}")

    @_word("try")
    def _try(self, steps: Steps, error: str) -> None:
        self._wraps = error
        try:
            self._steps(steps)
        except EngineError as inside:
            raise EngineError(error, str(inside)) from inside

    @_word("by method")
    def _by_method(self, variants: Mapping[str, Steps]) -> None:
        self._steps(variants.get(self._around.method or "", variants[""]))

    # ------------------------------------------------------------------------------------------------------------ names
    @_word("take")
    def _take(self) -> None:
        if self._state.row[0] not in self._state.text("name"):
            raise _Next
        self._replace("name", "name", "<old>", "<new>")

    @_word("replace")
    def _replace(self, to: str, source: str, old: str, new: str, count: int = -1) -> None:
        before = self._state.text(source, "replace")
        old, new = self._state.part(old), self._state.part(new)
        self._rename(to, before, before.replace(old, new, count), old, new)

    @_word("prefix")
    def _prefix(self, to: str, source: str, text: str) -> None:
        before = self._state.text(source, "__add__")
        self._rename(to, before, text + before, "", text)

    @_word("suffix")
    def _suffix(self, to: str, source: str, text: str) -> None:
        before = self._state.text(source, "__add__")
        self._rename(to, before, before + text, "", text)

    @_word("copy")
    def _copy(self, to: str, source: str) -> None:
        self._state.names[to] = self._state.names.get(source)

    @_word("flag")
    def _flag(self, variable: str, value: bool) -> None:
        self._state.flags[variable] = value

    @_word("cache scale")
    def _cache_scale(self, to: str) -> None:
        name = self._state.text("name", "endswith")
        self._state.names[to] = None
        if self._around.knows_output_scales and (step := cache_scale(name, by=self._around.cls)) is not None:
            self._trace.append(step)
            self._state.names[to] = step.after

    @_word("output scale")
    def _output_scale(self, steps: Steps) -> None:
        if not self._state.holds(["quantized"]):
            return
        self._cache_scale("scale_name")
        if self._state.names["scale_name"] is not None:
            self._look_up("scale_name")
            self._steps(steps)
            self._load("tensor")

    @_word("remap")
    def _remap(self, to: str = "", source: str = "name") -> None:
        around = self._around
        new, step = maybe_remap_kv_scale_name(
            self._state.text(source, "endswith"),
            around.parameters,
            mla=around.has_mla,
            by=around.cls,
            guarded=around.guarded,
        )
        if step is not None:
            self._trace.append(step)
        self._state.names[to or "name"] = new
        self._warned = new is None
        if new is None and not to:
            raise _Next

    @_word("skip absent")
    def _skip_absent(self, *endings: str) -> None:
        name = self._state.text("name", "endswith") if endings else self._state.names["name"]
        if name not in self._around.parameters and (not endings or str(name).endswith(endings)):
            raise _Next

    # --------------------------------------------------------------------------------------------- parameter and tensor
    @_word("look up")
    def _look_up(self, variable: str, or_none: str = "") -> None:
        name = self._state.names.get(variable)
        self._state.parameter = name if name in self._around.parameters else None
        if self._state.parameter is None and not or_none:
            raise EngineError("KeyError", f"{name!r}")

    @_word("loader")
    def _loader_of(self) -> None:
        """Nothing can go wrong: a parameter without a loader gets the default one."""

    @_word("own loader")
    def _own_loader(self) -> None:
        if (scale := self._state.held) is not None and not scale.has_loader:
            raise EngineError("AttributeError", "'Parameter' object has no attribute 'weight_loader'")

    @_word("element")
    def _element(self, of_a_list: str = "") -> None:
        shape = self._state.shape
        if not shape and of_a_list:
            return
        if not shape:
            hint = "Use `tensor.item()` in Python or `tensor.item<T>()` in C++ to convert a 0-dim tensor to a number"
            raise EngineError("IndexError", f"invalid index of a 0-dim tensor. {hint}")
        if shape[0] == 0:
            raise EngineError("IndexError", "index 0 is out of bounds for dimension 0 with size 0")
        self._state.shape = shape[1:]

    @_word("one element")
    def _one_element(self) -> None:
        if (count := math.prod(self._state.shape)) != 1:
            raise EngineError("AssertionError", f"KV scale numel {count} != 1")

    @_word("one value")
    def _one_value(self) -> None:
        name, shape = self._state.names["scale_name"], list(self._state.shape)
        if math.prod(shape) != 1:
            raise EngineError(
                "ValueError",
                f"KV cache scale {name!r} is expected to be a scalar, but got a tensor of shape torch.Size({shape}).",
            )
        self._state.shape = ()

    @_word("first value")
    def _first_value(self) -> None:
        if math.prod(self._state.shape) > 1:
            self._state.shape = ()

    @_word("squeeze")
    def _squeeze(self) -> None:
        self._state.shape = tuple(size for size in self._state.shape if size != 1)

    @_word("split")
    def _split(self) -> None:
        if not self._state.shape:
            raise EngineError("IndexError", "tuple index out of range")
        if self._state.shape[0] == 1:
            raise EngineError("AssertionError")

    @_word("load")
    def _load(self, how: str) -> None:
        if how == "shard" and (scale := self._state.held) is not None:
            raise EngineError("TypeError", scale.with_a_shard)
        raise _Loaded

    @_word("give")
    def _give(self, how: str) -> None:
        self._look_up("name")
        if how == "shard":
            self._own_loader()
        if how == "either":
            how = "tensor" if self._state.holds(["plain"]) else "shard"
        self._load(how)
