"""``Thresholds``: every number the rules compare with, where it comes from, and how to change it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from core.errors import UsageError
from core.wording import say

_PUBLIC = say(
    "scales of public FP8 models: {models}", models="Llama-2 7B/70B, Qwen2 0.5B/1.5B, Qwen2.5-72B, Qwen3-235B"
)


def _limit(value: Any, meaning: str, source: str) -> Any:
    return field(default=value, metadata={"meaning": meaning, "source": source})


@dataclass(frozen=True, slots=True)
class Row:
    """One threshold for people: its name, its value, what it decides, and where the number comes from."""

    name: str
    value: float
    meaning: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The limits of the rules; pass another set to :func:`core.diagnosis.diagnose`.

    Limits on a scale's size are for FP8 (a scale is amax / 448): a scale of another format is first multiplied by its
    largest number over 448. Ratios have no unit.
    """

    absurd: float = _limit(
        1e4, say("a larger magnitude is no scale"), say("uninitialised memory read back: 1e7 to 4.5e34")
    )
    vanishing: float = _limit(
        1e-8,
        say("a smaller magnitude is no scale"),
        say("Quark floors scales at 1.19e-7; uninitialised memory holds 1e-16 down"),
    )
    tiny: float = _limit(
        5e-5, say("smaller than any calibration gave"), say("{public}; smallest 0.00023", public=_PUBLIC)
    )
    large: float = _limit(
        1.0, say("amax above 448, or another convention"), say("{public}; largest 0.977", public=_PUBLIC)
    )
    notable: float = _limit(
        0.5,
        say("amax above 224, or another convention"),
        say("{public}; only Qwen2-1.5B's first layer", public=_PUBLIC),
    )
    misread_median: float = _limit(
        2.0, say("from this median on, an amax or a reciprocal is stored"), say("amaxes of K lie between 4 and 440")
    )
    outlier_ratio: float = _limit(
        30.0,
        say("a layer's scale over the median of its role"),
        say("{public}; largest ratio 25, Qwen2-1.5B's first layer", public=_PUBLIC),
    )
    pair_ratio: float = _limit(
        100.0,
        say("a layer's k / v over the median of k / v, or below it by as much"),
        say("{public}; largest about 40", public=_PUBLIC),
    )
    swapped_share: float = _limit(
        0.95,
        say("share of layers with k < v from which they look swapped"),
        say("K > V in 329 of 334 layers of public models"),
    )
    swapped_ratio: float = _limit(
        2.5,
        say("median of v / k from which k and v look swapped"),
        say("{public}; smallest median of k / v 3.2", public=_PUBLIC),
    )
    swapped_layers: int = _limit(8, say("layers needed to tell that k and v are swapped"), say("fewer prove nothing"))
    epsilon_chance: float = _limit(
        0.02,
        say("probability of so many exact epsilons by chance, below which they count"),
        say("bfloat16 has 256 numbers within a factor of two of its epsilon"),
    )

    def table(self) -> tuple[Row, ...]:
        """All thresholds, for showing."""
        return tuple(
            Row(item.name, getattr(self, item.name), item.metadata["meaning"], item.metadata["source"])
            for item in fields(self)
        )


def with_limits(limits: Iterable[str]) -> Thresholds:
    """The thresholds, of which some are given as ``name=number``. Raises UsageError for what is neither."""
    usual = {row.name: row.value for row in Thresholds().table()}
    values: dict[str, Any] = {}
    for limit in limits:
        name, _, number = limit.partition("=")
        if name not in usual:
            remedy = say("Name one of {names}", names=", ".join(usual))
            raise UsageError(say("there is no limit {name!r}", name=name), remedy=remedy)
        try:
            values[name] = type(usual[name])(number)
        except ValueError:
            values[name] = math.nan
        if math.isnan(values[name]):
            problem = say("{limit!r} gives the limit no number", limit=limit)
            raise UsageError(problem, remedy=say("Write {name}={value}", name=name, value=usual[name]))
    return Thresholds(**values)


EPSILONS = {"BF16": 2.0**-7, "F16": 2.0**-10, "F32": 2.0**-23}
"""Machine epsilons by stored dtype. An observer that saw only zeros stores the epsilon of its dtype
(compressed-tensors, ``calculate_qparams``)."""

EPSILON_STEPS = {"BF16": 2**8, "F16": 2**11, "F32": 2**24}
"""How many numbers of that dtype lie within a factor of two of its epsilon, above and below."""

LARGEST_NUMBER = {"FP8": 448.0, "INT8": 127.0, "INT4": 7.0}
"""The largest quantized value by algorithm: what an amax was divided by. NVFP4 caches are written as amax / 448
(ModelOpt 0.42 and later) or amax / 2688, so they are left as they are."""
