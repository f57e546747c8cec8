"""What the classes of configs say where config.json is silent: ``config_classes.json``, as it stands and by type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from resources import resource


@cache
def config_classes() -> Mapping[str, Any]:
    """The whole file; :mod:`core.architectures` describes it."""
    data: dict[str, Any] = json.loads(resource("architectures", "config_classes.json").read_text(encoding="utf-8"))
    return data


def default_of(section: str, text: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    """What the class says in "heads" or "layers"; None where nothing is known. The class of the whole model goes
    first: some fill in what the language model's part leaves out.
    """
    entries, kind, outer = config_classes()[section], type_of(text, config), config.get("model_type")
    if isinstance(outer, str) and outer in entries and config_classes()["text"].get(outer) == kind:
        return entries[outer]
    return entries.get(kind)


def type_of(text: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The ``model_type`` of the language model: ``text`` is its part of ``config``, or all of it where a model has no
    parts; a part may have no type of its own. "" where neither names one.
    """
    named = text.get("model_type") if text is not config else None
    if not isinstance(named, str):
        outer = config.get("model_type")
        named = config_classes()["text"].get(outer, outer) if isinstance(outer, str) else None
    return named if isinstance(named, str) else ""
