"""Where ``kvscope`` begins: straight to the window where nothing but paths are named, else the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """Run ``kvscope`` with the process's arguments; returns the exit status."""
    arguments = sys.argv[1:]
    # Parsing arguments costs a fifth of what an empty window costs, and here there is nothing to parse.
    if all("/" in argument and not argument.startswith("-") for argument in arguments):
        from app.display import why_no_window

        if why_no_window() is None:
            from app.gui import start

            return start(arguments)
    from app.cli import main as command_line

    return command_line(arguments)
