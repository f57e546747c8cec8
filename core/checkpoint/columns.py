"""A header as columns, and the rules on sizes and offsets that both of its readers apply."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.checkpoint.dtypes import DTYPES
from core.wording import plural, say

Int64s = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]

DTYPE_NAMES: tuple[str, ...] = tuple(DTYPES)
CODE_OF: Mapping[str, int] = {name: code for code, name in enumerate(DTYPE_NAMES)}
LONGEST_NAME = 1024
"""Characters of a tensor's name; the longest of a real model have about 150. What the engines' rules search in it grows
with the square of its length."""

SIZE_LIMIT = 1 << 63
"""Sizes, offsets and their products must stay below: what a signed 64-bit integer holds."""


@dataclass(frozen=True, slots=True, eq=False)
class HeaderColumns:
    """One file's tensors, sorted by name (by code point: the order in which safetensors lists and engines load them).

    ``dtype_codes`` index ``dtype_names``, whose first entries are always :data:`DTYPE_NAMES`; unknown types follow.
    ``shape_codes`` index ``shape_table``: a checkpoint has few different shapes. ``begins`` and ``ends`` are bytes
    from the start of the file.
    """

    names: Sequence[str]
    dtype_codes: Codes
    dtype_names: tuple[str, ...]
    shape_codes: Codes
    shape_table: tuple[tuple[int, ...], ...]
    begins: Int64s
    ends: Int64s
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Gap:
    """Where tensors and data do not fit together; ``row`` is None where no single tensor is to blame."""

    row: int | None
    problem: str
    cut: bool = False
    """Whether the file's length is wrong, not its header."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without the cyclic garbage collector, which would walk all that was parsed again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def byte_length(shape: Sequence[int], bits: int) -> int | None:
    """Bytes of a packed tensor; None when a product passes 2**63 or the last byte would be shared.

    As in the Rust reader, the product is checked after each factor: a zero does not excuse an overflow before it.
    """
    elements = 1
    for size in shape:
        elements *= size
        if elements >= SIZE_LIMIT:
            return None
    total = elements * bits
    return None if total >= SIZE_LIMIT or total % 8 else total // 8


def first_gap(begins: Int64s, ends: Int64s, data_size: int) -> Gap | None:
    """The first place where data offsets are not contiguous from 0, or that they do not end with the file."""
    if not len(begins):
        return (
            Gap(None, say("{unused} of data belong to no tensor", unused=plural(data_size, "byte")), cut=True)
            if data_size
            else None
        )
    last = len(begins) - 1
    if begins[0] or not np.array_equal(begins[1:], ends[:-1]):
        order = np.lexsort((ends, begins))
        previous = np.concatenate((np.zeros(1, dtype=np.int64), ends[order][:-1]))
        wrong = np.flatnonzero(begins[order] != previous)
        if len(wrong):
            row, expected = int(order[wrong[0]]), int(previous[wrong[0]])
            problem = say(
                "begins at data offset {begin:,} and leaves a hole: it should be {expected:,}"
                if begins[row] > expected
                else "begins at data offset {begin:,} and overlaps another tensor: it should be {expected:,}",
                begin=int(begins[row]),
                expected=expected,
            )
            return Gap(row, problem)
        last = int(order[-1])
    end = int(ends[last])
    if end > data_size:
        problem = say(
            "was cut short: its tensors take {needed}, but only {there:,} follow its header",
            needed=plural(end, "byte"),
            there=data_size,
        )
        return Gap(None, problem, cut=True)
    if end < data_size:
        return Gap(
            None,
            say("{unused} after the last tensor belong to no tensor", unused=plural(data_size - end, "byte")),
            cut=True,
        )
    return None
