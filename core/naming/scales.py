"""``KVScale``: one KV-cache scale found in a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["k", "v", "q", "prob", "kv"]
Kind = Literal["scale", "zero_point", "bias"]
Quantity = Literal["scale", "amax", "reciprocal", "offset"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KVScale:
    """One tensor that belongs to the KV cache's quantization.

    ``values`` are the stored numbers, flattened, as Python floats; a dequantization multiplier (amax / 448 for
    float8_e4m3fn) unless ``quantity`` says that the convention stores something else. ``module`` is the attention
    module as the checkpoint names it, ``layer`` its first number, None where there is none. ``convention`` is the
    id of a :class:`core.naming.conventions.Convention`. ``fault`` says why the values could not be read.
    """

    key: str
    file: str
    role: Role
    kind: Kind
    layer: int | None
    module: str
    convention: str
    dtype: str
    shape: tuple[int, ...]
    values: tuple[float, ...] = ()
    quantity: Quantity = "scale"
    fault: str | None = None

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count
