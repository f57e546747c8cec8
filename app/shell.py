"""The command lines that say the same as the window. No Qt."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.session import Choices
    from core.diagnosis import Thresholds


def quoted_command(*words: str) -> str:
    """``kvscope`` with these arguments, each quoted for a POSIX shell where it must be."""
    return shlex.join(("kvscope", *words))


def check_command(path: str, choices: Choices, thresholds: Thresholds | None = None) -> str:
    """The ``kvscope check`` that predicts what the window shows: the path, every choice that was made, and limits of
    the rules that are not the core's own.
    """
    words = ["check", path, *_chosen(choices)]
    if thresholds is not None:
        usual = {row.name: row.value for row in type(thresholds)().table()}
        words += [
            part
            for row in thresholds.table()
            if row.value != usual[row.name]
            for part in ("--limit", f"{row.name}={row.value}")
        ]
    return quoted_command(*words)


def verify_command(path: str, choices: Choices, *options: str) -> str:
    """The ``kvscope verify`` that runs the loader on a GPU under every choice that was made."""
    return quoted_command("verify", path, *_chosen(choices), "--device", "cuda:0", *options)


def _chosen(choices: Choices) -> list[str]:
    """The options of what was chosen; the rest follows the checkpoint in the command too."""
    chosen = (
        ("--engine", choices.engine),
        ("--method", choices.method),
        ("--architecture", choices.architecture),
        ("--kv-cache-dtype", choices.kv_cache_dtype),
        ("--dtype", choices.dtype),
        ("--rules", choices.rules_file),
    )
    return [part for option, value in chosen if value is not None for part in (option, value)]
