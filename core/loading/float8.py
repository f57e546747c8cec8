"""The float8 formats of KV caches: what a scale makes of a number, as the engine's cache kernels do it.

Source: vLLM 0.33.0, csrc/quantization (``scaled_convert``): divide by the scale in float32, convert to the nearest
float8, and let what is too large become the largest number (saturation; no infinity, no NaN).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from core.backends.kv_method import CacheSetup
from core.wording import say


@dataclass(frozen=True, slots=True, kw_only=True)
class Float8:
    """One format. ``largest`` is its largest number, ``limit`` the least magnitude that is rounded to it from so far
    above that more than rounding is lost: half a step beyond it. ``nothing`` is the largest magnitude that becomes
    zero: half its smallest number.
    """

    name: str
    dtype: torch.dtype
    largest: float
    limit: float
    nothing: float


FORMATS = {
    found.name: found
    for found in (
        Float8(name="float8_e4m3fn", dtype=torch.float8_e4m3fn, largest=448.0, limit=464.0, nothing=2.0**-10),
        Float8(name="float8_e4m3fnuz", dtype=torch.float8_e4m3fnuz, largest=240.0, limit=248.0, nothing=2.0**-11),
        Float8(name="float8_e5m2", dtype=torch.float8_e5m2, largest=57344.0, limit=61440.0, nothing=2.0**-17),
        Float8(name="float8_e5m2fnuz", dtype=torch.float8_e5m2fnuz, largest=57344.0, limit=61440.0, nothing=2.0**-18),
    )
}
_OF_CACHE = {"fp8": "float8_e4m3fn", "fp8_e4m3": "float8_e4m3fn", "fp8_e5m2": "float8_e5m2"}


def cache_format(cache: CacheSetup) -> Float8 | None:
    """The format of a layer's KV cache, None where it is kept in the model's dtype.

    FNUZ formats (AMD MI300) are computed by PyTorch in software on devices that do not have them.

    Raises:
        NotImplementedError: the cache is quantized to something else; the message names it.
    """
    if not cache.quantized:
        return None
    name = _OF_CACHE.get(cache.dtype)
    if name is None or cache.per_token_head:
        raise NotImplementedError(
            say("a KV cache of {dtype} is not computed here, only float8 and plain ones are", dtype=cache.dtype)
        )
    return FORMATS[name.replace("e4m3fn", "e4m3fnuz").replace("e5m2", "e5m2fnuz") if cache.fnuz else name]


def quantize(values: torch.Tensor, scale: torch.Tensor, form: Float8) -> torch.Tensor:
    """``values`` / ``scale`` in float8, saturated; ``scale`` is float32 and broadcasts. NaN stays NaN."""
    scaled = values.to(torch.float32) / scale
    return scaled.clamp(-form.largest, form.largest).to(form.dtype)


def dequantize(stored: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Float8 numbers times ``scale``, in float32."""
    return stored.to(torch.float32) * scale


def losses(values: torch.Tensor, scale: torch.Tensor, form: Float8) -> tuple[int, int]:
    """How many of ``values`` saturate, and how many become zero although they are not."""
    scaled = (values.to(torch.float32) / scale).abs()
    saturated = torch.count_nonzero(scaled >= form.limit)
    zero = torch.count_nonzero(scaled <= form.nothing) - torch.count_nonzero(values == 0)
    return int(saturated), max(int(zero), 0)
