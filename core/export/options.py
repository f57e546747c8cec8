"""What whoever exports may choose about how the result is written and proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["link", "clone", "copy"]
Level = Literal["all", "sample", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteOptions:
    """How an export is written.

    ``mode`` says what becomes of bytes that do not change: "link" makes hard links of untouched shards, "clone" shares
    blocks between files (XFS, btrfs and others), "copy" writes every byte anew. None clones where the file system can
    and copies elsewhere: it never links, because a file edited later would then change in both folders.

    ``verify`` says how much is compared with the source: every byte, samples of each shard, nothing; None compares
    all up to :data:`core.export.placement.VERIFY_ALL_UP_TO` bytes, and samples beyond.

    ``resume`` takes up what an interrupted export left, and leaves what is finished when it is interrupted itself.
    ``overlay`` leaves all shards as they are and adds a small one, where the target engine honours that.
    """

    mode: Mode | None = None
    verify: Level | None = None
    resume: bool = False
    overlay: bool = False
