"""The quick reader of safetensors headers: numpy over the form that writers produce, many headers at a time.

Safetensors, and every writer seen so far, spell an entry as
``"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}``, without blanks, the fields in this order. So every
tenth quotation mark begins an entry, and everything else has its place relative to the ten. The reader proves that
each byte of a header is what that form demands; whatever deviates, in form or in substance, is left to
:mod:`core.checkpoint.strict`, which knows what to say about it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.checkpoint.columns import DTYPE_NAMES, Codes, HeaderColumns, Int64s, byte_length, first_gap
from core.checkpoint.dtypes import DTYPES
from core.checkpoint.names import Names, Spelled
from core.checkpoint.spans import FRONT, Text, Words, comma_before, group, hashes_of, word

_METADATA = '{"__metadata__":'
_LONGEST_NAME = 1024
_SHAPE = re.compile(r"(?:(?:0|[1-9][0-9]*)(?:,(?:0|[1-9][0-9]*))*)?")

# What stands around the ten quotation marks of an entry: (which mark, how far from it, eight characters).
_FRAME = (
    (1, 1, ':{"dtype'),
    (1, 4, 'dtype":"'),
    (5, 0, '","shape'),
    (5, 3, 'shape":['),
    (8, -2, '],"data_'),
    (8, 4, "a_offset"),
    (8, 8, 'fsets":['),
)
_FRAME_WORDS = tuple((mark, by, word(text)) for mark, by, text in _FRAME)
_CLOSING, _CLOSING_LAST, _THREE = word("]},"), word("]}}"), np.uint64(0xFFFFFF)

# A type's name with what follows it, as a word: sorted, with the types' codes beside.
_TYPE_WORDS = np.array([word((name + '","shape')[:8]) for name in DTYPE_NAMES])
_TYPE_ORDER = np.argsort(_TYPE_WORDS)
_SORTED_TYPE_WORDS = _TYPE_WORDS[_TYPE_ORDER]
_LONG_TYPES = {code: word(name[3:]) for code, name in enumerate(DTYPE_NAMES) if len(name) > 7}
_METADATA_HASH = hashes_of(["__metadata__"])[0]
_LENGTHS = np.array([len(name) for name in DTYPE_NAMES])


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
    return HeaderColumns(
        names=columns.names,
        dtype_codes=columns.dtype_codes,
        dtype_names=columns.dtype_names,
        shape_codes=columns.shape_codes,
        shape_table=columns.shape_table,
        begins=columns.begins,
        ends=columns.ends,
        metadata=metadata,
    )


def scan_headers(headers: Sequence[bytes], file_sizes: Sequence[int]) -> Scanned | None:
    """All headers at once; None when any is not in the usual form, or breaks a rule.

    About 1 MiB of headers a call is best: what is read again stays in the processor's cache.
    """
    text = Text(headers)
    if not text.joined.isascii():
        return None
    string = text.joined.decode("ascii")
    regions = _regions(text, string, headers)
    if regions is None:
        return None
    marks = _marks(text, regions)
    if marks is None or not _is_framed(text, marks):
        return None
    offsets = _offsets(text, marks)
    kinds = _kinds(text, string, marks.quotes)
    if offsets is None or kinds is None:
        return None
    (begins, ends), (dtype_codes, shape_codes, shape_table, lengths) = offsets, kinds
    header_sizes = np.array([8 + len(header) for header in headers])
    if not np.array_equal(ends - begins, lengths) or not _fits(
        begins, ends, marks, np.array(file_sizes) - header_sizes
    ):
        return None
    sorting = _sorting(text, string, regions, marks)
    if sorting is None:
        return None
    hashes, order = sorting
    name_begins, name_ends = marks.quotes[0][order] + 1, marks.quotes[1][order]
    shift = np.repeat(header_sizes, marks.counts)
    columns = HeaderColumns(
        names=Names([Spelled(string, name_begins, name_ends)]),
        dtype_codes=dtype_codes[order],
        dtype_names=DTYPE_NAMES,
        shape_codes=shape_codes[order],
        shape_table=shape_table,
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


@dataclass(frozen=True, slots=True, eq=False)
class _Regions:
    """Where each header's entries lie: from the comma or brace before the first to the brace behind the last."""

    begins: Int64s
    ends: Int64s
    metadata: tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Marks:
    """``quotes``: for each of the ten quotation marks of an entry, its position in every row (10, rows).

    ``closes``: the position behind each entry. ``counts``: rows of each header; ``firsts`` and ``lasts``: the first and
    the last row of each header that has any.
    """

    quotes: Int64s
    closes: Int64s
    counts: Int64s
    firsts: Int64s
    lasts: Int64s


