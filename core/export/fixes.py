"""``Fix``: one repair that a person chose, checked against what the checkpoint has and what can be chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from core.diagnosis.catalog import BY_CODE
from core.diagnosis.finding import Finding
from core.diagnosis.options import WISHES, Option, fix_usage, options_of, usage
from core.errors import UsageError
from core.numerics import to_float32
from core.wording import joined, say


@dataclass(frozen=True, slots=True)
class Fix:
    """``--fix code=value``: ``code`` of a finding or of a wish, ``value`` "" where none was given."""

    code: str
    value: str = ""

    @classmethod
    def parse(cls, text: str) -> Fix:
        """From the command line's ``CODE[=VALUE]``."""
        code, _, value = text.partition("=")
        return cls(code.strip(), value.strip())

    def __str__(self) -> str:
        return f"--fix {self.code}={self.value}" if self.value else f"--fix {self.code}"


def parse_fixes(texts: Iterable[str]) -> tuple[Fix, ...]:
    """The fixes of a command line, once each.

    Raises:
        UsageError: one code has two values.
    """
    found: dict[str, Fix] = {}
    for text in texts:
        fix = Fix.parse(text)
        if found.setdefault(fix.code, fix) != fix:
            raise UsageError(
                say(
                    "--fix {code} was given twice, as {first!r} and {second!r}",
                    code=fix.code,
                    first=found[fix.code].value or "it is",
                    second=fix.value,
                ),
                remedy=say("Give it once"),
            )
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class Choice:
    """A fix that can be applied: the option chosen, and the number or path where one was typed in."""

    fix: Fix
    option: Option
    number: float = 0.0
    path: str = ""


def choose(fix: Fix, options: Sequence[Option]) -> Choice:
    """The option that a fix's value names.

    Raises:
        UsageError: it names none, or needs one and has none.
    """
    kinds = {option.value: option for option in options}
    if fix.value in kinds and not kinds[fix.value].typed:
        return Choice(fix, kinds[fix.value])
    if not fix.value and len(options) == 1 and not options[0].typed:
        return Choice(fix, options[0])
    if not fix.value:
        raise UsageError(
            say("{fix} needs a value", fix=fix), remedy=say("Choose {choices}", choices=usage(fix.code, tuple(options)))
        )
    factor = _number(fix.value[1:]) if fix.value.startswith("x") and "xNUMBER" in kinds else None
    if factor is not None:
        return Choice(fix, kinds["xNUMBER"], number=factor)
    number = _number(fix.value)
    if number is not None and "NUMBER" in kinds:
        return Choice(fix, kinds["NUMBER"], number=number)
    if "PATH" in kinds and number is None and not _is_word(fix.value):
        return Choice(fix, kinds["PATH"], path=fix.value)
    raise UsageError(
        say("{value!r} is no choice for --fix {code}", value=fix.value, code=fix.code),
        remedy=say("Choose {choices}", choices=usage(fix.code, tuple(options))),
    )


def _number(text: str) -> float | None:
    """A number above 0 that float32 holds, in which scales are written."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 < to_float32(value) < math.inf else None


def _is_word(text: str) -> bool:
    """Whether a value is a word or a number rather than a path: paths have a dot or a separator."""
    try:
        float(text)
    except ValueError:
        return not any(mark in text for mark in "./\\")
    return True


def options_for(fix: Fix, findings: Iterable[Finding]) -> tuple[Option, ...]:
    """What may be chosen for a fix's code among these findings; () where it is not among them."""
    for finding in findings:
        if finding.code == fix.code:
            return options_of(finding)
    return WISHES.get(fix.code, ())


def refuse_code(fix: Fix, findings: Sequence[Finding]) -> UsageError:
    """Why a fix cannot be applied here, naming those that can."""
    once = {finding.code: finding for finding in reversed(findings)}
    here = [told for finding in reversed(once.values()) if (told := fix_usage(finding))]
    wishes = [usage(code, options) for code, options in WISHES.items()]
    offered = say("Choose among {choices}", choices=joined(", ", (*here, *wishes)))
    found = next((finding for finding in findings if finding.code == fix.code), None)
    if found is not None:
        return UsageError(say("an export cannot mend {code!r} here", code=fix.code), remedy=found.fix)
    if fix.code in BY_CODE:
        return UsageError(say("there is no finding {code!r} in this checkpoint", code=fix.code), remedy=offered)
    near = get_close_matches(fix.code, (*BY_CODE, *WISHES), n=1)
    problem = say(
        "there is no finding or repair called {code!r} (did you mean {near!r}?)"
        if near
        else "there is no finding or repair called {code!r}",
        code=fix.code,
        near=near[0] if near else "",
    )
    return UsageError(problem, remedy=offered)
