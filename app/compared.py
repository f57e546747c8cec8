"""A second checkpoint beside the open one: read in a job, matched by the core's rules. No Qt widgets, no rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.wording import say

if TYPE_CHECKING:
    from core.comparison import Comparison
    from core.naming.scales import KVScale
    from core.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What ``kvscope diff`` says of the open checkpoint (left) and the one at ``path`` (right)."""

    path: str
    left: tuple[KVScale, ...] = field(repr=False)
    right: tuple[KVScale, ...] = field(repr=False)
    comparison: Comparison = field(repr=False)


def comparer(left: tuple[KVScale, ...], path: str) -> Callable[[Progress], Compared]:
    """A job that opens the checkpoint at ``path`` and compares its scales with ``left``."""

    def work(progress: Progress) -> Compared:
        from core.checkpoint import open_checkpoint
        from core.comparison import compare
        from core.naming.conventions import ENDINGS, find_scales

        opened = open_checkpoint(path, wanted=ENDINGS, progress=progress)
        progress.start(say("Reading scales"))
        right = find_scales(opened)
        progress.check()
        return Compared(path=path, left=left, right=right, comparison=compare(left, right))

    return work
