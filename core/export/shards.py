"""What a plan's edits mean for each shard."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from core.checkpoint.dtypes import encode
from core.errors import ExportError
from core.export.index import IndexChanges
from core.export.plan import ExportPlan, TensorEdit
from core.export.safetensors_writer import NewTensor, ShardLayout, StoredTensor, lay_out, read_header
from core.wording import say


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardJob:
    """One shard in which something changes: what stands where each changed tensor stood, and what comes on top."""

    replaced: Mapping[str, Sequence[NewTensor]]
    added: Sequence[NewTensor]
    layout: ShardLayout
    bytes_before: int
    """Bytes of all tensors in the source's shard."""


def shard_jobs(plan: ExportPlan) -> dict[str, ShardJob]:
    """The shards that change, by file name.

    Raises:
        ExportError: an edit does not fit its tensor, or two tensors of the checkpoint would have one name.
    """
    by_file: dict[str, list[TensorEdit]] = {}
    for edit in plan.changes:
        by_file.setdefault(edit.file, []).append(edit)
    jobs = {}
    for file in plan.files:
        edits = by_file.pop(file.name, None)
        if edits is not None:
            jobs[file.name] = _job(plan, file.name, file.size, edits)
    for name, edits in by_file.items():
        raise ExportError(say("the plan changes a tensor of a file that is not there"), path=name, key=edits[0].key)
    _refuse_collisions(plan, jobs)
    return jobs


def index_changes(plan: ExportPlan, jobs: Mapping[str, ShardJob]) -> IndexChanges:
    """How the index changes."""
    catalog = plan.source.catalog
    total = int((catalog.ends - catalog.begins).sum())
    total += sum(job.layout.tensor_bytes - job.bytes_before for job in jobs.values())
    return IndexChanges(
        moved={old: [new.name for new in news] for job in jobs.values() for old, news in job.replaced.items()},
        added={name: file for file, job in jobs.items() for name in _names(job)} | _left_elsewhere(plan, jobs),
        total_size=total,
    )


def _left_elsewhere(plan: ExportPlan, jobs: Mapping[str, ShardJob]) -> dict[str, str]:
    """Keys that are gone from one shard and stay in another."""
    catalog = plan.source.catalog
    gone = {
        (key, file)
        for file, job in jobs.items()
        for key, news in job.replaced.items()
        if all(new.name != key for new in news)
    }
    shards = ((key, catalog.shard(row)) for key, _ in gone for row in catalog.rows_of(key))
    return {key: shard for key, shard in shards if (key, shard) not in gone}


def _job(plan: ExportPlan, file: str, size: int, edits: Sequence[TensorEdit]) -> ShardJob:
    header = read_header(plan.root / file)
    stored = {tensor.name: tensor for tensor in header.tensors}
    replaced: dict[str, list[NewTensor]] = {}
    added: list[NewTensor] = []
    for edit in edits:
        if edit.action == "added":
            added.append(_added(edit))
            continue
        tensor = stored.get(edit.key)
        if tensor is None:
            raise ExportError(
                say("the shard has no such tensor"),
                path=file,
                key=edit.key,
                remedy=say("It changed since the checkpoint was opened; open the checkpoint again."),
            )
        new = replaced.setdefault(edit.key, [])
        if edit.action != "dropped":
            new.append(_changed(edit, tensor))
    for key, new in replaced.items():
        if all(edit.action == "duplicated" for edit in edits if edit.key == key):
            new.insert(0, NewTensor(key, stored[key].dtype, stored[key].shape))
    return ShardJob(
        replaced=replaced,
        added=added,
        layout=lay_out(header, file_size=size, replaced=replaced, added=added),
        bytes_before=header.tensor_bytes,
    )


def _changed(edit: TensorEdit, tensor: StoredTensor) -> NewTensor:
    shape = tensor.shape if edit.new_shape is None else edit.new_shape
    dtype = edit.new_dtype or tensor.dtype
    if edit.values:
        return NewTensor(edit.new_key or edit.key, dtype, shape, _data(edit, dtype, shape))
    if dtype != tensor.dtype or math.prod(shape) != math.prod(tensor.shape):
        raise ExportError(
            say(
                "the tensor is {dtype} {shape} and cannot become {new_dtype} {new_shape} without values",
                dtype=tensor.dtype,
                shape=list(tensor.shape),
                new_dtype=dtype,
                new_shape=list(shape),
            ),
            path=edit.file,
            key=edit.key,
        )
    return NewTensor(edit.new_key or edit.key, dtype, shape)


def _added(edit: TensorEdit) -> NewTensor:
    if edit.new_key is None or edit.new_dtype is None or edit.new_shape is None:
        raise ExportError(say("an added tensor needs a name, a type and a shape"), path=edit.file, key=edit.new_key)
    return NewTensor(edit.new_key, edit.new_dtype, edit.new_shape, _data(edit, edit.new_dtype, edit.new_shape))


def _data(edit: TensorEdit, dtype: str, shape: Sequence[int]) -> bytes:
    key = edit.new_key or edit.key
    if len(edit.values) != math.prod(shape):
        raise ExportError(
            say("{count} values do not fill the shape {shape}", count=len(edit.values), shape=list(shape)),
            path=edit.file,
            key=key,
        )
    try:
        return encode(edit.values, dtype)
    except ValueError as error:
        raise ExportError(
            say("values are not written as type {dtype}", dtype=dtype), path=edit.file, key=key, remedy=say("Use F32.")
        ) from error


def _refuse_collisions(plan: ExportPlan, jobs: Mapping[str, ShardJob]) -> None:
    """lay_out finds two tensors of one name in a shard; this finds them across shards."""
    catalog = plan.source.catalog
    where: dict[str, str] = {}
    for file, job in jobs.items():
        for name in _names(job):
            if name in job.replaced:  # it stood here before; a key that the source has twice is the source's matter
                continue
            others = [catalog.shard(row) for row in catalog.rows_of(name)]
            kept = (other for other in others if other != file and name not in _replaced(jobs, other))
            other = next(kept, where.setdefault(name, file))
            if other != file:
                raise ExportError(
                    say("two tensors would have this name, one in {other} and one in {file}", other=other, file=file),
                    key=name,
                    remedy=say("Drop one of them, or choose another naming convention."),
                )


def _names(job: ShardJob) -> list[str]:
    return [new.name for news in (*job.replaced.values(), job.added) for new in news]


def _replaced(jobs: Mapping[str, ShardJob], file: str) -> Collection[str]:
    return jobs[file].replaced if file in jobs else ()
