"""What the layers hold against what they should: read back from the device, compared exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from core.backends.kv_method import ROLES, AttentionShape, ScaleParameter
from core.engines.outcome import AttentionLayer
from core.loading.attention import HOST_COPIES, Attention
from core.loading.claims import Claim
from core.loading.observed import Held, Numbers, Observed
from core.loading.verification import Against, Disagreement, HeldLayer, HeldValue, State, brief, on_rank
from core.wording import joined, say


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


def copies_of(layers: Iterable[tuple[str, Attention]]) -> dict[str, float]:
    """The host's copies of scales, by full name."""
    names = [f"_{role}_scale_float" for role in HOST_COPIES]
    return {f"{path}.{name}": float(getattr(layer, name)) for path, layer in layers for name in names}


def stored(parameter: ScaleParameter, tensor: torch.Tensor, shape: AttentionShape, dtype: torch.dtype) -> Numbers:
    """What a checkpoint's tensor is in that parameter of that rank: its own numbers in the parameter's dtype."""
    if parameter.taking == "discard":
        return (parameter.initial,) * parameter.numel
    flat = tensor.detach().reshape(-1).to(torch.float64)
    if parameter.taking == "per_head":
        if parameter.name.startswith("q"):
            flat = flat.view(-1, max(shape.total_num_heads // shape.total_num_kv_heads, 1)).amax(dim=1)
        first, count = shape.own_kv_heads()
        flat = flat[first : first + count].expand(parameter.numel)
    rounded = flat.to(torch.float32).to(torch.float32 if parameter.dtype == "float32" else dtype)
    return tuple(rounded.to(torch.float64).tolist())


def compare_layer(
    predicted: AttentionLayer,
    observed: Observed,
    *,
    files: Mapping[str, Numbers],
    misread: frozenset[str],
    claims: Mapping[str, Claim],
) -> tuple[HeldLayer, list[Disagreement]]:
    """One layer's values and what is wrong with them.

    ``files`` are the checkpoint's numbers by the parameter they belong in, in its dtype; ``misread`` the parameters
    for which the prediction followed other numbers than those in the file; ``claims`` the layer's tensors by role.
    """
    path, error = predicted.path, observed.raised.get(predicted.path)
    values = [
        _held(observed.rank, path, name, "file", numbers, observed.parameters.get(f"{path}.{name}"))
        for name, numbers in ((name, files.get(f"{path}.{name}")) for name in predicted.parameters)
        if numbers is not None
    ]
    wrong: list[Disagreement] = []
    if error is None and predicted.error is None:
        values += _against_prediction(predicted, observed)
    elif _kind(error) != _kind(predicted.error):
        text = on_rank(observed.rank, _raised(path, error, predicted.error))
        wrong.append(Disagreement(path, text, step=say("post-process"), rank=observed.rank))
    by_name = {value.name: value for value in values}
    wrong += [_disagreement(value, _parted(value, by_name, misread)) for value in values if not value.equal]
    held = HeldLayer(
        path=path,
        values=tuple(values),
        error=error,
        expected_error=predicted.error,
        agreed=not wrong,
        rank=observed.rank,
        states={role: _state(predicted, role, by_name, observed, claims.get(role)) for role in ROLES},
    )
    return held, wrong


def _raised(path: str, error: str | None, expected: str | None) -> str:
    return say(
        "{layer} raises {error} after loading and should not"
        if expected is None
        else "{layer} raises nothing after loading and should raise {expected}"
        if error is None
        else "{layer} raises {error} after loading and should raise {expected}",
        layer=path,
        error=brief(error),
        expected=brief(expected),
    )


def _against_prediction(predicted: AttentionLayer, observed: Observed) -> list[HeldValue]:
    path, rank = predicted.path, observed.rank
    values = []
    for role in ROLES:
        if role in predicted.final:
            name, expected = f"_{role}_scale", predicted.per_head.get(role, (predicted.final[role],))
            values.append(_held(rank, path, name, "prediction", expected, observed.buffers.get(f"{path}.{name}")))
    for role in HOST_COPIES:
        if role in predicted.final:
            name = f"_{role}_scale_float"
            copy = observed.copies.get(f"{path}.{name}")
            held = Held((copy,), "float") if copy is not None else None
            values.append(_held(rank, path, name, "prediction", (predicted.final[role],), held))
    return values


def _parted(value: HeldValue, values: Mapping[str, HeldValue], misread: frozenset[str]) -> str:
    """The first step after which what is held is no longer what was expected."""
    loaded = values.get(f"{value.role}_scale")
    if value.against == "file" or (loaded is not None and not loaded.equal):
        return say("load")
    if f"{value.layer_path}.{value.role}_scale" in misread:
        return say("read")
    copy = values.get(f"_{value.role}_scale_float")
    in_memory = value.name == f"_{value.role}_scale"
    return say("device" if in_memory and copy is not None and copy.equal else "post-process")


def _state(
    predicted: AttentionLayer,
    role: str,
    values: Mapping[str, HeldValue],
    observed: Observed,
    claim: Claim | None,
) -> State:
    """What the layer was seen to run on: from the parameters that were written and the value the kernels read."""
    name = f"{role}_scale"
    if f"{predicted.path}.{name}" in observed.written:
        loaded = observed.parameters.get(f"{predicted.path}.{name}")
        used = values.get(f"_{name}")
        if loaded is not None and used is not None and set(used.held) == {1.0} and set(loaded.values) != {1.0}:
            return "forced"
        return "loaded"
    if role == "v" and f"{predicted.path}.k_scale" in observed.written:
        k, v = values.get("_k_scale"), values.get("_v_scale")
        starts_at_minus_one = observed.parameters.get(f"{predicted.path}.v_scale", Held((), "")).values == (-1.0,)
        if starts_at_minus_one and k is not None and v is not None and v.held == k.held and v.held != (1.0,):
            return "duplicated"
    if claim is not None:
        return "dropped"
    return "default" if name in predicted.parameters else "none"


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


def _held(rank: int, path: str, name: str, against: Against, expected: Numbers, held: Held | None) -> HeldValue:
    found = held.values if held is not None else ()
    equal = held is not None and same_numbers(expected, found)
    return HeldValue(
        layer_path=path,
        role=name.lstrip("_").partition("_")[0],
        name=name,
        against=against,
        expected=expected,
        held=found,
        equal=equal,
        dtype=held.dtype if held is not None else "",
        max_error=0.0 if equal else _max_error(expected, found),
        rank=rank,
    )


def _max_error(expected: Numbers, held: Numbers) -> float:
    if len(expected) != len(held):
        return math.nan
    errors = [0.0 if same_numbers((a,), (b,)) else abs(a - b) for a, b in zip(expected, held, strict=True)]
    return math.nan if any(map(math.isnan, errors)) else max(errors, default=0.0)


def _disagreement(value: HeldValue, step: str) -> Disagreement:
    expected, held = value.expected, value.held
    differ = [
        place for place, pair in enumerate(zip(expected, held, strict=False)) if not same_numbers(pair[:1], pair[1:])
    ]
    one_head = len(held) == len(expected) > 1 and len(differ) < len(held)
    if one_head:
        expected, held = tuple(expected[place] for place in differ), tuple(held[place] for place in differ)
    said = _numbers(held)
    if one_head:
        said = say(
            "{numbers} in head {heads}" if len(differ) == 1 else "{numbers} in heads {heads}",
            numbers=said,
            heads=_some(map(str, differ)),
        )
    text = say(
        (
            "{layer}, {role}: {name} holds {held}, and {expected} the checkpoint says (parted at: {step})"
            if held
            else "{layer}, {role}: there is no {name}, for which {expected} the checkpoint says (parted at: {step})"
        )
        if value.against == "file"
        else (
            "{layer}, {role}: {name} holds {held}, and {expected} was predicted (parted at: {step})"
            if held
            else "{layer}, {role}: there is no {name}, for which {expected} was predicted (parted at: {step})"
        ),
        layer=value.layer_path,
        role=value.role,
        name=value.name,
        held=said,
        expected=_numbers(expected),
        step=step,
    )
    return Disagreement(
        value.layer_path,
        on_rank(value.rank, text),
        role=value.role,
        step=step,
        expected=value.expected,
        held=value.held,
        rank=value.rank,
    )


def _numbers(values: Numbers) -> str:
    return _some(map(repr, values))


def _some(items: Iterable[str]) -> str:
    """The first four."""
    shown = list(items)
    if len(shown) <= 4:
        return joined(", ", shown)
    return say("{items} and {count} more", items=joined(", ", shown[:4]), count=len(shown) - 4)
