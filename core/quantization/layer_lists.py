"""The lists of layers left alone, as vLLM reads them: which of their values end the start of the engine.

A method looks into its list when the model's first linear layer is made, so what raises there is no fault of the
method's dict. Source: vLLM 0.33.0, ``layers/quantization/utils/config_utils.py`` (``find_matching_patterns``) and
``modelopt.py`` (``apply_vllm_mapper``); the exceptions are Python's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.naming.patterns import check_pattern
from core.quantization.declaration import Declaration
from core.quantization.fault import Fault, no_attribute, no_length
from core.quantization.method import MODELOPT_METHODS
from core.quantization.modelopt import modelopt_block


def check_layer_lists(declaration: Declaration) -> Fault | None:
    """What vLLM raises when it asks the method's list for a layer; None when it can be read."""
    method, config = declaration.method, declaration.config
    if method == "quark":
        return _patterns(config.get("exclude"), "exclude", mapped=False)
    if method == "compressed-tensors":
        return _patterns(config.get("ignore", []), "ignore", mapped=True)
    if method in MODELOPT_METHODS:
        block, nested = modelopt_block(declaration)
        field = "exclude_modules" if nested or "ignore" not in block else "ignore"
        return _wildcards(block.get(field, []), f"quantization.{field}" if nested else field)
    return None


def _patterns(listed: Any, field: str, *, mapped: bool) -> Fault | None:
    """Names, or regular expressions behind "re:". ``mapped``: most models' mappers rename the entries first."""
    if not isinstance(listed, list | str | Mapping):
        return Fault("TypeError", f"'{type(listed).__name__}' object is not iterable", field)
    for entry in listed:
        kind = type(entry).__name__
        if mapped and isinstance(entry, list | Mapping):
            continue  # whether it is asked for more than its length depends on the model's mapper
        if mapped and not isinstance(entry, str):
            return Fault("TypeError", f"argument of type '{kind}' is not iterable", field)
        if not isinstance(entry, str):
            return no_attribute(entry, "startswith", field)
        if entry.startswith("re:"):
            try:
                check_pattern(entry[3:])
            except ValueError as error:
                return Fault("error", str(error), field)
    return None


def _wildcards(listed: Any, field: str) -> Fault | None:
    for entry in listed if isinstance(listed, list) else ():
        if isinstance(entry, list | Mapping):
            return no_attribute(entry, "endswith", field)
        if not isinstance(entry, str):
            return no_length(entry, field)
    return None
