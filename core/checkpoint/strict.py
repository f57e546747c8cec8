"""The exact reader of safetensors headers: the standard library's JSON, every rule checked, every breach explained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from core.checkpoint.columns import CODE_OF, LONGEST_NAME, SIZE_LIMIT, HeaderColumns, byte_length, first_gap
from core.checkpoint.dtypes import DTYPES
from core.checkpoint.faults import BrokenFileError, quoted
from core.checkpoint.files import DOWNLOAD_AGAIN
from core.wording import plural, say

RENAME = say("Give the tensor a shorter name.")
WRITE_AGAIN = say("Write the file again with the safetensors library, or download it again.")
_LONGEST_DTYPE = 64


def read_strictly(data: bytes | memoryview, file_size: int) -> HeaderColumns:
    """:func:`core.checkpoint.header.parse_header`, exact about what is wrong.

    Raises:
        BrokenFileError: a rule is broken; its offset counts from the start of the file.
    """
    raw = bytes(data)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(say("its header is not UTF-8"), 8 + error.start) from error
    if not text.startswith("{"):
        raise _broken(say("its header does not begin with '{{'"), 8)
    tree = _load(text)
    metadata = _metadata(text, tree.pop("__metadata__", None))
    return _columns(text, tree, metadata, 8 + len(raw), file_size)


class _RefusedError(Exception):
    """Raised from within the JSON reader's hooks."""

    def __init__(self, problem: str, at: str | None = None, *, remedy: str = "") -> None:
        super().__init__(problem)
        self.problem, self.at, self.remedy = problem, at, remedy or WRITE_AGAIN


def _load(text: str) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = json.loads(  # an object: the text begins with '{'
            text, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_no_constant, parse_float=_Fraction
        )
    except _RefusedError as error:
        raise _broken(error.problem, _offset_of(text, error.at)) from error
    except json.JSONDecodeError as error:
        raise _broken(
            say("its header is not JSON: {message}", message=error.msg), 8 + len(text[: error.pos].encode())
        ) from error
    except RecursionError as error:
        raise _broken(say("its header is nested too deeply"), 8) from error
    return tree


class _Fraction(str):
    """A number with a fraction or an exponent, kept as text: the format has none."""

    __slots__ = ()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RefusedError(say("its header names {key} twice", key=quoted(key)), key)
            seen.add(key)
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or digits == "-0" or not -SIZE_LIMIT < (value := int(digits)) < SIZE_LIMIT:
        raise _RefusedError(
            say("its header holds the number {digits}, which no size or offset can be", digits=quoted(digits, 60)),
            digits,
        )
    return value


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(say("its header is not JSON: {name} is no number", name=name), name)


