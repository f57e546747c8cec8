"""Many checkpoints at once: found in folders or listed, judged in processes, one entry each, drawn up as a table."""

from core.zoo.checking import Asked, Entry, check_all
from core.zoo.finding import find_checkpoints, read_list
from core.zoo.record import Record
from core.zoo.table import html_table, markdown_table, summary

__all__ = [
    "Asked",
    "Entry",
    "Record",
    "check_all",
    "find_checkpoints",
    "html_table",
    "markdown_table",
    "read_list",
    "summary",
]
