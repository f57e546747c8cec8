"""Follows one tensor's name through a hand-written load loop of SGLang."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from core.backends.kv_method import EngineError
from core.engines.sglang.helper import HELPER, maybe_remap_kv_scale_name
from core.engines.sglang.steps import (
    Add,
    CacheScale,
    Call,
    Experts,
    Layers,
    One,
    Raise,
    Regex,
    Remap,
    Replace,
    Skip,
    Stacked,
    Take,
)
from core.engines.sglang.steps import Step as LoopStep
from core.naming.mapper import Rule, RuleKind, Step
from core.wording import say

_LAYER = re.compile(r"layers\.([0-9]{1,9})\.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """One class's loop. ``by`` is the class's name, ``source`` the file it was read from."""

    by: str
    source: str
    steps: tuple[LoopStep, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Where a name ended.

    ``parameter`` is the parameter it reached. Without one: ``warned`` says that the engine says so in its log,
    ``error`` is the exception it raises, ``name`` the last full name it looked for. ``reason`` is for people.
    """

    parameter: str | None = None
    name: str | None = None
    steps: tuple[Step, ...] = ()
    warned: bool = False
    error: EngineError | None = None
    reason: str = ""


class _End(Exception):
    """The name ends without a parameter."""

    def __init__(self, reason: str, *, warned: bool = False, name: str | None = None) -> None:
        self.reason, self.warned, self.name = reason, warned, name


@dataclass(frozen=True, kw_only=True)
class Walk:
    """A loop and the parameters it sees. ``exists`` answers for full names; ``experts`` gives the number of experts a
    config field holds; ``layers`` is the number of decoder layers (None: not known, nothing is cut off);
    ``quantization`` is the class of the quantization config (None: not quantized).
    """

    loops: Mapping[str, Loop]
    root: str
    exists: Callable[[str], bool]
    layers: int | None
    experts: Callable[[Sequence[str]], int | None]
    quantization: str | None = None

    def follow(self, name: str, values: tuple[float, ...] = ()) -> Arrival:
        """Where ``name`` ends; ``values`` are the tensor's, which one kind of step looks at."""
        path = _Path(self, name, values)
        try:
            parameter = path.run(self.loops[self.root], "")
        except _End as end:
            return Arrival(name=end.name, steps=tuple(path.steps), warned=end.warned, reason=end.reason)
        except EngineError as error:
            return Arrival(name=path.full, steps=tuple(path.steps), error=error, reason=path.why or str(error))
        return Arrival(parameter=parameter, name=parameter, steps=tuple(path.steps))


