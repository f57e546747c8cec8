"""The command line. Nothing here imports Qt until a window is asked for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from core import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="kvscope", description="Inspect the KV-cache scales of LLM checkpoints.")
    parser.add_argument("--version", action="version", version=f"kvscope {__version__}")
    parser.parse_args(argv)
    return 0
