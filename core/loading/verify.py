"""``verify``: runs the loader over a checkpoint on a device and compares what the layers hold with the prediction."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch

from core.engines import get_engine
from core.engines.outcome import Deliveries, LoadResult
from core.engines.vllm.predict import Setup, predict
from core.errors import UsageError
from core.loading import compare
from core.loading.claims import claims
from core.loading.devices import Device, device_faults, find_device
from core.loading.forward import ForwardWish
from core.loading.forward_result import ForwardOptions
from core.loading.observed import Numbers, Observed
from core.loading.parallel import rank_refusal, run_ranks
from core.loading.run import LOAD_ERRORS, LoaderRun, Weights, scale_rows
from core.loading.setup import setup_for
from core.loading.skeleton import DTYPES
from core.loading.tensors import read_tensors
from core.loading.verification import Disagreement, HeldLayer, Step, Verification, brief, on_rank
from core.progress import Progress
from core.wording import say

if TYPE_CHECKING:
    from core.inspection import Inspection


def verify(
    inspection: Inspection,
    *,
    device: str = "cpu",
    fnuz: bool | None = None,
    weights: Weights = "scales",
    tensor_parallel: int = 1,
    forward: ForwardOptions | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Load the checkpoint's scales into attention layers on ``device`` and compare them with the prediction.

    ``device`` is "cpu" or "cuda:N". ``fnuz``: pretend that the GPU's float8 type is FNUZ, or that it is not; by default
    the device is asked. ``weights`` "all" loads every tensor of the checkpoint, not only scales and what shares their
    names, and keeps it on the device: the whole model must fit there. The module trees are known for scales' sake, so
    that a model's ordinary tensors may find no place in them: the outcome is then "unknown".

    ``tensor_parallel`` runs that many ranks, each a process of its own and, with CUDA, on a GPU of its own, counted
    from ``device`` on; every rank's layers are compared with what is predicted for that rank.

    ``forward`` also runs the layers' attention and measures what the scales cost its output.

    A load that raises is a result, not an error of this function.

    Raises:
        DeviceError: the device is not there, has not enough memory, or fails.
        UsageError: the inspection's engine has no loader here, or options do not go together.
        UnreadableCheckpointError: a file cannot be read any more.
        CancelledError: ``progress`` was cancelled.
    """
    if tensor_parallel < 1:
        problem = say("{ranks} ranks cannot load anything", ranks=tensor_parallel)
        raise UsageError(problem, remedy=say("Give --tensor-parallel 1 or more"))
    if tensor_parallel > 1 and weights == "all":
        problem = say("several ranks load the scales alone")
        raise UsageError(problem, remedy=say("Leave out --weights all or --tensor-parallel"))
    if tensor_parallel > 1 and forward is not None:
        problem = say("the attention runs on one rank")
        raise UsageError(problem, remedy=say("Leave out --forward or --tensor-parallel"))
    found = find_device(device, path=inspection.checkpoint.path)
    run = _Verifying(
        inspection=inspection,
        device=found,
        fnuz=found.fnuz if fnuz is None else fnuz,
        weights=weights,
        ranks=tensor_parallel,
        forward=forward,
        progress=progress or Progress(),
    )
    with device_faults(found, path=inspection.checkpoint.path):
        return run.verify()


