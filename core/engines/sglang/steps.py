"""The steps a hand-written load loop consists of, and how they are written in ``resources/architectures``.

SGLang has no mapper: every model class walks over the checkpoint's tensors with a loop of its own. The loops differ in
what they do in which order, not in the kinds of things they do. A loop is a list of these steps; each tensor's name
goes through them from the first to the last:

``{"skip": WHERE}``
    A name that fits ends here without a word.
``{"replace": [old, new], "where": WHERE}``
    Every occurrence; with ``"at": "start"`` the prefix only, with ``"at": "end"`` the suffix only.
``{"regex": [pattern, new]}``
    Every match of a regular expression.
``{"add": prefix, "where": WHERE}``
    Puts a prefix before the name.
``{"layers": true}``
    A name whose ``layers.N.`` lies outside the model's layers ends here without a word. ``"below"`` is the prefix the
    name must have for that (``model.layers``), and then only the layers behind the last one count.
``{"remap": WHERE, "changed": "go on" | "take" | "end"}``
    ``maybe_remap_kv_scale_name``. A target that does not exist ends the name with one warning. A changed name goes on
    through the loop, is looked up at once ("take": KeyError when absent), or ends here unused ("end").
``{"stacked": [[part, fused], ...], "absent": "raise" | "go on" | "skip", "keeps": bool, "unless": WHERE}``
    The loop over fused projections: for each entry whose part is in the name, the name with the part replaced is
    looked up. ``keeps`` says that a name that is not found keeps its old form for the next entry.
``{"experts": [gate, down, up], "count": [fields], "absent": "raise" | "go on" | "skip", "unless": WHERE}``
    The loop over experts: ``experts.N.gate.`` becomes ``experts.w13_``, ``experts.N.down.`` becomes ``experts.w2_``.
``{"cache scale": true}``
    Asks the quantization config itself (``get_cache_scale``), which only compressed-tensors' can answer:
    AttributeError with the others; ``k_proj.output_scale`` and ``v_proj.output_scale`` are looked up under ``.attn``.
``{"one": WHERE}``
    AssertionError unless the tensor holds one value of 1.0; then the name ends here.
``{"raise": "Type: message", "where": WHERE}``
    A name that fits makes the load fail.
``{"call": loop, "where": WHERE, "strip": prefix, "below": prefix}``
    Hands the name over to another class's loop; ``strip`` takes a prefix off first, ``below`` is the submodule whose
    parameters that loop sees.
``{"take": "raise" | "warn" | "skip"}``
    The last step: the parameter of that name takes the tensor; without one KeyError, a warning, or nothing.

WHERE has the keys ``starting``, ``ending``, ``containing``, ``equal`` (lists; one match in any of them), ``without``
(none of these parts), ``not_starting`` (none of these prefixes) and ``absent`` / ``present`` (true: only a name that is
no parameter / is one); ``{}`` fits every name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

Absent = Literal["raise", "go on", "skip"]
Changed = Literal["go on", "take", "end"]
Place = Literal["anywhere", "start", "end"]
Last = Literal["raise", "warn", "skip"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which names a step is for."""

    starting: tuple[str, ...] = ()
    ending: tuple[str, ...] = ()
    containing: tuple[str, ...] = ()
    equal: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    not_starting: tuple[str, ...] = ()
    absent: bool = False
    present: bool = False

    def fits(self, name: str, exists: Callable[[str], bool]) -> bool:
        if self.starting or self.ending or self.containing or self.equal:
            fits = (
                name.startswith(self.starting)
                or name.endswith(self.ending)
                or name in self.equal
                or any(part in name for part in self.containing)
            )
            if not fits:
                return False
        if any(part in name for part in self.without) or name.startswith(self.not_starting):
            return False
        if self.absent or self.present:
            return exists(name) == self.present
        return True


EVERY = Where()
_LISTS = ("starting", "ending", "containing", "equal", "without", "not_starting")


@dataclass(frozen=True, slots=True)
class Skip:
    """A name that fits ends here without a word."""

    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Replace:
    """A part of the name is replaced."""

    old: str
    new: str
    where: Where = EVERY
    at: Place = "anywhere"


@dataclass(frozen=True, slots=True)
class Regex:
    """Every match of a regular expression is replaced."""

    pattern: str
    new: str


@dataclass(frozen=True, slots=True)
class Add:
    """A prefix is put before the name."""

    prefix: str
    where: Where = EVERY


