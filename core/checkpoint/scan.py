"""The quick reader of safetensors headers: one regular expression over the form that writers produce.

Safetensors, and every writer seen so far, spell an entry as
``"name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}``, without spaces, with the fields in this order. One pass
of :mod:`re` over such text is several times faster than a JSON reader that builds objects for each tensor. Whatever
deviates, in form or in substance, is left to :mod:`core.checkpoint.strict`, which knows what to say about it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import numpy as np

from core.checkpoint.columns import CODE_OF, DTYPE_NAMES, HeaderColumns, byte_length, first_gap
from core.checkpoint.dtypes import DTYPES

_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_ENTRY = re.compile(
    r',"([ !#-\[\]-~]*)":\{"dtype":"([A-Z0-9_]+)","shape":\[([0-9,]*)\],'
    rf'"data_offsets":\[({_NUMBER}),({_NUMBER})\]\}}'
)
_PUNCTUATION = len(',"":{"dtype":"","shape":[],"data_offsets":[,]}')
_SHAPE = re.compile(rf"(?:{_NUMBER}(?:,{_NUMBER})*)?")
_METADATA = '{"__metadata__":'


def scan_header(data: bytes | memoryview, file_size: int) -> HeaderColumns | None:
    """The columns of a header in the usual form that breaks no rule; None for every other."""
    try:
        text = str(data, "ascii").rstrip(" ")
    except UnicodeDecodeError:
        return None
    if not text.startswith('{"') or not text.endswith("}"):
        return None
    if not text.startswith(_METADATA):
        return _columns(f",{text[1:-1]}", {}, file_size - 8 - len(data), 8 + len(data))
    found = _metadata(text)
    if found is None:
        return None
    metadata, end = found
    return _columns(text[end:-1], metadata, file_size - 8 - len(data), 8 + len(data))


def _metadata(text: str) -> tuple[Mapping[str, str], int] | None:
    """The __metadata__ object and the position behind it."""
    try:
        pairs, end = json.JSONDecoder(object_pairs_hook=list).raw_decode(text, len(_METADATA))
        found = dict(pairs)
        "".join([*found, *found.values()]).encode()  # fails for what is no string, or half a character
    except (ValueError, TypeError, RecursionError):
        return None
    return (found, end) if len(found) == len(pairs) and text[len(_METADATA)] == "{" else None


def _columns(text: str, metadata: Mapping[str, str], data_size: int, data_begin: int) -> HeaderColumns | None:
    """The columns of ``text``, a run of entries each preceded by a comma."""
    matches = _ENTRY.findall(text)
    if not matches:
        return None
    names, dtypes, shape_texts, begin_texts, end_texts = zip(*matches, strict=True)
    matched = sum(sum(map(len, column)) for column in (names, dtypes, shape_texts, begin_texts, end_texts))
    if matched + len(names) * _PUNCTUATION != len(text):  # some of the text is no entry
        return None
    distinct = set(names)
    if len(distinct) != len(names) or "__metadata__" in distinct:
        return None
    kinds = list(zip(dtypes, shape_texts, strict=True))
    known = {kind: _kind(*kind) for kind in set(kinds)}
    if None in known.values():
        return None
    codes, shapes, lengths = zip(*map(known.__getitem__, kinds), strict=True)
    shape_codes = {shape: code for code, shape in enumerate(dict.fromkeys(shapes))}
    begins = np.fromiter(map(int, begin_texts), dtype=np.int64, count=len(names))
    ends = np.fromiter(map(int, end_texts), dtype=np.int64, count=len(names))
    if not np.array_equal(ends - begins, np.array(lengths, dtype=np.int64)):
        return None
    if first_gap(begins, ends, data_size) is not None:
        return None
    order = sorted(range(len(names)), key=names.__getitem__)
    rows = np.array(order)
    return HeaderColumns(
        names=list(map(names.__getitem__, order)),
        dtype_codes=np.array(codes, dtype=np.int32)[rows],
        dtype_names=DTYPE_NAMES,
        shape_codes=np.array(list(map(shape_codes.__getitem__, shapes)), dtype=np.int32)[rows],
        shape_table=tuple(shape_codes),
        begins=begins[rows] + data_begin,
        ends=ends[rows] + data_begin,
        metadata=metadata,
    )


def _kind(dtype: str, shape_text: str) -> tuple[int, tuple[int, ...], int] | None:
    """The dtype code, shape and bytes of a tensor; tensors that look alike share them."""
    code = CODE_OF.get(dtype)
    if code is None or not _SHAPE.fullmatch(shape_text):
        return None
    shape = tuple(map(int, shape_text.split(","))) if shape_text else ()
    length = byte_length(shape, DTYPES[dtype].bits)
    return None if length is None else (code, shape, length)
