r"""The JSON files of a checkpoint: read with a cap, broken ones explained.

Tolerated, because tools write it and engines read it: keys that stand twice (the last counts), NaN and infinities, a
byte order mark, control characters in strings (ModelOpt writes NemotronH configs with ``\u0000`` in them).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.checkpoint.columns import collector_paused
from core.checkpoint.faults import BrokenFileError
from core.checkpoint.files import DOWNLOAD_AGAIN, read_whole, recognize
from core.wording import say

LARGEST_CONFIG = 32 << 20
"""Bytes. Model configs have some kilobytes; the largest files beside them, tokenizers, stay below."""

MOST_CONFIGS = 1000
_MEND = say("Correct the file, or download it again.")

Hook = Callable[[list[tuple[str, Any]]], dict[str, Any]]


def load_json_object(path: Path, largest: int = LARGEST_CONFIG) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        BrokenFileError: it cannot be read, is larger than ``largest`` bytes, or is no JSON object.
    """
    return parse_json_object(read_whole(path, largest))


def parse_json_object(data: bytes, hook: Hook | None = None) -> dict[str, Any]:
    """The JSON object that ``data`` spells. ``hook`` is the JSON reader's ``object_pairs_hook``.

    Raises:
        BrokenFileError: it spells none.
    """
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        raise recognize(data[:512], len(data)) or BrokenFileError(say("is not JSON"), offset=0, remedy=_MEND)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BrokenFileError(say("is not UTF-8 text"), offset=error.start, remedy=_MEND) from error
    try:
        with collector_paused():
            found = json.loads(text, strict=False, object_pairs_hook=hook)
    except json.JSONDecodeError as error:
        offset = len(data) - len(text[error.pos :].encode())
        problem = say(
            "is not valid JSON: {error}, line {line}, column {column}",
            error=error.msg,
            line=error.lineno,
            column=error.colno,
        )
        raise BrokenFileError(problem, offset=offset, remedy=_MEND) from error
    except RecursionError as error:
        raise BrokenFileError(say("is nested too deeply"), remedy=_MEND) from error
    except ValueError as error:  # an integer of more than 4,300 digits
        raise BrokenFileError(say("holds a number that is too long"), remedy=_MEND) from error
    if not isinstance(found, dict):
        raise BrokenFileError(say("holds no JSON object"), offset=0, remedy=DOWNLOAD_AGAIN)
    if b"\\ud" in data.lower() and _has_half_characters(found):
        raise BrokenFileError(say("holds half of a surrogate pair, which is no text"), remedy=_MEND)
    return found


def json_files(folder: Path) -> tuple[str, ...]:
    """The names of a folder's JSON files, sorted, at most :data:`MOST_CONFIGS`; () where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".json") and entry.is_file()]
    except OSError:
        return ()
    return tuple(sorted(names)[:MOST_CONFIGS])


def _has_half_characters(found: dict[str, Any]) -> bool:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
