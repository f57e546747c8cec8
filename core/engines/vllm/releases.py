"""The vLLM releases whose behaviour is known, and which of them answers for any other version."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from core.backends import BACKENDS, Backend
from core.backends.older import BACKENDS_0_22, BACKENDS_0_23, BACKENDS_0_25, BACKENDS_0_27
from core.quantization import KV_CACHE_DTYPES
from core.wording import say

Version = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One release that was run, and the range of versions it answers for: from ``first`` to the next release's.

    ``asks_cache_scale``: hand-written loaders ask ``get_cache_scale``, since there is no mapper yet. ``guarded``:
    ``maybe_remap_kv_scale_name`` leaves a name alone that is a parameter already. ``ignores_biases``: every
    AutoWeightsLoader passes over unexpected names that end in ``.bias``. ``plain_caches``: cache dtypes whose k and v
    run at 1.0 whatever was loaded, as with a cache that is not quantized. ``skip_containing``: what every
    AutoWeightsLoader leaves out by itself, where a rule of its mapper does not.
    """

    version: str
    first: Version
    source: str
    how_checked: str
    backends: Mapping[str, Backend]
    kv_cache_dtypes: tuple[str, ...] = KV_CACHE_DTYPES
    asks_cache_scale: bool = False
    guarded: bool = True
    ignores_biases: bool = True
    plain_caches: tuple[str, ...] = ()
    skip_containing: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"vllm-{self.version}"

    @property
    def number(self) -> Version:
        """(major, minor)."""
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)


def _without(*missing: str) -> tuple[str, ...]:
    return tuple(name for name in KV_CACHE_DTYPES if name not in missing)


def _compared(version: str, *, cases: int, checkpoints: int) -> str:
    return say(
        "compared with what vLLM {version} itself did on CPU: {cases} cases, {checkpoints} checkpoints",
        version=version,
        cases=cases,
        checkpoints=checkpoints,
    )


_NEW_IN_0_33 = ("nvfp4_ds_mla", "octave_k3v4", "octave_k3v3", "octave_k3v3_compact", "ultraquant_4bit", "nvfp4_4over6")

_ROTARY = ("rotary_pos_emb.inv_freq", "rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
_TURBOQUANT = tuple(name for name in KV_CACHE_DTYPES if name.startswith("turboquant"))

RELEASES = (
    Release(
        version="0.33.0",
        first=(0, 33),
        source="vLLM 0.33.0's Python sources; module trees surveyed from its real models",
        how_checked=say(
            "compared with what vLLM 0.33.0 itself did on CPU: 8,370 names, 863 cases, 116 checkpoints, and names "
            "given to the real models of 315 architectures"
        ),
        backends=BACKENDS,
    ),
    Release(
        version="0.27.1",
        first=(0, 27),
        source="vLLM 0.27.1's Python sources; module trees surveyed from its real models",
        how_checked=_compared("0.27.1", cases=863, checkpoints=218),
        backends=BACKENDS_0_27,
        kv_cache_dtypes=_without(*_NEW_IN_0_33),
        plain_caches=_TURBOQUANT,
        skip_containing=_ROTARY,
    ),
    Release(
        version="0.25.0",
        first=(0, 25),
        source="vLLM 0.25.0's Python sources; module trees surveyed from its real models",
        how_checked=_compared("0.25.0", cases=814, checkpoints=220),
        backends=BACKENDS_0_25,
        kv_cache_dtypes=_without(*_NEW_IN_0_33),
        plain_caches=_TURBOQUANT,
        skip_containing=_ROTARY,
    ),
    Release(
        version="0.23.0",
        first=(0, 23),
        source="vLLM 0.23.0's Python sources, loop by loop; module trees surveyed from its real models",
        how_checked=_compared("0.23.0", cases=814, checkpoints=220),
        backends=BACKENDS_0_23,
        kv_cache_dtypes=_without(*_NEW_IN_0_33, "int4_per_token_head"),
        ignores_biases=False,
        plain_caches=_TURBOQUANT,
        skip_containing=_ROTARY,
    ),
    Release(
        version="0.22.1",
        first=(0, 0),
        source="vLLM 0.22.1's Python sources, loop by loop; module trees surveyed from its real models",
        how_checked=_compared("0.22.1", cases=814, checkpoints=220),
        backends=BACKENDS_0_22,
        kv_cache_dtypes=_without(*_NEW_IN_0_33, "int4_per_token_head"),
        asks_cache_scale=True,
        guarded=False,
        ignores_biases=False,
        plain_caches=_TURBOQUANT,
        skip_containing=_ROTARY,
    ),
)
"""From new to old."""

NEWEST = RELEASES[0]

UNIFIED = (0, 25)
"""Since this version AutoWeightsLoader alone renames scales."""


def version_of(text: str) -> Version | None:
    """(major, minor) of "0.26.1"; None for anything that is no version number."""
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(?:\.\d{1,4})?(?:(?:\.?(?:post|dev)|rc)\d{1,4})?", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def release_for(version: Version) -> Release:
    """The release that answers for a version: the newest that is not newer than it, and the oldest for older ones."""
    return next(release for release in RELEASES if version >= release.first)
