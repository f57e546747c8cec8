"""Reports of an inspection: JSON (schema ``kvscope.report/1``), text, HTML."""

from core.report.contract import SCHEMA, json_text, report
from core.report.html import html_report
from core.report.text import text_report

__all__ = ["SCHEMA", "html_report", "json_text", "report", "text_report"]
