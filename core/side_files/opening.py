"""``open_scale_source``: from a path to the scales in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from core.checkpoint import open_checkpoint
from core.checkpoint.configs import load_json_object
from core.checkpoint.faults import BrokenFileError
from core.checkpoint.remote.address import Address, is_address, json_address
from core.errors import UnreadableCheckpointError
from core.naming.conventions import ENDINGS, find_scales, is_nvfp4_global
from core.naming.scales import KVScale
from core.progress import Progress
from core.quantization import read_declaration
from core.quantization.config_files import ASCEND_DESCRIPTION
from core.side_files.formats import FORMATS, FP8_LARGEST, NVFP4_OVER_FP8, SideFileError
from core.side_files.source import ScaleSource, SourceScale
from core.wording import joined, say

_LARGEST_INTEGER = {"INT8": 127.0, "INT4": 7.0}


def open_scale_source(path: Path | str, *, progress: Progress | None = None) -> ScaleSource:
    """Read the KV-cache scales of a JSON side file, an overlay (a safetensors file), or another checkpoint; as a
    string, also those of one at an address.

    Raises:
        UnreadableCheckpointError: there is nothing, it cannot be read, is of no known format, or holds no scales.
        UsageError: an address that names nothing.
    """
    if isinstance(path, str) and is_address(path):
        address = json_address(path)
        return _from_checkpoint(path, progress) if address is None else _from_address(address, progress)
    path = Path(path)
    if path.suffix != ".json" or path.is_dir():
        return _from_checkpoint(path, progress)
    content = _content(path, path)
    if "weight_map" in content:  # the index of a sharded checkpoint stands for it
        return _from_checkpoint(path, progress)
    return _from_json(path, content, path)


def _from_address(address: Address, progress: Progress | None) -> ScaleSource:
    from core.checkpoint.remote.bringing import bring_json

    path = bring_json(address, progress or Progress())
    content = _content(path, address.shown)
    if "weight_map" in content:
        raise UnreadableCheckpointError(
            say("is the index of a checkpoint"),
            path=address.shown,
            remedy=say("Give the address of the folder that it lies in"),
        )
    return replace(_from_json(path, content, address.shown), address=address.shown)


def _content(path: Path, place: Path | str) -> dict[str, Any]:
    try:
        return load_json_object(path)
    except BrokenFileError as error:
        raise UnreadableCheckpointError(error.problem, path=place, remedy=error.remedy) from error


def _from_json(path: Path, content: dict[str, Any], place: Path | str) -> ScaleSource:
    """``place`` is the path or address to name in a message."""
    for form in FORMATS:
        if not form.is_this(content):
            continue
        try:
            scales, notes = form.read(content)
        except SideFileError as error:
            raise UnreadableCheckpointError(
                say("{problem} ({format})", problem=error.problem, format=form.title),
                path=place,
                remedy=say("Correct the file, or take the scales from elsewhere"),
            ) from error
        if not scales:
            raise _nothing(place, form.title)
        return ScaleSource(path=path, format=form.id, title=form.title, scales=tuple(scales), notes=tuple(notes))
    if path.name.startswith(ASCEND_DESCRIPTION):
        raise UnreadableCheckpointError(
            say("describes tensors and holds no scales"),
            path=place,
            remedy=say("Give the checkpoint that it belongs to"),
        )
    known = joined("; ", (say("{format} ({fields})", format=form.title, fields=form.fields) for form in FORMATS))
    raise UnreadableCheckpointError(
        say("is no side file of KV-cache scales that is known here"),
        path=place,
        remedy=say("Known are {known}", known=known),
    )


def _from_checkpoint(given: Path | str, progress: Progress | None) -> ScaleSource:
    checkpoint = open_checkpoint(given, wanted=ENDINGS if isinstance(given, str) else (), progress=progress)
    path = checkpoint.path
    scheme = read_declaration(checkpoint).kv_scheme
    declared = scheme.algorithm if scheme is not None else None
    notes: list[str] = []
    scales = []
    for scale in find_scales(checkpoint):
        values = _as_scale(scale)
        if values is None or scale.layer is None:
            continue
        number = "INT8" if scale.convention.startswith("ascend") else declared or "FP8"
        largest = _LARGEST_INTEGER.get(number)
        if largest is not None and scale.quantity == "scale":
            values = tuple(value * largest / FP8_LARGEST for value in values)
            notes.append(
                say(
                    "It holds scales of an {number} cache (amax / {largest:g}), made FP8 scales (amax / 448).",
                    number=number,
                    largest=largest,
                )
            )
        scales.append(SourceScale(role=scale.role, layer=scale.layer, values=values, module=scale.module))
        if scale.quantity == "amax":
            notes.append(say("It holds amaxes, which were divided by 448."))
        elif is_nvfp4_global(scale):
            notes.append(say("It holds global scales of an NVFP4 cache (amax / 2688), which were multiplied by 6."))
    if not scales:
        raise _nothing(checkpoint.place, say("a checkpoint"))
    title = say("an overlay") if path.is_file() else say("a checkpoint")
    return ScaleSource(
        path=path,
        format="checkpoint",
        title=title,
        scales=tuple(scales),
        notes=tuple(dict.fromkeys(notes)),
        address=checkpoint.remote.address if checkpoint.remote is not None else "",
    )


def _as_scale(scale: KVScale) -> tuple[float, ...] | None:
    """The FP8 scales that a tensor stands for, None where it is none: offsets, other formats' scales, garbage."""
    if scale.kind != "scale" or not scale.values or not all(0 < value < float("inf") for value in scale.values):
        return None
    if is_nvfp4_global(scale):
        return tuple(value * NVFP4_OVER_FP8 for value in scale.values)
    match scale.quantity:
        case "scale":
            return scale.values
        case "amax":
            return tuple(value / FP8_LARGEST for value in scale.values)
        case "reciprocal":
            return tuple(1.0 / value for value in scale.values)
        case "offset":
            return None


def _nothing(path: Path | str, title: str) -> UnreadableCheckpointError:
    return UnreadableCheckpointError(
        say("holds no KV-cache scales ({format})", format=title),
        path=path,
        remedy=say("Choose the file that the calibration wrote"),
    )
