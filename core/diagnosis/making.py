"""``make``: a finding from its rule's catalog entry, and the remedies that a finding may name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from core.diagnosis.catalog import BY_CODE
from core.diagnosis.finding import Finding

REMEDIES: Mapping[str, str] = MappingProxyType(
    {
        "rename": "give the tensors names that this engine takes",
        "drop": "leave the tensors out",
        "set-scale": "write a value of your choice",
        "reshape": "store one value in the shape that the engine takes",
        "swap": "exchange k and v",
        "amax-to-scale": "divide by the largest quantized number (448 for FP8)",
        "reciprocal": "store 1 / value",
        "rescale": "multiply by 6, from amax / 2688 (NVFP4) to amax / 448 (FP8)",
        "to-fp8": "multiply by 127 / 448 and declare an FP8 cache",
        "declare": "write the KV-cache scheme into config.json",
        "duplicate": "write the tensor for the missing role as well",
        "repair-index": "write the index anew",
    }
)
"""What an export can do about a finding (:attr:`core.diagnosis.finding.Finding.remedy`); "" means nothing."""

BY_ITSELF = frozenset({"rename"})
"""The remedies that every export for an engine applies unasked; the others are repairs, each chosen by a person."""

APPLIED_BY_EXPORT = frozenset(REMEDIES)
"""The remedies that an export applies, by itself or when the repair is chosen."""


def mended_by_export(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those of the findings that decide the verdict about which an export does something: a refusal, else the worst
    that was found.
    """
    doubts = [finding for finding in findings if finding.severity != "info"]
    decisive = [finding for finding in doubts if finding.code == "load-refused"]
    decisive = decisive or [finding for finding in doubts if finding.severity == "error"] or doubts
    return tuple(finding for finding in decisive if finding.remedy in APPLIED_BY_EXPORT)


def make(
    code: str,
    *,
    keys: tuple[str, ...] = (),
    layers: tuple[int, ...] = (),
    evidence: str,
    consequence: str,
    fix: str,
    remedy: str = "",
) -> Finding:
    """A finding of the rule ``code``, with the rule's severity, title and source."""
    rule = BY_CODE[code]
    return Finding(
        code=code,
        severity=rule.severity,
        title=rule.title,
        keys=keys,
        layers=layers,
        evidence=evidence,
        consequence=consequence,
        fix=fix,
        remedy=remedy,
        source=rule.source,
    )
