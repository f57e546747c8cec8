"""One rank's run of the loader: build, move, load, post-process and read back, each step timed and cancellable."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from core.engines.vllm.predict import Setup
from core.loading import compare
from core.loading.attention import Attention
from core.loading.devices import Device, device_fault
from core.loading.forward import ForwardRun, ForwardWish
from core.loading.observed import Held, Observed
from core.loading.skeleton import DTYPES, attention_layers, build_skeleton
from core.loading.tensors import read_tensors
from core.loading.verification import Step, brief
from core.loading.weights import check_weights
from core.progress import Progress
from core.wording import say

if TYPE_CHECKING:
    from core.inspection import Inspection

Weights = Literal["scales", "all"]
Layers = list[tuple[str, Attention]]

LOAD_ERRORS = (
    ValueError, AttributeError, KeyError, AssertionError, RuntimeError, TypeError, IndexError, ZeroDivisionError,
)  # fmt: skip
"""What a loader raises over a checkpoint; anything else is a fault of this program, and is not caught."""

CHUNK = 16
"""Layers that are post-processed and read back at a time: what is held twice stays small, and a stop is quick."""


@dataclass(slots=True)
class LoaderRun:
    """Loads an inspection's scales into the attention layers of one rank. ``run`` does it once."""

    inspection: Inspection
    setup: Setup
    device: Device
    weights: Weights = "scales"
    progress: Progress = field(default_factory=Progress)
    forward: ForwardWish | None = None
    steps: dict[str, Step] = field(default_factory=dict)
    layers: Layers = field(default_factory=list)
    _key: str | None = None
    _reading: float = 0.0

    def run(self) -> Observed:
        """Every step up to what was read back. What the load itself raises is part of the result.

        Raises:
            DeviceError: by way of :func:`core.loading.devices.device_faults`, around this call.
            UnreadableCheckpointError: a file cannot be read any more.
            CancelledError: ``progress`` was cancelled.
        """
        self._start_device()
        try:
            model = self._build()
        except NotImplementedError as unknown:
            return replace(self._so_far(), unknown=unknown.args[0])
        self._move()
        error, written = self._load(model)
        if error is not None:
            mine = {fed.key for fed in self.inspection.tensors}
            if self.setup.stop is not None:
                mine.add(self.setup.stop.key)
            key = self._key if error != self.setup.at_end else None
            misplaced = self.weights == "all" and key is not None and key not in mine
            return replace(self._so_far(), error=error, key=key, misplaced=misplaced)
        observed = replace(self._read_back(), written=frozenset(written))
        if self.weights == "all":
            observed = self._with_weights(observed, model)
        if self.forward is not None:
            observed = self._with_forward(observed, self.forward)
        return replace(observed, steps=tuple(self.steps.values()), peak_memory=self._peak())

    # ---------------------------------------------------------------------------------------------------------- steps

    def _start_device(self) -> None:
        if self.device.id != "cpu":
            with self.step(say("start device")) as step:
                torch.empty(1, device=self.device.id)
                torch.cuda.reset_peak_memory_stats(self.device.id)
                step.detail = say("{device}: its context, once in a process", device=self.device.name)

    def _build(self) -> nn.Module:
        self.progress.start(say("Building the attention layers"), total=len(self.setup.layers), unit=say("layers"))
        with self.step(say("build")) as step:
            whole = self.weights == "all"
            home = torch.device(self.device.id)
            model = build_skeleton(self.setup, home=home, whole=whole, progress=self.progress)
            self.layers = list(attention_layers(model))
            step.detail = say(
                "{layers:,} attention layers among {modules:,} modules",
                layers=len(self.layers),
                modules=compare.module_count(model),
            )
        return model

    def _move(self) -> None:
        if self.device.id == "cpu":
            return
        self.progress.start(say("Moving to the device"), total=len(self.layers), unit=say("layers"))
        with self.step(say("move")) as step:
            for _, layer in self.layers:
                layer.to(self.device.id)
                self.progress.advance()
            step.detail = say("scale parameters and buffers to {device}", device=self.device.id)

    def _load(self, model: nn.Module) -> tuple[str | None, set[str]]:
        """What the load raised, if anything, and the names it wrote."""
        rows = self._rows()
        self.progress.start(say("Loading"), total=len(rows), unit=say("tensors"))
        error, written = None, set[str]()
        begun = time.perf_counter()
        try:
            written = model.load_weights(self._stream(rows))  # type: ignore[operator]
        except LOAD_ERRORS as raised:
            self._raise_device_fault(raised)
            error = f"{type(raised).__name__}: {raised}"
        self._synchronize()
        seconds = time.perf_counter() - begun
        read = say("{part:,} of {count:,} tensors", part=self.progress.done, count=len(rows))
        self._took(say("read"), self._reading, read)
        loaded = brief(error) if error else say("{count:,} parameters written", count=len(written))
        self._took(say("load"), seconds - self._reading, loaded)
        return error, written

    def _rows(self) -> list[int]:
        """The catalog rows to read, in the engine's order."""
        if self.weights == "all":
            return list(range(len(self.inspection.checkpoint.catalog)))
        rows = scale_rows(self.inspection)
        stop = self.setup.stop
        return rows if stop is None else [*rows[: stop.after], self._row_of(stop.key), *rows[stop.after :]]

    def _row_of(self, key: str) -> int:
        return self.inspection.checkpoint.catalog.rows_of(key)[0]

    def _stream(self, rows: Sequence[int]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors, one by one; remembers the last, which is the one a loader stumbles over."""
        stop = self._row_of(self.setup.stop.key) if self.setup.stop is not None else None
        tensors = read_tensors(self.inspection.checkpoint, [row for row in rows if row != stop])
        for row in rows:
            begun = time.perf_counter()
            # Of the tensor that ends the load its name is enough: it may be the largest of all.
            self._key, tensor = next(tensors) if row != stop else self._unread(row)
            self._reading += time.perf_counter() - begun
            self.progress.advance()
            tensor.key = self._key  # type: ignore[attr-defined]
            yield self._key, tensor

    def _unread(self, row: int) -> tuple[str, torch.Tensor]:
        return self.inspection.checkpoint.catalog.names[row], torch.empty(0, device="meta")

    def _read_back(self) -> Observed:
        """Post-process chunk by chunk; what each layer held before and holds after."""
        self.progress.start(say("Post-processing"), total=len(self.layers), unit=say("layers"))
        parameters: dict[str, Held] = {}
        buffers: dict[str, Held] = {}
        copies: dict[str, float] = {}
        raised: dict[str, str | None] = {}
        for first in range(0, len(self.layers), CHUNK):
            chunk = self.layers[first : first + CHUNK]
            with self.step(say("read back parameters")):
                parameters |= compare.parameters_of(chunk)
            with self.step(say("post-process")):
                raised |= {path: self._post_process(layer) for path, layer in chunk}
            with self.step(say("read back")):
                buffers |= compare.buffers_of(chunk)
                copies |= compare.copies_of(chunk)
        through = sum(error is None for error in raised.values())
        here = self.device.id
        held = say("{count:,} parameters from {device}", count=len(parameters), device=here)
        self._took(say("read back parameters"), 0.0, held)
        passed = say("{part:,} of {count:,} layers went through", part=through, count=len(self.layers))
        self._took(say("post-process"), 0.0, passed)
        self._took(say("read back"), 0.0, say("{count:,} scales from {device}", count=len(buffers), device=here))
        return replace(self._so_far(), parameters=parameters, buffers=buffers, copies=copies, raised=raised)

    def _post_process(self, layer: Attention) -> str | None:
        self.progress.advance()
        try:
            layer.process_weights_after_loading()
        except LOAD_ERRORS as raised:
            self._raise_device_fault(raised)
            return f"{type(raised).__name__}: {raised}"
        return None

    def _with_weights(self, observed: Observed, model: nn.Module) -> Observed:
        scales = set(scale_rows(self.inspection))
        rows = [row for row in self._rows() if row not in scales]
        with self.step(say("compare weights")) as step:
            held, wrong = check_weights(model, self.inspection.checkpoint, rows, self.progress)
            step.detail = say(
                "{part:,} of {count:,} tensors bit for bit, {size:,.1f} MB",
                part=held.equal,
                count=held.held,
                size=held.size / 1e6,
            )
        return replace(observed, weights=held, wrong_weights=tuple(wrong))

    def _with_forward(self, observed: Observed, wish: ForwardWish) -> Observed:
        with self.step(say("attention")) as step:
            run = ForwardRun(
                setup=self.setup,
                wish=wish,
                device=torch.device(self.device.id),
                dtype=DTYPES[self.setup.dtype],
                checkpoint=self.inspection.checkpoint,
                progress=self.progress,
            )
            forward = run.run(self.layers, observed.raised)
            passes = sorted(layer.seconds for layer in forward.measured)
            step.detail = say(
                "{layers:,} layers, {tokens} tokens each, {time:.2f} ms for a pass of a layer"
                if passes
                else "{layers:,} layers, {tokens} tokens each",
                layers=len(passes),
                tokens=forward.tokens,
                time=passes[len(passes) // 2] * 1000 if passes else 0.0,
            )
        return replace(observed, forward=forward)

    # ---------------------------------------------------------------------------------------------------------- helpers

    def _so_far(self) -> Observed:
        return Observed(
            rank=self.setup.tp_rank,
            where=f"{self.device.id} ({self.device.name})",
            steps=tuple(self.steps.values()),
            peak_memory=self._peak(),
        )

    def _raise_device_fault(self, raised: BaseException) -> None:
        if isinstance(raised, RuntimeError) and device_fault(raised, self.device) is not None:
            raise raised

    @contextmanager
    def step(self, name: str) -> Iterator[_Detail]:
        """Times a step; one of the same name before is continued."""
        self.progress.check()
        detail = _Detail()
        begun = time.perf_counter()
        yield detail
        self._synchronize()
        self._took(name, time.perf_counter() - begun, detail.detail)

    def _took(self, name: str, seconds: float, detail: str) -> None:
        before = self.steps.get(name)
        self.steps[name] = Step(name, seconds + (before.seconds if before is not None else 0.0), detail)

    def _synchronize(self) -> None:
        if self.device.id != "cpu":
            torch.cuda.synchronize(self.device.id)

    def _peak(self) -> int | None:
        return torch.cuda.max_memory_reserved(self.device.id) if self.device.id != "cpu" else None


@dataclass(slots=True)
class _Detail:
    """What a step did, said by the step itself."""

    detail: str = ""


def scale_rows(inspection: Inspection) -> list[int]:
    """The catalog rows of the tensors that the prediction follows, in its order."""
    catalog = inspection.checkpoint.catalog
    taken: dict[str, int] = {}
    rows = []
    for fed in inspection.tensors:
        nth = taken.get(fed.key, 0)
        rows.append(catalog.rows_of(fed.key)[nth])
        taken[fed.key] = nth + 1
    return rows
