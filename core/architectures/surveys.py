"""The files that describe an engine's models: which are known, where that comes from, and their modules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from core.wording import from_data, say
from resources import resource


@cache
def survey(engine: str) -> Mapping[str, Any]:
    """The file of one engine. A model needs a few of its thousands of modules: each is decoded when it is asked for."""
    head, _, rows = resource("architectures", f"{engine}.json").read_text(encoding="utf-8").partition(_MODULES)
    data: dict[str, Any] = json.loads(head + "}")
    return data | {"modules": _Rows(rows)}


_NOT_FOLLOWED = " was not followed"
_MODULES = ',\n"modules":{\n'


class _Rows(Mapping[str, Any]):
    """A JSON object that stands one entry a line, under names without escapes; behind the last it ends. Looking for the
    few that are asked for takes less than telling thousands of lines apart.
    """

    def __init__(self, text: str) -> None:
        self._text = f"\n{text}\n"
        self._decoded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._decoded:
            start = self._text.find(f'\n"{name}":')
            if start < 0:
                raise KeyError(name)
            end = self._text.index("\n", start + 1)
            self._decoded[name] = json.loads(self._text[start + len(name) + 4 : end].rstrip(","))
        return self._decoded[name]

    def __iter__(self) -> Iterator[str]:
        return (line[1:].partition('":')[0] for line in self._text.splitlines() if line.startswith('"'))

    def __len__(self) -> int:
        return self._text.count('\n"')


@cache
def own_loaders() -> Mapping[str, Any]:
    """The hand-written loaders of the newest version."""
    return MappingProxyType(_read("own_loaders.json"))


@cache
def loops(engine: str) -> Mapping[str, Any] | None:
    """The loops of an older version; None for one whose hand-written loaders stand in ``own_loaders.json``."""
    name = f"loops-{engine}.json"
    return MappingProxyType(_read(name)) if (resource("architectures") / name).is_file() else None


def _read(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(resource("architectures", name).read_text(encoding="utf-8"))
    return data


def known_architectures(engine: str = "vllm-0.33.0") -> tuple[str, ...]:
    """The architectures whose module trees are known for that engine, sorted."""
    return tuple(sorted(survey(engine)["architectures"]))


def how_surveyed(architecture: str, engine: str = "vllm-0.33.0") -> str:
    """Where the module tree of that architecture comes from: "executed" (the engine really built the model),
    "executed: the engine's implementation for CPUs" (it has another one for GPUs), "alias of X" (the engine registers
    the same class under both names), "static: ..." (it was read from the sources, which no run confirms, and why), or
    "" for one that is not known.
    """
    return str(survey(engine)["architectures"].get(architecture, {}).get("surveyed", ""))


def why_static(architecture: str, engine: str = "vllm-0.33.0") -> str:
    """Why the module tree of that architecture was read from the sources; "" for any other. The reasons stand in
    ``static_by_hand.json``, but for a loader that was not followed.
    """
    how, _, why = how_surveyed(architecture, engine).partition(": ")
    if how != "static":
        return ""
    method = why.removesuffix(_NOT_FOLLOWED)
    return from_data(why) if method == why else say("{method} was not followed", method=method)


def why_not_surveyed(architecture: str, engine: str = "vllm-0.33.0") -> str:
    """Why the module tree of an architecture that the engine registers is not known; "" where it is, or where the
    engine does not register that name.
    """
    return str(survey(engine)["not_surveyed"].get(architecture, ""))