@dataclass(slots=True, kw_only=True)
class _Verifying:
    inspection: Inspection
    device: Device
    fnuz: bool
    weights: Weights
    ranks: int
    forward: ForwardOptions | None
    progress: Progress
    steps: list[Step] = field(default_factory=list)
    _files: dict[int, torch.Tensor] = field(default_factory=dict)

    def verify(self) -> Verification:
        predicted = self.inspection.deliveries
        if predicted.load.outcome == "refused":
            return self._result(predicted, outcome="refused", error=predicted.load.error, key=predicted.load.key)
        if predicted.load.outcome == "unknown":
            return self._result(predicted, outcome="unknown", reason=predicted.load.reason)
        setup = setup_for(self.inspection)
        if setup is None:
            return self._result(predicted, outcome="unknown", reason=say("the model's module tree is not known"))
        refused = rank_refusal(setup, self.ranks)
        if refused is not None:
            error, reason = refused
            on_ranks = replace(predicted, load=LoadResult("refused", error, None, reason))
            return self._result(on_ranks, outcome="refused", error=error, reason=reason)
        if self.fnuz != setup.cache.fnuz:
            setup = replace(setup, cache=replace(setup.cache, fnuz=self.fnuz))
            predicted = predict(setup, self.inspection.tensors)
        if self.ranks == 1:
            run = LoaderRun(self.inspection, setup, self.device, self.weights, self.progress, self._forward(predicted))
            return self._compare([(setup, predicted)], [run.run()])
        setups = [replace(setup, tp_rank=rank, tp_size=self.ranks) for rank in range(self.ranks)]
        observed = run_ranks(self.inspection, self.device, self.ranks, fnuz=self.fnuz, progress=self.progress)
        return self._compare([(each, predict(each, self.inspection.tensors)) for each in setups], observed)

    def _forward(self, predicted: Deliveries) -> ForwardWish | None:
        if self.forward is None:
            return None
        return ForwardWish(seed=self.forward.seed, projections=self.forward.projections, claims=claims(predicted))

    # -------------------------------------------------------------------------------------------------------- comparing

    def _compare(self, expected: list[tuple[Setup, Deliveries]], observed: list[Observed]) -> Verification:
        self.steps += _slowest(observed)
        begun = time.perf_counter()
        found = [self._rank(*both, seen) for both, seen in zip(expected, observed, strict=True)]
        values = sum(len(each.held) for each in found)
        wrong = [one for each in found for one in each.disagreements] + _lost_between_ranks(observed)
        differ = sum(bool(one.role) for one in wrong)
        detail = say("{values:,} values, {wrong:,} differ", values=values, wrong=differ)
        self.steps.append(Step(say("compare"), time.perf_counter() - begun, detail))
        worst = next((each for each in found if each.outcome != "loads"), found[0])
        peaks = [seen.peak_memory for seen in observed if seen.peak_memory is not None]
        return replace(
            worst,
            steps=tuple(self.steps),
            layers=tuple(layer for each in found for layer in each.layers),
            disagreements=tuple(wrong),
            peak_memory=max(peaks, default=None),
            tensor_parallel=self.ranks,
            ranks=tuple(seen.where for seen in observed) if self.ranks > 1 else (),
        )

    def _rank(self, setup: Setup, predicted: Deliveries, observed: Observed) -> Verification:
        """One rank's result, compared."""
        if observed.unknown:
            return self._result(predicted, outcome="unknown", reason=observed.unknown)
        if observed.error is not None:
            return self._raised(predicted, observed, observed.error)
        wrong = _wrong_names(observed, predicted) if self.weights == "scales" else []
        if predicted.load.outcome == "raises":
            text = say(
                "the load goes through, and should raise {error} at {key}",
                error=brief(predicted.load.error),
                key=predicted.load.key,
            )
            wrong.append(Disagreement(None, text, step=say("load"), rank=observed.rank))
        self.progress.start(say("Comparing"), total=len(predicted.attention), unit=say("layers"))
        layers, differ = self._layers(setup, predicted, observed)
        return replace(
            self._result(predicted, outcome="loads"),
            layers=tuple(layers),
            weights=observed.weights,
            forward=observed.forward,
            disagreements=(*wrong, *differ, *observed.wrong_weights),
        )

    def _layers(
        self, setup: Setup, predicted: Deliveries, observed: Observed
    ) -> tuple[list[HeldLayer], list[Disagreement]]:
        files, misread = self._numbers_of_files(setup, predicted)
        claimed = claims(predicted)
        layers: list[HeldLayer] = []
        differ: list[Disagreement] = []
        for layer in predicted.attention:
            held, wrong = compare.compare_layer(
                layer, observed, files=files, misread=misread, claims=claimed[layer.path]
            )
            layers.append(held)
            differ += wrong
            self.progress.advance()
        return layers, differ

    def _numbers_of_files(self, setup: Setup, predicted: Deliveries) -> tuple[dict[str, Numbers], frozenset[str]]:
        """For every scale parameter that a tensor should have reached: the numbers of that tensor in its file, read
        once more, the last one's where several should. And those for which the prediction followed other numbers.
        """
        parameters = {
            f"{layer.path}.{name}": (parameter, layer.shape)
            for layer in setup.layers
            for name, parameter in layer.parameters.items()
        }
        rows = scale_rows(self.inspection)
        if not self._files:
            tensors = read_tensors(self.inspection.checkpoint, rows)
            self._files = {row: tensor for row, (_, tensor) in zip(rows, tensors, strict=True)}
        numbers: dict[str, Numbers] = {}
        misread: set[str] = set()
        for delivery, row in zip(predicted.deliveries, rows, strict=True):
            if delivery.target not in parameters:
                continue
            parameter, shape = parameters[delivery.target]
            tensor = self._files[row]
            try:
                numbers[delivery.target] = compare.stored(parameter, tensor, shape, DTYPES[setup.dtype])
            except LOAD_ERRORS:  # a shape that does not fit: the load says so itself
                continue
            flat = tuple(tensor.detach().reshape(-1).to(torch.float64).tolist())
            if not compare.same_numbers(flat[: len(delivery.loaded)], delivery.loaded):
                misread.add(delivery.target)
        return numbers, frozenset(misread)

    def _raised(self, predicted: Deliveries, observed: Observed, error: str) -> Verification:
        load, key = predicted.load, observed.key
        if observed.misplaced:
            reason = say("the module tree has no place for {key}, which is no KV scale", key=key)
            return self._result(predicted, outcome="unknown", key=key, reason=reason)
        wrong = []
        as_predicted = load.outcome == "raises" and compare.same_error(error, load.error) and key == load.key
        if not as_predicted:
            text = say(
                "the load raises {error} at {key}, and should raise {expected} at {expected_key}"
                if load.outcome == "raises"
                else "the load raises {error} at {key}, and should go through",
                error=brief(error),
                key=key,
                expected=brief(load.error),
                expected_key=load.key,
            )
            told = on_rank(observed.rank, text)
            wrong.append(Disagreement(None, told, step=say("load"), rank=observed.rank))
        result = self._result(predicted, outcome="raises", error=error, key=key)
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
            tensor_parallel=self.ranks,
            confirmed=self.inspection.deliveries.confirmed,
        )


