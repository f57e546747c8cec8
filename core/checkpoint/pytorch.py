"""PyTorch's own files (.bin, .pt, .pth), without running what they say.

A pickle is a program. Only ``torch.load(weights_only=True)`` reads it here, whose unpickler knows tensors, numbers,
strings and containers and refuses everything else; :mod:`core.checkpoint.pickles` has looked at the file before. With
``mmap`` no tensor data is read until a value is asked for.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.checkpoint.columns import CODE_OF, LONGEST_NAME, HeaderColumns
from core.checkpoint.faults import BrokenFileError, quoted
from core.checkpoint.pickles import CONVERT, DAMAGED, check_pickled
from core.checkpoint.strict import RENAME, too_long
from core.wording import say

if TYPE_CHECKING:
    import torch

_LARGEST_EXPANDED = 1 << 26  # bytes of a tensor that repeats its elements (stride 0)
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
}  # fmt: skip


def read_pickled(path: Path) -> HeaderColumns:
    """The tensors of a PyTorch file, sorted by name; each begins at 0, its length at ``ends``.

    ``{"state_dict": {...}}`` and its kin are entered once; what is no tensor is ignored.

    Raises:
        BrokenFileError: PyTorch is not installed, cannot read the file, or refuses what it asks to run.
    """
    tensors = _load(path)
    names = sorted(tensors)
    dtype_codes, shape_codes = dict(CODE_OF), dict[tuple[int, ...], int]()
    rows = np.empty((len(names), 3), dtype=np.int64)
    for row, name in enumerate(names):
        try:
            dtype, shape, length = _described(tensors[name])
        except Exception as error:  # a kind of tensor that PyTorch cannot describe either
            raise _unreadable(error) from error
        rows[row] = (
            dtype_codes.setdefault(dtype, len(dtype_codes)),
            shape_codes.setdefault(shape, len(shape_codes)),
            length,
        )
    return HeaderColumns(
        names=names,
        dtype_codes=rows[:, 0].astype(np.int32),
        dtype_names=tuple(dtype_codes),
        shape_codes=rows[:, 1].astype(np.int32),
        shape_table=tuple(shape_codes),
        begins=np.zeros(len(names), dtype=np.int64),
        ends=rows[:, 2],
        metadata={},
    )


def read_pickled_bytes(path: Path, names: Iterable[str]) -> dict[str, bytes]:
    """The little-endian elements of the tensors named, row by row, as safetensors would store them.

    Raises:
        BrokenFileError: the file cannot be read any more, or a tensor has no elements of its own.
    """
    tensors = _load(path)
    found = {}
    for name in names:
        tensor = tensors.get(name)
        if tensor is None:
            raise BrokenFileError(
                say("no longer holds {name}", name=quoted(name)), remedy=say("Open the checkpoint again.")
            )
        try:
            found[name] = _elements(tensor)
        except BrokenFileError:
            raise
        except Exception as error:  # a kind of tensor that PyTorch does not write out
            raise _unreadable(error) from error
    return found


def _elements(tensor: torch.Tensor) -> bytes:
    import torch

    if not _is_plain(tensor):
        raise BrokenFileError(say("has no stored elements"), remedy=CONVERT)
    if tensor.numel() * tensor.element_size() > max(tensor.untyped_storage().nbytes(), _LARGEST_EXPANDED):
        raise BrokenFileError(say("repeats few stored elements many times"), remedy=CONVERT)
    if not tensor.numel():
        return b""
    whole = tensor.resolve_neg().resolve_conj().contiguous()
    flat = whole.as_strided((whole.numel(),), (1,))  # a single element is contiguous whatever its stride
    return flat.view(torch.uint8).numpy().tobytes()


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        import torch
    except ImportError as error:
        raise BrokenFileError(
            say("is a PyTorch file, and PyTorch is not installed"), remedy=say("`pip install torch`.")
        ) from error
    mmap = check_pickled(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)
        except pickle.UnpicklingError as error:
            raise _refused(str(error)) from error
        except Exception as error:  # damaged pickles raise nearly every type there is
            reason = quoted(_first_line(error))
            raise BrokenFileError(say("is damaged: PyTorch says {reason}", reason=reason), remedy=DAMAGED) from error
    return _tensors(found)


def _tensors(found: Any) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(found, Mapping):
        inner = (found[name] for name in _WRAPPERS if isinstance(found.get(name), Mapping))
        for candidate in (*inner, found):
            tensors = {
                key: value
                for key, value in candidate.items()
                if isinstance(key, str) and isinstance(value, torch.Tensor) and _is_text(key)
            }
            if tensors:
                longest = max(tensors, key=len)
                if len(longest) > LONGEST_NAME:
                    problem = say("tensor {name} {problem}", name=quoted(longest), problem=too_long(longest))
                    raise BrokenFileError(problem, remedy=RENAME)
                return tensors
    raise BrokenFileError(say("holds no named tensors"), remedy=say("Open the file that holds the model's state dict."))


def _refused(message: str) -> BrokenFileError:
    """PyTorch's refusal to unpickle, in one sentence."""
    asked = re.search(r"GLOBAL (\S+)", message) or re.search(r"(?:class|function|type) (\S+)", message)
    if asked:
        return BrokenFileError(
            say(
                "asks to run {what} while it is read, which KVScope never does: only tensors are read",
                what=quoted(asked.group(1)),
            ),
            remedy=CONVERT,
        )
    return BrokenFileError(say("is no pickle of plain tensors, so PyTorch refuses to read it safely"), remedy=CONVERT)


def _unreadable(error: Exception) -> BrokenFileError:
    return BrokenFileError(say("cannot be read: {reason}", reason=quoted(_first_line(error))), remedy=CONVERT)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _described(tensor: torch.Tensor) -> tuple[str, tuple[int, ...], int]:
    """Type name, shape and bytes; the type's name is no known one where the elements are not simply stored."""
    import torch

    torch_name = str(tensor.dtype).removeprefix("torch.")
    dtype = _NAMES.get(torch_name, torch_name.upper())
    if tensor.is_nested:  # each part has a shape of its own
        return f"NESTED_{dtype}", (tensor.size(0),), 0
    shape = tuple(tensor.shape)
    if not _is_plain(tensor):
        kind = "META" if tensor.is_meta else str(tensor.layout).removeprefix("torch.").upper()
        return f"{kind}_{dtype}", shape, 0
    if tensor.dtype == torch.float4_e2m1fn_x2 and shape:  # two elements a byte, counted as one by PyTorch
        shape = (*shape[:-1], 2 * shape[-1])
    return dtype, shape, tensor.numel() * tensor.element_size()


def _is_plain(tensor: torch.Tensor) -> bool:
    import torch

    simple = not tensor.is_nested and not tensor.is_quantized
    return simple and tensor.layout == torch.strided and tensor.device.type == "cpu"


def _is_text(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
