"""The tensors that are no KV scales, when a whole checkpoint is loaded: did each arrive as it stands in its file?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from core.checkpoint import Checkpoint
from core.loading.own_loaders import ExpertWeights
from core.loading.parameters import Part, WeightPlaceholder
from core.loading.tensors import read_tensors, same_bits
from core.loading.verification import Disagreement, HeldWeights
from core.progress import Progress
from core.wording import say


def held_parts(model: nn.Module) -> Iterator[tuple[str, Part]]:
    """Everything that ordinary parameters took: the parameter's path, and each part that arrived there."""
    for path, parameter in model.named_parameters():
        if isinstance(parameter, WeightPlaceholder):
            for part in parameter.parts.values():
                yield path, part
    for path, module in model.named_modules():
        if isinstance(module, ExpertWeights):
            for name, part in module.parts.items():
                yield f"{path}.{name}", part


def check_weights(
    model: nn.Module, checkpoint: Checkpoint, rows: Sequence[int], progress: Progress
) -> tuple[HeldWeights, list[Disagreement]]:
    """Read the tensors at ``rows`` once more and compare each, bit for bit, with what the model holds of it.

    Raises:
        UnreadableCheckpointError: a file cannot be read any more.
    """
    parts = {part.key: (path, part.tensor) for path, part in held_parts(model)}
    arrived = [row for row in rows if checkpoint.catalog.names[row] in parts]
    left_out = tuple(checkpoint.catalog.names[row] for row in rows if checkpoint.catalog.names[row] not in parts)
    progress.start(say("Comparing weights"), total=len(arrived), unit=say("tensors"))
    wrong: list[Disagreement] = []
    size = 0
    for key, tensor in read_tensors(checkpoint, arrived):
        path, held = parts[key]
        size += tensor.nbytes
        if not same_bits(tensor, held):
            text = say("{parameter} does not hold the bytes of {key}", parameter=path, key=key)
            wrong.append(Disagreement(None, text))
        progress.advance()
    equal = len(arrived) - len(wrong)
    return HeldWeights(total=len(rows), held=len(arrived), equal=equal, size=size, left_out=left_out), wrong
