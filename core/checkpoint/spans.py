"""Many pieces of one text at once: compared, hashed and read as numbers by numpy, eight bytes a step.

A piece is a pair of positions ``begins``, ``ends`` (int64 arrays, ends exclusive) in a :class:`Text`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from core.checkpoint.columns import Int64s

Words = npt.NDArray[np.uint64]

FRONT, BACK = 32, 96
"""Zero bytes around a text, so that a step may reach over its edges."""

_CHUNK = 64
_STEPS = _CHUNK // 8
_BLOCK = 1 << 13  # pieces at a time: what is computed of them stays in the processor's cache

# _LAST[n] keeps the last n bytes of a word, in the order of the text; _FIRST[n] the first n.
_LAST = np.array([((1 << 8 * n) - 1) << 8 * (8 - n) for n in range(9)], dtype=np.uint64)
_FIRST = np.array([(1 << 8 * n) - 1 for n in range(9)], dtype=np.uint64)
_FIRST_OF_CHUNK = np.array(
    [[(1 << 8 * min(max(n - 8 * step, 0), 8)) - 1 for step in range(_STEPS)] for n in range(_CHUNK + 1)],
    dtype=np.uint64,
)
_FACTORS = np.array([secrets.randbits(64) | 1 for _ in range(_STEPS)], dtype=np.uint64)
_MIX = np.uint64(secrets.randbits(64) | 1)
_HALF = np.uint64(32)

_ZEROS, _ABOVE_NINE, _TOP_BITS = (np.uint64(0x0101010101010101 * byte) for byte in (0x30, 0x76, 0x80))
_COMMAS, _LOW_BITS = (np.uint64(0x0101010101010101 * byte) for byte in (ord(","), 0x7F))


class Text:
    """Text in one buffer, as bytes. Positions count from the start of the buffer: the text begins at :data:`FRONT`."""

    __slots__ = ("_chunks", "_words", "data", "joined")

    def __init__(self, parts: Iterable[bytes | memoryview]) -> None:
        joined = b"".join((bytes(FRONT), *parts, bytes(BACK)))
        self.joined = joined
        self.data = np.frombuffer(joined, dtype=np.uint8)
        little = np.dtype("<u8")
        self._words: Words = np.ndarray((len(joined) - 7,), little, joined, 0, (1,))
        self._chunks: Words = np.ndarray((len(joined) - _CHUNK + 1, _STEPS), little, joined, 0, (1, 8))

    def positions(self, character: str) -> Int64s:
        """Where a character stands."""
        return np.flatnonzero(np.equal(self.data, ord(character)))

    def words(self, at: Int64s) -> Words:
        """The eight bytes from each position."""
        found: Words = self._words[at]
        return found

    def beginnings(self, begins: Int64s, lengths: Int64s | int) -> Words:
        """The first eight bytes of each piece, zeros behind shorter ones (empty where a length is negative)."""
        kept: Words = _FIRST[np.clip(lengths, 0, 8)]
        return self.words(begins) & kept

    def tails(self, begins: Int64s, ends: Int64s) -> Words:
        """The last eight bytes of each piece, zeros before shorter ones."""
        kept: Words = _LAST[np.minimum(ends - begins, 8)]
        return self.words(ends - 8) & kept

    def pieces(self, begins: Int64s, length: int) -> npt.NDArray[np.bytes_]:
        """The ``length`` bytes from each position, none of which may reach over the end."""
        windows: npt.NDArray[np.bytes_] = np.ndarray(
            (len(self.joined) - length + 1,), f"S{length}", self.joined, 0, (1,)
        )
        found: npt.NDArray[np.bytes_] = windows[begins]
        return found

    def hashes(self, begins: Int64s, ends: Int64s) -> Words:
        """A 64-bit hash of each piece: equal pieces have equal hashes, within this process.

        Its factors are drawn when the process starts, so that no file can be made in which unequal names collide.
        """
        found = np.empty(len(begins), dtype=np.uint64)
        for start in range(0, len(begins), _BLOCK):
            rows = slice(start, start + _BLOCK)
            found[rows] = self._block_hashes(begins[rows], ends[rows])
        return found

    def _block_hashes(self, begins: Int64s, ends: Int64s) -> Words:
        lengths = ends - begins
        found = self._chunk_hashes(begins, lengths)
        rows = np.flatnonzero(lengths > _CHUNK)
        done = _CHUNK
        while len(rows):
            found[rows] = found[rows] * _MIX + self._chunk_hashes(begins[rows] + done, lengths[rows] - done)
            done += _CHUNK
            rows = rows[lengths[rows] > done]
        return found

    def _chunk_hashes(self, begins: Int64s, lengths: Int64s) -> Words:
        chunks = self._chunks[begins]
        chunks &= np.take(_FIRST_OF_CHUNK, np.minimum(lengths, _CHUNK), axis=0)
        chunks *= _MIX
        chunks ^= chunks >> _HALF
        found: Words = chunks @ _FACTORS
        found += lengths.astype(np.uint64)
        found ^= found >> _HALF
        found *= _MIX
        return found

    def numbers(self, begins: Int64s, ends: Int64s) -> Int64s | None:
        """Each piece as a number of 1 to 18 digits without leading zeros; None when any is something else."""
        lengths = ends - begins
        longest = int(lengths.max(initial=1))
        if int(lengths.min(initial=1)) < 1 or longest > 18:
            return None
        values = np.zeros(len(begins), dtype=np.uint64)
        for step in range(0, longest, 8):
            digits = (self.words(ends - (step + 8)) ^ _ZEROS) & _LAST[np.clip(lengths - step, 0, 8)]
            if (((digits + _ABOVE_NINE) | digits) & _TOP_BITS).any():
                return None
            values += _eight_digits(digits) * np.uint64(10**step)
        if ((self.data[begins] == ord("0")) & (lengths > 1)).any():
            return None
        return values.astype(np.int64)


def comma_before(text: Text, ends: Int64s) -> Int64s | None:
    """Where the last comma in the sixteen bytes before each end stands; None when some have none."""
    near, far = _last_comma(text.words(ends - 8)), _last_comma(text.words(ends - 16))
    found = np.where(near > 0, ends - 9 + near, ends - 17 + far)
    return found if (np.maximum(near, far) > 0).all() else None


def _last_comma(words: Words) -> Int64s:
    """The number of the last byte that is a comma, from 1; 0 where none is."""
    differing = words ^ _COMMAS
    marked = ~(((differing & _LOW_BITS) + _LOW_BITS) | differing | _LOW_BITS)  # the top bit of each byte that is equal
    found: Int64s = (np.frexp(marked.astype(np.float64))[1] >> 3).astype(np.int64)
    return found


def pieces_of(names: Sequence[str]) -> tuple[Text, Int64s, Int64s]:
    """A text of these names, and where each begins and ends."""
    encoded = [name.encode("utf-8", "surrogatepass") for name in names]
    ends = FRONT + np.fromiter(accumulate(map(len, encoded)), dtype=np.int64, count=len(encoded))
    begins = np.concatenate((np.full(1, FRONT, dtype=np.int64), ends[:-1]))[: len(ends)]
    return Text(encoded), begins, ends


def hashes_of(names: Sequence[str]) -> Words:
    """:meth:`Text.hashes` of whole strings."""
    text, begins, ends = pieces_of(names)
    return text.hashes(begins, ends)


def ending_in(tails: Words, suffix: str) -> npt.NDArray[np.bool_]:
    """Which of the pieces with these :meth:`Text.tails` end in the last eight bytes of ``suffix``."""
    last = suffix.encode("utf-8", "surrogatepass")[-8:]
    expected = np.uint64(int.from_bytes(last.rjust(8, b"\0"), "little"))
    found: npt.NDArray[np.bool_] = (tails & _LAST[len(last)]) == expected
    return found


def group(keys: Words) -> tuple[Int64s, Int64s] | None:
    """Number the different columns of ``keys`` (words a key, rows): the number of every row, and a row of each number.

    None in the rare case that two keys share a hash.
    """
    changes = np.ones(
        keys.shape[1], dtype=np.bool_
    )  # equal ones often stand in a row: only the first of each is sorted
    np.any(keys[:, 1:] != keys[:, :-1], axis=0, out=changes[1:])
    heads = np.flatnonzero(changes)
    grouped = _group(keys[:, heads])
    if grouped is None:
        return None
    numbers, examples = grouped
    return numbers[np.cumsum(changes) - 1], heads[examples]


def _group(keys: Words) -> tuple[Int64s, Int64s] | None:
    mixed = np.zeros(keys.shape[1], dtype=np.uint64)
    for row, factor in zip(keys, _FACTORS, strict=False):
        mixed += row * factor
        mixed ^= mixed >> _HALF
        mixed *= _MIX
    order = np.argsort(mixed)
    starts = np.ones(len(order), dtype=bool)
    np.not_equal(mixed[order][1:], mixed[order][:-1], out=starts[1:])
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(starts) - 1
    examples = order[starts]
    return (numbers, examples) if np.array_equal(keys[:, examples][:, numbers], keys) else None


def word(text: str) -> np.uint64:
    """Eight characters as :meth:`Text.words` sees them, zeros behind fewer."""
    return np.uint64(int.from_bytes(text.encode("ascii").ljust(8, b"\0"), "little"))


def _eight_digits(digits: Words) -> Words:
    """The number that eight digits of value 0 to 9 make, one a byte, the first in the lowest byte."""
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    low = (pairs & np.uint64(0x000000FF000000FF)) * np.uint64(0x000F424000000064)
    high = ((pairs >> np.uint64(16)) & np.uint64(0x000000FF000000FF)) * np.uint64(0x0000271000000001)
    return (low + high) >> np.uint64(32)
