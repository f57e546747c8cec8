"""Export: a normalized copy of a checkpoint, planned first, then written, verified and judged anew."""

from core.export.plan import ConfigEdit, ExportPlan, FieldChange, TensorEdit, Unreachable
from core.export.planner import plan_export
from core.export.write import ExportResult, write_export

__all__ = [
    "ConfigEdit",
    "ExportPlan",
    "ExportResult",
    "FieldChange",
    "TensorEdit",
    "Unreachable",
    "plan_export",
    "write_export",
]
