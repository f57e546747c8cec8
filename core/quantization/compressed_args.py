"""``QuantizationArgs`` of compressed-tensors: which values of a config group vLLM cannot build its arguments from.

Source: compressed-tensors 0.17.0 (which vLLM 0.33.0 installs), ``quantization/quant_args.py``; a pydantic model, so a
number may be written as text and a switch as 0 or 1. The messages are shortened: pydantic's take several lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from core.quantization.fault import Fault

_STRATEGIES = ("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head")
_ORDERINGS = ("group", "weight", "dynamic", "static")
_DYNAMIC_STRATEGIES = ("token", "tensor", "tensor_group", "group")
_GROUPED = ("group", "tensor_group")
_SWITCH_WORDS = ("0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes")
_OFF = (False, 0, "0", "off", "f", "false", "n", "no")
_WHOLE = re.compile(r"[+-]?[0-9]+(?:_[0-9]+)*(?:\.0*)?", re.ASCII)
_DTYPES = frozenset(
    (
        "bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "short", "int", "long",
        "half", "float", "double", "float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "float8_e4m3fnuz",
        "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
    )
)  # fmt: skip


def check_arguments(arguments: Any, field: str) -> Fault | None:
    """The first reason why ``QuantizationArgs`` is not made of the value of ``field``; None when it is."""
    if not isinstance(arguments, Mapping):
        return _invalid(field, "Input should be a valid dictionary or instance of QuantizationArgs")
    size = arguments.get("group_size")
    if isinstance(size, str | list | Mapping):  # raised at once, where pydantic collects what else is wrong
        message = f"'<' not supported between instances of '{type(size).__name__}' and 'int'"
        return Fault("TypeError", message, f"{field}.group_size")
    for name, value in arguments.items():
        check = _FIELDS.get(name)
        if check is None:
            return _invalid(f"{field}.{name}", "Extra inputs are not permitted")
        fits, meant = check
        if not fits(value):
            return _invalid(f"{field}.{name}", f"Input should be {meant}")
    return _together(arguments, field)


def _together(arguments: Mapping[str, Any], field: str) -> Fault | None:
    size = _number(arguments.get("group_size"))
    strategy = _word(arguments.get("strategy"))
    if strategy is None:
        if size == 0:
            return _invalid(f"{field}.group_size", "Invalid group size 0")
        strategy = "tensor" if size is None else "channel" if size < 0 else "group"
    dynamic = _word(arguments.get("dynamic", False))
    dynamic = False if dynamic in _OFF else dynamic
    blocks = arguments.get("block_structure") is not None
    if strategy == "token" and not dynamic:
        return _invalid(f"{field}.dynamic", "Cannot perform static token quantization, please use `dynamic=True`")
    if strategy in _GROUPED and (size is None or size <= 0):
        return _invalid(f"{field}.group_size", f"strategy {strategy} requires group_size to be a positive value")
    if size is not None and size > 0 and strategy not in _GROUPED:
        return _invalid(f"{field}.group_size", "group_size requires strategy to be set to 'group'")
    if blocks != (strategy == "block"):
        return _invalid(f"{field}.block_structure", "Block strategy and block structure go together")
    if orders_by_group(arguments) and strategy not in _GROUPED:
        return _invalid(f"{field}.actorder", "Must use group or tensor_group quantization strategy")
    if dynamic and strategy not in _DYNAMIC_STRATEGIES:
        return _invalid(f"{field}.dynamic", f"One of {_DYNAMIC_STRATEGIES} must be used for dynamic quant.")
    if dynamic == "local" and strategy != "tensor_group":
        return _invalid(f"{field}.dynamic", "local is only supported for strategy tensor_group")
    bits = _number(arguments.get("num_bits", 8))
    if arguments.get("zp_dtype") is None and _word(arguments.get("type")) == "float" and bits not in (4, 8):
        return Fault("NotImplementedError", "Only num_bits in (8) are supported", f"{field}.num_bits")
    return None


def orders_by_group(arguments: Mapping[str, Any]) -> bool:
    """Whether the activations' order is that of groups. A 1 becomes True after the model has looked for it."""
    order = arguments.get("actorder")
    return order is True or _word(order) in ("group", "dynamic")


def _invalid(field: str, message: str) -> Fault:
    return Fault("ValidationError", message, field)


def _word(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _number(value: Any) -> int | None:
    return None if value is None else int(float(value))


# ---------------------------------------------------------------------------------------------------- pydantic's values


def _is_whole(value: Any) -> bool:
    """As pydantic reads an integer: numbers without a fraction, and text that spells one."""
    if isinstance(value, str):
        return _WHOLE.fullmatch(value.strip()) is not None
    return isinstance(value, int | float) and value == value // 1


def _is_switch(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in _SWITCH_WORDS
    return isinstance(value, int | float) and value in (0, 1)


def _is_type(value: Any) -> bool:
    return _word(value) in ("int", "float")


def _is_size(value: Any) -> bool:
    return value is None or (_is_whole(value) and not isinstance(value, str) and value >= -1)


def _is_strategy(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.lower() in _STRATEGIES)


def _is_block(value: Any) -> bool:
    if isinstance(value, str):
        return all(_WHOLE.fullmatch(part.strip()) and "." not in part for part in value.split("x"))
    return value is None or (isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) for n in value))


def _is_dynamic(value: Any) -> bool:
    return value.lower() == "local" if isinstance(value, str) else _is_switch(value)


def _is_order(value: Any) -> bool:
    return value is None or (value.lower() in _ORDERINGS if isinstance(value, str) else _is_switch(value))


def _is_dtype(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.removeprefix("torch.") in _DTYPES)


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


_Check = tuple[Callable[[Any], bool], str]
_WHOLE_NUMBER: _Check = (_is_whole, "a valid integer")
_DTYPE: _Check = (_is_dtype, "the name of a torch dtype")
_FIELDS: dict[str, _Check] = {
    "num_bits": _WHOLE_NUMBER,
    "type": (_is_type, "'int' or 'float'"),
    "symmetric": (_is_switch, "a valid boolean"),
    "group_size": (_is_size, "a valid integer, not below -1"),
    "strategy": (_is_strategy, "one of " + ", ".join(_STRATEGIES)),
    "block_structure": (_is_block, "a list of two integers"),
    "dynamic": (_is_dynamic, "'local' or a valid boolean"),
    "actorder": (_is_order, "one of " + ", ".join(_ORDERINGS)),
    "scale_dtype": _DTYPE,
    "zp_dtype": _DTYPE,
    "observer": (_is_text, "a valid string"),
    "observer_kwargs": (_is_table, "a valid dictionary"),
}