def _metadata(text: str, found: Any) -> Mapping[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _broken(say("its __metadata__ is no JSON object"), _offset_of(text, "__metadata__"))
    for key, value in found.items():
        if type(value) is not str:
            raise _broken(say("its __metadata__ entry {key} is no string", key=quoted(key)), _offset_of(text, key))
        if _has_surrogate(key) or _has_surrogate(value):
            raise _broken(
                say("its __metadata__ entry {key} is not valid text", key=quoted(key)), _offset_of(text, "__metadata__")
            )
    return found


def _columns(
    text: str, tree: dict[str, Any], metadata: Mapping[str, str], data_begin: int, file_size: int
) -> HeaderColumns:
    names = sorted(tree)
    dtype_codes, shape_codes = dict(CODE_OF), dict[tuple[int, ...], int]()
    rows = np.empty((len(names), 4), dtype=np.int64)
    for row, name in enumerate(names):
        try:
            dtype, shape, begin, end = _entry(name, tree[name])
        except _RefusedError as error:
            raise _broken(
                say("tensor {name} {problem}", name=quoted(name), problem=error.problem),
                _offset_of(text, name),
                remedy=error.remedy,
            ) from error
        dtype_code = dtype_codes.setdefault(dtype, len(dtype_codes))
        shape_code = shape_codes.setdefault(shape, len(shape_codes))
        rows[row] = dtype_code, shape_code, begin, end
    begins, ends = rows[:, 2], rows[:, 3]
    gap = first_gap(begins, ends, file_size - data_begin)
    if gap is not None and gap.row is not None:
        name = names[gap.row]
        raise _broken(say("tensor {name} {problem}", name=quoted(name), problem=gap.problem), _offset_of(text, name))
    if gap is not None:
        raise _broken(gap.problem, min(data_begin + int(ends.max(initial=0)), file_size), cut=gap.cut)
    return HeaderColumns(
        names=names,
        dtype_codes=rows[:, 0].astype(np.int32),
        dtype_names=tuple(dtype_codes),
        shape_codes=rows[:, 1].astype(np.int32),
        shape_table=tuple(shape_codes),
        begins=begins + data_begin,
        ends=ends + data_begin,
        metadata=metadata,
    )


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """One tensor's dtype, shape and data offsets; fields that the format does not define are ignored."""
    _check_name(name)
    if not isinstance(entry, dict):
        raise _RefusedError(say("is described by no JSON object"))
    for field in ("dtype", "shape", "data_offsets"):
        if field not in entry:
            raise _RefusedError(say("has no {field}", field=field))
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if type(dtype) is not str or not dtype.isascii() or not dtype.isprintable() or not 0 < len(dtype) <= _LONGEST_DTYPE:
        raise _RefusedError(say("has a dtype that is no type name"))
    if not _sizes(shape):
        raise _RefusedError(say("has a shape that is no list of sizes"))
    if not _sizes(offsets) or len(offsets) != 2:
        raise _RefusedError(say("has data_offsets that are no pair of offsets"))
    begin, end = offsets
    if end < begin:
        raise _RefusedError(say("ends at data offset {end:,}, before it begins at {begin:,}", end=end, begin=begin))
    known = DTYPES.get(dtype)
    if known is not None:
        expected = byte_length(shape, known.bits)
        if expected is None:
            raise _RefusedError(
                say(
                    "of shape {shape} and type {dtype} has no whole number of bytes below 2**63",
                    shape=_listed(shape),
                    dtype=dtype,
                )
            )
        if expected != end - begin:
            problem = say(
                "of shape {shape} and type {dtype} takes {needed}, but its offsets span {span:,}",
                shape=_listed(shape),
                dtype=dtype,
                needed=plural(expected, "byte"),
                span=end - begin,
            )
            raise _RefusedError(problem)
    return dtype, tuple(shape), begin, end


def _check_name(name: str) -> None:
    if _has_surrogate(name):
        raise _RefusedError(say("has a name that is not valid text"))
    if len(name) > LONGEST_NAME:
        raise _RefusedError(too_long(name), remedy=RENAME)


def too_long(name: str) -> str:
    """What is said of a tensor whose name no model has."""
    return say(
        "has a name of {length:,} characters; names of up to {most:,} are read", length=len(name), most=LONGEST_NAME
    )


def _sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _listed(shape: Sequence[int]) -> str:
    text = ", ".join(map(str, shape[:8]))
    return f"[{text}, ...]" if len(shape) > 8 else f"[{text}]"


def _has_surrogate(text: str) -> bool:
    """Whether an escape left half of a surrogate pair, which no UTF-8 text can hold."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _offset_of(text: str, token: str | None) -> int | None:
    """The byte of the file at which ``token`` first stands in the header."""
    if token is None:
        return None
    for spelled in (json.dumps(token, ensure_ascii=False), json.dumps(token), token):
        position = text.find(spelled)
        if position >= 0:
            return 8 + len(text[:position].encode())
    return None


def _broken(problem: str, offset: int | None, *, cut: bool = False, remedy: str = WRITE_AGAIN) -> BrokenFileError:
    return BrokenFileError(problem, offset=offset, remedy=DOWNLOAD_AGAIN if cut else remedy)
