"""An overlay: one small shard more and an index that names it; every shard of the source stays as it is.

vLLM reads every tensor of every file that the index names, whatever tensor the index lists there (0.22.1 to 0.33.0,
``filter_duplicate_safetensors_files`` and ``safetensors_weights_iterator``): a new name in a new file arrives, and the
old names arrive as well. So an overlay is right exactly where the engine makes nothing of the old names, and its own
prediction over both says whether it does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from core.engines import get_engine
from core.engines.outcome import AttentionLayer, Deliveries
from core.errors import ExportError
from core.export.index import in_style_of
from core.export.judging import judge_beside, overlay_name
from core.export.plan import ExportPlan
from core.export.safetensors_writer import NewTensor, ShardHeader, lay_out, read_header
from core.export.shards import ShardJob
from core.wording import say

HONOURED_BY = ("vllm-0.33.0", "vllm-0.27.1", "vllm-0.25.0", "vllm-0.23.0", "vllm-0.22.1")
"""Engines that took an overlay before our eyes: the real 0.33.0 loaded one, and every layer held its values; of the
others their own two functions were run over one, and gave every tensor of every file. What becomes of a name then is
what the prediction was compared with each of them for.
"""
INDEX = "model.safetensors.index.json"
_LARGEST = 64 << 20


def overlay_texts(plan: ExportPlan, jobs: Mapping[str, ShardJob]) -> tuple[str | None, dict[str, bytes]]:
    """The overlay's name; and overlay, index and changed configs by file name.

    Raises:
        ExportError: the engine is not known to honour an overlay, or would not make of this one what it would make of
            the planned export.
        OSError: the source cannot be read.
    """
    title = get_engine(plan.engine).title
    if plan.engine not in HONOURED_BY:
        raise ExportError(
            say("{engine} was not seen to honour an overlay", engine=title),
            path=plan.source.place,
            remedy=_remedy(plan),
        )
    texts = {edit.file: edit.text.encode() for edit in plan.config_edits}
    if not jobs:
        return None, texts
    _refuse_what_stays(plan, title, texts)
    tensors = [tensor for name, job in jobs.items() for tensor in _new_tensors(plan, name, job)]
    if sum(len(tensor.data or b"") for tensor in tensors) > _LARGEST:
        raise ExportError(
            say("more than scales would change, and an overlay is for scales"),
            path=plan.source.place,
            remedy=_remedy(plan),
        )
    tensors.sort(key=lambda tensor: (-len(tensor.data or b""), tensor.name))
    empty = ShardHeader(0, {"format": "pt"}, 0, ())
    layout = lay_out(empty, file_size=8, replaced={}, added=tensors)
    data = layout.head + b"".join(piece for piece in layout.pieces if isinstance(piece, bytes))
    name = overlay_name(plan)
    index_name, index = _index(plan, name, tensors, texts)
    return name, {**texts, name: data, index_name: index}


def _refuse_what_stays(plan: ExportPlan, title: str, texts: Mapping[str, bytes]) -> None:
    """Old and new names are there together: the engine must end with what the plan promises.

    Raises:
        ExportError: it does not; the key is named.
    """
    for edit in plan.changes:
        if edit.new_key == edit.key:
            raise ExportError(
                say("the tensor changes and keeps its name, and an overlay leaves the old one in its shard"),
                path=edit.file, key=edit.key, remedy=_remedy(plan),
            )  # fmt: skip
    both = judge_beside(plan, texts).deliveries
    changed = {edit.key: edit.file for edit in plan.changes}
    for found in both.deliveries:
        if found.key in changed and found.outcome in {"loaded", "raises", "not_reached"}:
            problem = say(
                "{engine} raises {error}, and an overlay leaves the key in its shard"
                if found.outcome == "raises"
                else "{engine} loads it into {parameter}, and an overlay leaves the key in its shard"
                if found.outcome == "loaded"
                else "what {engine} makes of it is not known, and an overlay leaves the key in its shard",
                engine=title,
                error=found.error,
                parameter=found.target,
            )
            raise ExportError(problem, path=changed[found.key], key=found.key, remedy=_remedy(plan))
    if _ends(both) != _ends(plan.predicted):
        raise ExportError(
            say("{engine} would not end with the planned scales, as the old names stay beside the new", engine=title),
            path=plan.source.place,
            remedy=_remedy(plan),
        )


def refuse_other_end(plan: ExportPlan, out: Path, after: Deliveries) -> None:
    """Check what was written.

    Raises:
        ExportError: the engine ends with something else than the plan promises.
    """
    if _ends(after) != _ends(plan.predicted):
        title = get_engine(plan.engine).title
        raise ExportError(
            say("{engine} does not end with the planned scales", engine=title), path=out, remedy=_remedy(plan)
        )


def _remedy(plan: ExportPlan) -> str:
    if plan.source.remote is not None:
        return say("Download it first, and export that folder without --overlay.")
    return say("Export without --overlay.")


def _ends(deliveries: Deliveries) -> list[object]:
    def end(layer: AttentionLayer) -> object:
        return layer.path, sorted((role, repr(value)) for role, value in layer.final.items()), layer.error

    return [deliveries.load.outcome, *map(end, deliveries.attention)]


def _new_tensors(plan: ExportPlan, name: str, job: ShardJob) -> Iterator[NewTensor]:
    """What a shard would hold beyond what it holds already, each with its data."""
    path = plan.root / name
    header = read_header(path)
    stored = {tensor.name: tensor for tensor in header.tensors}
    with path.open("rb") as file:
        for old, news in job.replaced.items():
            for new in news:
                if new.name == old:
                    continue
                data = new.data
                if data is None and plan.source.remote is not None:
                    data = plan.source.read_bytes(old)
                elif data is None:
                    file.seek(header.data_begin + stored[old].begin)
                    data = file.read(min(stored[old].end - stored[old].begin, _LARGEST + 1))
                yield NewTensor(new.name, new.dtype, new.shape, data)
    yield from job.added


def _index(plan: ExportPlan, name: str, tensors: Sequence[NewTensor], texts: Mapping[str, bytes]) -> tuple[str, bytes]:
    catalog = plan.source.catalog
    size = sum(len(tensor.data or b"") for tensor in tensors)
    total = int((catalog.ends - catalog.begins).sum()) + size
    added = {tensor.name: name for tensor in tensors}
    old = next((file.name for file in plan.files if file.role == "index"), None)
    if old is None:
        listed = {key: catalog.shard(row) for row, key in enumerate(catalog.names)}
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": listed | added}, indent=2) + "\n"
        return INDEX, text.encode()
    text = texts[old].decode() if old in texts else (plan.root / old).read_bytes().decode("utf-8-sig")
    index = json.loads(text, strict=False)
    index["weight_map"] |= added
    if isinstance(index.get("metadata"), dict) and "total_size" in index["metadata"]:
        index["metadata"]["total_size"] = total
    return old, in_style_of(text, index).encode()
