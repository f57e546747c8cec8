"""Export: a normalized copy of a checkpoint, planned first, then written, verified and judged anew."""

from core.export.options import WriteOptions
from core.export.plan import ConfigEdit, ExportPlan, FieldChange, TensorEdit, Unreachable
from core.export.planner import plan_export
from core.export.prepare import Prepared, prepare_export
from core.export.write import ExportResult, write_export

__all__ = [
    "ConfigEdit",
    "ExportPlan",
    "ExportResult",
    "FieldChange",
    "Prepared",
    "TensorEdit",
    "Unreachable",
    "WriteOptions",
    "plan_export",
    "prepare_export",
    "write_export",
]
