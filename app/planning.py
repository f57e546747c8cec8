"""The command line's words for what an export changes."""

from __future__ import annotations

import argparse


def add_planning_arguments(export: argparse.ArgumentParser) -> None:
    """The target, the repairs, and where scales come from."""
    target = export.add_mutually_exclusive_group()
    target.add_argument(
        "--for", dest="target", metavar="ENGINE", help="what this engine takes: the default, for the engine of --engine"
    )
    target.add_argument(
        "--names",
        metavar="CONVENTION",
        help="a convention instead: portable, modelopt, compressed-tensors, quark, vllm-runtime, as-is",
    )
    export.add_argument(
        "--fix",
        action="append",
        default=[],
        metavar="CODE[=VALUE]",
        help="a repair by a finding's code (kvscope check names the choices), or per-head, factor=N, swap, declare, "
        "leftovers",
    )
    export.add_argument(
        "--scales-from",
        metavar="PATH",
        help="take k and v scales from another checkpoint, an overlay or a side file (JSON), also at an address",
    )
