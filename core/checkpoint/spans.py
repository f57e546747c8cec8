"""Many pieces of one text at once: compared, hashed and read as numbers by numpy, eight bytes a step.

A piece is a pair of positions ``begins``, ``ends`` (int64 arrays, ends exclusive) in a :class:`Text`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from core.checkpoint.columns import Int64s

Words = npt.NDArray[np.uint64]

FRONT, BACK = 32, 96
"""Zero bytes around a text, so that a step may reach over its edges."""

_CHUNK = 64
_STEPS = _CHUNK // 8
_PART = 120_000  # bytes at a time; glibc takes larger blocks from the system, and gives them back, again and again
_TAILS = _PART // 8
_BLOCK = 1 << 12  # pieces at a time: what is computed of them stays in the processor's cache

# _LAST[n] keeps the last n bytes of a word, in the order of the text.
_LAST = np.array([((1 << 8 * n) - 1) << 8 * (8 - n) for n in range(9)], dtype=np.uint64)
_FIRST_OF_CHUNK = np.array(
    [[(1 << 8 * min(max(n - 8 * step, 0), 8)) - 1 for step in range(_STEPS)] for n in range(_CHUNK + 1)],
    dtype=np.uint64,
)
_FACTORS = np.frombuffer(os.urandom(8 * _STEPS), dtype=np.uint64) | np.uint64(1)
_MIX = np.frombuffer(os.urandom(8), dtype=np.uint64)[0] | np.uint64(1)
_HALF = np.uint64(32)

_ZEROS, _ABOVE_NINE, _TOP_BITS = (np.uint64(0x0101010101010101 * byte) for byte in (0x30, 0x76, 0x80))
_LONGEST_NUMBER = 18
# _LAST_DIGITS[step][n] keeps of the word that lies 8 * step bytes before a number's last one what its n digits take.
_LAST_DIGITS = np.array(
    [[_LAST[min(max(n - 8 * step, 0), 8)] for n in range(_LONGEST_NUMBER + 1)] for step in range(3)]
)
_COMMAS, _LOW_BITS = (np.uint64(0x0101010101010101 * byte) for byte in (ord(","), 0x7F))
_POWERS = [10**digits for digits in range(1, 19)]


class Text:
    """Text in one buffer, as bytes. Positions count from the start of the buffer: the text begins at :data:`FRONT`."""

    __slots__ = ("_words", "data", "joined")

    def __init__(self, parts: Iterable[bytes | memoryview]) -> None:
        joined = b"".join((bytes(FRONT), *parts, bytes(BACK)))
        self.joined = joined
        self.data = np.frombuffer(joined, dtype=np.uint8)
        self._words: Words = np.ndarray((len(joined) - 7,), "<u8", joined, 0, (1,))

    def positions(self, character: str) -> Int64s:
        """Where a character stands."""
        parts = [np.flatnonzero(part == ord(character)) + start for start, part in self._parts()]
        return np.concatenate(parts)

    def count(self, character: str) -> int:
        """How often a character stands there."""
        return sum(int(np.count_nonzero(part == ord(character))) for _, part in self._parts())

    def brackets(self) -> Int64s:
        """Where one of ``[]{}`` stands: no other byte keeps a bit of 0xDD when 0x5B is taken from it."""
        found = []
        for start, part in self._parts():
            shifted = part - np.uint8(0x5B)
            shifted &= np.uint8(0xDD)
            found.append(np.flatnonzero(shifted == 0) + start)
        return np.concatenate(found)

    def _parts(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Some of the bytes after the other, with their positions: few enough that what is made of them stays near."""
        for start in range(0, len(self.data), _PART):
            yield start, self.data[start : start + _PART]

    def words(self, at: Int64s) -> Words:
        """The eight bytes from each position."""
        found: Words = self._words[at]
        return found

    def tails(self, begins: Int64s, ends: Int64s) -> Words:
        """The last eight bytes of each piece, zeros before shorter ones."""
        kept: Words = _LAST[np.minimum(ends - begins, 8)]
        return self.words(ends - 8) & kept

    def sorting_keys(self, begins: Int64s, length: int) -> npt.NDArray[np.str_]:
        """At least ``length`` bytes from each position, as strings that are sorted as the bytes are: numpy compares
        four at a time where it takes them for a character. None may reach over the end.
        """
        characters = -(-length // 4)
        found = self._bytes_from(begins, 4 * characters).view("<u4")
        if sys.byteorder == "little":
            found.byteswap(inplace=True)
        return found.view(f"=U{characters}")

    def _bytes_from(self, begins: Int64s, length: int) -> npt.NDArray[np.void]:
        """The ``length`` bytes from each position. As one item each, numpy copies them whole."""
        windows: npt.NDArray[np.void] = np.ndarray((len(self.joined) - length + 1,), f"V{length}", self.joined, 0, (1,))
        found: npt.NDArray[np.void] = windows[begins]
        return found

    def hashes(self, begins: Int64s, ends: Int64s) -> Words:
        """A 64-bit hash of each piece: equal pieces have equal hashes, within this process.

        Its factors are drawn when the process starts: whoever makes a file cannot know which unequal names collide.
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
        chunks = self._bytes_from(begins, _CHUNK).view("<u8").reshape(-1, _STEPS)
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
        values = self.values(ends, lengths)
        if values is None or ((self.data[begins] == ord("0")) & (lengths > 1)).any():
            return None
        return values

    def values(self, ends: Int64s, lengths: Int64s) -> Int64s | None:
        """The same of pieces given by end and length, with leading zeros."""
        longest = int(lengths.max(initial=1))
        if int(lengths.min(initial=1)) < 1 or longest > _LONGEST_NUMBER:
            return None
        values = np.zeros(len(ends), dtype=np.uint64)
        for step in range(0, longest, 8):
            found = self.words(ends - (step + 8))
            found ^= _ZEROS
            found &= _LAST_DIGITS[step // 8][lengths]
            wrong = found + _ABOVE_NINE
            wrong |= found
            wrong &= _TOP_BITS
            if wrong.any():
                return None
            part = _eight_digits(found)
            values += part * np.uint64(10**step) if step else part
        return values.astype(np.int64)

    def same_digits(self, ends: Int64s, others: Int64s, lengths: Int64s) -> bool:
        """Whether the pieces of at most 18 characters that end there are the same, one by one."""
        for step in range(0, int(lengths.max(initial=0)), 8):
            differing = self.words(ends - (step + 8))
            differing ^= self.words(others - (step + 8))
            differing &= _LAST_DIGITS[step // 8][lengths]
            if differing.any():
                return False
        return True


def digits(values: Int64s) -> Int64s:
    """How many digits each number from 0 on takes."""
    found = np.ones(len(values), dtype=np.int64)
    largest = int(values.max(initial=0))
    for power in _POWERS:
        if power > largest:
            break
        found += values >= power
    return found


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


def ending_in(tails: Words, suffix: str) -> Int64s:
    """Which of the pieces with these :meth:`Text.tails` end in the last eight bytes of ``suffix``."""
    last = suffix.encode("utf-8", "surrogatepass")[-8:]
    kept, expected = _LAST[len(last)], np.uint64(int.from_bytes(last.rjust(8, b"\0"), "little"))
    found = [
        np.flatnonzero((tails[start : start + _TAILS] & kept) == expected) + start
        for start in range(0, len(tails), _TAILS)
    ]
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def group(hashes: Words) -> tuple[Int64s, Int64s]:
    """Number the different hashes: the number of every row, and a row of each number."""
    changes = np.ones(len(hashes), dtype=np.bool_)  # equal ones often stand in a row: only the first of each is sorted
    np.not_equal(hashes[1:], hashes[:-1], out=changes[1:])
    heads = np.flatnonzero(changes)
    chosen = hashes[heads]
    order = np.argsort(chosen)
    ordered = chosen[order]
    starts = np.ones(len(order), dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=starts[1:])
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(starts) - 1
    return numbers[np.cumsum(changes) - 1], heads[order[starts]]


def summed(hashes: Words) -> int:
    """One number for all of them, whatever their order; another one, as good as surely, for as many others."""
    mixed = hashes * _MIX
    mixed ^= mixed >> _HALF
    mixed *= _FACTORS[0]
    return int(np.add.reduce(mixed))


def word(text: str) -> np.uint64:
    """Eight characters as :meth:`Text.words` sees them, zeros behind fewer."""
    return np.uint64(int.from_bytes(text.encode("ascii").ljust(8, b"\0"), "little"))


def _eight_digits(digits: Words) -> Words:
    """The number that eight digits of value 0 to 9 make, one a byte, the first in the lowest byte."""
    high = digits >> np.uint64(8)
    pairs = digits * np.uint64(10)
    pairs += high
    np.right_shift(pairs, np.uint64(16), out=high)
    pairs &= np.uint64(0x000000FF000000FF)
    high &= np.uint64(0x000000FF000000FF)
    pairs *= np.uint64(0x000F424000000064)
    high *= np.uint64(0x0000271000000001)
    pairs += high
    pairs >>= np.uint64(32)
    return pairs
