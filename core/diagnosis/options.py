"""What a person may choose for each finding: the values of ``kvscope export --fix CODE=VALUE``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from core.diagnosis.finding import Finding
from core.diagnosis.making import BY_ITSELF
from core.wording import say


@dataclass(frozen=True, slots=True)
class Option:
    """One choice: ``value`` as it is written ("" for none), ``title`` what it does.

    A value in capitals stands for one that is typed in: NUMBER, xNUMBER (a factor), PATH (a file or checkpoint).
    """

    value: str
    title: str

    @property
    def typed(self) -> bool:
        return self.value.endswith(("NUMBER", "PATH"))


MEDIAN = Option("median", say("the median of the same role in the other layers"))
OTHER = Option("other", say("the value of the layer's other role (k for v, v for k)"))
NUMBER = Option("NUMBER", say("a number, for example 1.0"))
FACTOR = Option("xNUMBER", say("the stored value times a number, for example x0.5 (FNUZ) or x6 (NVFP4's amax / 2688)"))
PATH = Option("PATH", say("the values in another checkpoint, an overlay or a side file"))
DROP = Option("drop", say("leave them out"))

_BY_REMEDY: Mapping[str, tuple[Option, ...]] = MappingProxyType(
    {
        "rename": (Option("", say("names that the engine takes; every export for an engine does so by itself")),),
        "repair-index": (Option("", say("write the index anew, as the files are")),),
        "drop": (Option("", say("leave them out")),),
        "set-scale": (MEDIAN, OTHER, NUMBER, FACTOR, PATH, DROP),
        "reshape": (Option("", say("one number for each layer: the largest, which clips nothing")),),
        "swap": (Option("", say("exchange k and v")),),
        "amax-to-scale": (
            Option("", say("divide by the largest number of the cache's format (448 for FP8)")),
            Option("NUMBER", say("divide by this number")),
        ),
        "reciprocal": (Option("", say("store 1 / value")),),
        "rescale": (Option("", say("times 6: amax / 2688 of an NVFP4 cache becomes amax / 448 of an FP8 cache")),),
        "to-fp8": (Option("", say("make FP8 scales of INT8 ones: times 127 / 448, and declared so")),),
        "declare": (Option("", say("write what the scales need into config.json")),),
        "duplicate": (Option("", say("write the other role's value")), MEDIAN, NUMBER, PATH),
    }
)
_BY_CODE: Mapping[str, tuple[Option, ...]] = MappingProxyType(
    {
        "missing-scale": (MEDIAN, NUMBER, PATH),
        "declared-absent": (NUMBER, PATH),
        "dynamic-scheme": (NUMBER, PATH),
        "kv-not-shared": (Option("", say("write it for k and for v")),),
        "conflict": (Option("", say("leave out all but the last one read, which the engine uses")),),
        "duplicate-key": (Option("", say("leave out all but the last shard's, which engines use")),),
        "unreadable-scale": (MEDIAN, OTHER, NUMBER, PATH, DROP),
        "layer-assertion": (MEDIAN, OTHER, NUMBER, PATH, DROP),
        "v-without-k": (Option("", say("leave the v scales out")), OTHER, MEDIAN, NUMBER, PATH),
        "uninitialised": (MEDIAN, OTHER, NUMBER, PATH, DROP),
        "not-finite": (MEDIAN, OTHER, NUMBER, PATH, DROP),
        "negative": (MEDIAN, OTHER, NUMBER, PATH, DROP),
        "zero": (MEDIAN, OTHER, NUMBER, PATH, DROP),
    }
)

WISHES: Mapping[str, tuple[Option, ...]] = MappingProxyType(
    {
        "per-head": (Option("", say("one number for each layer in place of one for each head: the largest")),),
        "factor": (Option("NUMBER", say("every k and v scale times this number")),),
        "swap": (Option("", say("exchange k and v in every layer")),),
        "declare": (Option("", say("write what the scales need into config.json")),),
        "leftovers": (Option("", say("leave out what quantizers left behind: amaxes of weights and inputs")),),
    }
)
"""Repairs that may be asked for without a finding."""


def options_of(finding: Finding) -> tuple[Option, ...]:
    """The choices for a finding; () where an export can do nothing about it. The first is the usual one."""
    if not finding.remedy:
        return ()
    found = _BY_CODE.get(finding.code)
    if found is None or finding.remedy == "rename":
        return _BY_REMEDY[finding.remedy]
    if finding.remedy != "drop" or found[-1] != DROP:
        return found
    # Tensors that only want to be gone: dropping stands first and needs no value. Nothing else stands for q.
    own = Option("", say("leave them out"))
    return (own, NUMBER) if finding.code == "uninitialised" else (own, *found[:-1])


def usage(code: str, options: tuple[Option, ...]) -> str:
    """How the choices are written: ``--fix zero=median|other|NUMBER|PATH|drop``."""
    values = "|".join(option.value for option in options if option.value)
    if not values:
        return f"--fix {code}"
    return f"--fix {code}[={values}]" if any(not option.value for option in options) else f"--fix {code}={values}"


def fix_usage(finding: Finding) -> str:
    """The option of ``kvscope export`` that mends a finding; "" where none does or every export does it by itself."""
    options = options_of(finding)
    if not options or finding.remedy in BY_ITSELF:
        return ""
    return usage(finding.code, options)
