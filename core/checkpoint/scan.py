"""The quick reader of safetensors headers: numpy over the form that writers produce, many headers at a time.

Safetensors, and every writer seen so far, spell an entry as
``"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}``, without blanks, the fields in this order. So an entry
has six brackets, and everything else has its place relative to them. What stands between a name and its offsets comes
in a few dozen spellings, of which each is looked at once. The reader proves that each byte of a header is what that
form demands; whatever deviates, in form or in substance, is left to :mod:`core.checkpoint.strict`, which knows what to
say about it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from core.checkpoint.columns import (
    CODE_OF,
    DTYPE_NAMES,
    LONGEST_NAME,
    Codes,
    HeaderColumns,
    Int64s,
    byte_length,
    first_gap,
)
from core.checkpoint.dtypes import DTYPES
from core.checkpoint.names import Names, Spelled
from core.checkpoint.spans import FRONT, Text, Words, comma_before, digits, group, hashes_of, word

_METADATA = b'{"__metadata__":'
_LONGEST_KIND = 64
_KIND = re.compile(
    rb'":\{"dtype":"([A-Z0-9_]+)","shape":\[((?:(?:0|[1-9][0-9]*)(?:,(?:0|[1-9][0-9]*))*)?)\],"data_offsets":\['
)
_QUOTES = 10  # of one entry
_BRACKETS = 6
_BETWEEN, _FOUR = word(']},"'), np.uint64(0xFFFFFFFF)
_CLOSING, _THREE = word("]}}"), np.uint64(0xFFFFFF)
_METADATA_HASH = hashes_of(["__metadata__"])[0]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scanned:
    """Several headers' rows in one: header by header, inside a header by name.

    ``columns.metadata`` is empty; each header's own is in ``metadata``, the number of its rows in ``counts``.
    ``hashes`` and ``tails`` are those of the names (:class:`core.checkpoint.spans.Text`).
    """

    columns: HeaderColumns
    counts: Codes
    metadata: tuple[Mapping[str, str], ...]
    hashes: Words
    tails: Words


def scan_header(data: bytes | memoryview, file_size: int) -> HeaderColumns | None:
    """The columns of one header in the usual form that breaks no rule; None for every other."""
    found = scan_headers([bytes(data)], [file_size])
    if found is None:
        return None
    columns, [metadata] = found.columns, found.metadata
    return replace(columns, metadata=metadata)


def scan_headers(headers: Sequence[bytes], file_sizes: Sequence[int]) -> Scanned | None:
    """All headers at once; None when any is not in the usual form, or breaks a rule.

    About 1 MiB of headers a call is best: what is read again stays in the processor's cache.
    """
    regions = _regions(headers)
    if regions is None:
        return None
    text = Text(headers)
    marks = _marks(text, regions)
    kinds = _kinds(text, marks) if marks is not None else None
    if marks is None or kinds is None:
        return None
    header_sizes = np.array([8 + len(header) for header in headers])
    offsets = _offsets(text, marks, kinds.sizes[kinds.numbers], np.array(file_sizes) - header_sizes)
    sorting = _sorting(text, marks, plain=regions.plain) if offsets is not None else None
    if offsets is None or sorting is None:
        return None
    (begins, ends), (hashes, order) = offsets, sorting
    name_begins, name_ends, numbers = marks.name_begins[order], marks.name_ends[order], kinds.numbers[order]
    shift = np.repeat(header_sizes, marks.counts)
    columns = HeaderColumns(
        names=Names([Spelled(text.joined, name_begins, name_ends)]),
        dtype_codes=kinds.dtype_codes[numbers],
        dtype_names=DTYPE_NAMES,
        shape_codes=kinds.shape_codes[numbers],
        shape_table=kinds.shape_table,
        begins=begins[order] + shift,
        ends=ends[order] + shift,
        metadata={},
    )
    return Scanned(
        columns=columns,
        counts=marks.counts.astype(np.int32),
        metadata=regions.metadata,
        hashes=hashes,
        tails=text.tails(name_begins, name_ends),
    )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Regions:
    """Where each header's entries lie: from the first quotation mark to the brace behind the last. ``quotes``: how many
    quotation marks stand before them, in all headers; ``plain``: whether each of their characters comes behind the
    quotation mark in ASCII, or is one.
    """

    begins: Int64s
    ends: Int64s
    metadata: tuple[Mapping[str, str], ...]
    quotes: int
    plain: bool


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Marks:
    """Of every row, where its name begins and ends, its offsets begin (behind the bracket), and its last brace stands.

    ``counts``: rows of each header; ``firsts`` and ``lasts``: the first and the last row of each header that has any.
    """

    name_begins: Int64s
    name_ends: Int64s
    offsets: Int64s
    closes: Int64s
    counts: Int64s
    firsts: Int64s
    lasts: Int64s


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Kinds:
    """The different pairs of type and shape, with the bytes that such a tensor takes; ``numbers``: that of each row."""

    numbers: Int64s
    dtype_codes: Codes
    shape_codes: Codes
    shape_table: tuple[tuple[int, ...], ...]
    sizes: Int64s


def _regions(headers: Sequence[bytes]) -> _Regions | None:
    begins, ends, metadata, quotes, lowest, highest = [], [], [], 0, ord("~"), 0
    read = _MetadataReader()
    at = FRONT
    for header in headers:
        last = header.rfind(b"}")
        if last < 1 or header[last + 1 :].strip(b" ") or not header.startswith(b"{"):
            return None
        first, found = 1, dict[str, str]()
        if header.startswith(_METADATA):
            known = read(header)
            if known is None:
                return None
            found, first, before = known
            quotes += before
            if first < last:
                if header[first] != ord(","):
                    return None
                first += 1
        if first < last:
            if header.find(b"\\", first) >= 0:
                return None
            entries = np.frombuffer(header, np.uint8, last - first, first)
            lowest, highest = min(lowest, int(entries.min())), max(highest, int(entries.max()))
        begins.append(at + first)
        ends.append(at + last)
        metadata.append(found)
        at += len(header)
    if lowest < ord(" ") or highest > ord("~"):
        return None
    return _Regions(
        begins=np.array(begins),
        ends=np.array(ends),
        metadata=tuple(metadata),
        quotes=quotes,
        plain=lowest >= ord('"'),
    )


class _MetadataReader:
    """Reads the __metadata__ object at the begin of a header: most shards of a checkpoint have the same."""

    def __init__(self) -> None:
        self._begin = _METADATA
        self._known: tuple[dict[str, str], int, int] | None = None

    def __call__(self, header: bytes) -> tuple[dict[str, str], int, int] | None:
        """The object, the position behind it, and how many quotation marks stand before that."""
        if self._known is None or not header.startswith(self._begin):
            self._known = self._read(header)
            self._begin = header[: self._known[1]] if self._known is not None else _METADATA
        return self._known

    @staticmethod
    def _read(header: bytes) -> tuple[dict[str, str], int, int] | None:
        if header[len(_METADATA) : len(_METADATA) + 1] != b"{":
            return None
        try:
            string = header.decode("ascii")
            pairs, end = json.JSONDecoder(object_pairs_hook=list).raw_decode(string, len(_METADATA))
            found = dict(pairs)
            "".join([*found, *found.values()]).encode()  # fails for what is no string, or half a character
        except (ValueError, TypeError, RecursionError):
            return None
        return (found, end, header.count(b'"', 0, end)) if len(found) == len(pairs) else None


def _marks(text: Text, regions: _Regions) -> _Marks | None:
    brackets = text.brackets()
    low, high = np.searchsorted(brackets, regions.begins), np.searchsorted(brackets, regions.ends)
    counts = (high - low) // _BRACKETS
    some = counts > 0
    if ((high - low) % _BRACKETS).any() or not some.any() or not np.array_equal(some, regions.begins != regions.ends):
        return None
    inside = [brackets[begin:end] for begin, end in zip(low.tolist(), high.tolist(), strict=True)]
    opens, _, _, offsets, ended, closes = np.ascontiguousarray(np.concatenate(inside).reshape(-1, _BRACKETS).T)
    lasts = np.cumsum(counts[some]) - 1
    firsts = lasts - counts[some] + 1
    quotes = np.empty(len(opens), dtype=np.int64)
    quotes[1:] = closes[:-1] + 2
    quotes[firsts] = regions.begins[some]
    between = np.ones(len(opens), dtype=np.bool_)
    between[lasts] = False
    following = text.words(closes - 1)
    marks = _Marks(
        name_begins=quotes + 1,
        name_ends=opens - 2,
        offsets=offsets + 1,
        closes=closes,
        counts=counts,
        firsts=firsts,
        lasts=lasts,
    )
    usual = (
        np.array_equal(ended, closes - 1)
        and np.array_equal((following & _FOUR) == _BETWEEN, between)
        and bool(((following[lasts] & _THREE) == _CLOSING).all())
        and np.array_equal(closes[lasts] + 1, regions.ends[some])
        and bool((text.data[regions.begins[some]] == ord('"')).all())
        and bool((marks.name_begins <= marks.name_ends).all())
        # With those that a kind has there are at least ten in each entry: if there are no more, no name holds one.
        and text.count('"') == regions.quotes + _QUOTES * len(opens)
    )
    return marks if usual else None


def _kinds(text: Text, marks: _Marks) -> _Kinds | None:
    """Type, shape and length of every row."""
    begins, ends = marks.name_ends, marks.offsets
    if int((ends - begins).max()) > _LONGEST_KIND:
        return None
    numbers, examples = group(text.hashes(begins, ends))
    shape_code_of: dict[tuple[int, ...], int] = {}
    rows = np.empty((3, len(examples)), dtype=np.int64)
    for number, (begin, end) in enumerate(zip(begins[examples].tolist(), ends[examples].tolist(), strict=True)):
        kind = _kind(text.joined[begin:end])
        if kind is None:
            return None
        dtype_code, shape, size = kind
        rows[:, number] = dtype_code, shape_code_of.setdefault(shape, len(shape_code_of)), size
    return _Kinds(
        numbers=numbers,
        dtype_codes=rows[0].astype(np.int32),
        shape_codes=rows[1].astype(np.int32),
        shape_table=tuple(shape_code_of),
        sizes=rows[2],
    )


@lru_cache(maxsize=1024)
def _kind(spelled: bytes) -> tuple[int, tuple[int, ...], int] | None:
    """Type, shape and length of a tensor, from what stands between its name and its offsets."""
    found = _KIND.fullmatch(spelled)
    if found is None:
        return None
    dtype, sizes = found[1].decode("ascii"), found[2]
    shape = tuple(map(int, sizes.split(b","))) if sizes else ()
    size = byte_length(shape, DTYPES[dtype].bits) if dtype in DTYPES else None
    return None if size is None else (CODE_OF[dtype], shape, size)


def _offsets(text: Text, marks: _Marks, sizes: Int64s, data_sizes: Int64s) -> tuple[Int64s, Int64s] | None:
    """Where the data of every row begins and ends; None when the rows do not fit together, or to their sizes."""
    some = marks.counts > 0
    if data_sizes[~some].any():
        return None
    ends = np.cumsum(sizes)
    ends -= np.repeat(ends[marks.firsts] - sizes[marks.firsts], marks.counts[some])
    begins = ends - sizes
    if np.array_equal(ends[marks.lasts], data_sizes[some]) and _are_spelled(text, marks, ends):
        return begins, ends
    stops = marks.closes - 1
    commas = comma_before(text, stops)
    first = text.numbers(marks.offsets, commas) if commas is not None else None
    second = text.numbers(commas + 1, stops) if commas is not None else None
    if first is None or second is None or not np.array_equal(second - first, sizes):
        return None
    return (first, second) if _fits(first, second, marks, data_sizes[some]) else None


def _are_spelled(text: Text, marks: _Marks, ends: Int64s) -> bool:
    """Whether the offsets are the ones that each tensor has when it lies behind the one before, as writers put them."""
    stops, lengths = marks.closes - 1, digits(ends)
    commas = stops - lengths - 1
    before = np.empty(len(stops), dtype=np.int64)
    before[1:] = stops[:-1]
    before_lengths = commas - marks.offsets
    expected = np.ones(len(stops), dtype=np.int64)
    expected[1:] = lengths[:-1]
    expected[marks.firsts] = 1
    if not np.array_equal(before_lengths, expected) or not (text.data[commas] == ord(",")).all():
        return False
    if not (text.data[marks.offsets[marks.firsts]] == ord("0")).all():
        return False
    before[marks.firsts] = commas[marks.firsts]
    values = text.values(stops, lengths)
    return values is not None and np.array_equal(values, ends) and text.same_digits(commas, before, before_lengths)


def _fits(begins: Int64s, ends: Int64s, marks: _Marks, data_sizes: Int64s) -> bool:
    """Whether the tensors of each header are contiguous, in any order, and end where its data ends."""
    for first, last, size in zip(marks.firsts.tolist(), marks.lasts.tolist(), data_sizes.tolist(), strict=True):
        if first_gap(begins[first : last + 1], ends[first : last + 1], size) is not None:
            return False
    return True


def _sorting(text: Text, marks: _Marks, *, plain: bool) -> tuple[Words, Int64s] | None:
    """The rows in the order of their names inside each header, and the hashes of the names in that order."""
    begins, ends = marks.name_begins, marks.name_ends
    longest = int((ends - begins).max())
    if longest > LONGEST_NAME:
        return None
    hashes = text.hashes(begins, ends)
    if (hashes == _METADATA_HASH).any():
        return None  # the name of what is no tensor
    # Where the mark that ends a name is less than every other character, what follows it decides nothing: the names
    # can be sorted as pieces of one length. They mostly stand in sorted runs, which a stable sort merges.
    plain = plain and int(begins.max()) + longest + 4 < len(text.joined)
    keys = text.sorting_keys(begins, longest + 1) if plain else _strings(text, begins, ends)
    order = np.empty(len(begins), dtype=np.int64)
    for first, last in zip(marks.firsts.tolist(), marks.lasts.tolist(), strict=True):
        order[first : last + 1] = np.argsort(keys[first : last + 1], kind="stable") + first
    in_order = hashes[order]
    twice = in_order[1:] == in_order[:-1]
    twice[marks.lasts[:-1]] = False  # the last name of one header and the first of the next may be the same
    return None if twice.any() else (in_order, order)


def _strings(text: Text, begins: Int64s, ends: Int64s) -> npt.NDArray[np.object_]:
    return np.array(Spelled(text.joined, begins, ends).strings(), dtype=np.object_)
