"""Engines as the probe would have read them: what it really read from a release, with one thing changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from core.engines.probed import ProbedEngine, parse_json, read_probe
from resources import resource

Change = Callable[[dict[str, Any]], object]


def document_of(release: str) -> dict[str, Any]:
    """What the script prints about that release."""
    document: dict[str, Any] = parse_json((resource("probe") / f"vllm-{release}.json").read_bytes())
    return document


def engine_of(release: str, *changes: Change, version: str | None = None) -> ProbedEngine:
    """That release as it was probed, changed, and called ``version``."""
    document = document_of(release)
    for change in changes:
        change(document)
    if version is not None:
        document["vllm"] = version
    document = json.loads(json.dumps(document))
    return ProbedEngine(
        reading=read_probe(document), python="env/bin/python", date="2026-01-02T03:04:05+00:00", document=document
    )


def mapper(document: dict[str, Any], **rules: list[list[Any]]) -> int:
    """The position of a new mapper with these rules."""
    document["mappers"].append({"rules": rules, "unread": [], "names": [], "with_fp8": None})
    return len(document["mappers"]) - 1


def rules_of(document: dict[str, Any], method: str) -> dict[str, list[list[Any]]]:
    """A copy of a method's cache-scale rules, by kind."""
    position = document["methods"][method]["cache_scale_mapper"]
    copy: dict[str, list[list[Any]]] = json.loads(json.dumps(document["mappers"][position]["rules"]))
    return copy
