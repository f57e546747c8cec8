"""Synthetic keys, values and queries: drawn on the host, so that every device gets the same numbers.

Heavy-tailed like the real ones (Student's t with a few outlier channels in the keys), and never mistaken for them:
whatever is made of these is labelled synthetic.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from core.loading.attention import attend

TOKENS = 128
QUERIES = 32
FREEDOM = 4
"""Degrees of freedom of Student's t."""

PATTERNS = 8
"""Heads that are drawn; further ones repeat these, and differ by their range alone."""

LOGITS = 2.0
"""Standard deviation that queries are scaled to give the logits, so that no softmax is flat or all on one token."""

_OUTLIERS = 32  # one channel of the keys in so many
_OUTLIER = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSizes:
    """Heads and sizes of one layer. ``latent``: keys and values are one vector, of which the values are the first
    ``value_size`` numbers.
    """

    heads: int
    kv_heads: int
    key_size: int
    value_size: int
    latent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One layer's sequence on the host, in the model's dtype, and what attention makes of it without any rounding:
    ``query`` [queries, heads, key size], ``key`` and ``value`` [tokens, key/value heads, size], ``reference`` [queries,
    heads, value size] in float64.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    reference: torch.Tensor


class Pattern:
    """What is drawn once for all layers of the same sizes, so that they differ by their scales alone.

    ``seed`` is what the generator starts from.
    """

    def __init__(self, sizes: HeadSizes, *, seed: int) -> None:
        random = np.random.Generator(np.random.PCG64(seed))
        self._sizes = sizes
        self._key = _heavy(random, sizes.kv_heads, sizes.key_size, outliers=True)
        self._value = None if sizes.latent else _heavy(random, sizes.kv_heads, sizes.value_size, outliers=False)
        self._query = random.standard_normal((QUERIES, sizes.heads, sizes.key_size))

    def draw(self, *, k: Sequence[float] | None, v: Sequence[float] | None, dtype: torch.dtype) -> Drawn:
        """A layer's sequence. ``k`` and ``v`` are the largest magnitudes of keys and values, one for all heads or one
        for each; None gives them a standard deviation of 1.
        """
        key = _ranged(self._key, k)
        value = key[..., : self._sizes.value_size] if self._value is None else _ranged(self._value, v)
        query, keys, values = (torch.from_numpy(part) for part in (self._query, key, value))
        return settle(query, keys, values, dtype=dtype)


def settle(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, dtype: torch.dtype) -> Drawn:
    """Keys, values and queries in the model's dtype, the queries scaled so that each head's logits have a standard
    deviation of :data:`LOGITS`, and the reference in float64.
    """
    key, value = key.to(torch.float64).to(dtype), value.to(torch.float64).to(dtype)
    query = query.to(torch.float64)
    spread = _logits(query, key.to(torch.float64)).std(dim=(0, 2))
    usable = torch.isfinite(spread) & (spread > 0)
    query = query * torch.where(usable, LOGITS / spread, 1.0).reshape(1, -1, 1)
    query = query.to(dtype)
    reference = attend(query.to(torch.float64), key.to(torch.float64), value.to(torch.float64))
    return Drawn(query=query, key=key, value=value, reference=reference)


Numbers = npt.NDArray[np.float64]


def _heavy(random: np.random.Generator, heads: int, size: int, *, outliers: bool) -> Numbers:
    """[TOKENS, heads, size], of a standard deviation of about 1."""
    patterns = min(heads, PATTERNS)
    found: Numbers = random.standard_t(FREEDOM, (TOKENS, patterns, size)) / math.sqrt(FREEDOM / (FREEDOM - 2))
    if outliers:
        for head in range(patterns):
            found[:, head, random.permutation(size)[: size // _OUTLIERS]] *= _OUTLIER
    repeated: Numbers = np.tile(found, (1, -(-heads // patterns), 1))[:, :heads]
    return repeated


def _ranged(values: Numbers, amax: Sequence[float] | None) -> Numbers:
    """The values scaled to that largest magnitude, all together or head by head."""
    if amax is None:
        return values
    own = len(amax) == values.shape[1]
    largest: Numbers = np.abs(values).max(axis=(0, 2)) if own else np.abs(values).max(keepdims=True).reshape(1)
    factor: Numbers = np.asarray(amax if own else [max(amax)], dtype=np.float64) / largest
    scaled: Numbers = values * factor[None, :, None]
    return scaled


def _logits(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """[queries, query heads, tokens], over the square root of the size."""
    grouped = query.view(len(query), key.shape[1], -1, query.shape[-1])
    logits = torch.einsum("qhgd,thd->qhgt", grouped, key) / math.sqrt(key.shape[-1])
    return logits.reshape(len(query), -1, len(key))
