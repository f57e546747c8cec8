"""What the layers hold against what they should: read back from the device, compared exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from core.backends.kv_method import ROLES, AttentionShape, ScaleParameter
from core.engines.outcome import AttentionLayer
from core.loading.attention import HOST_COPIES, Attention
from core.loading.verification import Against, Disagreement, HeldLayer, HeldValue, brief

Numbers = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor's values as read back: flat, exact, with the name of the dtype it had on the device."""

    values: Numbers
    dtype: str


def read_back(tensors: Mapping[str, torch.Tensor]) -> dict[str, Held]:
    """The values of many small tensors, with one transfer for each dtype instead of one for each tensor."""
    by_dtype: dict[torch.dtype, list[str]] = {}
    for name, tensor in tensors.items():
        by_dtype.setdefault(tensor.dtype, []).append(name)
    found: dict[str, Held] = {}
    for dtype, names in by_dtype.items():
        flat = torch.cat([tensors[name].detach().reshape(-1) for name in names]).cpu().to(torch.float64).tolist()
        label = str(dtype).removeprefix("torch.")
        done = 0
        for name in names:
            until = done + tensors[name].numel()
            found[name] = Held(tuple(flat[done:until]), label)
            done = until
    return found


def parameters_of(layers: Iterable[tuple[str, Attention]]) -> dict[str, Held]:
    """The scale parameters of every layer by full name, as they are just after loading."""
    return read_back({f"{path}.{name}": value for path, layer in layers for name, value in layer.named_parameters()})


def buffers_of(layers: Iterable[tuple[str, Attention]]) -> dict[str, Held]:
    """What the kernels read, by full name."""
    return read_back({f"{path}.{name}": value for path, layer in layers for name, value in layer.named_buffers()})


def stored(parameter: ScaleParameter, tensor: torch.Tensor, shape: AttentionShape, dtype: torch.dtype) -> Numbers:
    """What a checkpoint's tensor is in that parameter: its own numbers in the parameter's dtype."""
    if parameter.taking == "discard":
        return (parameter.initial,) * parameter.numel
    flat = tensor.detach().reshape(-1).to(torch.float64)
    if parameter.taking == "per_head":
        if parameter.name.startswith("q"):
            flat = flat.view(-1, max(shape.total_num_heads // shape.total_num_kv_heads, 1)).amax(dim=1)
        flat = flat[: parameter.numel].expand(parameter.numel)
    rounded = flat.to(torch.float32).to(torch.float32 if parameter.dtype == "float32" else dtype)
    return tuple(rounded.to(torch.float64).tolist())


def compare_layer(
    predicted: AttentionLayer,
    layer: Attention,
    *,
    stored_values: Mapping[str, Numbers],
    parameters: Mapping[str, Held],
    buffers: Mapping[str, Held],
    error: str | None,
) -> tuple[HeldLayer, list[Disagreement]]:
    """One layer's values and what is wrong with them.

    ``stored_values`` are the checkpoint's tensors by the parameter they belong in; ``parameters`` and ``buffers`` are
    what was read back, all by full name; ``error`` is what post-processing raised.
    """
    path = predicted.path
    values = [
        _held(path, name, "file", numbers, parameters.get(f"{path}.{name}"))
        for name, numbers in ((name, stored_values.get(f"{path}.{name}")) for name in predicted.parameters)
        if numbers is not None
    ]
    wrong: list[Disagreement] = []
    if error is None and predicted.error is None:
        for role in ROLES:
            if role in predicted.final:
                expected = predicted.per_head.get(role, (predicted.final[role],))
                values.append(
                    _held(path, f"_{role}_scale", "prediction", expected, buffers.get(f"{path}._{role}_scale"))
                )
        for role in HOST_COPIES:
            if role in predicted.final:
                copy = Held((float(getattr(layer, f"_{role}_scale_float")),), "float")
                values.append(_held(path, f"_{role}_scale_float", "prediction", (predicted.final[role],), copy))
    elif _kind(error) != _kind(predicted.error):
        was = f"raises {brief(error)}" if error is not None else "raises nothing"
        should = f"should raise {brief(predicted.error)}" if predicted.error is not None else "should not"
        wrong.append(Disagreement(path, f"{path} {was} after loading and {should}"))
    wrong += [Disagreement(path, _sentence(value)) for value in values if not value.equal]
    held = HeldLayer(path=path, values=tuple(values), error=error, expected_error=predicted.error, agreed=not wrong)
    return held, wrong


def same_numbers(left: Sequence[float], right: Sequence[float]) -> bool:
    """Whether two rows of numbers are equal, NaN to NaN."""
    return len(left) == len(right) and all(
        first == second or (math.isnan(first) and math.isnan(second)) for first, second in zip(left, right, strict=True)
    )


def module_count(model: nn.Module) -> int:
    """How many modules the tree has."""
    return sum(1 for _ in model.modules())


def same_error(left: str | None, right: str | None) -> bool:
    """Whether two errors are of one type. Their words are not compared: they list sets, whose order is chance."""
    return _kind(left) == _kind(right)


def _kind(error: str | None) -> str | None:
    return error.partition(":")[0] if error is not None else None


def _held(path: str, name: str, against: Against, expected: Numbers, held: Held | None) -> HeldValue:
    found = held.values if held is not None else ()
    return HeldValue(
        layer_path=path,
        role=name.lstrip("_").partition("_")[0],
        name=name,
        against=against,
        expected=expected,
        held=found,
        equal=held is not None and same_numbers(expected, found),
        dtype=held.dtype if held is not None else "",
        max_error=_max_error(expected, found),
    )


def _max_error(expected: Numbers, held: Numbers) -> float:
    if len(expected) != len(held):
        return math.nan
    errors = [0.0 if same_numbers((a,), (b,)) else abs(a - b) for a, b in zip(expected, held, strict=True)]
    return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)


def _sentence(value: HeldValue) -> str:
    source = "the checkpoint says" if value.against == "file" else "was predicted"
    if not value.held:
        return f"{value.layer_path} has no {value.name}, for which {_numbers(value.expected)} {source}"
    return f"{value.layer_path}.{value.name} holds {_numbers(value.held)}, and {_numbers(value.expected)} {source}"


def _numbers(values: Numbers) -> str:
    shown = ", ".join(repr(value) for value in values[:4])
    return shown if len(values) <= 4 else f"{shown} and {len(values) - 4} more"
