"""Bytes to tensors: which files make up a checkpoint, what their headers say, and the values of a few tensors.

:func:`open_checkpoint` is the way in. Nothing here knows what a scale is.
"""

from core.checkpoint.catalog import Catalog, TensorEntry
from core.checkpoint.checkpoint import Checkpoint, Shard, TensorValues
from core.checkpoint.columns import HeaderColumns
from core.checkpoint.dtypes import DTYPES, DType, decode, encode, is_raw
from core.checkpoint.faults import BrokenFileError, Fault
from core.checkpoint.header import LARGEST_HEADER, parse_header, read_header
from core.checkpoint.index import IndexReport
from core.checkpoint.opening import open_checkpoint

__all__ = [
    "DTYPES",
    "LARGEST_HEADER",
    "BrokenFileError",
    "Catalog",
    "Checkpoint",
    "DType",
    "Fault",
    "HeaderColumns",
    "IndexReport",
    "Shard",
    "TensorEntry",
    "TensorValues",
    "decode",
    "encode",
    "is_raw",
    "open_checkpoint",
    "parse_header",
    "read_header",
]
