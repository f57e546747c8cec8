"""The index of a sharded checkpoint (``model.safetensors.index.json``), rewritten for an export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import ExportError
from core.export.splicing import spliced
from core.wording import say

_STYLES: tuple[tuple[int | str | None, tuple[str, str] | None], ...] = (
    (2, None), (4, None), (None, None), (None, (",", ":")), ("\t", None), (1, None), (3, None), (8, None),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexChanges:
    """What an export means for the index.

    ``moved`` maps an old tensor name to those that take its place (none: dropped); ``added`` maps every new name to
    its shard, for those whose old name the index did not list. ``total_size`` is the sum of all tensors in bytes.
    """

    moved: Mapping[str, Sequence[str]]
    added: Mapping[str, str]
    total_size: int


def rebuild_index(text: str, changes: IndexChanges, *, name: str) -> str:
    """The index's text after an export; what does not change keeps its place, its spelling and the text's own style.

    ``name`` names the file in a message.

    Raises:
        ExportError: the text is no index.
    """
    try:
        index = json.loads(text, strict=False)
        old: dict[str, str] = dict(index["weight_map"].items())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(
            say("the file has no weight_map"),
            path=name,
            remedy=say("It changed since the checkpoint was opened, or is damaged; open the checkpoint again."),
        ) from error
    weight_map: dict[str, str] = {}
    for key, file in old.items():
        for new in changes.moved.get(key, (key,)):
            weight_map[new] = file
    for key, file in changes.added.items():
        weight_map.setdefault(key, file)
    index["weight_map"] = weight_map
    if isinstance(index.get("metadata"), dict) and "total_size" in index["metadata"]:
        index["metadata"]["total_size"] = changes.total_size
    return in_style_of(text, index)


def in_style_of(text: str, value: Any) -> str:
    """``value`` as JSON with the indentation, escapes and line ends of ``text``. Where those are not regular, what does
    not change keeps its own.
    """
    plain = text.replace("\r\n", "\n")
    if plain != text and plain.replace("\n", "\r\n") == text:
        return _regular(plain, value, "\r\n") or spliced(text, value)
    return _regular(text, value, "\n") or spliced(text, value)


def _regular(text: str, value: Any, line_end: str) -> str | None:
    """None where ``text`` is not what a JSON writer makes of its own content."""
    original, end = json.loads(text, strict=False), text[len(text.rstrip()) :]
    for indent, separators in _STYLES:
        for escaped in (False, True):
            if json.dumps(original, indent=indent, separators=separators, ensure_ascii=escaped) == text.rstrip():
                written = json.dumps(value, indent=indent, separators=separators, ensure_ascii=escaped) + end
                return written.replace("\n", line_end)
    return None