def _regions(text: Text, string: str, headers: Sequence[bytes]) -> _Regions | None:
    if text.data[FRONT : FRONT + sum(map(len, headers))].min(initial=ord(" ")) < ord(" "):
        return None
    begins, ends, metadata = [], [], []
    at = FRONT
    for header in headers:
        last = header.rfind(b"}")
        if last < 1 or header[last + 1 :].strip(b" ") or not header.startswith(b"{"):
            return None
        first, found = 0, dict[str, str]()
        if header.startswith(_METADATA.encode()):
            read = _metadata(string, at + len(_METADATA))
            if read is None:
                return None
            found, first = read[0], read[1] - at
            if first < last and header[first] != ord(","):
                return None
        elif last == 1:  # {}
            first = last
        if header.find(b"\\", first) >= 0:
            return None
        begins.append(at + first)
        ends.append(at + last)
        metadata.append(found)
        at += len(header)
    return _Regions(np.array(begins), np.array(ends), tuple(metadata))


def _metadata(string: str, at: int) -> tuple[dict[str, str], int] | None:
    """The __metadata__ object and the position behind it."""
    if string[at] != "{":
        return None
    try:
        pairs, end = json.JSONDecoder(object_pairs_hook=list).raw_decode(string, at)
        found = dict(pairs)
        "".join([*found, *found.values()]).encode()  # fails for what is no string, or half a character
    except (ValueError, TypeError, RecursionError):
        return None
    return (found, end) if len(found) == len(pairs) else None


def _marks(text: Text, regions: _Regions) -> _Marks | None:
    quotes = text.positions('"')
    low, high = np.searchsorted(quotes, regions.begins), np.searchsorted(quotes, regions.ends)
    counts = (high - low) // 10
    if ((high - low) % 10).any() or not counts.any() or (counts[regions.begins != regions.ends] == 0).any():
        return None
    if int((high - low).sum()) != len(quotes):
        quotes = np.concatenate([quotes[begin:end] for begin, end in zip(low.tolist(), high.tolist(), strict=True)])
    by_mark = np.ascontiguousarray(quotes.reshape(-1, 10).T)
    some = counts > 0
    lasts = np.cumsum(counts[some]) - 1
    firsts = lasts - counts[some] + 1
    closes = np.empty(len(by_mark[0]), dtype=np.int64)
    closes[:-1] = by_mark[0][1:] - 1
    closes[lasts] = regions.ends[some]
    if not np.array_equal(by_mark[0][firsts], regions.begins[some] + 1):
        return None
    return _Marks(by_mark, closes, counts, firsts, lasts)


def _is_framed(text: Text, marks: _Marks) -> bool:
    """Whether everything around names, types and numbers is as it must be."""
    closing = np.full(len(marks.closes), _CLOSING)
    closing[marks.lasts] = _CLOSING_LAST
    if not np.array_equal(text.words(marks.closes - 2) & _THREE, closing):
        return False
    return all(bool((text.words(marks.quotes[mark] + by) == expected).all()) for mark, by, expected in _FRAME_WORDS)


def _offsets(text: Text, marks: _Marks) -> tuple[Int64s, Int64s] | None:
    """The data offsets of every row."""
    begins, ends = marks.quotes[8] + 16, marks.closes - 2
    commas = comma_before(text, ends)
    if commas is None:
        return None
    first, second = text.numbers(begins, commas), text.numbers(commas + 1, ends)
    return None if first is None or second is None else (first, second)


