"""``Verification``: what the loader really did, beside what was predicted. No PyTorch in here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from core.engines.outcome import LoadOutcome
from core.loading.forward_result import Forward
from core.wording import joined, say, without_stop

_LONGEST = 160
"""Characters of an error that a sentence quotes: some list every parameter of a module."""

Against = Literal["prediction", "file"]

State = Literal["loaded", "duplicated", "forced", "dropped", "default", "none"]
"""What a layer's role runs on, as observed: its own tensor; the other role's; 1.0 although a tensor was loaded (a cache
that is not quantized); 1.0 although the checkpoint has a tensor for it, which never arrived; 1.0 because it has none;
and 1.0 because the layer has no such parameter and the checkpoint no such tensor."""


def brief(error: str | None) -> str:
    """An error as a sentence quotes it."""
    if not error:
        return say("nothing")
    text = error.removesuffix(": ")
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rstrip()}..."


def on_rank(rank: int, text: str) -> str:
    """A sentence about one of several ranks; the first one's stands for all."""
    return say("rank {rank}: {text}", rank=rank, text=text) if rank else text


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the run: how long it took, in seconds, and what it did."""

    name: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldValue:
    """One value of one attention layer, read back from the device's memory.

    ``role`` is whose scale it is ("k", "v", "q", "prob"), ``name`` the layer's attribute: a parameter just after
    loading ("k_scale", compared with the checkpoint's own tensor in the parameter's dtype), a buffer that the kernels
    read ("_k_scale") or the host's copy of it ("_k_scale_float"), both compared with the prediction. ``expected`` and
    ``held`` have one number, or one for each key/value head; ``held`` is empty where the layer has no such attribute.
    ``equal`` is exact; NaN equals NaN. ``max_error`` is the largest absolute difference, NaN where the sizes differ or
    only one side is a number. ``rank`` is the tensor-parallel rank that holds it.
    """

    layer_path: str
    role: str
    name: str
    against: Against
    expected: tuple[float, ...]
    held: tuple[float, ...]
    equal: bool
    dtype: str
    max_error: float
    rank: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldLayer:
    """One attention layer after loading, on one rank. ``error`` is what post-processing raised, ``expected_error`` what
    it should have raised; both None where it went through. ``states`` says for each role what the layer runs on.
    """

    path: str
    values: tuple[HeldValue, ...]
    error: str | None = None
    expected_error: str | None = None
    agreed: bool = True
    rank: int = 0
    states: Mapping[str, State] = field(default_factory=lambda: MappingProxyType({}))

    def runs_on(self, role: str) -> tuple[float, ...]:
        """What the kernels read for a role: one number, or one for each key/value head; () where it is not known."""
        name = f"_{role}_scale"
        return next((value.held for value in self.values if value.name == name), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldWeights:
    """Every tensor of the checkpoint that is no KV scale, when whole checkpoints are loaded.

    ``held`` tensors of ``total`` arrived at a parameter, ``equal`` of them are there bit for bit; ``size`` is in bytes.
    ``left_out`` are the keys that no parameter took: a rule dropped them, or a loader skipped them.
    """

    total: int
    held: int
    equal: int
    size: int
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Where the run contradicts the prediction; ``layer_path`` is None where it concerns the whole load.

    ``role`` and the numbers are given where a value differs. ``step`` is where the two parted: "read" (the file's
    numbers are not those that the prediction followed), "load", "post-process", or "device" (what lies in the device's
    memory is not what the host put there).
    """

    layer_path: str | None
    text: str
    role: str = ""
    step: str = ""
    expected: tuple[float, ...] = ()
    held: tuple[float, ...] = ()
    rank: int = 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The loader's run over one checkpoint.

    ``outcome``, ``error`` and ``key`` are what the run did: "loads"; "raises", with the exception and the tensor it
    came at; "refused", where the engine builds no model and there is nothing to run; "unknown", where KVScope cannot
    build it, and ``reason`` says why. ``predicted_error`` and ``predicted_key`` are what the prediction says.
    ``agreed``: the run did what was predicted, in every layer ("unknown" never agrees, and contradicts nothing).
    ``peak_memory`` is the most that PyTorch took from the device at once, in bytes (on the rank that took most, without
    the device's own context); None on the CPU. ``tensor_parallel`` is the number of ranks, whose layers all stand in
    ``layers``; with several, ``ranks`` says where each of them ran. ``forward`` is what the scales cost the attention
    output, where that was asked for. ``confirmed`` is the prediction's: False where no run of the engine has confirmed
    the modules that were built here.
    """

    path: str
    engine: str
    device: str
    device_name: str
    fnuz: bool
    steps: tuple[Step, ...]
    outcome: LoadOutcome
    error: str | None = None
    key: str | None = None
    predicted_outcome: LoadOutcome = "loads"
    predicted_error: str | None = None
    predicted_key: str | None = None
    reason: str = ""
    layers: tuple[HeldLayer, ...] = ()
    weights: HeldWeights | None = None
    disagreements: tuple[Disagreement, ...] = ()
    peak_memory: int | None = None
    tensor_parallel: int = 1
    ranks: tuple[str, ...] = ()
    forward: Forward | None = None
    confirmed: bool = True

    @property
    def agreed(self) -> bool:
        return self.outcome != "unknown" and not self.disagreements

    @property
    def sound(self) -> bool:
        """Whether the engine loads the checkpoint so, on every rank and in every layer, predicted or not."""
        return self.outcome == "loads" and all(layer.error is None for layer in self.layers)

    @property
    def held(self) -> tuple[HeldValue, ...]:
        """Every value of every layer, in module order."""
        return tuple(value for layer in self.layers for value in layer.values)

    @property
    def layers_total(self) -> int:
        return len(self.layers)

    @property
    def layers_agreed(self) -> int:
        return sum(layer.agreed for layer in self.layers)

    @property
    def seconds(self) -> float:
        return sum(step.seconds for step in self.steps)

    @property
    def where(self) -> str:
        """For people: ``cuda:0 (NVIDIA H200)``."""
        if len(self.ranks) > 1 and self.device != "cpu":
            last = self.ranks[-1].partition(" ")[0]
            return say("{first} to {last} ({device})", first=self.device, last=last, device=self.device_name)
        return f"{self.device} ({self.device_name})"

    @property
    def text(self) -> str:
        """The result in a sentence or two."""
        if self.outcome == "unknown":
            return say("Not verified: {reason}.", reason=self.reason)
        if self.outcome == "refused":
            return say(
                "{engine} refuses to build this model, so that nothing was loaded: {error} ({reason})."
                if self.reason
                else "{engine} refuses to build this model, so that nothing was loaded: {error}.",
                engine=self.engine,
                error=brief(without_stop(self.error or "")),
                reason=self.reason,
            )
        if self.disagreements:
            return say(
                "Contradicted on {device}: {first} ({count} in all)."
                if len(self.disagreements) > 1
                else "Contradicted on {device}: {first}.",
                device=self.where,
                first=self.disagreements[0].text,
                count=len(self.disagreements),
            )
        if self.outcome == "raises":
            return say(
                "Observed on {device}: the load raises {error} at {key}, as predicted."
                if self.key is not None
                else "Observed on {device}: after the last tensor the load raises {error}, as predicted.",
                device=self.where,
                error=brief(self.error),
                key=self.key,
            )
        failing = [layer.error for layer in self.layers if layer.error is not None]
        if failing:
            return say(
                "Observed on {device}: the tensors load, and then {part} of {count} attention layers raise {error}, as "
                "predicted.",
                device=self.where,
                part=len(failing),
                count=self.layers_total,
                error=brief(failing[0]),
            )
        return self._as_predicted()

    def _as_predicted(self) -> str:
        layers = say(
            "all {count} attention layers on each of {ranks} ranks"
            if self.tensor_parallel > 1
            else "all {count} attention layers",
            count=self.layers_total // self.tensor_parallel,
            ranks=self.tensor_parallel,
        )
        found = say(
            "Observed on {device}: {layers} hold what was predicted ({values:,} values, compared exactly)."
            if self.weights is None
            else "Observed on {device}: {layers} hold what was predicted ({values:,} values, compared exactly); "
            "{tensors:,} other tensors arrived bit for bit.",
            device=self.where,
            layers=layers,
            values=len(self.held),
            tensors=self.weights.equal if self.weights is not None else 0,
        )
        doubt = "" if self.confirmed else say("No run of the engine has confirmed the modules themselves.")
        return joined(" ", (found, doubt))
