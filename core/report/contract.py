"""The JSON report ``kvscope.report/1``: names and meanings are a contract; fields are only ever added."""

from __future__ import annotations

import math
from collections.abc import Mapping
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

from core.diagnosis.finding import Finding
from core.diagnosis.options import fix_usage
from core.engines import get_engine
from core.engines.outcome import AttentionLayer
from core.explanation import explain
from core.inspection import Inspection
from core.naming.scales import KVScale
from core.settings import Choice
from core.trace import Trace, Tracer

SCHEMA = "kvscope.report/1"


def report(inspection: Inspection, *, explained: bool = True) -> dict[str, Any]:
    """The report as plain data, ready for :func:`json_text`; numbers that JSON has no words for are strings. Explaining
    a loss asks the export and every other engine; ``explained`` false leaves that out.
    """
    tracer = Tracer(inspection)
    story = explain(inspection) if explained else None
    return {
        "schema": SCHEMA,
        "checkpoint": _checkpoint(inspection),
        "declaration": _declaration(inspection),
        "engine": _engine(inspection),
        "load": {
            "outcome": inspection.deliveries.load.outcome,
            "error": inspection.deliveries.load.error,
            "key": inspection.deliveries.load.key,
            "reason": inspection.deliveries.load.reason,
        },
        "scales": [
            _scale(delivery.scale, tracer.trace(delivery))
            for delivery in inspection.deliveries.deliveries
            if delivery.scale is not None
        ],
        "companions": [
            _delivery(tracer.trace(delivery)) | {"key": delivery.key}
            for delivery in inspection.deliveries.deliveries
            if delivery.scale is None
        ],
        "attention": [_layer(layer) for layer in inspection.deliveries.attention],
        "findings": [finding_as_data(finding) for finding in inspection.findings],
        "explanation": {"key": story.key, "title": story.title, "lines": list(story.lines)} if story else None,
        "verdict": {"outcome": inspection.verdict.outcome, "text": inspection.verdict.text},
    }


def json_text(data: object, *, indent: int | None = 2) -> str:
    r"""JSON with NaN and infinities as the strings "nan", "inf" and "-inf", and what cannot be printed as \uNNNN."""
    return _text(data, "" if indent is None else "\n", " " * (indent or 0))


def _text(value: object, line: str, step: str) -> str:
    """A value as ``json.dumps`` writes it, which takes four times as long to indent. ``line`` begins a line at the
    value's depth; "" keeps everything on one.
    """
    if isinstance(value, str):
        return _quoted(value)
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        spoken = "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        return float.__repr__(value) if math.isfinite(value) else f'"{spoken}"'
    inner = line + step
    if isinstance(value, Mapping):
        parts = [f"{_quoted(str(key))}: {_text(item, inner, step)}" for key, item in value.items()]
        begin, end = "{}"
    elif isinstance(value, list | tuple):
        parts = [_text(item, inner, step) for item in value]
        begin, end = "[]"
    else:
        return _quoted(str(value))
    between = f",{inner}" if line else ", "
    return f"{begin}{inner}{between.join(parts)}{line}{end}" if parts else begin + end


def _quoted(text: str) -> str:
    """A text in quotes; what cannot be printed is escaped, so that it steers no terminal and any encoding has it."""
    quoted = encode_basestring(text)
    if quoted.isprintable():
        return quoted
    return "".join(char if char.isprintable() else encode_basestring_ascii(char)[1:-1] for char in quoted)


_CONSTANTS: Mapping[object, str] = {None: "null", True: "true", False: "false"}


def _checkpoint(inspection: Inspection) -> dict[str, Any]:
    checkpoint = inspection.checkpoint
    producer = inspection.declaration.producer
    return {
        "path": checkpoint.place,
        "format": checkpoint.format,
        "files": len(checkpoint.shards),
        "tensors": len(checkpoint.catalog),
        "bytes": checkpoint.total_bytes,
        "architectures": list(inspection.declaration.architectures),
        "producer": {
            "name": producer.tool if producer is not None else None,
            "version": producer.version if producer is not None else None,
        },
        "faults": [
            {"file": fault.file, "offset": fault.offset, "problem": fault.problem, "remedy": fault.remedy}
            for fault in checkpoint.faults
        ],
    }


