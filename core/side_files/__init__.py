"""Scales from elsewhere: side files, overlays and other checkpoints, read into one form."""

from core.side_files.opening import open_scale_source
from core.side_files.source import ScaleSource, SourceScale

__all__ = ["ScaleSource", "SourceScale", "open_scale_source"]