def _slowest(observed: list[Observed]) -> list[Step]:
    """The steps of all ranks, which run side by side: each as long as the slowest took."""
    steps: dict[str, Step] = {}
    for seen in observed:
        for step in seen.steps:
            if step.name not in steps or step.seconds > steps[step.name].seconds:
                steps[step.name] = step
    return list(steps.values())


def _lost_between_ranks(observed: list[Observed]) -> list[Disagreement]:
    """Scales that other ranks received from one through the process group, where they are not what it holds."""
    wrong = []
    for receiver in observed:
        for sender, scales in receiver.gathered.items():
            held = observed[sender].buffers
            for name, numbers in scales.items():
                if name not in held or not compare.same_numbers(held[name].values, numbers):
                    text = say(
                        "rank {rank} received another {name} than rank {sender} holds",
                        rank=receiver.rank,
                        name=name,
                        sender=sender,
                    )
                    layer = name.rpartition(".")[0]
                    wrong.append(Disagreement(layer, text, step=say("gather"), held=numbers, rank=receiver.rank))
    return wrong


def _wrong_names(observed: Observed, predicted: Deliveries) -> list[Disagreement]:
    """Parameters that were written and should not have been, and the other way round."""
    if predicted.load.outcome == "raises":
        return []
    targets = {delivery.target for delivery in predicted.deliveries if delivery.target is not None}
    written = set(observed.written)
    texts = [
        *(say("{name} was written, and no tensor should reach it", name=name) for name in sorted(written - targets)),
        *(say("{name} was not written, and one should reach it", name=name) for name in sorted(targets - written)),
    ]
    return [Disagreement(None, text, step=say("load"), rank=observed.rank) for text in texts]


__all__ = ["Weights", "scale_rows", "setup_for", "verify"]
