"""``ConfigDraft``: a checkpoint's JSON files with fields changed, before anything is written."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from difflib import unified_diff
from typing import Any

from core.checkpoint import Checkpoint
from core.errors import ExportError, KVScopeError
from core.export.index import in_style_of
from core.export.plan import ConfigEdit, FieldChange
from core.quantization import Declaration, read_declaration
from core.wording import joined, say

Path = tuple[str, ...]
_CONTEXT = 2


class ConfigDraft:
    """The config files as they will be written. Also a source for :func:`core.quantization.read_declaration`."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._changed: dict[str, dict[str, Any]] = {}
        self._changes: dict[str, dict[Path, FieldChange]] = {}
        self._reasons: dict[str, list[str]] = {}

    def config(self, name: str, /) -> Mapping[str, Any] | None:
        """The object in a file, with its changes; None where there is no such file. Raises as the checkpoint's own."""
        return self._changed[name] if name in self._changed else self._checkpoint.config(name)

    def config_names(self) -> tuple[str, ...]:
        """The JSON files of the checkpoint."""
        return self._checkpoint.config_names()

    def value(self, file: str, path: Sequence[str]) -> Any:
        """The value at a path, None where there is none or the file cannot be read."""
        try:
            value: Any = self.config(file)
        except KVScopeError:
            return None
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def set(self, file: str, path: Sequence[str], value: Any, reason: str) -> bool:
        """Change one value; whether that changes anything. Objects on the way are made where they are absent.

        Raises:
            ExportError: there is no such file, or something on the way is no object.
        """
        content = self.config(file)
        if content is None:
            raise ExportError(
                say("is not there, and the KV cache cannot be declared"),
                path=self._checkpoint.place_of(file),
                remedy=say("Put the model's config.json beside its tensors"),
            )
        if self.value(file, path) == value and self._has(file, path):
            return False
        changed = self._changed.setdefault(file, copy.deepcopy(dict(content)))
        place: Any = changed
        for part in path[:-1]:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ExportError(
                    say("{part} is no object, and {field} cannot be written into it", part=part, field=path[-1]),
                    path=self._checkpoint.place_of(file),
                    remedy=say("Correct the file"),
                )
        before = place.get(path[-1])
        place[path[-1]] = value
        rows = self._changes.setdefault(file, {})
        first = rows.get(tuple(path))
        rows[tuple(path)] = FieldChange(".".join(path), first.before if first is not None else before, value)
        reasons = self._reasons.setdefault(file, [])
        if reason not in reasons:
            reasons.append(reason)
        return True

    def remove(self, file: str, path: Sequence[str], reason: str) -> bool:
        """Take one value out; whether it was there."""
        if not self._has(file, path):
            return False
        before = self.value(file, path)
        self.set(file, path, None, reason)
        place: Any = self._changed[file]
        for part in path[:-1]:
            place = place[part]
        place.pop(path[-1])
        self._changes[file][tuple(path)] = FieldChange(".".join(path), before, None)
        return True

    def _has(self, file: str, path: Sequence[str]) -> bool:
        parent = self.value(file, path[:-1])
        return isinstance(parent, Mapping) and path[-1] in parent

    @property
    def changed(self) -> bool:
        return bool(self._changes)

    def declaration(self) -> Declaration:
        """What the files declare after the changes."""
        return read_declaration(self, tensor_names=self._checkpoint.catalog.names)

    def edits(self) -> tuple[ConfigEdit, ...]:
        """The files that change, with the text to write and the diff against the source's."""
        return tuple(self._edit(file) for file in self._changes)

    def _edit(self, file: str) -> ConfigEdit:
        path = self._checkpoint.root / file
        try:
            text = path.read_bytes().decode("utf-8-sig")  # with its own line ends
            new = in_style_of(text, self._changed[file])
        except (OSError, ValueError) as error:
            raise ExportError(
                say("cannot be written anew"),
                path=self._checkpoint.place_of(file),
                remedy=say("It changed since the checkpoint was opened; open it again"),
            ) from error
        return ConfigEdit(
            file=file,
            changes=tuple(self._changes[file].values()),
            text=new,
            diff=_diff(text, new, file),
            reason=joined(" ", self._reasons[file]),
        )


def _diff(before: str, after: str, file: str) -> str:
    """A unified diff, by lines; text without line ends is first laid out."""
    if before.count("\n") < 2:
        before, after = (
            json.dumps(json.loads(text, strict=False), indent=2, ensure_ascii=False) for text in (before, after)
        )
    lines = unified_diff(before.splitlines(), after.splitlines(), f"a/{file}", f"b/{file}", n=_CONTEXT, lineterm="")
    return "\n".join(lines)
