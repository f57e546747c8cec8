"""The cache an export is judged with."""

from __future__ import annotations

from dataclasses import replace

from core.diagnosis.facts import is_quantized_cache
from core.inspection import Inspection, reinspect

QUANTIZED_CACHE = "fp8"


def with_quantized_cache(inspection: Inspection) -> Inspection:
    """The inspection under a cache that uses scales.

    An export is written for the day the scales are used. Where nobody asked for a cache dtype and the engine's ``auto``
    keeps the cache in the model dtype (vLLM 0.33.0 with quark and fp8), the export is planned and judged with an FP8
    cache instead; an explicit choice stands.
    """
    chosen = inspection.wish.kv_cache_dtype
    if chosen != "auto" or not inspection.scales or is_quantized_cache(inspection.settings.kv_cache_dtype_resolved):
        return inspection
    if inspection.deliveries.load.outcome == "unknown":
        return inspection
    wish = replace(inspection.wish, kv_cache_dtype=QUANTIZED_CACHE)
    return reinspect(inspection, wish=wish, thresholds=inspection.thresholds)