@dataclass(frozen=True, slots=True)
class Layers:
    """Names of layers the model does not have end here."""

    below: str | None = None


@dataclass(frozen=True, slots=True)
class Remap:
    """``maybe_remap_kv_scale_name`` is asked."""

    where: Where = EVERY
    changed: Changed = "go on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacked:
    """The loop over the parts of fused projections."""

    names: tuple[tuple[str, str], ...]
    absent: Absent
    keeps: bool = False
    unless: Where | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The loop over the experts of a mixture."""

    gate: str
    down: str
    up: str
    count: tuple[str, ...]
    absent: Absent
    unless: Where | None = None


@dataclass(frozen=True, slots=True)
class CacheScale:
    """The quantization config is asked for the name of a cache scale."""


@dataclass(frozen=True, slots=True)
class One:
    """A scale that is left out must be 1.0."""

    where: Where


@dataclass(frozen=True, slots=True)
class Raise:
    """A name that fits makes the load fail."""

    error: str
    where: Where


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The name goes on in another class's loop."""

    loop: str
    where: Where = EVERY
    strip: str = ""
    below: str = ""


@dataclass(frozen=True, slots=True)
class Take:
    """The parameter of that name takes the tensor."""

    absent: Last


Step = Skip | Replace | Regex | Add | Layers | Remap | Stacked | Experts | CacheScale | One | Raise | Call | Take


def parse_steps(rows: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """The steps of one loop. Raises ValueError for a row that is none of the kinds above."""
    return tuple(_step(row) for row in rows)


def _step(row: Mapping[str, Any]) -> Step:
    kind = next(iter(row), "")
    make = _KINDS.get(kind)
    if make is None:
        raise ValueError(f"a load loop has no step {kind!r}; known: {', '.join(_KINDS)}")
    return make(row)


def _where(row: Mapping[str, Any] | None) -> Where:
    row = row or {}
    unknown = set(row) - set(_LISTS) - {"absent", "present"}
    if unknown:
        raise ValueError(f"a step's condition has no key {', '.join(sorted(unknown))}")
    lists = {name: tuple(row[name]) for name in _LISTS if name in row}
    return Where(**lists, absent=row.get("absent", False), present=row.get("present", False))


def _one_of(value: str, kind: Any) -> Any:
    if value not in get_args(kind):
        raise ValueError(f"{value!r} is none of {', '.join(get_args(kind))}")
    return value


def _replace(row: Mapping[str, Any]) -> Replace:
    old, new = row["replace"]
    at = cast("Place", _one_of(row.get("at", "anywhere"), Place))
    return Replace(old=old, new=new, where=_where(row.get("where")), at=at)


def _stacked(row: Mapping[str, Any]) -> Stacked:
    return Stacked(
        names=tuple((part, fused) for part, fused in row["stacked"]),
        absent=cast("Absent", _one_of(row["absent"], Absent)),
        keeps=row.get("keeps", False),
        unless=_where(row["unless"]) if "unless" in row else None,
    )


def _experts(row: Mapping[str, Any]) -> Experts:
    gate, down, up = row["experts"]
    return Experts(
        gate=gate,
        down=down,
        up=up,
        count=tuple(row["count"]),
        absent=cast("Absent", _one_of(row["absent"], Absent)),
        unless=_where(row["unless"]) if "unless" in row else None,
    )


_KINDS: Mapping[str, Callable[[Mapping[str, Any]], Step]] = {
    "skip": lambda row: Skip(_where(row["skip"])),
    "replace": _replace,
    "regex": lambda row: Regex(*row["regex"]),
    "add": lambda row: Add(row["add"], _where(row.get("where"))),
    "layers": lambda row: Layers(row.get("below")),
    "remap": lambda row: Remap(_where(row["remap"]), _one_of(row.get("changed", "go on"), Changed)),
    "stacked": _stacked,
    "experts": _experts,
    "cache scale": lambda _row: CacheScale(),
    "one": lambda row: One(_where(row["one"])),
    "raise": lambda row: Raise(row["raise"], _where(row.get("where"))),
    "call": lambda row: Call(
        loop=row["call"], where=_where(row.get("where")), strip=row.get("strip", ""), below=row.get("below", "")
    ),
    "take": lambda row: Take(_one_of(row["take"], Last)),
}