def _declaration(inspection: Inspection) -> dict[str, Any]:
    declaration = inspection.declaration
    scheme = declaration.kv_scheme
    return {
        "method": declaration.method,
        "quant_method": declaration.quant_method,
        "kv_scheme": {
            "algorithm": scheme.algorithm,
            "num_bits": scheme.num_bits,
            "type": scheme.type,
            "strategy": scheme.strategy,
            "dynamic": scheme.dynamic,
            "symmetric": scheme.symmetric,
        }
        if scheme is not None
        else None,
        "sources": [
            {"file": source.file, "field": source.field, "value": source.value} for source in declaration.sources
        ],
        "notes": list(declaration.notes),
    }


def _engine(inspection: Inspection) -> dict[str, Any]:
    settings = inspection.settings
    profile = get_engine(str(settings.engine.value))
    return {
        "id": profile.id,
        "name": profile.name,
        "version": profile.version,
        "method": settings.method.value,
        "architecture": settings.architecture.value,
        "kv_cache_dtype": settings.kv_cache_dtype.value,
        "kv_cache_dtype_resolved": settings.kv_cache_dtype_resolved,
        "dtype": settings.dtype.value,
        "notes": list(inspection.deliveries.notes),
        "origins": {
            "method": _origin(settings.method),
            "architecture": _origin(settings.architecture),
            "kv_cache_dtype": _origin(settings.kv_cache_dtype),
            "dtype": _origin(settings.dtype),
        },
    }


def _origin(choice: Choice) -> str:
    return f"{choice.origin}: {choice.detail}" if choice.detail else choice.origin


def trace_as_data(trace: Trace) -> dict[str, Any]:
    """A tensor's rules with their places in the sources, what nearly matched, and what the engine does next."""
    return {
        "steps": [
            {
                "rule": str(cited.step.rule),
                "kind": str(cited.step.rule.kind),
                "before": cited.step.before,
                "after": cited.step.after,
                "by": cited.step.by,
                "source": cited.source,
            }
            for cited in trace.steps
        ],
        "near": [
            {"kind": near.kind, "rule": str(near.rule), "by": near.by, "why": near.why, "source": near.source}
            for near in trace.near
        ],
        "parameter": trace.target or trace.parameter or None,
        "layer_path": trace.layer.path if trace.layer is not None else None,
        "then": trace.then,
    }


def _delivery(trace: Trace) -> dict[str, Any]:
    return {
        "target": trace.target,
        "outcome": trace.delivery.outcome,
        "reason": trace.delivery.reason,
        "error": trace.delivery.error,
        **trace_as_data(trace),
    }


def _scale(scale: KVScale, trace: Trace) -> dict[str, Any]:
    delivery = trace.delivery
    return {
        "key": scale.key,
        "file": scale.file,
        "role": scale.role,
        "kind": scale.kind,
        "layer": scale.layer,
        "module": scale.module,
        "convention": scale.convention,
        "quantity": scale.quantity,
        "dtype": scale.dtype,
        "shape": list(scale.shape),
        # As the engine reads them: an older one may hand on the first element only.
        "values": list(delivery.loaded if delivery.outcome == "loaded" else scale.values),
        **_delivery(trace),
    }


def _layer(layer: AttentionLayer) -> dict[str, Any]:
    return {
        "path": layer.path,
        "class": layer.cls,
        "layer": layer.layer,
        "kv_method": layer.kv_method,
        "parameters": {name: list(shape) for name, shape in layer.parameters.items()},
        "final": dict(layer.final),
        "per_head": {role: list(values) for role, values in layer.per_head.items()},
        "source": dict(layer.source),
        "expects_scales": layer.expects_scales,
        "error": layer.error,
    }


def finding_as_data(finding: Finding) -> dict[str, Any]:
    """One finding, as the report has it."""
    return {
        "code": finding.code,
        "severity": finding.severity,
        "title": finding.title,
        "count": finding.count,
        "keys": list(finding.keys),
        "layers": list(finding.layers),
        "evidence": finding.evidence,
        "consequence": finding.consequence,
        "fix": finding.fix,
        "remedy": finding.remedy,
        "repair": fix_usage(finding),
        "source": finding.source,
    }