def _kinds(text: Text, string: str, quotes: Int64s) -> tuple[Codes, Codes, tuple[tuple[int, ...], ...], Int64s] | None:
    """Type, shape and length of every row: type codes, shape codes, the shapes, bytes."""
    words = text.words(quotes[4] + 1)
    types = _TYPE_ORDER[np.minimum(np.searchsorted(_SORTED_TYPE_WORDS, words), len(_TYPE_ORDER) - 1)]
    if not np.array_equal(_TYPE_WORDS[types], words) or not np.array_equal(_LENGTHS[types], quotes[5] - quotes[4] - 1):
        return None
    for code, rest in _LONG_TYPES.items():
        if (text.words(quotes[4][types == code] + 4) != rest).any():
            return None
    begins, lengths = quotes[5] + 11, quotes[8] - quotes[5] - 13
    if int(lengths.max()) > 16:
        return None
    keys = np.stack(
        (text.beginnings(begins, lengths), text.beginnings(begins + 8, lengths - 8), types.astype(np.uint64))
    )
    grouped = group(keys)
    if grouped is None:
        return None
    group_of, examples = grouped
    shape_code_of: dict[tuple[int, ...], int] = {}
    shape_codes, sizes = np.empty(len(examples), dtype=np.int32), np.empty(len(examples), dtype=np.int64)
    starts, stops = begins[examples].tolist(), (begins + lengths)[examples].tolist()
    for number, (start, stop, code) in enumerate(zip(starts, stops, types[examples].tolist(), strict=True)):
        spelled = string[start:stop]
        if not _SHAPE.fullmatch(spelled):
            return None
        shape = tuple(map(int, spelled.split(","))) if spelled else ()
        size = byte_length(shape, DTYPES[DTYPE_NAMES[code]].bits)
        if size is None:
            return None
        shape_codes[number] = shape_code_of.setdefault(shape, len(shape_code_of))
        sizes[number] = size
    return types.astype(np.int32), shape_codes[group_of], tuple(shape_code_of), sizes[group_of]


def _fits(begins: Int64s, ends: Int64s, marks: _Marks, data_sizes: Int64s) -> bool:
    """Whether the tensors of each header are contiguous and end where its data ends."""
    some = marks.counts > 0
    if data_sizes[~some].any():
        return False
    expected = np.empty(len(begins), dtype=np.int64)
    expected[1:] = ends[:-1]
    expected[marks.firsts] = 0
    if np.array_equal(begins, expected) and np.array_equal(ends[marks.lasts], data_sizes[some]):
        return True
    for first, last, size in zip(marks.firsts.tolist(), marks.lasts.tolist(), data_sizes[some].tolist(), strict=True):
        if first_gap(begins[first : last + 1], ends[first : last + 1], size) is not None:
            return False
    return True


def _sorting(text: Text, string: str, regions: _Regions, marks: _Marks) -> tuple[Words, Int64s] | None:
    """The rows in the order of their names inside each header, and the hashes of the names in that order."""
    begins, ends = marks.quotes[0] + 1, marks.quotes[1]
    longest = int((ends - begins).max())
    if longest > _LONGEST_NAME:
        return None
    hashes = text.hashes(begins, ends)
    if (hashes == _METADATA_HASH).any():
        return None  # the name of what is no tensor
    spans = zip(regions.begins.tolist(), regions.ends.tolist(), strict=True)
    plain = int(begins.max()) + longest < len(text.joined) and all(
        begin == end or text.data[begin:end].min() >= ord('"') for begin, end in spans
    )
    # Where the mark that ends a name is less than every other character, what follows it decides nothing: the names
    # can be sorted as pieces of one length. They mostly stand in sorted runs, which a stable sort of bytes merges.
    keys = text.pieces(begins, longest + 1) if plain else _strings(string, begins, ends)
    order = np.empty(len(begins), dtype=np.int64)
    for first, last in zip(marks.firsts.tolist(), marks.lasts.tolist(), strict=True):
        order[first : last + 1] = np.argsort(keys[first : last + 1], kind="stable") + first
    in_order = hashes[order]
    twice = in_order[1:] == in_order[:-1]
    twice[marks.lasts[:-1]] = False  # the last name of one header and the first of the next may be the same
    return None if twice.any() else (in_order, order)


def _strings(string: str, begins: Int64s, ends: Int64s) -> npt.NDArray[np.object_]:
    return np.array(Spelled(string, begins, ends).strings(), dtype=np.object_)
