"""Export: a normalized copy of a checkpoint, planned first, then written, verified and judged anew."""

from core.export.in_place import export_in_place, prepare_in_place
from core.export.journal import recover, refuse_unended
from core.export.judging import as_overlay
from core.export.options import WriteOptions
from core.export.plan import ConfigEdit, ExportPlan, FieldChange, TensorEdit, Unreachable
from core.export.planner import plan_export
from core.export.prepare import Prepared, prepare_export
from core.export.result import ExportResult
from core.export.write import write_export

__all__ = [
    "ConfigEdit",
    "ExportPlan",
    "ExportResult",
    "FieldChange",
    "Prepared",
    "TensorEdit",
    "Unreachable",
    "WriteOptions",
    "as_overlay",
    "export_in_place",
    "plan_export",
    "prepare_export",
    "prepare_in_place",
    "recover",
    "refuse_unended",
    "write_export",
]
