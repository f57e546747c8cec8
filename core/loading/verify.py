"""``verify``: runs the loader over a checkpoint on a device and compares what the layers hold with the prediction."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from core.engines import get_engine
from core.engines.outcome import Deliveries
from core.engines.vllm.engine import Vllm
from core.engines.vllm.predict import Setup, predict
from core.errors import UsageError
from core.loading import compare
from core.loading.attention import Attention
from core.loading.devices import Device, device_fault, device_faults, find_device
from core.loading.skeleton import DTYPES, attention_layers, build_skeleton
from core.loading.tensors import read_tensors
from core.loading.verification import Disagreement, HeldLayer, HeldWeights, Step, Verification, brief
from core.loading.weights import check_weights
from core.progress import Progress

if TYPE_CHECKING:
    from core.inspection import Inspection

Weights = Literal["scales", "all"]

LOAD_ERRORS = (ValueError, AttributeError, KeyError, AssertionError, RuntimeError, TypeError, IndexError)
"""What a loader raises over a checkpoint; anything else is a fault of this program, and is not caught."""


def verify(
    inspection: Inspection,
    *,
    device: str = "cpu",
    fnuz: bool | None = None,
    weights: Weights = "scales",
    progress: Progress | None = None,
) -> Verification:
    """Load the checkpoint's scales into attention layers on ``device`` and compare them with the prediction.

    ``device`` is "cpu" or "cuda:N". ``fnuz``: pretend that the GPU's float8 type is FNUZ, or that it is not; by default
    the device is asked. ``weights`` "all" loads every tensor of the checkpoint, not only scales and what shares their
    names, and keeps it on the device: the whole model must fit there. The module trees are known for scales' sake, so
    that a model's ordinary tensors may find no place in them: the outcome is then "unknown".

    A load that raises is a result, not an error of this function.

    Raises:
        DeviceError: the device is not there, has not enough memory, or fails.
        UsageError: the inspection's engine has no loader here.
        UnreadableCheckpointError: a file cannot be read any more.
        CancelledError: ``progress`` was cancelled.
    """
    found = find_device(device, path=inspection.checkpoint.path)
    run = _Run(inspection, found, found.fnuz if fnuz is None else fnuz, weights, progress or Progress())
    with device_faults(found, path=inspection.checkpoint.path):
        return run.verify()


def setup_for(inspection: Inspection) -> Setup | None:
    """The model, backend and cache that the inspection's prediction ran on; None for an unknown architecture.

    Raises:
        UsageError: the inspection's engine has no loader here.
    """
    engine = get_engine(str(inspection.settings.engine.value))
    if not isinstance(engine, Vllm) or not engine.verifiable:
        raise UsageError(
            f"the loader that KVScope runs is vLLM 0.33.0's, not {engine.title}'s",
            remedy="Verify with `--engine vllm-0.33.0`",
        )
    return engine.setup(inspection.declaration, inspection.settings, inspection.tensors, inspection.wish)


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


@dataclass(slots=True)
class _Run:
    inspection: Inspection
    device: Device
    fnuz: bool
    weights: Weights
    progress: Progress
    steps: list[Step] = field(default_factory=list)
    _key: str | None = None
    _reading: float = 0.0
    _scales: dict[int, torch.Tensor] = field(default_factory=dict)

    def verify(self) -> Verification:
        predicted = self.inspection.deliveries
        if predicted.load.outcome == "refused":
            return self._result(predicted, outcome="refused", error=predicted.load.error, key=predicted.load.key)
        if predicted.load.outcome == "unknown":
            return self._result(predicted, outcome="unknown", reason=predicted.load.reason)
        setup = setup_for(self.inspection)
        if setup is None:
            return self._result(predicted, outcome="unknown", reason="the model's module tree is not known")
        if self.fnuz != setup.cache.fnuz:
            setup = replace(setup, cache=replace(setup.cache, fnuz=self.fnuz))
            predicted = predict(setup, self.inspection.tensors)
        return self._load(setup, predicted)

    def _load(self, setup: Setup, predicted: Deliveries) -> Verification:
        target = torch.device(self.device.id)
        self.progress.start("Building the attention layers", total=len(setup.layers), unit="layers")
        try:
            with self._step("build") as step:
                model = build_skeleton(setup, home=target, whole=self.weights == "all", progress=self.progress)
                layers = list(attention_layers(model))
                step.detail = f"{len(layers):,} attention layers among {compare.module_count(model):,} modules"
        except NotImplementedError as error:
            return self._result(predicted, outcome="unknown", reason=str(error))
        if target.type != "cpu":
            with self._step("move") as step:
                for _, layer in layers:
                    layer.to(target)
                step.detail = f"scale parameters and buffers to {self.device.id}"
        failure, loaded = self._run_loader(model)
        if failure is not None:
            return self._raised(predicted, failure)
        disagreements = _wrong_names(loaded, predicted) if self.weights == "scales" else []
        if predicted.load.outcome == "raises":
            text = f"the load goes through, and should raise {brief(predicted.load.error)} at {predicted.load.key}"
            disagreements.append(Disagreement(None, text))
        held, wrong = self._held(setup, predicted, layers)
        others = None
        if self.weights == "all":
            with self._step("compare weights") as step:
                others, wrong_weights = self._check_weights(model)
                step.detail = f"{others.equal:,} of {others.held:,} tensors bit for bit, {others.size / 1e6:,.1f} MB"
            wrong += wrong_weights
        return replace(
            self._result(predicted, outcome="loads"),
            layers=held,
            weights=others,
            disagreements=(*disagreements, *wrong),
        )

    def _run_loader(self, model: nn.Module) -> tuple[str | None, set[str]]:
        """What the load raised, if anything, and the names it wrote."""
        rows = self._rows()
        self.progress.start("Loading", total=len(rows), unit="tensors")
        error, loaded = None, set[str]()
        begun = time.perf_counter()
        try:
            loaded = model.load_weights(self._stream(rows))  # type: ignore[operator]
        except LOAD_ERRORS as raised:
            if isinstance(raised, RuntimeError) and device_fault(raised, self.device) is not None:
                raise
            error = f"{type(raised).__name__}: {raised}"
        self._synchronize()
        seconds = time.perf_counter() - begun
        self.steps.append(Step("read", self._reading, f"{self.progress.done:,} of {len(rows):,} tensors"))
        self.steps.append(
            Step("load", seconds - self._reading, brief(error) if error else f"{len(loaded):,} parameters written")
        )
        return error, loaded

    def _rows(self) -> list[int]:
        """The catalog rows to read, in the engine's order."""
        if self.weights == "all":
            return list(range(len(self.inspection.checkpoint.catalog)))
        return scale_rows(self.inspection)

    def _stream(self, rows: Sequence[int]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors, one by one; remembers the last, which is the one a loader stumbles over."""
        scales = set(scale_rows(self.inspection))
        tensors = read_tensors(self.inspection.checkpoint, rows)
        for row in rows:
            begun = time.perf_counter()
            self._key, tensor = next(tensors)
            self._reading += time.perf_counter() - begun
            self.progress.advance()
            tensor.key = self._key  # type: ignore[attr-defined]
            if row in scales:
                self._scales[row] = tensor
            yield self._key, tensor

    def _held(
        self, setup: Setup, predicted: Deliveries, layers: Sequence[tuple[str, Attention]]
    ) -> tuple[tuple[HeldLayer, ...], list[Disagreement]]:
        with self._step("read back parameters") as step:
            parameters = compare.parameters_of(layers)
            step.detail = f"{len(parameters):,} parameters from {self.device.id}"
        self.progress.start("Post-processing", total=len(layers), unit="layers")
        with self._step("post-process") as step:
            errors = {path: self._post_process(layer) for path, layer in layers}
            step.detail = f"{sum(error is None for error in errors.values()):,} of {len(layers):,} layers went through"
        with self._step("read back") as step:
            buffers = compare.buffers_of(layers)
            step.detail = f"{len(buffers):,} scales from {self.device.id}"
        with self._step("compare") as step:
            stored = self._stored(setup, predicted)
            found: list[HeldLayer] = []
            wrong: list[Disagreement] = []
            modules = dict(layers)
            for layer in predicted.attention:
                held, of_layer = compare.compare_layer(
                    layer,
                    modules[layer.path],
                    stored_values=stored,
                    parameters=parameters,
                    buffers=buffers,
                    error=errors[layer.path],
                )
                found.append(held)
                wrong += of_layer
            step.detail = f"{sum(len(layer.values) for layer in found):,} values, {len(wrong):,} differ"
        return tuple(found), wrong

    def _post_process(self, layer: Attention) -> str | None:
        self.progress.advance()
        try:
            layer.process_weights_after_loading()
        except LOAD_ERRORS as raised:
            if isinstance(raised, RuntimeError) and device_fault(raised, self.device) is not None:
                raise
            return f"{type(raised).__name__}: {raised}"
        return None

    def _stored(self, setup: Setup, predicted: Deliveries) -> dict[str, compare.Numbers]:
        """For every scale parameter that a tensor should have reached: the numbers of that tensor in its file, the
        last one's where several should.
        """
        parameters = {
            f"{layer.path}.{name}": (parameter, layer.shape)
            for layer in setup.layers
            for name, parameter in layer.parameters.items()
        }
        found = {}
        for delivery, row in zip(predicted.deliveries, scale_rows(self.inspection), strict=True):
            if delivery.target in parameters:
                parameter, shape = parameters[delivery.target]
                found[delivery.target] = compare.stored(parameter, self._scales[row], shape, DTYPES[setup.dtype])
        return found

    def _check_weights(self, model: nn.Module) -> tuple[HeldWeights, list[Disagreement]]:
        scales = set(scale_rows(self.inspection))
        rows = [row for row in self._rows() if row not in scales]
        return check_weights(model, self.inspection.checkpoint, rows, self.progress)

    def _raised(self, predicted: Deliveries, error: str) -> Verification:
        load = predicted.load
        if self.weights == "all" and self._key not in {fed.key for fed in self.inspection.tensors}:
            reason = f"the module tree has no place for {self._key}, which is no KV scale"
            return self._result(predicted, outcome="unknown", key=self._key, reason=reason)
        wrong = []
        if load.outcome != "raises":
            wrong.append(Disagreement(None, f"the load raises {brief(error)} at {self._key}, and should go through"))
        elif not compare.same_error(error, load.error) or self._key != load.key:
            should = f"and should raise {brief(load.error)} at {load.key}"
            wrong.append(Disagreement(None, f"the load raises {brief(error)} at {self._key}, {should}"))
        result = self._result(predicted, outcome="raises", error=error, key=self._key)
        return replace(result, disagreements=tuple(wrong))

    def _result(
        self,
        predicted: Deliveries,
        *,
        outcome: Literal["loads", "raises", "refused", "unknown"],
        error: str | None = None,
        key: str | None = None,
        reason: str = "",
    ) -> Verification:
        return Verification(
            path=str(self.inspection.checkpoint.path),
            engine=get_engine(str(self.inspection.settings.engine.value)).title,
            device=self.device.id,
            device_name=self.device.name,
            fnuz=self.fnuz,
            steps=tuple(self.steps),
            outcome=outcome,
            error=error,
            key=key,
            predicted_outcome=predicted.load.outcome,
            predicted_error=predicted.load.error,
            predicted_key=predicted.load.key,
            reason=reason,
        )

    @contextmanager
    def _step(self, name: str) -> Iterator[_Detail]:
        self.progress.check()
        detail = _Detail()
        begun = time.perf_counter()
        yield detail
        self._synchronize()
        self.steps.append(Step(name, time.perf_counter() - begun, detail.detail))

    def _synchronize(self) -> None:
        if self.device.id != "cpu":
            torch.cuda.synchronize(self.device.id)


@dataclass(slots=True)
class _Detail:
    """What a step did, said by the step itself."""

    detail: str = ""


def _wrong_names(loaded: set[str], predicted: Deliveries) -> list[Disagreement]:
    """Parameters that were written and should not have been, and the other way round."""
    if predicted.load.outcome == "raises":
        return []
    targets = {delivery.target for delivery in predicted.deliveries if delivery.target is not None}
    return [
        *(
            Disagreement(None, f"{name} was written, and no tensor should reach it")
            for name in sorted(loaded - targets)
        ),
        *(Disagreement(None, f"{name} was not written, and one should reach it") for name in sorted(targets - loaded)),
    ]
