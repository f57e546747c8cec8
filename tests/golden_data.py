"""Golden data: what real engines did, and how a report of ours is compared with it."""

from __future__ import annotations

import gzip
import json
import math
import re
import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tests.places import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden"

# Refusals that come from running on a CPU, from a tiny config or from the period's transformers, not from the engine.
NOT_THE_ENGINE = re.compile(
    r"is_act_and_mul|model_type|position_ids|expert parallel|Unrecognized model|CUDA, XPU|StrictDataclass"
    r"|Config' object has no attribute|not supported for now|unhashable type|GPU|AmbiguousGlobal"
    r"|Failed to find a kernel"
)


@cache
def golden(engine: str, name: str) -> Any:
    """One golden file of an engine ("names", "cases")."""
    with gzip.open(GOLDEN / engine / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


def write_case(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Any]]) -> Path:
    """A scale-only checkpoint: config.json and one safetensors file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    data = b""
    for name, tensor in tensors.items():
        raw = b"".join(encoded(tensor["dtype"], number(value)) for value in tensor["values"])
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def encoded(dtype: str, value: float) -> bytes:
    """One number as a safetensors file holds it; what is too large becomes infinite, an integer is 1,000 times it."""
    largest = {"F64": math.inf, "F16": 65504.0}.get(dtype, 3.4028234e38)
    if abs(value) > largest and dtype != "I32":
        value = math.copysign(math.inf, value)
    match dtype:
        case "F64":
            return struct.pack("<d", value)
        case "F16":
            return struct.pack("<e", value)
        case "BF16":
            return struct.pack("<f", value)[2:]
        case "I32":
            return struct.pack("<i", max(-(2**31), min(2**31 - 1, int(value * 1000))) if math.isfinite(value) else 7)
        case _:
            return struct.pack("<f", value)


def number(value: object) -> float:
    """Golden numbers may be the strings "nan" and "inf", or null for NaN."""
    return math.nan if value is None else float(str(value))


def _equal(left: object, right: object) -> bool:
    a, b = number(left), number(right)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-40)


def exception(text: str | None) -> str:
    """The exception's type of "Type: message"."""
    return (text or "").partition(":")[0].strip()


def disagreement(truth: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """The first thing in which a report differs from what the engine did; "" when they agree."""
    load = report["load"]
    if "refused" in truth:
        if load["outcome"] == "refused" and exception(load["error"]) in truth["refused"][:200]:
            return ""
        return f"the engine refuses ({truth['refused'][:80]}), predicted {load['outcome']} {load['error']}"
    wanted = "raises" if truth["load_error"] else "loads"
    if load["outcome"] != wanted or exception(truth["load_error"]) != exception(load["error"]):
        return f"the engine {wanted} {truth['load_error']}, predicted {load['outcome']} {load['error']}"
    if wanted == "raises":
        return ""
    return _writes(truth["writes"], report["scales"]) or _layers(truth["attention"], report["attention"])


def _writes(truth: Sequence[Any], scales: Sequence[Mapping[str, Any]]) -> str:
    rows = [(row["param"], row["loaded"]) if isinstance(row, dict) else tuple(row) for row in truth]
    written = sorted((name, [number(value) for value in values]) for name, values in rows)
    predicted = sorted((scale["target"], list(scale["values"])) for scale in scales if scale["outcome"] == "loaded")
    if [name for name, _ in written] != [name for name, _ in predicted]:
        return f"the engine writes {[name for name, _ in written]}, predicted {[name for name, _ in predicted]}"
    for (name, values), (_, ours) in zip(written, predicted, strict=True):
        if len(values) != len(ours) or not all(map(_equal, values, ours)):
            return f"{name} takes {values[:4]}, predicted {ours[:4]}"
    return ""


def _layers(truth: Mapping[str, Any], attention: Sequence[Mapping[str, Any]]) -> str:
    ours = {layer["path"]: layer for layer in attention}
    if set(ours) != set(truth):
        return f"attention layers differ: {sorted(set(ours) ^ set(truth))[:4]}"
    for path, layer in truth.items():
        final = layer.get("final")
        if not final:
            continue
        if exception(final["error"]) != exception(ours[path]["error"]):
            return f"{path}: the engine says {final['error']}, predicted {ours[path]['error']}"
        if final["error"]:
            continue
        for role in ("k", "v", "q"):
            if final.get(role) is not None and not _equal(final[role], ours[path]["final"][role]):
                return f"{path}.{role} ends at {final[role]}, predicted {ours[path]['final'][role]}"
    return ""