class _Path:
    """One name on its way. ``below`` is the submodule whose loop runs, with its dot; names are relative to it."""

    def __init__(self, walk: Walk, name: str, values: tuple[float, ...]) -> None:
        self.walk = walk
        self.name = name
        self.values = values
        self.below = ""
        self.steps: list[Step] = []
        self.why = ""

    @property
    def full(self) -> str:
        return self.below + self.name

    def exists(self, name: str) -> bool:
        return self.walk.exists(self.below + name)

    def run(self, loop: Loop, below: str) -> str:
        """The full name of the parameter the loop writes. Raises _End or EngineError."""
        self.below += below
        for step in loop.steps:
            found = self._step(step, loop)
            if found is not None:
                return found
        raise _End(say("{loader} has no use for it", loader=loop.by), name=self.full)

    def _step(self, step: LoopStep, loop: Loop) -> str | None:
        """One step: the parameter's full name where the name is at its end, None where it goes on."""
        match step:
            case Skip() | Layers() | One() | Raise():
                self._may_end(step, loop)
            case Replace() | Regex() | Add():
                self._spell(step, loop)
            case Remap():
                return self._remap(step, loop)
            case Stacked():
                return self._stacked(step, loop)
            case Experts():
                return self._experts(step, loop)
            case CacheScale():
                return self._cache_scale(loop)
            case Call():
                return self._call(step)
            case Take(absent):
                return self._take(absent, loop)
        return None

    def _may_end(self, step: Skip | Layers | One | Raise, loop: Loop) -> None:
        """The steps at which some names end."""
        if isinstance(step, Layers):
            self._layers(step.below, loop)
        elif step.where.fits(self.name, self.exists):
            match step:
                case Skip():
                    raise _End(say("{loader}'s load_weights passes over such names", loader=loop.by), name=self.full)
                case One():
                    self._one()
                case Raise(error):
                    self.why = say("{loader} does not take a checkpoint with such names", loader=loop.by)
                    raise EngineError(*error.split(": ", 1))

    def _spell(self, step: Replace | Regex | Add, loop: Loop) -> None:
        """The steps that only change the name."""
        match step:
            case Replace():
                self._replace(step, loop)
            case Regex(pattern, new):
                self._rename(re.sub(pattern, new, self.name), RuleKind.REGEX, pattern, new, loop)
            case Add(prefix, where):
                if where.fits(self.name, self.exists):
                    self._rename(prefix + self.name, RuleKind.PREFIX, "", prefix, loop)

    def _rename(self, after: str, kind: RuleKind, old: str, new: str, loop: Loop) -> None:
        if after != self.name:
            self.steps.append(Step(Rule(kind, old, new, source=loop.source), self.name, after, loop.by))
            self.name = after

    def _replace(self, step: Replace, loop: Loop) -> None:
        if not step.where.fits(self.name, self.exists):
            return
        match step.at:
            case "anywhere":
                self._rename(self.name.replace(step.old, step.new), RuleKind.SUBSTR, step.old, step.new, loop)
            case "start" if self.name.startswith(step.old):
                rest = self.name.removeprefix(step.old)
                self._rename(step.new + rest, RuleKind.PREFIX, step.old, step.new, loop)
            case "end" if self.name.endswith(step.old):
                rest = self.name.removesuffix(step.old)
                self._rename(rest + step.new, RuleKind.SUFFIX, step.old, step.new, loop)

    def _layers(self, below: str | None, loop: Loop) -> None:
        count = self.walk.layers
        if count is None:
            return
        if below is not None:
            parts = self.name.split(".")
            number = parts[below.count(".") + 1] if self.name.startswith(below) and below else ""
            outside = re.fullmatch(r"[0-9]{1,9}", number) is not None and int(number) >= count
        else:
            found = _LAYER.search(self.name)
            outside = found is not None and int(found.group(1)) >= count
        if outside:
            reason = say("{loader} passes over layers behind the model's {count}", loader=loop.by, count=count)
            raise _End(reason, name=self.full)

    def _remap(self, step: Remap, loop: Loop) -> str | None:
        if not step.where.fits(self.name, self.exists):
            return None
        remapped = maybe_remap_kv_scale_name(self.name, self.exists, by=loop.by)
        if remapped.step is not None:
            self.steps.append(remapped.step)
        if remapped.name is None:
            wanted = remapped.step.after if remapped.step is not None else self.name
            wanted = f"{self.below}{wanted}"
            reason = say(
                "{helper} looks for {name}, which is no parameter: left out with one warning",
                helper=HELPER,
                name=wanted,
            )
            raise _End(reason, warned=True, name=wanted)
        changed = remapped.name != self.name
        self.name = remapped.name
        if not changed or step.changed == "go on":
            return None
        if step.changed == "end":
            reason = say("{loader} asks {helper} and then leaves the tensor out", loader=loop.by, helper=HELPER)
            raise _End(reason, name=self.full)
        return self._look_up(loop)

    def _stacked(self, step: Stacked, loop: Loop) -> str | None:
        for part, fused in step.names:
            if part not in self.name:
                continue
            if step.unless is not None and step.unless.fits(self.name, self.exists):
                continue
            before = self.name
            kept = len(self.steps)
            self._rename(self.name.replace(part, fused), RuleKind.STACKED, part, fused, loop)
            if self.exists(self.name):
                return self.full
            match step.absent:
                case "raise":
                    return self._look_up(loop)
                case "skip":
                    reason = say("{loader} finds no {name} and leaves the tensor out", loader=loop.by, name=self.full)
                    raise _End(reason, name=self.full)
                case "go on" if step.keeps:
                    self.name = before
                    del self.steps[kept:]
        return None

    def _experts(self, step: Experts, loop: Loop) -> str | None:
        parts = "|".join(re.escape(part) for part in (step.gate, step.down, step.up) if part)
        found = re.search(rf"experts\.([0-9]{{1,9}})\.({parts})\.", self.name)
        if found is None or (step.unless is not None and step.unless.fits(self.name, self.exists)):
            return None
        count = self.walk.experts(step.count)
        if count is not None and int(found.group(1)) >= count:
            return None
        fused = "experts.w2_" if found.group(2) == step.down else "experts.w13_"
        old = found.group(0)
        self._rename(self.name.replace(old, fused), RuleKind.STACKED, old, fused, loop)
        if self.exists(self.name):
            return self.full
        if step.absent == "raise":
            return self._look_up(loop)
        if step.absent == "skip":
            reason = say("{loader} leaves out expert tensors it has no parameter for", loader=loop.by)
            raise _End(reason, name=self.full)
        return None

    def _cache_scale(self, loop: Loop) -> str | None:
        config = self.walk.quantization
        if config is None:
            return None
        if config != "CompressedTensorsConfig":
            self.why = say(
                "{loader} asks {config} for cache scales, which only compressed-tensors' config can name",
                loader=loop.by,
                config=config,
            )
            raise EngineError("AttributeError", f"'{config}' object has no attribute 'get_cache_scale'")
        for role in ("k", "v"):
            if self.name.endswith(".output_scale") and f".{role}_proj" in self.name:
                old, new = f".{role}_proj.output_scale", f".attn.{role}_scale"
                self._rename(self.name.replace(old, new), RuleKind.SUFFIX, old, new, loop)
                return self._look_up(loop)
        return None

    def _one(self) -> None:
        if len(self.values) != 1:
            self.why = say("{name} does not exist, and a scale left out must be one number", name=self.full)
            raise EngineError("RuntimeError", "a Tensor with several elements cannot be converted to Scalar")
        if not abs(self.values[0] - 1.0) < 1e-6:
            self.why = say("{name} does not exist, and a scale left out must be 1.0", name=self.full)
            raise EngineError("AssertionError", f"Expected 1.0, got {self.values[0]} in skipped {self.name}")
        raise _End(say("it is 1.0, and nothing of that name exists: left out"), name=self.full)

    def _call(self, step: Call) -> str | None:
        if not step.where.fits(self.name, self.exists):
            return None
        if step.strip:
            self.name = self.name.removeprefix(step.strip)
        return self.run(self.walk.loops[step.loop], step.below)

    def _look_up(self, loop: Loop) -> str:
        if self.exists(self.name):
            return self.full
        self.why = say("{loader} looks up {name}, which is no parameter", loader=loop.by, name=self.full)
        raise EngineError("KeyError", repr(self.name))

    def _take(self, absent: str, loop: Loop) -> str:
        if absent == "raise" or self.exists(self.name):
            return self._look_up(loop)
        if absent == "warn":
            reason = say("{loader} has no parameter {name}: left out with a warning", loader=loop.by, name=self.full)
            raise _End(reason, warned=True, name=self.full)
        reason = say("{loader} has no parameter {name}: left out without a word", loader=loop.by, name=self.full)
        raise _End(reason, name=self.full)
