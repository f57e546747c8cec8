"""``ExportPlan``: everything an export would change, known before the first byte is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from core.checkpoint import Checkpoint
from core.diagnosis.finding import Finding, Verdict
from core.engines.outcome import Deliveries
from core.export.files import SourceFile
from core.inspection import Inspection

Action = Literal["kept", "renamed", "reshaped", "duplicated", "dropped", "added", "repaired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEdit:
    """What the export does with one tensor, and why (``reason`` is a sentence for people).

    ``key`` and ``file`` name the tensor in the source; for "added" ``key`` is "" and ``file`` the shard that takes it.
    ``new_key`` None drops the tensor. ``new_shape`` and ``new_dtype`` None leave them as they are. "duplicated" writes
    the tensor once more as ``new_key``, beside what other edits make of it. ``values`` are the numbers to write where
    the bytes are not the source's: always for "added" and "repaired" (which may rename and reshape as well), and where
    ``new_dtype`` changes. ``fixes`` are the codes of the repairs that asked for it.
    """

    key: str
    file: str
    action: Action
    reason: str
    new_key: str | None = None
    new_shape: tuple[int, ...] | None = None
    new_dtype: str | None = None
    values: tuple[float, ...] = ()
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedFix:
    """A repair that was chosen: ``--fix code=value``, what it did and why, and the keys that it concerns.

    ``keys`` are names in the source; for tensors that it added, their new names.
    """

    code: str
    value: str
    reason: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One value of a JSON file: ``field`` is its dotted path, ``before`` None where it was absent."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigEdit:
    """A changed JSON file: the fields, the text that will be written, and the unified diff against the source's."""

    file: str
    changes: tuple[FieldChange, ...]
    text: str
    diff: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unreachable:
    """Scales that no spelling brings to an attention layer of this engine: their keys, and why."""

    keys: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """A normalized export, ready to be shown and then written by :func:`core.export.write.write_export`.

    ``before`` is the inspection that the plan starts from, under the target ``engine`` (an engine profile's id).
    ``names`` is the id of the naming convention chosen, "as-is" where names stay; ``asked`` says that the user
    named it, so that it was followed whatever the engine makes of it. ``fixes`` are the repairs chosen. ``edits``
    lists every KV scale, also those that stay, and every other tensor that the export touches; tensors without an
    edit stay byte for byte. ``files`` are the source's files as they were when the plan was made; ``space_needed``
    is in bytes. ``predicted`` is what the engine will do with the result, ``verdict_predicted`` the verdict on that
    and ``findings_predicted`` what is still to be said about it; ``unreachable`` are the scales that it cannot be
    brought to take. ``notes`` are sentences for people.
    """

    before: Inspection
    root: Path
    engine: str
    names: str
    edits: tuple[TensorEdit, ...]
    config_edits: tuple[ConfigEdit, ...] = ()
    files: tuple[SourceFile, ...]
    space_needed: int
    predicted: Deliveries
    verdict_predicted: Verdict
    unreachable: tuple[Unreachable, ...] = ()
    notes: tuple[str, ...] = ()
    asked: bool = False
    fixes: tuple[AppliedFix, ...] = ()
    findings_predicted: tuple[Finding, ...] = ()

    @property
    def source(self) -> Checkpoint:
        return self.before.checkpoint

    @property
    def verdict_before(self) -> Verdict:
        return self.before.verdict

    @property
    def files_copied(self) -> tuple[str, ...]:
        """The files that are copied as they are: configs, tokenizer, and shards in which no tensor changes."""
        changed = {edit.file for edit in self.changes} | {edit.file for edit in self.config_edits}
        index = {file.name for file in self.files if file.role == "index"} if self.changes else set()
        return tuple(file.name for file in self.files if file.name not in changed | index)

    @property
    def changes(self) -> tuple[TensorEdit, ...]:
        """The edits that change something."""
        return tuple(edit for edit in self.edits if edit.action != "kept")
